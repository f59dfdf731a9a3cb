"""Mean absolute error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penjing.core.metric import Metric
from penjing.metrics.support.regression import check_values, residuals

if TYPE_CHECKING:
    from penjing.core.metric import Outputs
    from penjing.core.tensors import Array

__all__ = ["Mae"]


class Mae(Metric):
    """Mean absolute difference between prediction and label, in the label's unit."""

    higher_is_better = False
    bounded = False

    def check(self, outputs: Outputs, labels: Array | None) -> None:
        """Raise DataError where labels are no values these outputs could predict."""
        check_values(outputs, labels, "mae")

    def scores(self, outputs: Outputs, labels: Array | None, original: Outputs) -> Array:  # noqa: ARG002  # unused here
        """Give each sample's absolute error, averaged over its values, (n,) float64."""
        absolute: Array = np.abs(residuals(outputs, labels)).mean(axis=1)
        return absolute
