"""Labels in one of three forms: class numbers, values, strings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penjing.core.errors import DataError

if TYPE_CHECKING:
    from penjing.core.tensors import Array


def as_labels(where: str, array: Array) -> Array:
    """Give labels as int64, float64 or ``str``; a column (rows, 1) becomes (rows,).

    Raises:
        DataError: there is no axis of rows, a label is missing or NaN, or does not fit int64.
    """
    if array.ndim == 0:
        raise DataError(where, "holds one value, not one label per row")
    if array.ndim > 1 and array.shape[1:] == (1,) * (array.ndim - 1):
        array = array.reshape(-1)
    if array.dtype.kind in "OUS":
        return _strings(where, array)
    if array.dtype.kind == "f":
        values = array.astype(np.float64)
        _refuse(where, ~np.isfinite(values), "a label that is missing, NaN or infinite")
        return values
    if array.dtype == np.uint64:
        _refuse(where, array > np.iinfo(np.int64).max, "a class number too large for int64")
    return array.astype(np.int64)


def parse_labels(where: str, texts: Array) -> Array:
    """Read labels written as text: as whole numbers if all are, else as numbers, else strings.

    Raises:
        DataError: a label is missing.
    """
    strings = _strings(where, texts)
    for kind in (np.int64, np.float64):
        try:
            return as_labels(where, strings.astype(kind))
        except (ValueError, OverflowError) as error:
            if isinstance(error, DataError):
                raise
    return strings


def _strings(where: str, array: Array) -> Array:
    texts = np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array.astype(str)
    _refuse(where, texts == "", "an empty label")
    return texts


def _refuse(where: str, bad: Array, what: str) -> None:
    faults = np.argwhere(bad)
    if len(faults):
        raise DataError(
            where,
            f"holds {what} in {len(faults)} places, first in row {faults[0][0]} "
            "(counting from 0)",
            "fill the labels in or leave those rows out",
        )
