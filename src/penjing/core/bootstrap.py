"""Approximate bounds for what has no exact ones: unbounded or non-decomposable metrics.

The bias-corrected and accelerated (BCa) bootstrap of Efron (1987): samples are redrawn with
replacement, original and compressed together.  Its error tends to 1 - confidence as the data
grow, but no finite number of samples guarantees it; everything built on it says "approximate".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]
    Statistic = Callable[[Integers], Floats]

_RESAMPLES = 2000
# Samples left out at a time for the acceleration; a few hundred groups are as good as n.
_GROUPS = 200
# Indices drawn at a time.
_CHUNK = 1 << 20
_NORMAL = NormalDist()


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """A statistic, its resampled values and the two corrections of BCa."""

    estimate: float
    values: Floats
    """Resampled values in ascending order, (resamples,)."""
    bias: float
    acceleration: float

    @classmethod
    def of(
        cls, statistic: Statistic, n: int, *, seed: int = 0, resamples: int = _RESAMPLES
    ) -> Bootstrap:
        """Resample ``statistic``, which maps indices (b, m) in [0, n) to values (b,).

        Resamples on which it is not finite (a metric without its second class, say) count as
        the worst value seen, which is the safe side.
        """
        rng = np.random.default_rng(seed)
        rows = max(1, _CHUNK // n)
        parts = [
            statistic(rng.integers(0, n, (min(rows, resamples - done), n)))
            for done in range(0, resamples, rows)
        ]
        values = np.concatenate(parts)
        estimate = float(statistic(np.arange(n)[None])[0])
        finite = np.isfinite(values)
        values = np.sort(np.where(finite, values, np.append(values[finite], estimate).max()))
        below = (values < estimate).mean() + (values == estimate).mean() / 2
        return cls(estimate, values, _quantile(float(below), resamples), _skew(statistic, n))

    def upper_bound(self, confidence: float) -> float:
        """Give the one-sided upper bound; the lower one at ``1 - confidence``."""
        z = self.bias + _NORMAL.inv_cdf(confidence)
        slowed = 1 - self.acceleration * z
        # Past this pole the correction has no meaning; take the furthest value seen.
        level = _NORMAL.cdf(self.bias + z / slowed) if slowed > 0 else float(z > 0)
        return float(np.quantile(self.values, level))

    def p_value(self, limit: float) -> float:
        """Give the p-value of "the statistic is ``limit`` or more"."""
        below = (self.values < limit).mean() + (self.values == limit).mean() / 2
        z = _quantile(float(below), len(self.values)) - self.bias
        slowed = 1 + self.acceleration * z
        if slowed <= 0:
            return float(z < 0)
        return _NORMAL.cdf(self.bias - z / slowed)

    def spread_per_sample(self, n: int) -> float:
        """Give the standard deviation that a single sample would have."""
        return math.sqrt(n) * float(self.values.std())


def _quantile(share: float, resamples: int) -> float:
    """Give the normal quantile of a share that cannot be known to be 0 or 1."""
    edge = 0.5 / resamples
    return _NORMAL.inv_cdf(min(max(share, edge), 1 - edge))


def _skew(statistic: Statistic, n: int) -> float:
    """Estimate the acceleration by leaving out one group of samples at a time."""
    if n == 1:
        return 0.0
    groups = np.array_split(np.random.default_rng(0).permutation(n), min(n, _GROUPS))
    everything = np.arange(n)
    left = np.concatenate([statistic(np.delete(everything, group)[None]) for group in groups])
    left = left[np.isfinite(left)]
    gaps = left.mean() - left if left.size else left
    spread = float((gaps**2).sum())
    return float((gaps**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
