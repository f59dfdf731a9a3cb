"""Weight clustering: each layer keeps a short table of shared values (k-means)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from penjing.core.fields import Range
from penjing.core.technique import Context, WeightTechnique
from penjing.core.tensors import Codebook, Dense

if TYPE_CHECKING:
    from penjing.core.model import Weight
    from penjing.core.tensors import Array, Tensor

__all__ = ["WeightClustering"]

Start = Literal["linear", "quantile"]
MOST_ROUNDS = 200
"""Lloyd's method settles far earlier on one-dimensional data; a bound all the same."""


@dataclass(frozen=True)
class WeightClustering(WeightTechnique):
    """Share at most ``2**bits`` values among all the weights of a layer.

    Zeros stay zeros: behind a mask only the kept values are clustered, and elsewhere exact
    zeros get a shared value of their own.  A weight that would not get smaller stays as it is.

    References:
        Han et al., "Deep Compression", ICLR 2016, section 3.
        Lloyd, "Least Squares Quantization in PCM", IEEE Trans. Inf. Theory, 1982.
    """

    bits: Annotated[int, Range(1, 8)] = 4
    """Bits of each index; the table holds at most ``2**bits`` values."""
    start: Start = "linear"
    """Where the values start: evenly over the range (``linear``) or over the weights
    (``quantile``)."""

    def encode(self, weight: Weight, context: Context) -> Tensor:
        """Run Lloyd's k-means on the sorted values."""
        del context  # both starts are deterministic
        tensor = weight.tensor
        if isinstance(tensor, Codebook):
            shared = self._share(tensor.dense())
        else:
            shared = tensor.map_values(self._share)
        return shared if shared.nbytes <= tensor.nbytes else tensor

    def _share(self, array: Array) -> Tensor:
        values = array.ravel()
        others = np.sort(values[values != 0]).astype(np.float64)
        zeros = others.size < values.size
        room = 2**self.bits - zeros
        table = _distinct(others, room)
        if table is None:
            table = _lloyd(others, _starts(others, room, self.start))
        table = np.unique((np.append(table, 0.0) if zeros else table).astype(array.dtype))
        if not table.size:
            return Dense(array)
        indices = _nearest(values, table)
        used, indices = np.unique(indices, return_inverse=True)
        book = Codebook(
            indices.astype(np.uint8).reshape(array.shape),
            Dense(np.ascontiguousarray(table[used])),
        )
        return book if book.nbytes < array.nbytes else Dense(array)


def _nearest(values: Array, table: Array) -> Array:
    """Index of the nearest entry of an ascending table."""
    wide = table.astype(np.float64)
    return np.searchsorted((wide[1:] + wide[:-1]) / 2, values)


def _distinct(ordered: Array, room: int) -> Array | None:
    """Return the distinct values if there is room for them all."""
    steps = np.flatnonzero(np.diff(ordered, prepend=np.nan))
    return ordered[steps] if len(steps) <= room else None


def _starts(ordered: Array, count: int, start: str) -> Array:
    if start == "quantile":
        return np.quantile(ordered, (np.arange(count) + 0.5) / count)
    return np.linspace(ordered[0], ordered[-1], count)


def _lloyd(ordered: Array, table: Array) -> Array:
    """Move each shared value to the mean of its members until none moves.

    On sorted values a cluster is an interval, so cumulative sums give every mean and every
    error at once.  An empty cluster moves into the one with the largest squared error.

    Args:
        ordered: (n,) float64, ascending; more distinct values than the table has entries.
        table: (k,) float64, ascending: where to start.
    """
    centre = ordered.mean()
    shifted = ordered - centre  # sums of squares lose no digits
    sums = np.append(0.0, np.cumsum(shifted))
    squares = np.append(0.0, np.cumsum(shifted**2))
    table = table - centre
    for _ in range(MOST_ROUNDS):
        inner = np.searchsorted(shifted, (table[1:] + table[:-1]) / 2)
        ends = np.concatenate([[0], inner, [len(ordered)]])
        counts, totals = np.diff(ends), np.diff(sums[ends])
        means = np.where(counts > 0, totals / np.maximum(counts, 1), table)
        if not counts.all():
            errors = np.diff(squares[ends]) - totals * means * (counts > 0)
            worst = int(np.argmax(errors))
            middle = (ends[worst] + ends[worst + 1]) // 2
            means[int(np.argmin(counts))] = shifted[middle]
            means = np.sort(means)
        if np.array_equal(means, table):
            break
        table = means
    moved: Array = table + centre
    return moved
