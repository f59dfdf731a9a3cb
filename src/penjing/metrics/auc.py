"""Area under the receiver operating characteristic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penjing.core.errors import DataError
from penjing.core.metric import Metric, are_probabilities, values
from penjing.metrics.support.classes import (
    check_classes,
    class_decision,
    class_labels,
    shapes,
)

if TYPE_CHECKING:
    from penjing.core.metric import Outputs
    from penjing.core.tensors import Array

__all__ = ["Auc"]

BINARY = 2
SUM_TOLERANCE = 0.01
"""Probabilities in float16 sum to 1 within this, for some hundreds of classes."""


class Auc(Metric):
    """Chance that a sample of a class scores higher than one of the others; ties count half.

    Two classes: of class 1.  More: the mean over the classes among the labels, each against
    all others.  Logits are ranked as their softmax would be.  Hanley & McNeil, Radiology
    143(1), 1982; the multi-class mean after Provost & Domingos, 2000, unweighted.
    """

    decomposes = False

    def check(self, outputs: Outputs, labels: Array | None) -> None:
        """Raise DataError where labels are no classes these outputs give scores for."""
        check_classes(outputs, labels, "auc")
        found = values(outputs)
        if found is None or found[1].ndim > BINARY:
            raise DataError(
                "metric auc",
                f"needs one score per class, (rows, classes): {shapes(outputs)}",
                "choose accuracy or f1",
            )
        name, scores = found
        width = scores.shape[1] if scores.ndim > 1 else BINARY
        truth = class_labels(labels)
        if truth.ndim > 1 or _numbers(truth, outputs, width) is None:
            raise DataError(
                "labels",
                f"hold {len(np.unique(truth))} classes, but output {name!r} has scores of "
                f"{width}: which is which cannot be told",
                "give data in which every class occurs, or choose accuracy or f1",
            )

    def scores(self, outputs: Outputs, labels: Array | None, original: Outputs) -> Array:
        """Raise: the area is not a mean over samples."""
        raise NotImplementedError

    def value(self, outputs: Outputs, labels: Array | None, original: Outputs) -> float:
        """Give the area over all samples, in [0, 1]."""
        found, before = values(outputs), values(original)
        assert found is not None
        assert before is not None
        scores = found[1] if found[1].ndim > 1 else found[1][:, None]
        width = max(scores.shape[1], BINARY)
        truth = _numbers(class_labels(labels), original, width)
        assert truth is not None
        ranked = scores if _are_chances(before[1]) else _log_odds(scores)
        if width == BINARY:
            return _area(ranked[:, -1], truth == 1)
        present = np.unique(truth)
        return float(np.mean([_area(ranked[:, each], truth == each) for each in present]))


def _numbers(truth: Array, original: Outputs, width: int) -> Array | None:
    """Number the classes as the columns of scores do; None where that cannot be told."""
    decision = class_decision(original, original)
    known = truth if decision.classes else np.concatenate([truth, decision.predicted])
    if known.dtype.kind == "i" and known.min() >= 0 and known.max() < width:
        return truth
    names = np.unique(known)
    # Classifiers with named classes order their scores as the names sort.
    return np.searchsorted(names, truth) if len(names) == width else None


def _are_chances(scores: Array) -> bool:
    """Tell probabilities, which sum to 1 over the classes, from logits."""
    if not are_probabilities(scores):
        return False
    return scores.ndim == 1 or bool((abs(scores.sum(axis=1) - 1) < SUM_TOLERANCE).all())


def _log_odds(scores: Array) -> Array:
    """Give log(p / (1 - p)) of the softmax, (n, classes), without rounding p to 0 or 1."""
    if scores.shape[1] == 1:
        return scores
    # From the largest on and in order: odds that are equal are rounded alike, and tie.
    largest = scores.max(axis=1, keepdims=True)
    scores = scores - np.where(np.isfinite(largest), largest, 0)
    odds = np.empty_like(scores)
    for each in range(scores.shape[1]):
        others = np.sort(np.delete(scores, each, axis=1), axis=1)
        with np.errstate(invalid="ignore"):  # infinite scores give NaN, ranked last below
            odds[:, each] = scores[:, each] - np.logaddexp.reduce(others, axis=1)
    return odds


def _area(scores: Array, positive: Array) -> float:
    """Give the Mann-Whitney statistic as a share of all pairs, ties counting half."""
    # A score that is no number is ranked as wrongly as can be.
    scores = np.where(np.isnan(scores), np.where(positive, -np.inf, np.inf), scores)
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[place.reshape(-1)]
    hits = int(positive.sum())
    pairs = hits * (len(positive) - hits)
    if not pairs:  # a resample of few rows: nothing to tell apart
        return 0.5
    return float((ranks[positive].sum() - hits * (hits + 1) / 2) / pairs)
