"""Coefficient of determination."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penjing.core.errors import DataError
from penjing.core.metric import Metric
from penjing.metrics.support.regression import check_values, residuals

if TYPE_CHECKING:
    from penjing.core.metric import Outputs
    from penjing.core.tensors import Array

__all__ = ["R2"]


class R2(Metric):
    """Share of the labels' variance that is explained: 1 is perfect, 0 is the mean's.

    With several values per sample, the mean over those whose labels vary.
    """

    bounded = False
    decomposes = False

    def check(self, outputs: Outputs, labels: Array | None) -> None:
        """Raise DataError where labels are constant or do not fit the outputs."""
        check_values(outputs, labels, "r2")
        assert labels is not None
        if not _spread(labels).any():
            raise DataError(
                "labels",
                f"all {len(labels)} are {labels.flat[0].item()!r}: no variance to explain",
                "give data whose labels differ, or choose rmse",
            )

    def scores(self, outputs: Outputs, labels: Array | None, original: Outputs) -> Array:
        """Raise: explained variance is not a mean over samples."""
        raise NotImplementedError

    def value(self, outputs: Outputs, labels: Array | None, original: Outputs) -> float:  # noqa: ARG002  # unused here
        """Give the share over all samples; at most 1."""
        assert labels is not None
        spread = _spread(labels)
        unexplained = (residuals(outputs, labels) ** 2).sum(axis=0)
        varies = spread > 0
        if not varies.any():  # a resample of few rows
            return 0.0
        return float(np.mean(1 - unexplained[varies] / spread[varies]))


def _spread(labels: Array) -> Array:
    """Sum the squares about the mean, value by value."""
    table = labels.astype(np.float64).reshape(len(labels), -1)
    # The mean of equal numbers is rounded: their spread would come out above zero.
    sums: Array = ((table - table.mean(axis=0)) ** 2).sum(axis=0)
    return np.where((table == table[0]).all(axis=0), 0.0, sums)
