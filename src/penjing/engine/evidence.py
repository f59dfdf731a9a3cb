"""What the certification split says about one candidate, by kind of metric.

The test follows from the kind of metric, never from the data: choosing the smaller of two
bounds after looking would not be a bound.  ``penjing.engine.scores`` makes these objects.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from penjing.core import betting, exact
from penjing.core.bootstrap import Bootstrap
from penjing.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

# With fewer samples a bootstrap knows nothing of the tails; it then decides nothing.
_FEWEST_TO_RESAMPLE = 30
# From here on the exact test and the normal approximation need the same number of samples.
_LARGE = 200_000
# What betting needs beyond the normal approximation, fitted on eight kinds of differences
# (within 40 %): a factor, and a multiple of the samples that seeing no loss at all would take.
_BETTING_FACTOR = 1.3


class Evidence(ABC):
    """A candidate's drop on the certification split and what follows from it.

    A drop is positive where the compressed model is worse, whichever way the metric points.
    """

    method: ClassVar[str]
    approximate: ClassVar[bool] = False

    @property
    @abstractmethod
    def samples(self) -> int:
        """Number of samples."""

    @property
    @abstractmethod
    def drop(self) -> float:
        """The drop on these samples."""

    @abstractmethod
    def p_value(self, limit: float, confidence: float = 0.95) -> float:
        """Give the p-value of "the drop is ``limit`` or more"."""

    @abstractmethod
    def upper_bound(self, confidence: float = 0.95, limit: float | None = None) -> float:
        """Give the drop's one-sided upper bound.

        With ``limit``, bound and test agree exactly: the bound is at most ``limit`` if and
        only if ``p_value(limit, confidence) <= 1 - confidence``.
        """

    @abstractmethod
    def lower_bound(self, confidence: float = 0.95) -> float:
        """Give the drop's one-sided lower bound."""

    @abstractmethod
    def samples_needed(
        self, limit: float, confidence: float = 0.95, power: float = 0.8
    ) -> int | None:
        """Say how many fresh samples would certify ``limit`` if this estimate were the truth.

        They do so with probability ``power``.  None where no number would.
        """

    def _agree(self, bound: float, limit: float | None, confidence: float) -> float:
        """Move a bound across ``limit`` where search tolerance put it on the wrong side.

        Safe where p-values fall as the limit grows: a passed test bounds the drop by itself.
        """
        if limit is None:
            return bound
        if self.p_value(limit, confidence) <= 1 - confidence:
            return min(bound, limit)
        return max(bound, math.nextafter(limit, math.inf))


@dataclass(frozen=True)
class ZeroOne(Evidence):
    """Right or wrong per sample: the exact paired test (``penjing.core.exact``)."""

    method: ClassVar[str] = "exact paired test"
    lost: int
    """Samples that the original has right and the compressed model wrong."""
    gained: int
    """Samples that the original has wrong and the compressed model right."""
    n: int

    @property
    def samples(self) -> int:
        """Number of samples."""
        return self.n

    @property
    def drop(self) -> float:
        """The share lost minus the share gained."""
        return (self.lost - self.gained) / self.samples

    def p_value(self, limit: float, confidence: float = 0.95) -> float:
        """Give the exact p-value."""
        _check(limit, confidence)
        return exact.p_value(self.lost, self.gained, self.samples, limit, confidence)

    def upper_bound(self, confidence: float = 0.95, limit: float | None = None) -> float:
        """Give the exact upper bound."""
        _check(limit, confidence)
        bound = exact.upper_bound(self.lost, self.gained, self.samples, confidence)
        return self._agree(bound, limit, confidence)

    def lower_bound(self, confidence: float = 0.95) -> float:
        """Give the exact lower bound: what is lost one way is gained the other."""
        return -ZeroOne(self.gained, self.lost, self.samples).upper_bound(confidence)

    def samples_needed(
        self, limit: float, confidence: float = 0.95, power: float = 0.8
    ) -> int | None:
        """Search for the number at which even an unlucky draw passes the test."""
        _check(limit, confidence, power)
        if self.drop >= limit:
            return None
        share = (self.lost + self.gained) / self.samples
        spread = math.sqrt(max(share - self.drop**2, 0.0))
        unlucky = NormalDist().inv_cdf(power)

        def passes(n: int) -> bool:
            net = n * self.drop + unlucky * math.sqrt(n) * spread
            lost, gained = (n * share + net) / 2, (n * share - net) / 2
            draw = math.ceil(lost - 1e-9), max(0, math.floor(gained + 1e-9))
            return (
                sum(draw) <= n and exact.p_value(*draw, n, limit, confidence) <= 1 - confidence
            )

        fails, enough = 0, 16
        while not passes(enough):
            fails, enough = enough, 2 * enough
            if enough > _LARGE:
                return max(
                    _LARGE, _normal_samples(spread, limit - self.drop, confidence, power)
                )
        while enough - fails > max(1, enough // 200):
            middle = (fails + enough) // 2
            fails, enough = (fails, middle) if passes(middle) else (middle, enough)
        return enough


@dataclass(frozen=True, eq=False)
class Bounded(Evidence):
    """Scores in [0, 1] per sample: the betting test (``penjing.core.betting``)."""

    method: ClassVar[str] = "betting on paired scores"
    differences: Floats
    """What each sample loses, (n,), in [-1, 1]."""
    seed: int = 0

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.differences)

    @property
    def drop(self) -> float:
        """The mean difference."""
        return float(self.differences.mean())

    def p_value(self, limit: float, confidence: float = 0.95) -> float:
        """Give one over the highest wealth."""
        _check(limit, confidence)
        return betting.p_value(self.differences, limit, confidence, seed=self.seed)

    def upper_bound(self, confidence: float = 0.95, limit: float | None = None) -> float:
        """Give the smallest limit from which on every bet is won."""
        _check(limit, confidence)
        return betting.upper_bound(self.differences, confidence, limit=limit, seed=self.seed)

    def lower_bound(self, confidence: float = 0.95) -> float:
        """Bet the other way."""
        return -Bounded(-self.differences, self.seed).upper_bound(confidence)

    def samples_needed(
        self, limit: float, confidence: float = 0.95, power: float = 0.8
    ) -> int | None:
        """Scale the normal approximation; right within 40 %."""
        _check(limit, confidence, power)
        room = limit - self.drop
        if room <= 0:
            return None
        normal = _normal_samples(float(self.differences.std()), room, confidence, power)
        return math.ceil(_BETTING_FACTOR * (normal - math.log(1 - confidence) / room))


@dataclass(frozen=True, eq=False)
class Resampled(Evidence):
    """Any metric at all, by the bootstrap; approximate.

    ``statistic`` maps sample indices (b, m), each row one resample, to the drop on each row,
    (b,).  It must give a finite drop on all samples.
    """

    method: ClassVar[str] = "paired bootstrap (BCa)"
    approximate: ClassVar[bool] = True
    statistic: Callable[[Integers], Floats]
    n: int
    seed: int = 0

    @property
    def samples(self) -> int:
        """Number of samples."""
        return self.n

    def __post_init__(self) -> None:
        """Refuse a metric that has no value on these samples."""
        if self.samples < 1:
            raise no_samples()
        if not math.isfinite(self.drop):
            raise DataError(
                "metric",
                f"its drop on the certification samples is {self.drop}",
                "a metric relative to an original of 0, or a missing class, gives no number; "
                "use another metric or other data",
            )

    @cached_property
    def drop(self) -> float:
        """The drop on all samples."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(self.statistic(np.arange(self.samples)[None])[0])

    @cached_property
    def _bootstrap(self) -> Bootstrap:
        with np.errstate(divide="ignore", invalid="ignore"):
            return Bootstrap.of(self.statistic, self.samples, seed=self.seed)

    def p_value(self, limit: float, confidence: float = 0.95) -> float:
        """Give the bootstrap's p-value; 1 with fewer than 30 samples."""
        _check(limit, confidence, largest=math.inf)
        return self._bootstrap.p_value(limit) if self._enough else 1.0

    def upper_bound(self, confidence: float = 0.95, limit: float | None = None) -> float:
        """Give the bootstrap's upper bound; infinite with fewer than 30 samples."""
        _check(limit, confidence, largest=math.inf)
        bound = self._bootstrap.upper_bound(confidence) if self._enough else math.inf
        return self._agree(bound, limit, confidence)

    def lower_bound(self, confidence: float = 0.95) -> float:
        """Give the bootstrap's lower bound; infinite with fewer than 30 samples."""
        _check(None, confidence)
        return self._bootstrap.upper_bound(1 - confidence) if self._enough else -math.inf

    def samples_needed(
        self, limit: float, confidence: float = 0.95, power: float = 0.8
    ) -> int | None:
        """Use the normal approximation, with the bootstrap's spread."""
        _check(limit, confidence, power, largest=math.inf)
        if self.drop >= limit:
            return None
        spread = self._bootstrap.spread_per_sample(self.samples)
        normal = _normal_samples(spread, limit - self.drop, confidence, power)
        return max(_FEWEST_TO_RESAMPLE, normal)

    @property
    def _enough(self) -> bool:
        return self.samples >= _FEWEST_TO_RESAMPLE


def no_samples() -> DataError:
    """Make the error for an empty certification split."""
    return DataError("certification split", "no samples", "give more data or a larger share")


def _check(
    limit: float | None, confidence: float, power: float = 0.8, *, largest: float = 1.0
) -> None:
    """Refuse settings outside their range."""
    if not 0.5 <= confidence < 1:  # noqa: PLR2004  # an even chance
        raise ConfigError(
            "confidence", f"must be from 50% to below 100%, got {confidence:g}", "try 0.95"
        )
    if limit is not None and not -largest < limit < largest:
        raise ConfigError(
            "limit", f"must be between {-largest:g} and {largest:g}, got {limit:g}"
        )
    if not 0.5 <= power < 1:  # noqa: PLR2004  # an even chance
        raise ConfigError("power", f"must be from 0.5 to below 1, got {power:g}")


def _normal_samples(spread: float, room: float, confidence: float, power: float) -> int:
    normal = NormalDist()
    z = normal.inv_cdf(confidence) + normal.inv_cdf(power)
    return max(1, math.ceil((z * spread / room) ** 2))
