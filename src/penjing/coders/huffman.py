"""Canonical Huffman codes for integers: the simplest to decode."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.coders.native.binding import call, native_order, tables, width_of, work_buffer
from penjing.coders.native.tokens import decode_huffman, layouts, room, table_bits_cost

if TYPE_CHECKING:
    from penjing.coders.native.tokens import Layout
    from penjing.core.tensors import Array

__all__ = ["Huffman"]

_LONGEST = 12


class Huffman:
    """Codes integers with one canonical, length-limited Huffman code per array.

    No symbol costs less than one bit, so sparse arrays are better served by the other coders;
    it is here for decoders that must be tiny, and as the measure that others are held to.

    Reference: D. Huffman, A method for the construction of minimum-redundancy codes, 1952.

    >>> coder, array = Huffman(), np.array([0, 0, 0, 0, 1, 1, -1], np.int8)
    >>> coder.decode(coder.encode(array), (7,), np.dtype(np.int8)).tolist()
    [0, 0, 0, 0, 1, 1, -1]
    """

    def accepts(self, array: Array) -> bool:
        """Accept integers of up to 32 bits, signed or not, in any shape."""
        return array.dtype.kind in "iu" and array.dtype.itemsize <= 4  # noqa: PLR2004  # bytes

    def encode(self, array: Array) -> bytes:
        """Code the array with the cheapest of a few token layouts."""
        if not array.size:
            return b""
        array = native_order(array)
        plans = ((layout, _lengths(layout.counts)) for layout in layouts(array))
        layout, lengths = min(plans, key=lambda plan: _cost(*plan))
        settings = np.array([*layout[:3], lengths.size], np.int64)
        work, out = work_buffer(call("huffman_work")), room(layout, array)
        size = call(
            "huffman_encode",
            *(tables(), array, width_of(array.dtype), array.size, settings, lengths),
            *(work, work.nbytes, out, out.nbytes),
        )
        return out[:size].tobytes()

    def decode(
        self, payload: bytes | memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> Array:
        """Rebuild the array; raises FormatError on damaged bytes."""
        array = np.empty(shape, dtype.newbyteorder("="))
        decode_huffman(payload, array)
        return array


def _cost(layout: Layout, lengths: Array) -> float:
    coded = int((layout.counts * lengths).sum())
    return coded + layout.raw_bits + table_bits_cost(lengths)


def _lengths(counts: Array) -> Array:
    """Give each symbol seen a code length of at most ``_LONGEST``; the code is complete."""
    lengths = np.zeros(counts.size, np.uint16)
    seen = np.flatnonzero(counts)
    if seen.size == 1:
        lengths[seen] = 1
        return lengths
    heap: list[tuple[int, int, tuple[int, ...]]] = [
        (int(counts[symbol]), index, (int(symbol),)) for index, symbol in enumerate(seen)
    ]
    heapq.heapify(heap)
    for index in range(len(heap), 2 * len(heap) - 1):
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        symbols = first[2] + second[2]
        lengths[list(symbols)] += 1
        heapq.heappush(heap, (first[0] + second[0], index, symbols))
    return _limited(lengths, counts)


def _limited(lengths: Array, counts: Array) -> Array:
    """Shorten codes that are too long, paid for by the rarest of the others."""
    lengths = np.minimum(lengths, _LONGEST)
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    whole = 1 << _LONGEST
    used = int((whole >> lengths[order].astype(np.int64)).sum())
    for symbol in order:  # lengthen, rarest first, until the codes fit
        while used > whole and lengths[symbol] < _LONGEST:
            lengths[symbol] += 1
            used -= whole >> int(lengths[symbol])
    for symbol in order[::-1]:  # shorten, most frequent first, until nothing is left over
        while used + (whole >> int(lengths[symbol])) <= whole:
            used += whole >> int(lengths[symbol])
            lengths[symbol] -= 1
    return lengths
