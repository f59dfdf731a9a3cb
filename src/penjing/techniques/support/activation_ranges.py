"""Ranges of values between layers, as calibration data show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from penjing.core.errors import DataError, UnsupportedError
from penjing.core.model import QuantizesActivations

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from penjing.core.model import Model
    from penjing.core.tensors import Array

How = Literal["minmax", "percentile", "mse"]

BINS = 4096
"""Of the histogram of each value."""
PERCENTILE = 99.99
"""Of all numbers lie below the upper end, and as many above the lower one."""
SHARES = np.linspace(1.0, 0.02, 99)
"""Of the full range at either end: what clipping at least squared error chooses from."""
ROUNDS = 3
"""Times that both ends are chosen in turn."""


def activation_ranges(
    model: Model,
    batches: Sequence[Mapping[str, Array]],
    names: Sequence[str],
    how: How = "minmax",
    bits: int = 8,
) -> dict[str, tuple[float, float]]:
    """Observe the range of each value; zero is always inside.

    Args:
        model: of a backend that can watch values.
        batches: calibration inputs; they run twice unless ``how`` is ``minmax``.
        names: values to observe.
        how: ``minmax`` covers everything, ``percentile`` leaves the tails out, ``mse`` takes
            the range with the least squared error at ``bits`` bits.
        bits: of the values.

    Raises:
        UnsupportedError: the backend cannot watch values, or there is no such value.
        DataError: there are no batches, or a value is never a finite number.

    References:
        Nagel et al., "A White Paper on Neural Network Quantization", arXiv:2106.08295, 2021.
    """
    backend = model.backend
    if not isinstance(backend, QuantizesActivations):
        raise UnsupportedError(backend.name, "values of this backend cannot be watched")
    values = backend.watch(model.to_native(), names)
    found = {name: _Seen() for name in names}
    for batch in batches:
        for name, array in values(batch).items():
            found[name].extend(array)
    for name, seen in found.items():
        if not seen.count:
            raise DataError(f"calibration data ({name})", "hold no finite number")
    if how != "minmax":
        for batch in batches:
            for name, array in values(batch).items():
                found[name].fill(array)
    choose: Mapping[str, Callable[[_Seen], tuple[float, float]]] = {
        "minmax": lambda seen: (seen.low, seen.high),
        "percentile": _percentile,
        "mse": lambda seen: _least_squares(seen, 2**bits - 1),
    }
    return {name: choose[how](seen) for name, seen in found.items()}


class _Seen:
    """A value over all batches: its range, then a histogram with sums."""

    def __init__(self) -> None:
        self.low, self.high, self.count = 0.0, 0.0, 0
        self.counts, self.sums = np.zeros(BINS), np.zeros(BINS)

    def extend(self, array: Array) -> None:
        """Widen the range; zero is in it from the beginning."""
        real = _finite(array)
        if real.size:
            self.low = min(self.low, float(real.min()))
            self.high = max(self.high, float(real.max()))
            self.count += real.size

    def fill(self, array: Array) -> None:
        """Count numbers, and add them up, bin by bin."""
        real = _finite(array).astype(np.float64)
        width = (self.high - self.low) / BINS
        if width > 0:
            places = np.minimum(((real - self.low) / width).astype(np.int64), BINS - 1)
            self.counts += np.bincount(places, minlength=BINS)
            self.sums += np.bincount(places, real, BINS)

    def edges(self) -> Array:
        """Give the ends of all bins."""
        return np.linspace(self.low, self.high, BINS + 1)


def _finite(array: Array) -> Array:
    flat = array.reshape(-1)
    keep = np.isfinite(flat)
    return flat if keep.all() else flat[keep]


def _percentile(seen: _Seen) -> tuple[float, float]:
    below = np.concatenate([[0.0], np.cumsum(seen.counts)])
    if not below[-1]:
        return seen.low, seen.high
    tail = below[-1] * (1 - PERCENTILE / 100)
    edges = seen.edges()
    low = edges[np.searchsorted(below, tail, "right") - 1]
    high = edges[np.searchsorted(below, below[-1] - tail, "left")]
    return min(float(low), 0.0), max(float(high), 0.0)


def _least_squares(seen: _Seen, levels: int) -> tuple[float, float]:
    """Choose one end after the other, from shares of the full range."""
    used = seen.counts > 0
    if not used.any():
        return seen.low, seen.high
    counts = seen.counts[used]
    means = seen.sums[used] / counts
    ends = [seen.low, seen.high]

    def error(low: float, high: float) -> float:
        scale = (high - low) / levels
        if scale <= 0:
            return float("inf")
        zero = np.rint(-low / scale)
        codes = np.clip(np.rint(means / scale) + zero, 0, levels)
        return float((counts * np.square((codes - zero) * scale - means)).sum())

    for _ in range(ROUNDS):
        for side, full in enumerate((seen.low, seen.high)):
            tried = [[*ends[:side], full * share, *ends[side + 1 :]] for share in SHARES]
            ends = min(tried, key=lambda pair: error(*pair))
    return ends[0], ends[1]
