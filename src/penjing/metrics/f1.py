"""Harmonic mean of precision and recall."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penjing.core.metric import Metric
from penjing.metrics.support.classes import check_classes, class_decision, class_labels

if TYPE_CHECKING:
    from penjing.core.metric import Outputs
    from penjing.core.tensors import Array

__all__ = ["F1"]

BINARY = 2


class F1(Metric):
    """F1 of class 1 where there are two classes, else the mean over classes (macro F1).

    Of two named classes, the one that sorts last is class 1.  Classes that are neither among
    the labels nor decided for do not count.  van Rijsbergen, Information Retrieval, 1979.
    """

    decomposes = False

    def check(self, outputs: Outputs, labels: Array | None) -> None:
        """Raise DataError where labels are no classes these outputs could decide for."""
        check_classes(outputs, labels, "f1")

    def scores(self, outputs: Outputs, labels: Array | None, original: Outputs) -> Array:
        """Raise: F1 is not a mean over samples."""
        raise NotImplementedError

    def value(self, outputs: Outputs, labels: Array | None, original: Outputs) -> float:
        """Give the F1 over all samples, in [0, 1]."""
        decision = class_decision(outputs, original)
        truth, predicted = class_labels(labels).ravel(), decision.predicted.ravel()
        before = class_decision(original, original).predicted.ravel()
        names = np.unique(np.concatenate([truth, before, predicted]))
        if decision.classes is not None:
            names = names[names >= 0]  # -1 stands for NaN
        known = len(names) if decision.classes is None else decision.classes
        if known == BINARY:
            return _f1(truth, predicted, 1 if decision.classes else names[-1])
        used = [name for name in names if (truth == name).any() or (predicted == name).any()]
        return float(np.mean([_f1(truth, predicted, name) for name in used]))


def _f1(truth: Array, predicted: Array, name: object) -> float:
    is_true, is_said = truth == name, predicted == name
    total = int(is_true.sum()) + int(is_said.sum())
    return 2 * int((is_true & is_said).sum()) / total if total else 0.0
