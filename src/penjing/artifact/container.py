"""The outer layer of a ``.penjing`` file: what chunks there are, and that they are intact.

FORMAT.md in this folder is the specification.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from penjing.artifact.limits import MAX_CHUNKS, Limits
from penjing.core.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAGIC = b"\x89pnj\r\n\x1a\n"
"""Not text, and changed by every transfer that changes line ends or strips the eighth bit."""
VERSION = 1
CRITICAL = 1
"""Flag of a chunk that a reader must understand or refuse the file."""

_PRELUDE = struct.Struct("<8sHH")
_ENTRY = struct.Struct("<BBHI32s")
"""Kind, flags, length (upper 16, then lower 32 bits), SHA-256 of the chunk."""
_DAMAGED = "the file is damaged; get it again"


class Kind(IntEnum):
    """The chunks this version knows.  They appear in this order."""

    HEADER = 1
    GRAPH = 2
    WEIGHTS = 3
    SIGNATURE = 4
    """Reserved: signs the prelude and the chunk table, which hold the hash of every chunk."""
    ENCRYPTION = 5
    """Reserved."""


_REQUIRED = (Kind.HEADER, Kind.GRAPH, Kind.WEIGHTS)


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of the file."""

    name: str
    offset: int
    size_bytes: int
    sha256: str = ""


def table_size(chunks: int) -> int:
    """Bytes before the first chunk of a file with so many chunks."""
    return _PRELUDE.size + chunks * _ENTRY.size


def pack(chunks: Mapping[Kind, bytes]) -> bytes:
    """Put a file together; the chunks are in the order of their kinds."""
    entries = [
        _ENTRY.pack(kind, CRITICAL, 0, len(data), hashlib.sha256(data).digest())
        for kind, data in chunks.items()
    ]
    head = _PRELUDE.pack(MAGIC, VERSION, len(entries))
    return b"".join([head, *entries, *chunks.values()])


def unpack(data: bytes | memoryview, limits: Limits) -> dict[Kind, memoryview]:
    """Take a file apart and check the hash of every chunk.

    Raises:
        FormatError: This is no ``.penjing`` file, it is damaged, or it needs a newer version.
    """
    view = memoryview(data)
    if len(view) > limits.file:
        raise FormatError("file", f"is larger than the limit of {limits.file:,} bytes")
    chunks: dict[Kind, memoryview] = {}
    at = table_size(_count(view))
    for kind, flags, size, digest in _entries(view):
        name = _name(kind)
        if size > len(view) - at:
            raise FormatError(name, "the file ends before this chunk does", _DAMAGED)
        chunk = view[at : at + size]
        at += size
        if hashlib.sha256(chunk).digest() != digest:
            raise FormatError(name, "its hash is not the recorded one", _DAMAGED)
        if kind in _REQUIRED:
            chunks[Kind(kind)] = chunk
        _refuse_unknown(kind, flags)
    if at != len(view):
        raise FormatError("file", f"{len(view) - at} bytes follow the last chunk", _DAMAGED)
    for required in _REQUIRED:
        if required not in chunks:
            raise FormatError(required.name.lower(), "this chunk is missing", _DAMAGED)
    return chunks


def sections(data: bytes | memoryview) -> list[Section]:
    """List the parts of a well-formed file, in order; their sizes add up to its length."""
    view = memoryview(data)
    at = table_size(_count(view))
    found = [Section("prelude and chunk table", 0, at)]
    for kind, _, size, digest in _entries(view):
        found.append(Section(_name(kind), at, size, digest.hex()))
        at += size
    return found


def _count(view: memoryview) -> int:
    if len(view) < _PRELUDE.size or view[: len(MAGIC)] != MAGIC:
        raise FormatError("file", "this is not a .penjing file", _not_ours(view))
    _, version, count = _PRELUDE.unpack_from(view)
    if version != VERSION:
        raise FormatError(
            "file",
            f"is of format version {version}; this reader knows version {VERSION}",
            "install a newer penjing" if version > VERSION else _DAMAGED,
        )
    if not 1 <= count <= MAX_CHUNKS:
        raise FormatError("chunk table", f"declares {count} chunks", _DAMAGED)
    return int(count)


def _entries(view: memoryview) -> list[tuple[int, int, int, bytes]]:
    count = _count(view)
    if len(view) < table_size(count):
        raise FormatError("chunk table", "the file ends inside it", _DAMAGED)
    found = []
    for index in range(count):
        kind, flags, high, low, digest = _ENTRY.unpack_from(
            view, _PRELUDE.size + index * _ENTRY.size
        )
        if flags & ~CRITICAL:
            raise FormatError(_name(kind), f"has unknown flags {flags:#x}", _DAMAGED)
        found.append((kind, flags, high << 32 | low, digest))
    if any(first[0] >= second[0] for first, second in pairwise(found)):
        raise FormatError("chunk table", "chunks are out of order or repeated", _DAMAGED)
    return found


def _refuse_unknown(kind: int, flags: int) -> None:
    if kind in (Kind.SIGNATURE, Kind.ENCRYPTION):
        word = "signed" if kind == Kind.SIGNATURE else "encrypted"
        raise FormatError(
            _name(kind),
            f"this file is {word}, which this version cannot check or open",
            "install a newer penjing",
        )
    if kind in _REQUIRED and flags != CRITICAL:
        raise FormatError(_name(kind), "is not marked as critical", _DAMAGED)
    if kind not in _REQUIRED and flags & CRITICAL:
        raise FormatError(
            _name(kind), "this reader does not know this part", "install a newer penjing"
        )


def _name(kind: int) -> str:
    return Kind(kind).name.lower() if kind in Kind.__members__.values() else f"chunk {kind}"


def _not_ours(view: memoryview) -> str:
    if view[:4] == MAGIC[:4]:
        return "its line ends were changed on the way: transfer it in binary mode"
    if not len(view):
        return "the file is empty"
    return "it does not begin with the bytes of one"
