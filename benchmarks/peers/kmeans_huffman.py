"""Share weights by k-means and Huffman-code the indices (Deep Compression, Han 2016).

Without its pruning and retraining, like everything else in this table. One codebook per
tensor; centroids start evenly spaced between the extremes, the paper's best choice. The
bits of the code are counted exactly, not written.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx_parts import Weights

_ROUNDS = 300
_LENGTH_BITS = 5
"""Bits that store one code length: a code over 64 symbols stays below 32 in practice."""


def compress(weights: Weights, bits: int) -> tuple[int, Weights]:
    """Share tensors of rank 2 and more in ``2**bits`` values; keep the rest in float32.

    Returns:
        The bytes of indices, code lengths, codebooks and floats; the shared weights.
    """
    size, shared = 0, {}
    for name, values in weights.items():
        if values.ndim < 2:
            size += values.nbytes
            shared[name] = values
            continue
        codebook, index = cluster(values.ravel(), 2**bits)
        counts = np.bincount(index, minlength=len(codebook))
        lengths = code_lengths(counts)
        assert lengths.max() < 2**_LENGTH_BITS
        coded_bits = int(counts @ lengths) + _LENGTH_BITS * len(codebook)
        size += -(-coded_bits // 8) + codebook.nbytes
        shared[name] = codebook[index].reshape(values.shape)
    return size, shared


def cluster(
    values: NDArray[np.float32], clusters: int
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Run Lloyd's algorithm on one dimension until it stands still.

    Returns:
        The centroids in use, ascending, and each value's centroid.
    """
    ordered: NDArray[np.float64] = np.sort(values.astype(np.float64))
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centroids: NDArray[np.float64] = np.linspace(ordered[0], ordered[-1], clusters)
    for _ in range(_ROUNDS):
        cuts = np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        edges = np.concatenate([[0], cuts, [len(ordered)]])
        counts = np.diff(edges)
        totals = np.diff(sums[edges])
        moved = np.where(counts > 0, totals / np.maximum(counts, 1), centroids)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    codebook = np.unique(centroids.astype(np.float32))
    middles = (codebook[1:].astype(np.float64) + codebook[:-1]) / 2
    used, index = np.unique(np.searchsorted(middles, values), return_inverse=True)
    return codebook[used], index.ravel()


def code_lengths(counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """Give the length in bits of each symbol's Huffman code; one symbol takes one bit."""
    if len(counts) == 1:
        return np.ones(1, np.intp)
    lengths = np.zeros(len(counts), np.intp)
    heap = [(int(count), symbol, [symbol]) for symbol, count in enumerate(counts)]
    heapq.heapify(heap)
    while len(heap) > 1:
        low, high = heapq.heappop(heap), heapq.heappop(heap)
        members = low[2] + high[2]
        lengths[members] += 1
        heapq.heappush(heap, (low[0] + high[0], min(low[1], high[1]), members))
    return lengths
