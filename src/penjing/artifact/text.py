"""Compression of header and graph: one zstd frame against the pinned dictionary."""

from __future__ import annotations

from functools import cache

import zstandard

from penjing.artifact import dictionary
from penjing.core.errors import FormatError

_LEVEL = 22
_FAST_LEVEL = 12
_FAST_FROM = 1 << 22
"""Texts from 4 MiB on (large tree ensembles) are not worth minutes of search."""


def compress(text: bytes) -> bytes:
    """Compress to a frame without magic number, checksum and dictionary id."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL if len(text) < _FAST_FROM else _FAST_LEVEL,
        source_size=len(text),
        dict_size=len(_dictionary()),
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=True,
        write_checksum=False,
        write_dict_id=False,
    )
    compressor = zstandard.ZstdCompressor(
        compression_params=parameters, dict_data=_dictionary()
    )
    return compressor.compress(text)


def declared_size(frame: bytes | memoryview, where: str) -> int:
    """Read what a frame says it decompresses to, before anything is allocated.

    Raises:
        FormatError: It does not say, or this is no frame.
    """
    try:
        parameters = zstandard.get_frame_parameters(
            bytes(frame[:32]), format=zstandard.FORMAT_ZSTD1_MAGICLESS
        )
    except zstandard.ZstdError as error:
        raise FormatError(where, f"is not a zstd frame: {error}") from None
    if parameters.content_size == zstandard.CONTENTSIZE_UNKNOWN:
        raise FormatError(where, "does not say how long it is when decompressed")
    return int(parameters.content_size)


def decompress(frame: bytes | memoryview, where: str) -> bytes:
    """Undo ``compress``; allocates what ``declared_size`` says.

    Raises:
        FormatError: The frame is damaged, or bytes follow it.
    """
    decompressor = zstandard.ZstdDecompressor(
        dict_data=_dictionary(), format=zstandard.FORMAT_ZSTD1_MAGICLESS
    )
    try:
        return decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FormatError(where, f"cannot be decompressed: {error}") from None


@cache
def _dictionary() -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(
        dictionary.build(), dict_type=zstandard.DICT_TYPE_RAWCONTENT
    )
