"""The drop of accuracy to expect, with far less noise than counting right answers.

Where a candidate decides for another class than the original, the drop to expect there is the
original's probability of its own class less that of the new one.  Its sum over samples needs no
luck with labels; they serve to calibrate the probabilities (one temperature), and to correct
the whole by the drops that were actually counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from penjing.core.metric import decide

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penjing.core.tensors import Array

TEMPERATURES = np.exp(np.linspace(-1.5, 2.5, 81))
PRIOR_SPREAD = 0.35
"""How far calibrated probabilities may be off before any drop is counted, as a share."""


@dataclass(frozen=True, slots=True, eq=False)
class Expectation:
    """Calibrated probabilities of the original on the search split."""

    output: str
    shares: Array
    """(n, classes) float64."""

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
        return cls(decision.output, np.exp(_softmax_logs(logs / best)))

    def drop(self, outputs: Mapping[str, Array]) -> float:
        """Give the expected drop of a candidate with these outputs; never negative."""
        rows = np.arange(len(self.shares))
        own = self.shares.argmax(axis=1)
        new = outputs[self.output].argmax(axis=1)
        return float((self.shares[rows, own] - self.shares[rows, new]).mean())


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
