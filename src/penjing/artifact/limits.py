"""What a reader is willing to believe: every declared size is held against these first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from penjing.core.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_DEPTH = 4
"""Encodings inside encodings, the outermost included."""
MAX_DIMENSIONS = 32
MAX_CHUNKS = 16
MAX_SLOTS = 1 << 20
MAX_NAME_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes.  Raise ``decoded`` for a model that really is larger."""

    file: int = 1 << 32
    header: int = 1 << 22
    """Of the header, as JSON."""
    graph: int = 1 << 29
    """Of the graph with its tables, decompressed."""
    decoded: int = 1 << 32
    """Of all arrays together, counting every array that decoding makes on the way."""
    free: int = 1 << 24
    """What a file of any length may ask for."""
    text_ratio: int = 1 << 10
    """Beyond ``free``: decompressed bytes of header and graph per byte of their chunk."""
    array_ratio: int = 1 << 17
    """Beyond ``free``: decoded bytes of arrays per byte of the file."""

    def check_text(self, where: str, size: int, stored: int, most: int) -> None:
        """Refuse a compressed text that claims to unpack to more than its share.

        Raises:
            FormatError: ``size`` is above ``most`` or out of proportion to ``stored``.
        """
        _check(where, size, (most, self.free + self.text_ratio * stored))

    def check_arrays(self, size: int, stored: int) -> None:
        """Refuse arrays of ``size`` bytes from a file of ``stored`` bytes.

        Raises:
            FormatError: There are too many bytes, absolutely or for so small a file.
        """
        _check("arrays", size, (self.decoded, self.free + self.array_ratio * stored))


def _check(where: str, size: int, limits: Iterable[int]) -> None:
    allowed = min(limits)
    if size > allowed:
        raise FormatError(
            where,
            f"would unpack to {size:,} bytes, the limit is {allowed:,}",
            "if you trust the file, load it with larger Limits",
        )
