"""Root of the mean squared error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penjing.core.metric import Metric
from penjing.metrics.support.regression import check_values, residuals

if TYPE_CHECKING:
    from penjing.core.metric import Outputs
    from penjing.core.tensors import Array

__all__ = ["Rmse"]


class Rmse(Metric):
    """Root of the mean squared difference between prediction and label, in the label's unit."""

    higher_is_better = False
    bounded = False
    decomposes = False

    def check(self, outputs: Outputs, labels: Array | None) -> None:
        """Raise DataError where labels are no values these outputs could predict."""
        check_values(outputs, labels, "rmse")

    def scores(self, outputs: Outputs, labels: Array | None, original: Outputs) -> Array:
        """Raise: a root of a mean is not a mean over samples."""
        raise NotImplementedError

    def value(self, outputs: Outputs, labels: Array | None, original: Outputs) -> float:  # noqa: ARG002  # unused here
        """Give the error over all samples."""
        return float(np.sqrt((residuals(outputs, labels) ** 2).mean()))
