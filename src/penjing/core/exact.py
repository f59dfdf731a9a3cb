"""Exact upper bound on the accuracy lost, from paired right-or-wrong answers.

Each of ``n`` samples is *lost* (the original is right, the compressed model wrong), *gained*
(the reverse) or the same.  The counts are trinomial and the drop is P(lost) - P(gained).
The bound is exact: its error is at most 1 - confidence at every n, drop and disagreement rate.

How: outcomes are ordered by the restricted-likelihood score statistic (Tango 1998), and the
probability of the outcomes at least as good as the observed one is maximised over everything
the null hypothesis allows (Buehler 1957); the disagreement rate is searched only inside a
confidence interval whose error is added to the p-value (Berger and Boos 1994).  Between grid
points the maximum is bounded, not guessed.  ``docs/certificate.md`` has the proof.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

# Share of the error spent on knowing the disagreement rate (Berger and Boos: 0.001 of 0.05).
_NUISANCE_SHARE = 0.02
# Grid spacing in standard errors of the disagreement rate; it adds about 1 % to p-values.
_STEP = 0.1
# Rounding in sums of some thousand exponentials stays far below this.
_ROUNDING = 1e-10
# Elements of the largest temporary array.
_CHUNK = 1 << 20

_SMALL = 20  # below it, Stirling's series is not exact enough
_SMALL_LOG_FACTORIALS = np.array([math.lgamma(k + 1) for k in range(_SMALL)])


def p_value(lost: int, gained: int, n: int, limit: float, confidence: float = 0.95) -> float:
    """Give the p-value of "the drop is ``limit`` or more".

    Valid at every level; tuned to be most powerful at ``1 - confidence``.  It is never below
    ``0.02 * (1 - confidence)``, the price of not knowing the disagreement rate.

    >>> p_value(lost=55, gained=45, n=10_000, limit=0.005) < 0.05
    True
    """
    if limit <= (lost - gained) / n:
        return 1.0
    return _Outcomes(lost, gained, n, confidence).p_value(limit)


def upper_bound(lost: int, gained: int, n: int, confidence: float = 0.95) -> float:
    """Give the drop that is exceeded with at most ``1 - confidence`` probability of error.

    >>> round(upper_bound(lost=0, gained=0, n=1000), 4)  # the "rule of three"
    0.003
    """
    if lost == n:
        return 1.0
    outcomes = _Outcomes(lost, gained, n, confidence)
    estimate, guess, error = (lost - gained) / n, outcomes.score_limit, 1 - confidence
    scale = max(guess - estimate, 0.1 / n)
    step = scale / 64
    # ``fails`` may be anything; ``passes`` is always a limit whose test was passed.
    if outcomes.p_value(guess) <= error:
        fails, passes = guess - step, guess
        while fails > estimate and outcomes.p_value(fails) <= error:
            fails, passes, step = fails - 2 * step, fails, 2 * step
    else:
        fails, passes = guess, guess + step
        while passes < 1 and outcomes.p_value(passes) > error:
            fails, passes, step = passes, passes + 2 * step, 2 * step
    passes = min(passes, 1.0)  # a drop cannot exceed 1
    while passes - fails > scale / 1000:
        middle = (passes + fails) / 2
        if outcomes.p_value(middle) <= error:
            passes = middle
        else:
            fails = middle
    return passes


class _Outcomes:
    """All outcomes (lost, gained) that speak for a small drop at least as much as this one."""

    def __init__(self, lost: int, gained: int, n: int, confidence: float) -> None:
        self.n, self.spent = n, _NUISANCE_SHARE * (1 - confidence)
        self.rates = _rate_interval(lost + gained, n, self.spent)
        z = NormalDist().inv_cdf(confidence)
        self.score_limit = _score_limit(lost, gained, n, z)
        # P(gained) is at most the highest rate; outcomes further out count as included.
        mean = n * self.rates[1]
        most = min(n, math.ceil(mean + 8 * math.sqrt(mean) + 30))
        rows = np.arange(most + 1)
        last = _largest_lost(rows, n, self.score_limit, z)
        last[gained] = max(last[gained], lost)
        # Each loss lowers the score, so a row is {0 .. last}; with more gained never fewer.
        last = np.maximum.accumulate(last)
        self._build_path(rows[last >= 0], last[last >= 0])

    def _build_path(self, rows: Integers, last: Integers) -> None:
        """Lay out the increments that lead from one row's binomial tail to the next.

        F(k; N, p) is the binomial distribution function.  With one more gained, N falls by
        one and F(k; N - 1) = F(k; N) + p * pmf(k; N - 1); with a larger k, pmf is added.
        Every increment is positive, so nothing cancels.
        """
        n, first = self.n, int(last[0]) + 1
        lengths = np.diff(last) + 1
        row = np.repeat(np.arange(len(lengths)), lengths)
        offset = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        self.lost = np.concatenate([np.arange(first), last[:-1][row] + offset])
        trials = np.concatenate([np.full(first, n - rows[0]), n - 1 - rows[:-1][row]])
        self.shrinks = np.concatenate([np.zeros(first, bool), offset == 0])
        self.ends = np.concatenate([[first], first + np.cumsum(lengths)]) - 1
        self.kept = np.maximum(trials - self.lost, 0)
        ways = _log_factorial(trials) - _log_factorial(self.lost) - _log_factorial(self.kept)
        self.log_ways = np.where(self.lost <= trials, ways, -np.inf)
        self.rows = rows
        self.log_row_ways = (
            _log_factorial(np.array(n)) - _log_factorial(rows) - _log_factorial(n - rows)
        )

    def probability(self, lost_rate: Floats, gained_rate: Floats) -> Floats:
        """Bound the probability of these outcomes from above, for each pair of rates."""
        size = max(1, _CHUNK // len(self.lost))
        parts = [
            self._probability(lost_rate[i : i + size, None], gained_rate[i : i + size, None])
            for i in range(0, len(lost_rate), size)
        ]
        return np.concatenate(parts)

    def _probability(self, lost_rate: Floats, gained_rate: Floats) -> Floats:
        share = np.minimum(lost_rate / (1 - gained_rate), 1.0)  # of lost among the not gained
        terms = np.exp(
            self.log_ways + self.lost * _log(share) + self.kept * _log(1 - share)
        ) * np.where(self.shrinks, share, 1.0)
        tails = np.minimum(np.cumsum(terms, axis=1)[:, self.ends], 1.0)
        weights = np.exp(
            self.log_row_ways
            + self.rows * _log(gained_rate)
            + (self.n - self.rows) * _log(1 - gained_rate)
        )
        beyond = _binomial_tail_bound(self.n, gained_rate[:, 0], int(self.rows[-1]))
        inside: Floats = (weights * tails).sum(axis=1)
        return np.minimum(inside * (1 + _ROUNDING) + beyond + _ROUNDING, 1.0)

    def p_value(self, limit: float) -> float:
        """Maximise the probability over the null hypothesis "drop >= limit".

        Fewer losses or more gains keep an outcome inside, so the maximum lies on drop =
        limit, where one parameter is left: the disagreement rate r.  On r's grid an angle
        makes the Fisher information even; in each cell the maximum is bounded by the ends
        plus (width^2 / 8) max |G''|, with |G''| <= sqrt(2 G) * information (Cauchy-Schwarz on
        the score); where the information is infinite, by moving both rates to the good side.
        """
        size = abs(limit)
        low, high = max(self.rates[0], size), self.rates[1]
        if high <= low:  # the data exclude every rate that this drop would need
            return self.spent
        ends = np.arcsin(np.sqrt((np.array([low, high]) - size) / (1 - size)))
        cells = math.ceil(2 * math.sqrt(self.n) * float(ends[1] - ends[0]) / _STEP) + 1
        rate = size + (1 - size) * np.sin(np.linspace(ends[0], ends[1], cells + 1)) ** 2
        rate[0], rate[-1] = low, high
        lost, gained = (rate + limit) / 2, np.maximum(rate - limit, 0.0) / 2
        chance = self.probability(
            np.append(lost, [lost[0], lost[-2]]), np.append(gained, [gained[1], gained[-1]])
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            information = self.n * (0.25 / lost + 0.25 / gained + 1 / (1 - rate))
            bend = np.diff(rate) ** 2 * np.maximum(information[1:], information[:-1])
        # Cells narrower than a rounding error have no width to bend in.
        bend = np.where(np.diff(rate) > 0, bend, 0.0) * math.sqrt(2) / 8
        peak = np.maximum(chance[1 : cells + 1], chance[:cells])
        bound = ((bend + np.sqrt(bend**2 + 4 * peak)) / 2) ** 2
        bound[0], bound[-1] = min(bound[0], chance[-2]), min(bound[-1], chance[-1])
        return min(1.0, float(bound.max()) + self.spent)


def score(lost: Any, gained: Any, n: int, limit: float) -> Floats:
    """Give the score statistic of "drop = limit"; large where the drop is clearly smaller.

    Tango (1998), with the disagreement rate at its restricted maximum likelihood.  It rises
    with ``limit`` and falls with ``lost`` wherever it is positive, which makes the outcomes
    it orders nested.
    """
    lost, gained = np.asarray(lost, np.float64), np.asarray(gained, np.float64)
    net, same = lost - gained, n - lost - gained
    half = (lost + gained + limit * net) / 2
    root = np.sqrt(np.maximum(half**2 - n * (limit * net - same * limit**2), 0.0))
    rate = np.clip((half + root) / n, abs(limit), 1.0)
    spread = np.maximum(n * (rate - limit**2), np.finfo(np.float64).tiny)
    return np.asarray((n * limit - net) / np.sqrt(spread))


def _score_limit(lost: int, gained: int, n: int, z: float) -> float:
    """Find the limit at which the score reaches ``z``: the approximate upper bound."""
    low, high = (lost - gained) / n, 1.0
    while high - low > 1e-12 * max(1.0, abs(high)):
        middle = (low + high) / 2
        if middle in {low, high}:
            break
        if score(lost, gained, n, middle) >= z:
            high = middle
        else:
            low = middle
    return high


def _largest_lost(gained: Integers, n: int, limit: float, z: float) -> Integers:
    """Find, for each ``gained``, the most that may be lost with a score of at least ``z``."""
    low = np.full(len(gained), -1)
    high = np.clip(np.floor(n * limit + gained), -1, n - gained).astype(np.int64)
    while (low < high).any():
        middle = (low + high + 1) // 2
        # The tolerance can only add outcomes, which is the safe side.
        good = score(np.maximum(middle, 0), gained, n, limit) >= z - 1e-9
        low, high = np.where(good, middle, low), np.where(good, high, middle - 1)
    return low


def _rate_interval(count: int, n: int, error: float) -> tuple[float, float]:
    """Bound a binomial rate from both sides by its Chernoff bound (at most ``error``)."""
    share, allowed = count / n, math.log(2 / error) / n

    def divergence(rate: float) -> float:
        left = share * math.log(share / rate) if share > 0 else 0.0
        return left + ((1 - share) * math.log((1 - share) / (1 - rate)) if share < 1 else 0.0)

    edges = []
    for edge in (0.0, 1.0):
        outside, inside = edge, share  # the result is the outside: never too narrow
        while inside != outside and abs(outside - inside) > 1e-6 * abs(outside - share):
            middle = (outside + inside) / 2
            if divergence(middle) <= allowed:
                inside = middle
            else:
                outside = middle
        edges.append(outside)
    return edges[0], edges[1]


def _binomial_tail_bound(n: int, rate: Floats, most: int) -> Floats:
    """Bound P(Binomial(n, rate) > most) by Chernoff's inequality."""
    share = (most + 1) / n
    if share > 1:
        return np.zeros_like(rate)
    exponent = share * (math.log(share) - _log(rate))
    if share < 1:
        exponent = exponent + (1 - share) * (math.log1p(-share) - _log(1 - rate))
    return np.where(rate < share, np.exp(-n * exponent), 1.0)


def _log(value: Floats) -> Floats:
    """Take logarithms with log 0 very small instead of infinite, so that 0 * log 0 is 0."""
    logarithms: Floats = np.log(np.maximum(value, np.finfo(np.float64).tiny))
    return logarithms


def _log_factorial(count: Integers) -> Floats:
    """Give log(count!) elementwise: a table, then Stirling's series (error below 1e-12)."""
    z = np.maximum(count, _SMALL) + 1.0
    series = 1 / (12 * z) - 1 / (360 * z**3) + 1 / (1260 * z**5)
    large = (z - 0.5) * np.log(z) - z + 0.5 * math.log(2 * math.pi) + series
    small = _SMALL_LOG_FACTORIALS[np.minimum(count, _SMALL - 1)]
    logarithms: Floats = np.where(count < _SMALL, small, large)
    return logarithms
