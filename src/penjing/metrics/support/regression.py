"""Values a model predicts, beside the values that are true."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penjing.core.errors import DataError
from penjing.core.metric import values

if TYPE_CHECKING:
    from penjing.core.metric import Outputs
    from penjing.core.tensors import Array

CLASSIFICATION = "choose accuracy if the labels are classes"


def residuals(outputs: Outputs, labels: Array | None) -> Array:
    """Give prediction minus label, (n, values per sample); infinite where it is NaN."""
    found = values(outputs)
    assert found is not None
    assert labels is not None
    difference = found[1] - labels.astype(np.float64)
    return np.where(np.isnan(difference), np.inf, difference).reshape(len(labels), -1)


def check_values(outputs: Outputs, labels: Array | None, metric: str) -> None:
    """Check that labels are values which these outputs could predict.

    Raises:
        DataError: there are none, or they do not fit.
    """
    if labels is None:
        raise DataError(
            "labels",
            "this metric needs them, and the data have none",
            "give labels (an array y, or --target for a table); compress can do "
            "without, by the metric deviation",
        )
    if labels.dtype.kind not in "iubf":
        raise DataError(
            f"metric {metric}",
            f"wrong for the task: labels such as {labels.flat[0].item()!r} are classes",
            "choose accuracy or f1",
        )
    found = values(outputs)
    if found is None:
        raise DataError(
            f"metric {metric}",
            "wrong for the task: no output holds real numbers",
            CLASSIFICATION,
        )
    name, predicted = found
    if predicted.shape != labels.shape:
        raise DataError(
            f"metric {metric}",
            f"wrong for the task, or for these labels: output {name!r} has shape "
            f"{predicted.shape}, the labels have {labels.shape}",
            CLASSIFICATION,
        )
    bad = np.flatnonzero(~np.isfinite(predicted).reshape(len(predicted), -1).all(axis=1))
    if len(bad):
        raise DataError(
            f"output {name!r}",
            f"the original model gives NaN or infinite values for {len(bad)} rows, first for "
            f"row {bad[0]} of {len(predicted)}",
            "check that the data are scaled as the model expects",
        )
