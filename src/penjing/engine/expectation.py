"""The drop of accuracy to expect, with far less noise than counting right answers.

Where a candidate decides for another class than the original, the drop to expect there is the
original's probability of its own class less that of the new one.  Its sum over samples needs no
luck with labels; they serve to calibrate the probabilities (one temperature), and to correct
the whole by the drops that were actually counted.

A candidate that was trained may be right where the original is wrong.  There both are asked:
the logarithmic opinion pool of the two, calibrated on the same labels.

References:
    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (temperatures).
    Heskes, "Selecting Weighting Factors in Logarithmic Opinion Pools", NIPS 1998.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from penjing.core.metric import decide

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penjing.core.tensors import Array

TEMPERATURES = np.exp(np.linspace(-1.5, 2.5, 81))
NEWTON_STEPS, NEWTON_GAIN = 20, 1e-9
"""Steps at most, and nats below which one more is of no use."""
RIDGE = 1e-6
"""Share of the curvature added to it: candidates may be all but the original."""
PRIOR_SPREAD = 0.35
"""How far calibrated probabilities may be off before any drop is counted, as a share."""


@dataclass(frozen=True, eq=False)
class Expectation:
    """Calibrated probabilities of the original on the search split."""

    output: str
    labels: Array
    """(n,) integers."""
    logits: Array
    """(n, classes) float64."""
    temperature: float

    @cached_property
    def shares(self) -> Array:
        """Probabilities, (n, classes) float64."""
        return np.exp(_softmax_logs(self.logits / self.temperature))

    @classmethod
    def of(cls, outputs: Mapping[str, Array], labels: Array | None) -> Expectation | None:
        """Calibrate class scores on labels; None where these are no scores of classes."""
        decision = decide(outputs)
        if decision is None or decision.classes is None or labels is None:
            return None
        scores = outputs[decision.output]
        is_number = labels.dtype.kind in "iu" and labels.ndim == 1
        if scores.ndim != 2 or scores.shape[1] < 2 or not is_number:  # noqa: PLR2004
            return None
        if labels.min() < 0 or labels.max() >= scores.shape[1]:
            return None
        logs = _logs(scores)
        rows = np.arange(len(labels))
        losses = [-_softmax_logs(logs / t)[rows, labels].mean() for t in TEMPERATURES]
        best = TEMPERATURES[int(np.argmin(losses))]
        return cls(decision.output, labels, logs, float(best))

    def drop(self, outputs: Mapping[str, Array]) -> float:
        """Give the expected drop of a candidate with these outputs; never negative."""
        rows = np.arange(len(self.shares))
        own = self.shares.argmax(axis=1)
        new = outputs[self.output].argmax(axis=1)
        return float((self.shares[rows, own] - self.shares[rows, new]).mean())

    def pooled_drop(self, outputs: Mapping[str, Array]) -> float | None:
        """Give the drop that the original and the candidate together expect.

        It may be negative; None where the candidate gives no numbers.
        """
        after = _logs(outputs[self.output])
        if not np.isfinite(after).all():
            return None
        rows = np.arange(len(self.labels))
        shares = self._pool(after)
        own, new = self.logits.argmax(axis=1), after.argmax(axis=1)
        return float((shares[rows, own] - shares[rows, new]).mean())

    def _pool(self, after: Array) -> Array:
        """Weigh the logits of both so that the labels are likeliest: Newton's method."""
        rows = np.arange(len(self.labels))
        both = np.stack([self.logits, after])
        both -= both.max(axis=2, keepdims=True)
        told = both[:, rows, self.labels]
        weights = np.array([1 / self.temperature, 0.0])
        loss = math.inf
        for _ in range(NEWTON_STEPS):
            logs = _softmax_logs(np.tensordot(weights, both, 1))
            found = -float(logs[rows, self.labels].mean())
            if not loss - found > NEWTON_GAIN:
                break
            loss, shares = found, np.exp(logs)
            means = (both * shares).sum(axis=2)
            gradient = (means - told).mean(axis=1)
            second = np.einsum("knc,lnc,nc->kl", both, both, shares) - means @ means.T
            curvature = second / len(rows)
            ridge = RIDGE * np.trace(curvature) * np.eye(2)
            weights = weights - np.linalg.solve(curvature + ridge, gradient)
        return shares


def correction(
    expected: Sequence[float], counted: Sequence[float], noise: Sequence[float]
) -> float:
    """Give the factor by which expected drops are to be multiplied.

    All candidates are judged on the same samples, so their errors go together: taken as a
    whole they say as much as one candidate.  The factor lies between what was counted and 1,
    each weighted by how well it is known.  Where chance does not explain the difference (two
    standard errors), probabilities are no guide here, and what was counted prevails.

    Args:
        expected: drops by probabilities.
        counted: drops by labels.
        noise: standard errors of the counted drops.
    """
    total = float(np.sum(expected))
    if total <= 0:
        return 1.0
    counted_factor = float(np.sum(counted)) / total
    spread = max(float(np.sum(noise)) / total, 1e-3)
    unexplained = (counted_factor - 1) ** 2 - (2 * spread) ** 2
    prior = max(PRIOR_SPREAD**2, unexplained)
    weight = prior / (prior + spread**2)
    return float(np.clip(1 + weight * (counted_factor - 1), 0.3, 10.0))


def _logs(scores: Array) -> Array:
    values = scores.astype(np.float64)
    if values.min() >= 0 and np.allclose(values.sum(axis=1), 1, atol=1e-3):
        return np.log(np.maximum(values, 1e-12))
    return values


def _softmax_logs(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
