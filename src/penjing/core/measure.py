"""Numbers with their uncertainty, and budgets judged against them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import comb, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from penjing.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from penjing.core.tensors import Array

# Above this the order statistics are placed by the normal approximation, within one place.
_LARGE = 1000


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measured value with a two-sided confidence interval."""

    value: float
    low: float
    high: float
    unit: str
    confidence: float = 0.95

    @classmethod
    def proportion(cls, hits: int, total: int, confidence: float = 0.95) -> Measurement:
        """Give the share of hits with its interval of Wilson (1927), good for display.

        It is approximate: it holds on average over shares, not for each.

        >>> accuracy = Measurement.proportion(90, 100)
        >>> round(accuracy.low, 4), round(accuracy.high, 4)
        (0.8256, 0.9448)
        """
        _check(confidence)
        if not 0 <= hits <= total or total == 0:
            raise DataError("samples", f"{hits} hits of {total} give no share")
        z, share = NormalDist().inv_cdf((1 + confidence) / 2), hits / total
        centre = (share + z * z / (2 * total)) / (1 + z * z / total)
        spread = share * (1 - share) / total + z * z / (4 * total * total)
        half = z * sqrt(spread) / (1 + z * z / total)
        # At both ends the formula gives the share itself, but for rounding.
        low = max(0.0, centre - half) if hits else 0.0
        high = min(1.0, centre + half) if hits < total else 1.0
        return cls(share, low, high, "", confidence)

    @classmethod
    def median(cls, values: Array, unit: str = "", confidence: float = 0.95) -> Measurement:
        """Give the median of ``values`` (n,) with its distribution-free interval.

        The interval runs from one order statistic to its mirror image; that it holds the
        true median is a matter of fair coins, whatever the distribution of independent values
        (David and Nagaraja 2003, 7.1).  With too few values for the confidence asked, it is
        the whole range and ``confidence`` says what that is worth.

        >>> Measurement.median(np.arange(1.0, 11.0), "ms")
        Measurement(value=5.5, low=2.0, high=9.0, unit='ms', confidence=0.95)
        """
        _check(confidence)
        if values.ndim != 1 or not values.size:
            raise DataError(
                "measurements", f"need one or more numbers, got shape {values.shape}"
            )
        if not np.isfinite(values).all():
            raise DataError("measurements", "some are NaN or infinite")
        ordered = np.sort(values.astype(np.float64))
        n = len(ordered)
        outside = _values_outside(n, confidence)
        reached = min(confidence, 1 - 2.0 ** (1 - n)) if outside == 0 else confidence
        low, high = float(ordered[outside]), float(ordered[n - 1 - outside])
        return cls(float(np.median(ordered)), low, high, unit, reached)

    @classmethod
    def speed_up(cls, before: Array, after: Array, confidence: float = 0.95) -> Measurement:
        """Give how many times faster ``after`` is, from latencies measured in turns.

        The median of the ratios of pairs, (n,) each: what slows the machine for a while slows
        both of a pair and cancels, which a ratio of two medians would not do.

        >>> Measurement.speed_up(np.array([2.0, 4.0, 2.2]), np.array([1.0, 2.0, 1.0])).value
        2.0
        """
        if before.shape != after.shape:
            raise DataError(
                "latencies", f"{before.size} before but {after.size} after: not in pairs"
            )
        if not (np.all(before > 0) and np.all(after > 0)):
            raise DataError("latencies", "must be positive")
        return cls.median(before / after, "x", confidence)


class Verdict(StrEnum):
    """The answer to "is the limit met?"  The third answer is the honest one."""

    MET = "met"
    MISSED = "missed"
    UNDECIDED = "undecided"


def at_most(limit: float, measured: Measurement) -> Verdict:
    """Judge an upper limit by the whole interval, not by the middle of it.

    >>> at_most(5.0, Measurement(4.8, 4.5, 5.3, "ms")).value
    'undecided'
    """
    if measured.high <= limit:
        return Verdict.MET
    return Verdict.MISSED if measured.low > limit else Verdict.UNDECIDED


def _values_outside(n: int, confidence: float) -> int:
    """Count the values that may lie beyond each end of the median's interval.

    The most ``k`` with P(Binomial(n, 1/2) <= k) <= (1 - confidence) / 2, plus one, is the
    place of the lower end; 0 is the least value.
    """
    if n > _LARGE:
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        return max(0, int(n / 2 - z * sqrt(n) / 2) - 1)
    allowed, below, k = (1 - confidence) / 2 * 2**n, 0, 0
    while below + comb(n, k) <= allowed:
        below += comb(n, k)
        k += 1
    return max(0, k - 1)


def _check(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ConfigError(
            "confidence", f"must be between 0 and 1, got {confidence:g}", "try 0.95"
        )
