"""Symbols as tokens, and static rANS over them.

The static coders know one table per array.  Integers that are spread too far for a table are
split: an exponent and two more bits are the token, the low bits are stored as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from penjing.coders.native.binding import (
    as_bytes,
    call,
    damaged,
    native_order,
    tables,
    width_of,
    work_buffer,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penjing.core.tensors import Array

MAX_TOKENS = 1152
_MANY_LANES_FROM = 4096
_TABLE_BITS = (11, 12, 13, 14)


class Layout(NamedTuple):
    """How the symbols of an array become tokens."""

    base: int
    """What is subtracted from each symbol."""
    fold: int
    """Whether negative differences are folded among positive ones."""
    direct: int
    """Bits of differences that are tokens as they are."""
    counts: Array
    """How often each token occurs, int64."""
    raw_bits: int
    """Bits stored beside the tokens."""


def layouts(array: Array) -> Iterator[Layout]:
    """List the ways to split an array that may be worth it."""
    low, high = int(array.min()), int(array.max())
    middle = int(np.partition(array.ravel(), array.size // 2)[array.size // 2])
    if high - low < 1 << 10:
        yield _layout(array, low, 0, max(2, (high - low).bit_length()))
    if array.dtype.itemsize == 1:  # only direct tokens fit in one byte
        yield _layout(array, middle, 1, 9)
        return
    for direct in (4, 6, 8):
        yield _layout(array, middle, 1, direct)


def _layout(array: Array, base: int, fold: int, direct: int) -> Layout:
    counts = np.empty(MAX_TOKENS, np.uint64)
    raw_bits = call(
        "tokens_count", array, width_of(array.dtype), array.size, base, fold, direct, counts
    )
    used = int(np.flatnonzero(counts)[-1]) + 1
    return Layout(base, fold, direct, counts[:used].astype(np.int64), raw_bits)


def room(layout: Layout, array: Array) -> Array:
    """Give a buffer that any static code of the array fits in."""
    size = 4 * MAX_TOKENS + 2 * array.size + layout.raw_bits // 8 + 64
    return np.empty(size, np.uint8)


def table_bits_cost(numbers: Array) -> float:
    """Estimate the bits that a table of numbers takes in the header."""
    there = numbers[numbers > 0]
    return float((np.log2(there) + 3).sum()) + len(numbers) - len(there)


class _Plan(NamedTuple):
    bits: float
    table_bits: int
    layout: Layout
    frequencies: Array


def encode_rans(array: Array) -> bytes:
    """Code a non-empty integer array of up to 32 bits with interleaved static rANS."""
    array = native_order(array)
    plans = (plan for layout in layouts(array) for plan in _plans(layout))
    plan = min(plans, key=lambda found: found.bits)
    layout, frequencies = plan.layout, plan.frequencies
    lanes = 4 if array.size >= _MANY_LANES_FROM else 1
    settings = np.array([*layout[:3], plan.table_bits, lanes, frequencies.size], np.int64)
    work, out = work_buffer(call("rans_work")), room(layout, array)
    size = call(
        "rans_encode",
        *(tables(), array, width_of(array.dtype), array.size, settings, frequencies),
        *(work, work.nbytes, out, out.nbytes),
    )
    return out[:size].tobytes()


def decode_rans(payload: bytes | memoryview, array: Array) -> None:
    """Fill a contiguous integer array with what was coded; raises FormatError on damage."""
    _decode("rans", payload, array)


def decode_huffman(payload: bytes | memoryview, array: Array) -> None:
    """Fill a contiguous integer array with what was coded; raises FormatError on damage."""
    _decode("huffman", payload, array)


def _decode(coder: str, payload: bytes | memoryview, array: Array) -> None:
    data = as_bytes(payload)
    if not array.size:
        if data.size:
            raise damaged("there are bytes for an empty array")
        return
    work = work_buffer(call(f"{coder}_work"))
    call(
        f"{coder}_decode",
        *(tables(), data, data.size, array, width_of(array.dtype), array.size),
        *(work, work.nbytes),
    )


def _plans(layout: Layout) -> Iterator[_Plan]:
    there = layout.counts > 0
    kinds = int(np.count_nonzero(there))
    for table_bits in _TABLE_BITS:
        if kinds <= 1 << (table_bits - 1):
            frequencies = _normalised(layout.counts, table_bits)
            logs = np.log2(frequencies[there]) - table_bits
            bits = layout.raw_bits - float((layout.counts[there] * logs).sum())
            bits += table_bits_cost(frequencies)
            yield _Plan(bits, table_bits, layout, frequencies.astype(np.uint16))


def _normalised(counts: Array, table_bits: int) -> Array:
    """Scale counts to sum to ``1 << table_bits``, with at least 1 for each symbol seen."""
    total, target = int(counts.sum()), 1 << table_bits
    scaled: Array = np.maximum(counts * target // total, counts > 0)
    while (missing := target - int(scaled.sum())) > 0:
        gain = np.where(counts > 0, counts / (scaled + 0.5), 0.0)
        scaled[np.argsort(-gain, kind="stable")[: min(missing, np.count_nonzero(counts))]] += 1
    for _ in range(-missing):
        loss = np.where(scaled > 1, counts / (scaled - 0.5), np.inf)
        scaled[np.argmin(loss)] -= 1
    return scaled
