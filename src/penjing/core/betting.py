"""Upper bound on the mean of scores in [-1, 1], by betting against "the mean is ``limit``".

A gambler starts with 1 and bets, sample by sample, that the drop is below the limit.  Where
the drop is the limit or more his wealth is a supermartingale, so it ever reaches 1 / error with
probability at most ``error`` (Ville 1939; Waudby-Smith and Ramdas 2023).  Any bet that looks
only at the past is valid.  The size of ours comes from the wealth still missing, the samples
still to come and the spread so far (Voracek and Orabona 2025, "STaR-Bets").
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# The largest share of his wealth the gambler may lose on one sample.
_BOLDEST = 0.95
# The bet is renewed this often over the samples still to come; more costs time, gains nothing.
_RENEWALS = 40
# Samples between renewals, at most; with one row per limit this bounds the memory.
_LARGEST_BLOCK = 256


def p_value(
    differences: Floats, limit: float, confidence: float = 0.95, *, seed: int = 0
) -> float:
    """Give the p-value of "the mean is ``limit`` or more".

    Args:
        differences: Original minus compressed score of each sample, (n,), in [-1, 1].
        limit: In [-1, 1).
        confidence: The bets aim at ``1 - confidence``; the p-value is valid at every level.
        seed: Orders the samples, which may arrive sorted.  Fix it before looking.

    The largest over ``limit`` and the fixed grid above it, which makes it agree with
    ``upper_bound`` exactly.
    """
    limits = _limits(limit)
    limits = limits[limits >= limit]
    return float(_p_values(differences, limits, confidence, seed).max())


def upper_bound(
    differences: Floats,
    confidence: float = 0.95,
    *,
    limit: float | None = None,
    seed: int = 0,
) -> float:
    """Give the mean that is exceeded with at most ``1 - confidence`` probability of error.

    It is a point of a fixed grid (steps of 3 %), to which ``limit`` is added.

    >>> round(upper_bound(np.zeros(1000)), 3)
    0.003
    """
    limits = _limits(limit)
    # Limits up to the estimate are never rejected: no need to try.
    limits = limits[limits > differences.mean()]
    rejected = _p_values(differences, limits, confidence, seed) <= 1 - confidence
    open_limits = np.flatnonzero(~rejected)
    first = open_limits[-1] + 1 if open_limits.size else 0
    # All points from here on are rejected: with a mean beyond, a true one would be among them.
    return float(limits[first]) if first < len(limits) else 1.0


def _limits(limit: float | None) -> Floats:
    """Give the fixed grid of limits, ascending, in (-1, 1)."""
    positive = 1e-5 * 1.03 ** np.arange(math.ceil(math.log(1e5) / math.log(1.03)))
    grid = np.concatenate([-positive, [0.0], positive])
    return np.unique(grid if limit is None else np.append(grid, limit))


def _p_values(differences: Floats, limits: Floats, confidence: float, seed: int) -> Floats:
    """Play one game per limit, (m,); give 1 / the highest wealth of each, (m,)."""
    n, error = len(differences), 1 - confidence
    target = -math.log(error)
    shuffled = differences[np.random.default_rng(seed).permutation(n)]
    highest = np.zeros(len(limits))
    wealth = np.zeros(len(limits))  # logarithms
    playing = np.flatnonzero(limits > differences.mean())
    total = squares = 0.0
    start = 0
    while start < n and playing.size:
        size = min(math.ceil((n - start) / _RENEWALS), _LARGEST_BLOCK)
        block, limit = shuffled[start : start + size], limits[playing]
        # One imagined sample of the null's least variance keeps the first bets sober.
        spread = squares - 2 * limit * total + start * limit**2 + np.abs(limit) + 1 / n
        variance = spread / (start + 1)
        missing = target - wealth[playing]
        bet = np.sqrt(2 * missing / ((n - start) * variance)) * (1 - limit)
        bet = np.minimum(bet, _BOLDEST)
        gains = (limit[:, None] - block) / (1 - limit)[:, None]
        path = wealth[playing, None] + np.cumsum(np.log1p(bet[:, None] * gains), axis=1)
        wealth[playing] = path[:, -1]
        highest[playing] = np.maximum(highest[playing], path.max(axis=1))
        playing = playing[highest[playing] < target]  # who has enough stops
        total, squares = total + float(block.sum()), squares + float(block @ block)
        start += size
    found = np.exp(-highest)
    return np.where(
        highest >= target, np.minimum(found, error), found
    )  # not undone by rounding
