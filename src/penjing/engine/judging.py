"""How much a candidate has lost against the original, on one split."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from penjing.core.measure import Measurement
from penjing.core.metric import decide
from penjing.engine import scores
from penjing.engine.evaluate import Runs, check_finite, divergence, run_all
from penjing.engine.evidence import Bounded, Evidence, Resampled, ZeroOne
from penjing.engine.expectation import Expectation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penjing.core.data import Part
    from penjing.core.metric import Metric
    from penjing.core.tensors import Array

JACKKNIFE_GROUPS = 20
NOT_A_NUMBER = 1e30
"""Stands for outputs that are NaN or infinite, where the metric reads values: far off."""


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What one candidate's outputs on a split say."""

    evidence: Evidence
    value: float
    """The metric on these samples."""
    divergence: float
    """Mean over samples; nats for class scores, relative energy otherwise."""
    variance: float
    """Variance of the drop that one sample alone would have; for right or wrong, the share
    of samples whose score is not the original's."""
    expected: float | None = None
    """Drop to expect by the original's probabilities, where there are any."""
    pooled: float | None = None
    """Drop to expect by the original's and the candidate's together."""

    @property
    def drop(self) -> float:
        """Drop on these samples, positive where the candidate is worse."""
        return self.evidence.drop

    def allowance(self, samples: int, confidence: float) -> float:
        """Tell about how far above the drop its upper bound on ``samples`` samples will be."""
        spread = NormalDist().inv_cdf(confidence) * math.sqrt(self.variance / samples)
        # Where nothing is lost in n samples, exact bounds are about -ln(1 - confidence) / n.
        unseen = 0.0 if self.evidence.approximate else -math.log(1 - confidence) / samples
        return spread + unseen

    def interval(self, confidence: float) -> Measurement:
        """Drop with its two-sided interval; only a point where that needs resampling."""
        if isinstance(self.evidence, Resampled):
            return Measurement(self.drop, self.drop, self.drop, "", confidence)
        side = (1 + confidence) / 2
        low, high = self.evidence.lower_bound(side), self.evidence.upper_bound(side)
        return Measurement(self.drop, low, high, "", confidence)


class Judge:
    """Compares candidates with the original on one split; the original runs once."""

    def __init__(self, original: Runs, part: Part, metric: Metric, seed: int) -> None:
        """Remember what to compare with.

        Raises:
            DataError: labels or outputs do not fit the metric, or outputs are not finite.
        """
        self.part, self.metric, self.seed = part, metric, seed
        self._views: tuple[Part, ...] = ()
        self._viewed: Expectation | None = None
        self.outputs = run_all(original, part)
        check_finite(self.outputs, part.dataset.source)
        metric.check(self.outputs, part.labels)

    @cached_property
    def original_scores(self) -> Array:
        """Per-sample scores of the original, (n,)."""
        return self.metric.scores(self.outputs, self.part.labels, self.outputs)

    @cached_property
    def right_or_wrong(self) -> bool:
        """Whether a score can only be 0 or 1: one decision per sample."""
        decision = decide(self.outputs)
        return (
            self.metric.bounded
            and self.metric.decomposes
            and decision is not None
            and decision.predicted.ndim == 1
        )

    @cached_property
    def expectation(self) -> Expectation | None:
        """Calibrated probabilities of the original, where it decides among classes."""
        return Expectation.of(self.outputs, self.part.labels)

    def look_at(self, original: Runs, views: Sequence[Part]) -> None:
        """Ask from now on what is pooled of other views of the same rows, too.

        Decisions that hang in the balance differ from view to view: their mean says more.
        """
        self._views = tuple(views)
        outputs = [self.outputs, *(run_all(original, view) for view in self._views)]
        assert self.part.labels is not None
        labels = np.tile(self.part.labels, len(outputs))
        self._viewed = Expectation.of(_joined(outputs), labels)

    def _pooled(self, model: Runs, outputs: Mapping[str, Array]) -> float | None:
        """Give the drop that the original and a candidate expect, on all views."""
        if self._viewed is None:
            assert self.expectation is not None
            return self.expectation.pooled_drop(outputs)
        seen = [outputs, *(run_all(model, view) for view in self._views)]
        return self._viewed.pooled_drop(_joined(seen))

    def original_value(self) -> float:
        """The metric of the original."""
        return self.metric.value(self.outputs, self.part.labels, self.outputs)

    def value(self, outputs: Mapping[str, Array]) -> float:
        """The metric of a candidate's outputs."""
        return self.metric.value(outputs, self.part.labels, self.outputs)

    def judge(self, model: Runs) -> Judgement:
        """Run a candidate and compare it sample by sample."""
        outputs = run_all(model, self.part)
        moved = divergence(self.outputs, outputs, classes=self.metric.bounded)
        if not self.metric.bounded:
            outputs = {name: _finite(array) for name, array in outputs.items()}
        expected = pooled = None
        # Agreement is no matter of labels: what is expected of it is not what accuracy loses.
        if self.right_or_wrong and self.metric.needs_labels and self.expectation is not None:
            expected = self.expectation.drop(outputs)
            pooled = self._pooled(model, outputs)
        evidence = self._evidence(outputs)
        value = self.value(outputs)
        return Judgement(
            evidence, value, float(moved.mean()), variance(evidence), expected, pooled
        )

    def _evidence(self, outputs: Mapping[str, Array]) -> Evidence:
        """Compare by the test that fits the metric."""
        if not self.metric.decomposes:
            return self._metric_drop(outputs)
        after = self.metric.scores(outputs, self.part.labels, self.outputs)
        better, before = self.metric.higher_is_better, self.original_scores
        if self.metric.bounded:
            return scores.paired(
                before,
                after,
                zero_one=self.right_or_wrong,
                higher_is_better=better,
                seed=self.seed,
            )
        return scores.mean_drop(
            before,
            after,
            higher_is_better=better,
            relative=not self.metric.absolute,
            seed=self.seed,
        )

    def _metric_drop(self, outputs: Mapping[str, Array]) -> Evidence:
        labels, metric = self.part.labels, self.metric

        def drop(rows: Array) -> float:
            chosen = None if labels is None else labels[rows]
            first = {name: array[rows] for name, array in self.outputs.items()}
            second = {name: array[rows] for name, array in outputs.items()}
            after = metric.value(second, chosen, first)
            return metric.drop(metric.value(first, chosen, first), after)

        return scores.metric_drop(drop, len(self.part), seed=self.seed)

    def measured(self, value: float, confidence: float) -> Measurement:
        """Give a value of the metric with its interval, where it has a simple one."""
        if self.right_or_wrong:
            total = len(self.part)
            return Measurement.proportion(round(value * total), total, confidence)
        return Measurement(value, value, value, "", confidence)


def _joined(outputs: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Put the outputs of several runs one after the other."""
    return {name: np.concatenate([each[name] for each in outputs]) for name in outputs[0]}


def variance(evidence: Evidence) -> float:
    """Estimate the variance of a drop on one sample; over n, it is that of a drop on n."""
    if isinstance(evidence, ZeroOne):
        return (evidence.lost + evidence.gained) / evidence.samples
    if isinstance(evidence, Bounded):
        return float((evidence.differences**2).mean())
    assert isinstance(evidence, Resampled)
    if evidence.samples == 1:
        return 0.0
    # The jackknife over groups needs a hundredth of the work of the bootstrap.
    rows = np.arange(evidence.samples)
    groups = min(JACKKNIFE_GROUPS, len(rows))
    with np.errstate(divide="ignore", invalid="ignore"):
        left = [evidence.statistic(rows[rows % groups != g][None])[0] for g in range(groups)]
    found = np.array([drop for drop in left if math.isfinite(drop)])
    if len(found) < 2:  # noqa: PLR2004  # no variance in one number
        return 0.0
    return float(len(rows) * (groups - 1) * found.var())


def _finite(array: Array) -> Array:
    if not np.issubdtype(array.dtype, np.floating) or np.isfinite(array).all():
        return array
    return np.where(np.isfinite(array), array.astype(np.float64), NOT_A_NUMBER)
