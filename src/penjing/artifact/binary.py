"""Reading and writing the few primitives of the format: bytes and variable-length integers."""

from __future__ import annotations

from penjing.core.errors import FormatError

_MORE = 0x80
_LOW = 0x7F
_MAX_SHIFT = 56
"""Nine groups of 7 bits: integers below 2**63."""


def varint(value: int) -> bytes:
    """Write a non-negative integer, 7 bits a byte, low bits first.

    >>> varint(300).hex()
    'ac02'
    """
    assert value >= 0, value
    out = bytearray()
    while value > _LOW:
        out.append(value & _LOW | _MORE)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> int:
    """Map integers to non-negative ones, small to small: 0, -1, 1, -2 become 0, 1, 2, 3."""
    return value << 1 if value >= 0 else (-value << 1) - 1


def unzigzag(value: int) -> int:
    """Undo ``zigzag``."""
    return -(value >> 1) - 1 if value & 1 else value >> 1


class Reader:
    """A cursor over bytes; running past the end is a FormatError naming ``where``."""

    __slots__ = ("_at", "_data", "_where")

    def __init__(self, data: bytes | memoryview, where: str) -> None:
        """Start at the first byte of ``data``."""
        self._data, self._where, self._at = memoryview(data), where, 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at

    def take(self, size: int) -> memoryview:
        """Read ``size`` bytes without copying them."""
        if not 0 <= size <= self.left:
            raise self.error(f"{size} bytes are declared where only {self.left} are left")
        start, self._at = self._at, self._at + size
        return self._data[start : self._at]

    def byte(self) -> int:
        """Read one byte."""
        at = self._at
        if at >= len(self._data):
            raise self.error("1 byte is declared where none is left")
        self._at = at + 1
        return self._data[at]

    def varint(self, most: int) -> int:
        """Read an integer of at most ``most``, in its shortest form."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & _LOW) << shift
            if byte <= _LOW:
                break
            shift += 7
            if shift > _MAX_SHIFT:
                raise self.error("an integer has too many bytes")
        if shift and not byte:
            raise self.error("an integer is not in its shortest form")
        if value > most:
            raise self.error(f"{value} is declared where at most {most} is allowed")
        return value

    def finish(self) -> None:
        """Require that everything has been read."""
        if self.left:
            raise self.error(f"{self.left} bytes are left over")

    def error(self, problem: str) -> FormatError:
        """Make the error to raise; the caller raises it."""
        return FormatError(
            self._where, problem, "the file is damaged or was not written by penjing"
        )
