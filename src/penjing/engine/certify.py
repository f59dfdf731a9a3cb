"""The certificate: "the drop is at most the limit", true with the stated confidence.

Candidates are tested in an order fixed before the certification data are touched, from the
safest to the boldest, each at the full level, up to the first failure (fixed-sequence testing
in Learn-then-Test, Angelopoulos et al. 2021).  Whatever the search did on other data, the
probability that any candidate passes whose true drop is the limit or more is at most
``1 - confidence``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from penjing.core.errors import ConfigError
from penjing.core.measure import Measurement, Verdict
from penjing.engine.evidence import Evidence, ZeroOne
from penjing.engine.scores import from_differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from penjing.core.tensors import Array

    Candidate = tuple[str, Evidence | Callable[[], Evidence]]


@dataclass(frozen=True)
class Outcome:
    """What the certification split says about one candidate."""

    label: str
    drop: Measurement
    """Point estimate and two-sided interval."""
    upper: float
    """One-sided upper bound for this candidate alone; at most the limit if it passed."""
    p_value: float
    samples: int
    verdict: Verdict
    samples_needed: int | None = None
    """About how many fresh samples would certify this estimate; None: passed, or none would."""


@dataclass(frozen=True)
class Certificate:
    """The record of one sequence of tests."""

    method: str
    approximate: bool
    """True for bootstrap: the confidence is then not guaranteed."""
    confidence: float
    limit: float
    seed: int
    tested: tuple[Outcome, ...]
    """In the order of testing; all passed but perhaps the last."""

    @property
    def chosen(self) -> int | None:
        """Index of the boldest candidate that passed; None where not even the first did."""
        last = len(self.tested) - 1
        if self.tested[last].verdict is Verdict.MET:
            return last
        return last - 1 if last else None

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON values; a bound that does not exist is null."""
        record = asdict(self)
        record["tested"] = [
            {**asdict(outcome), "drop": asdict(outcome.drop), "verdict": str(outcome.verdict)}
            for outcome in self.tested
        ]
        finite: dict[str, Any] = _finite({**record, "chosen": self.chosen})
        return finite


def judge(label: str, evidence: Evidence, limit: float, confidence: float = 0.95) -> Outcome:
    """Judge one candidate whose turn was fixed beforehand.

    Met: the test passed.  Missed: even the lower end of the interval is above the limit.
    """
    p = evidence.p_value(limit, confidence)
    drop = _interval(evidence, confidence)
    if p <= 1 - confidence:
        verdict = Verdict.MET
    else:
        verdict = Verdict.MISSED if drop.low > limit else Verdict.UNDECIDED
    needed = None
    if verdict is not Verdict.MET:
        needed = evidence.samples_needed(limit, confidence)
        # This draw was too few; an estimate from it that says otherwise is rounding.
        needed = None if needed is None else max(needed, evidence.samples + 1)
    upper = evidence.upper_bound(confidence, limit)
    return Outcome(label, drop, upper, p, evidence.samples, verdict, needed)


def fixed_sequence(
    candidates: Iterable[Candidate], limit: float, confidence: float = 0.95, *, seed: int = 0
) -> Certificate:
    """Test candidates in the given order up to the first that fails.

    Args:
        candidates: Label and evidence (or a function that gets it, called only when its turn
            comes) of each, safest first.  The order must not depend on certification data.
        limit: Largest drop allowed: points for metrics in [0, 1], else relative.
        confidence: Between 0.5 and 1.
        seed: Recorded; it is the one the evidence was made with.

    Raises:
        ConfigError: no candidates, or limit or confidence out of range.
        DataError: no usable scores.
    """
    tested: list[Outcome] = []
    method, approximate = "", False
    for label, source in candidates:
        evidence = source if isinstance(source, Evidence) else source()
        method, approximate = evidence.method, approximate or evidence.approximate
        tested.append(judge(label, evidence, limit, confidence))
        if tested[-1].verdict is not Verdict.MET:
            break
    if not tested:
        raise ConfigError("candidates", "none to certify", "the search must offer at least one")
    return Certificate(method, approximate, confidence, limit, seed, tuple(tested))


def p_value(
    differences: Array,
    limit: float,
    confidence: float = 0.95,
    *,
    zero_one: bool | None = None,
    seed: int = 0,
) -> float:
    """Give the p-value of "the mean of ``differences`` is ``limit`` or more".

    ``differences`` (n,) is original minus compressed score per sample, in [-1, 1];
    ``zero_one`` says that scores are 0 or 1 (by default: the array is of integers).
    """
    evidence = from_differences(differences, zero_one=zero_one, seed=seed)
    return evidence.p_value(limit, confidence)


def upper_bound(
    differences: Array,
    confidence: float = 0.95,
    *,
    limit: float | None = None,
    zero_one: bool | None = None,
    seed: int = 0,
) -> float:
    """Give the one-sided upper bound on the mean of ``differences``; see ``p_value``.

    >>> import numpy as np
    >>> round(upper_bound(np.repeat([1, -1, 0], [55, 45, 9900])), 4)
    0.0027
    """
    evidence = from_differences(differences, zero_one=zero_one, seed=seed)
    return evidence.upper_bound(confidence, limit)


def interval(
    differences: Array,
    confidence: float = 0.95,
    *,
    zero_one: bool | None = None,
    seed: int = 0,
) -> Measurement:
    """Give the mean of ``differences`` with a two-sided interval; see ``p_value``."""
    evidence = from_differences(differences, zero_one=zero_one, seed=seed)
    return _interval(evidence, confidence)


def samples_needed(
    differences: Array,
    limit: float,
    confidence: float = 0.95,
    power: float = 0.8,
    *,
    zero_one: bool | None = None,
) -> int | None:
    """Say about how many samples like these certify ``limit`` with probability ``power``.

    None where the mean of ``differences`` is not below ``limit``; see ``p_value``.
    """
    evidence = from_differences(differences, zero_one=zero_one)
    return evidence.samples_needed(limit, confidence, power)


def samples_for_rates(
    lost: float, gained: float, limit: float, confidence: float = 0.95, power: float = 0.8
) -> int | None:
    """Plan a certification split from the shares of samples expected to be lost and gained.

    >>> samples_for_rates(lost=0.0, gained=0.0, limit=0.005)
    604
    """
    for name, rate in (("lost", lost), ("gained", gained), ("lost + gained", lost + gained)):
        if not 0 <= rate <= 1:
            raise ConfigError(name, f"must be a share in [0, 1], got {rate:g}")
    whole = 1_000_000
    evidence = ZeroOne(round(lost * whole), round(gained * whole), whole)
    return evidence.samples_needed(limit, confidence, power)


def _interval(evidence: Evidence, confidence: float) -> Measurement:
    """Split the error between both sides."""
    side = (1 + confidence) / 2
    low, high = evidence.lower_bound(side), evidence.upper_bound(side)
    return Measurement(evidence.drop, low, high, "", confidence)


def _finite(value: Any) -> Any:
    """Replace infinities, which JSON lacks, by None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
