"""Single arrays in the file: which coder holds them, seen in which way, and their record.

A record says how to decode an array; the coded bytes themselves lie in the weights chunk.
The lists of coders, views and element types are closed: names never come from the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from penjing.artifact.binary import unzigzag, varint, zigzag
from penjing.core.errors import ConfigError, FormatError, UnsupportedError
from penjing.core.registry import CODERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penjing.artifact.binary import Reader
    from penjing.core.coder import Coder
    from penjing.core.tensors import Array

DTYPES = (
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "float32", "float64"),
)
"""Element types by their number in the file."""

RAW, REPEAT = 0, 15
_CODERS = {1: "context_arithmetic", 2: "rans", 3: "huffman", 4: "float_split", 5: "zstd"}
_WHOLE = frozenset({"int8", "int16", "int32", "uint8", "uint16", "uint32"})
_SIGNED = frozenset({"int8", "int16", "int32"})
_TAKES = {
    1: _SIGNED,
    2: _WHOLE,
    3: _SIGNED,
    4: frozenset({"float16", "float32", "float64"}),
    5: frozenset(DTYPES),
}
"""Element types that each coder may be given; part of the format."""
_SMALL = 8
"""Arrays of so few elements are stored as they are: no coder would earn its record."""
_INT64 = np.iinfo(np.int64)
_WIDTHS = ("int8", "int16", "int32")


class View(IntEnum):
    """As what a coder sees an array."""

    PLAIN = 0
    SHIFTED = 1
    """Integers less an offset, as the narrowest signed type that holds them."""
    BITS = 2
    """The bits of a mask, 0 and 1 as int8, in the shape of the masked array."""
    HALF = 3
    """uint16 bit patterns as float16."""


@dataclass(frozen=True, slots=True)
class Coded:
    """An array after coding: everything the file will hold of it."""

    record: bytes
    length: bytes
    """Length of the payload as a varint; empty where the record already tells."""
    payload: bytes

    @property
    def size_bytes(self) -> int:
        """Bytes before the tables are compressed."""
        return len(self.record) + len(self.length) + len(self.payload)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A record read back: what to do to get the array."""

    coder: int
    view: View
    dtype: str
    shape: tuple[int, ...]
    bits: tuple[int, ...] | None
    """For masks: the shape of the masked array."""
    kept: int
    """For raw arrays: bytes kept of every element."""
    width: str
    offset: int
    payload: memoryview

    @property
    def coder_name(self) -> str:
        """Public name of the coder."""
        return _CODERS.get(self.coder, "raw")

    @property
    def decoded_bytes(self) -> int:
        """Bytes that decoding allocates at most, for the array and its view."""
        seen, dtype = self._seen()
        wide = prod(self.shape) * np.dtype(self.dtype).itemsize
        return wide + (prod(seen) * np.dtype(dtype).itemsize if self.view else 0)

    def _seen(self) -> tuple[tuple[int, ...], str]:
        """Shape and element type that the coder works on."""
        if self.view is View.BITS:
            assert self.bits is not None
            return self.bits, "int8"
        if self.view is View.SHIFTED:
            return self.shape, self.width
        return self.shape, "float16" if self.view is View.HALF else self.dtype

    def decode(self) -> Array:
        """Decode the array.

        Raises:
            FormatError: The payload is damaged or its numbers do not fit their type.
        """
        if self.coder == RAW:
            return self._decode_raw()
        shape, dtype = self._seen()
        array = coder(self.coder).decode(self.payload, shape, np.dtype(dtype))
        if self.view is View.BITS:
            if array.size and not 0 <= int(array.min()) <= int(array.max()) <= 1:
                raise FormatError("mask", "holds something other than zeros and ones")
            return np.packbits(array.reshape(-1).astype(np.uint8))
        if self.view is View.HALF:
            return array.view(np.uint16)
        return self._unshifted(array) if self.view is View.SHIFTED else array

    def _unshifted(self, array: Array) -> Array:
        info = np.iinfo(self.dtype)
        if array.size and not (
            info.min <= int(array.min()) + self.offset
            and int(array.max()) + self.offset <= info.max
        ):
            raise FormatError("coded tensor", f"holds numbers that are not {self.dtype}")
        # The sums fit, so they may be taken modulo the size of the type.
        modular = np.dtype(f"u{info.dtype.itemsize}")
        offset = modular.type(self.offset % (1 << info.bits))
        whole: Array = (array.astype(modular) + offset).view(info.dtype)
        return whole

    def _decode_raw(self) -> Array:
        dtype = np.dtype(self.dtype)
        count = prod(self.shape)
        out = np.zeros((count, dtype.itemsize), np.uint8)
        if self.kept:
            stored = np.frombuffer(self.payload, np.uint8).reshape(count, self.kept)
            out[:, dtype.itemsize - self.kept :] = stored
        if self.dtype == "bool" and out.size and int(out.max()) > 1:
            raise FormatError("coded tensor", "holds truth values other than 0 and 1")
        little = out.reshape(-1).view(dtype.newbyteorder("<"))
        return little.astype(dtype, copy=False).reshape(self.shape)


@cache
def coder(number: int) -> Coder:
    """Load a coder by its number in the file."""
    made: Coder = CODERS.load(_CODERS[number])()
    return made


@cache
def _installed() -> tuple[int, ...]:
    """Give the coders to try: those of the format that are there."""
    names = CODERS.names()
    return tuple(number for number, name in _CODERS.items() if name in names)


def number_of(name: str) -> int:
    """Number of a coder in the file.

    Raises:
        ConfigError: The format has no such coder.
    """
    numbers = {"raw": RAW, **{coder: number for number, coder in _CODERS.items()}}
    if name not in numbers:
        known = ", ".join(numbers)
        raise ConfigError("coder", f"{name!r} is not in the file format", f"known: {known}")
    return numbers[name]


def encode(array: Array, bits: tuple[int, ...] | None = None, only: int | None = None) -> Coded:
    """Code an array with whichever coder gives the fewest bytes; ties go to the lower number.

    Args:
        array: The array, of any type in ``DTYPES``.
        bits: For a packed mask: the shape of the masked array.
        only: Number of the one coder to use for arrays it takes, unless they are tiny.

    Raises:
        UnsupportedError: The format has no such element type.
    """
    if array.dtype.name not in DTYPES:
        raise UnsupportedError(
            str(array.dtype), "cannot be stored", f"known element types: {', '.join(DTYPES)}"
        )
    best = _raw(array)
    if only == RAW or array.size <= _SMALL:
        return best
    found = list(_trials(array, bits, only))
    if only is not None and found:
        return min(found, key=lambda coded: coded.size_bytes)
    return min([best, *found], key=lambda coded: coded.size_bytes)


def _raw(array: Array) -> Coded:
    itemsize = array.dtype.itemsize
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    cells = little.reshape(-1).view(np.uint8).reshape(array.size, itemsize)
    used = np.flatnonzero(cells.any(axis=0))
    kept = itemsize - int(used[0]) if used.size else 0
    record = bytes([RAW, DTYPES.index(array.dtype.name), kept])
    return Coded(record, b"", cells[:, itemsize - kept :].tobytes())


def _trials(array: Array, bits: tuple[int, ...] | None, only: int | None) -> Iterator[Coded]:
    for view, offset, seen in _views(array, bits):
        for number in _installed() if only is None else (only,):
            if seen.dtype.name not in _TAKES[number] or not coder(number).accepts(seen):
                continue
            payload = coder(number).encode(seen)
            head = bytes([number | view << 4, DTYPES.index(array.dtype.name)])
            if view is View.SHIFTED:
                head += bytes([_WIDTHS.index(seen.dtype.name)]) + varint(zigzag(offset))
            yield Coded(head, varint(len(payload)), payload)


def _views(array: Array, bits: tuple[int, ...] | None) -> Iterator[tuple[View, int, Array]]:
    yield View.PLAIN, 0, array
    if bits is not None:
        unpacked = np.unpackbits(array, count=prod(bits)).reshape(bits)
        yield View.BITS, 0, unpacked.view(np.int8)
        return
    if array.dtype == np.uint16:
        yield View.HALF, 0, array.view(np.float16)
    if array.dtype.kind in "iu" and array.size:
        low, high, offset = int(array.min()), int(array.max()), _middle(array)
        width = _width(low - offset, high - offset)
        if width and high <= _INT64.max and (offset or array.dtype.name not in _SIGNED):
            yield View.SHIFTED, offset, (array.astype(np.int64) - offset).astype(width)


def _width(low: int, high: int) -> str:
    """Narrowest signed type for these numbers; empty if there is none of up to 32 bits."""
    fits = (w for w in _WIDTHS if np.iinfo(w).min <= low and high <= np.iinfo(w).max)
    return next(fits, "")


def _middle(array: Array) -> int:
    """Most frequent of the numbers; the median where there are too many different ones."""
    low, high = int(array.min()), int(array.max())
    if high - low >= 1 << 16 or high > _INT64.max:
        return int(np.partition(array.reshape(-1), array.size // 2)[array.size // 2])
    counts = np.bincount((array.astype(np.int64) - low).reshape(-1))
    return low + int(counts.argmax())


def repeat(index: int) -> Coded:
    """Say that an array is the same as an earlier one."""
    return Coded(bytes([REPEAT]) + varint(index), b"", b"")


@dataclass(slots=True)
class Source:
    """Where arrays are read from: three cursors that advance together."""

    records: Reader
    lengths: Reader
    payloads: Reader
    leaves: list[Leaf] = field(default_factory=list)

    def leaf(
        self,
        shape: tuple[int, ...],
        allowed: tuple[str, ...],
        bits: tuple[int, ...] | None = None,
    ) -> Leaf:
        """Read the record of an array and find its payload.

        Args:
            shape: Shape of the array, known from its surroundings.
            allowed: Element types that may stand here.
            bits: For a packed mask: the shape of the masked array.

        Raises:
            FormatError: The record names an unknown coder, view or type, or one that is not
                allowed here, or declares more bytes than there are.
        """
        head = self.records.byte()
        if head == REPEAT:
            return self._repeated(shape, allowed, bits)
        dtype = self._one_of(DTYPES, "element type")
        if dtype not in allowed:
            raise self.records.error(f"{dtype} stands where only {allowed} may")
        if head == RAW:
            kept = self.records.byte()
            if kept > np.dtype(dtype).itemsize:
                raise self.records.error(f"{kept} bytes of each {dtype} are declared")
            payload = self.payloads.take(prod(shape) * kept)
            found = Leaf(RAW, View.PLAIN, dtype, shape, bits, kept, "", 0, payload)
        else:
            found = self._coded(head, dtype, shape, bits)
        self.leaves.append(found)
        return found

    def _coded(
        self, head: int, dtype: str, shape: tuple[int, ...], bits: tuple[int, ...] | None
    ) -> Leaf:
        number, view = head & 0xF, head >> 4
        seen, width, offset = dtype, "", 0
        if view == View.SHIFTED and dtype != "bool" and np.dtype(dtype).kind in "iu":
            seen = width = self._one_of(_WIDTHS, "width")
            offset = unzigzag(self.records.varint(_INT64.max))
        elif view == View.BITS and bits is not None:
            seen = "int8"
        elif view == View.HALF and dtype == "uint16":
            seen = "float16"
        elif view != View.PLAIN:
            raise self.records.error(f"view {view} of {dtype} does not exist")
        if seen not in _TAKES.get(number, ()):
            raise self.records.error(f"coder {number} does not exist or does not take {seen}")
        payload = self.payloads.take(self.lengths.varint(_INT64.max))
        return Leaf(number, View(view), dtype, shape, bits, 0, width, offset, payload)

    def _repeated(
        self,
        shape: tuple[int, ...],
        allowed: tuple[str, ...],
        bits: tuple[int, ...] | None,
    ) -> Leaf:
        index = self.records.varint(_INT64.max)
        if index >= len(self.leaves):
            raise self.records.error("an array repeats one that does not come before it")
        found = self.leaves[index]
        if (found.shape, found.bits) != (shape, bits) or found.dtype not in allowed:
            raise self.records.error("an array repeats one of another shape or type")
        return found

    def _one_of(self, names: tuple[str, ...], what: str) -> str:
        number = self.records.byte()
        if number >= len(names):
            raise self.records.error(f"{what} {number} does not exist")
        return names[number]

    @property
    def left(self) -> tuple[int, int, int]:
        """Bytes not read yet of records, lengths and payloads."""
        return self.records.left, self.lengths.left, self.payloads.left

    def finish(self) -> None:
        """Require that records, lengths and payloads have all been used up."""
        for cursor in (self.records, self.lengths, self.payloads):
            cursor.finish()
