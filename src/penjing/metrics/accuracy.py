"""Share of right decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penjing.core.metric import Metric
from penjing.metrics.support.classes import check_classes, class_decision, class_labels

if TYPE_CHECKING:
    from penjing.core.metric import Outputs
    from penjing.core.tensors import Array

__all__ = ["Accuracy"]


class Accuracy(Metric):
    """Share of samples whose class is decided rightly; of positions, within a sequence."""

    def check(self, outputs: Outputs, labels: Array | None) -> None:
        """Raise DataError where labels are no classes these outputs could decide for."""
        check_classes(outputs, labels, "accuracy")

    def scores(self, outputs: Outputs, labels: Array | None, original: Outputs) -> Array:
        """Give 1 where the decision is right, 0 where it is wrong, (n,) float64."""
        right = class_decision(outputs, original).predicted == class_labels(labels)
        means: Array = right.reshape(len(right), -1).mean(axis=1, dtype=np.float64)
        return means
