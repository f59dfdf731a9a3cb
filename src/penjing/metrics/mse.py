"""Mean squared error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penjing.core.metric import Metric
from penjing.metrics.support.regression import check_values, residuals

if TYPE_CHECKING:
    from penjing.core.metric import Outputs
    from penjing.core.tensors import Array

__all__ = ["Mse"]


class Mse(Metric):
    """Mean squared difference between prediction and label, in the label's unit squared."""

    higher_is_better = False
    bounded = False

    def check(self, outputs: Outputs, labels: Array | None) -> None:
        """Raise DataError where labels are no values these outputs could predict."""
        check_values(outputs, labels, "mse")

    def scores(self, outputs: Outputs, labels: Array | None, original: Outputs) -> Array:  # noqa: ARG002  # unused here
        """Give each sample's squared error, averaged over its values, (n,) float64."""
        squared: Array = (residuals(outputs, labels) ** 2).mean(axis=1)
        return squared
