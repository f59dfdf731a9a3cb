"""Labels of a classification, checked against what the model decides."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from penjing.core.errors import DataError, PenjingWarning
from penjing.core.metric import Decision, decide, is_one_hot

if TYPE_CHECKING:
    from penjing.core.metric import Outputs
    from penjing.core.tensors import Array

MOST_LISTED = 6
"""A message lists no more classes than this."""
REGRESSION = "choose rmse, mae or r2 if the model predicts values"
BESIDES = "; compress can do without labels, by the metric agreement"
FEW_ROWS = 10
"""With fewer, one class says more about how few there are."""
EXACTLY = "write labels exactly as the model does, spaces and full stops included"


def class_decision(outputs: Outputs, original: Outputs) -> Decision:
    """Give the decision of outputs for which ``check_classes`` passed."""
    found = decide(outputs, original)
    assert found is not None
    return found


def class_labels(labels: Array | None) -> Array:
    """Give labels for which ``check_classes`` passed as int64 or ``str``."""
    assert labels is not None
    return labels.astype(np.int64) if labels.dtype.kind in "iubf" else labels.astype(str)


def check_classes(outputs: Outputs, labels: Array | None, metric: str) -> None:
    """Check that labels are classes which these outputs could decide for.

    Raises:
        DataError: there are none, they do not fit, or all of them are the same class.
    """
    if labels is None:
        raise DataError(
            "labels",
            "this metric needs them, and the data have none",
            f"give labels (an array y, or --target for a table){BESIDES}",
        )
    found = decide(outputs)
    if found is None:
        raise DataError(
            f"metric {metric}",
            f"wrong for the task: the outputs decide for no class ({shapes(outputs)})",
            REGRESSION,
        )
    _check_finite(found)
    _check_shape(found, labels)
    if labels.dtype.kind == "f" and (labels != np.trunc(labels)).any():
        odd = labels[labels != np.trunc(labels)].flat[0]
        raise DataError(
            f"metric {metric}",
            f"wrong for the task: labels such as {odd:g} are values, not classes",
            REGRESSION,
        )
    names = class_labels(labels)
    if found.classes is None:
        _check_named(found, names, outputs)
    else:
        _check_numbers(found, names, found.classes)
    if (names == names.flat[0]).all():
        _refuse_one_class(names)


def _refuse_one_class(names: Array) -> None:
    rows, only = len(names), repr(names.flat[0].item())
    if rows < FEW_ROWS:
        here = "there is one" if rows == 1 else f"all {rows} are of one class, {only}"
        raise DataError("labels", f"too few rows: {here}", f"give more rows{BESIDES}")
    raise DataError(
        "labels",
        f"all {names.size} are of one class, {only}: nothing measured there says how well the "
        "model tells classes apart",
        f"give data with at least two classes{BESIDES}",
    )


def _check_finite(found: Decision) -> None:
    if found.predicted.dtype.kind != "i" or found.classes is None:
        return
    bad = np.flatnonzero((found.predicted == -1).reshape(len(found.predicted), -1).any(axis=1))
    if len(bad):
        raise DataError(
            f"output {found.output!r}",
            f"the original model gives NaN for {len(bad)} rows, first for row {bad[0]} of "
            f"{len(found.predicted)}",
            "check that the data are scaled as the model expects",
        )


def _check_shape(found: Decision, labels: Array) -> None:
    if labels.shape == found.predicted.shape:
        return
    if is_one_hot(labels):
        raise DataError(
            "labels", f"are one-hot, shape {labels.shape}", "give y.argmax(axis=1) instead"
        )
    raise DataError(
        "labels",
        f"have shape {labels.shape}, but output {found.output!r} decides for "
        f"{found.predicted.shape}",
        "give one class for each decision",
    )


def _check_numbers(found: Decision, names: Array, classes: int) -> None:
    if names.dtype.kind != "i":
        raise DataError(
            "labels",
            f"are strings ({listed(names)}), but output {found.output!r} holds scores of "
            f"{classes} classes without names",
            f"give class numbers from 0 to {classes - 1}",
        )
    low, high = int(names.min()), int(names.max())
    if low < 0 or high >= classes:
        beyond = f"the smallest is {low}" if low < 0 else f"the largest is {high}"
        hint = f"class numbers run from 0 to {classes - 1}"
        if low == 1 and high == classes:
            hint += ": subtract 1"
        elif classes == 2:  # noqa: PLR2004  # one score, so perhaps no classes at all
            hint += f"; {REGRESSION}"
        raise DataError(
            "labels", f"{beyond}, but output {found.output!r} has {classes} classes", hint
        )


def _check_named(found: Decision, names: Array, outputs: Outputs) -> None:
    known = np.unique(found.predicted)
    if (names.dtype.kind == "i") != (known.dtype.kind == "i"):
        problem = "differ in type from the classes the model gives"
    elif not np.isin(names, known).any():
        problem = "have nothing in common with the classes the model gives"
    else:
        _tell_unknown(found, np.setdiff1d(names, known), known, outputs)
        return
    raise DataError(
        "labels",
        f"{problem}: labels {listed(names)}; output {found.output!r} {listed(known)}",
        EXACTLY,
    )


def _tell_unknown(found: Decision, others: Array, known: Array, outputs: Outputs) -> None:
    """Warn of labels that are no class of the model, as far as its outputs tell.

    The classes that it decides for are some of its own; scores tell how many it has.
    """
    scores = [out for out in outputs.values() if out.dtype.kind == "f" and out.ndim > 1]
    classes = max(scores[0].shape[-1], 2) if scores else 0
    if not len(others) or len(known) + len(others) <= classes:
        return
    why = "are unknown to" if len(known) == classes else "are never the decision of"
    warnings.warn(
        f"labels {listed(others)} {why} the model, whose output {found.output!r} gives "
        f"{listed(known)}: those rows count as wrong ({EXACTLY})",
        PenjingWarning,
        stacklevel=2,
    )


def listed(names: Array) -> str:
    """List different classes, the first few of them.

    >>> listed(np.array([2, 1, 2]))
    '1, 2'
    """
    different = np.unique(names).tolist()
    more = [f"and {len(different) - MOST_LISTED} more"] if len(different) > MOST_LISTED else []
    return ", ".join([repr(name) for name in different[:MOST_LISTED]] + more)


def shapes(outputs: Outputs) -> str:
    """Describe outputs for a message."""
    return ", ".join(f"{name} {tuple(out.shape)} {out.dtype}" for name, out in outputs.items())
