"""Arrays already in memory: an array or tensor, a pair, a dict, a pandas DataFrame."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from penjing.core.errors import DataError
from penjing.readers.support.dataset import assemble
from penjing.readers.support.fit import fit
from penjing.readers.support.labels import as_labels
from penjing.readers.support.names import listed, name_arrays, name_columns
from penjing.readers.support.ports import as_port, beside, name_features, name_inputs
from penjing.readers.support.stores import ArrayStore, as_array, is_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penjing.core.data import Dataset
    from penjing.core.model import Port
    from penjing.core.tensors import Array
    from penjing.readers.support.fit import Feed

__all__ = ["Memory"]

PAIR = 2
"""Inputs and labels."""
CALLED = "data in memory"


class Memory:
    """Reads what a program holds.

    * an array, or a tensor of PyTorch: the one input of the model
    * a dict of arrays named as the model's inputs, or ``x`` when there is one; labels ``y``
    * a pandas DataFrame, with the same rules as for CSV files
    * a pair: any of these as the inputs, or a tuple of arrays in the order of the inputs, and
      an array of labels or None
    """

    suffixes: ClassVar[tuple[str, ...]] = ()

    def recognises(self, source: object) -> bool:
        """Tell whether ``source`` is an array, a dict, a DataFrame or a pair beginning so."""
        if isinstance(source, tuple):
            inputs = source[0] if source and isinstance(source[0], tuple) else source[:1]
            return len(source) == PAIR and not any(isinstance(i, tuple | str) for i in inputs)
        return (
            isinstance(source, (Mapping, np.ndarray)) or _is_frame(source) or is_tensor(source)
        )

    def open(
        self,
        source: object,
        inputs: Sequence[Port],
        target: str | None,
        *,
        allow_missing: bool = False,
    ) -> Dataset:
        """Open the arrays for a model with these inputs; ``target`` names the labels.

        Raises:
            DataError: they do not fit the model.
        """
        given: Any = None
        is_pair = isinstance(source, tuple)
        if isinstance(source, tuple):
            source, given = source
            if target is not None and given is not None:
                raise DataError(CALLED, f"has labels beside the inputs and {target!r} in them")
        if isinstance(source, tuple):
            source = _by_name(source, inputs)
        if _is_frame(source):
            feeds, found = _from_frame(source, inputs, target, allow_missing=allow_missing)
        else:
            feeds, found = _from_arrays(source, inputs, target, allow_missing=allow_missing)
        if is_pair and target is None:
            found = None if given is None else as_array("the labels", given)
        where = "the labels"
        if not is_pair:
            kind = "column" if _is_frame(source) else "array"
            where = f"{CALLED}, {kind} {target or 'y'!r}"
        labels = None if found is None else as_labels(where, found)
        return assemble(CALLED, feeds, labels, where)

    def describe(self, source: object, target: str | None) -> tuple[Port, ...]:
        """Tell what arrays there are beside the labels, as inputs of a model to be made.

        Raises:
            DataError: there are no inputs, or no such labels.
        """
        given = _unpaired(source)
        if _is_frame(given):
            return (name_features(CALLED, _columns(given), target),)
        arrays = _named(given)
        ports = []
        for name in name_inputs(CALLED, arrays, target):
            where = f"array {name!r}"
            array = as_array(where, arrays[name])
            ports.append(as_port(where, name, array.shape, array.dtype))
        return tuple(ports)

    def first_rows(
        self, source: object, target: str | None, rows: int
    ) -> dict[str, Array] | tuple[Array, ...]:
        """Give the first rows of the inputs; single numbers are none.

        Raises:
            DataError: they are no arrays, or there are no such labels.
        """
        given: Any = _unpaired(source)
        if _is_frame(given):
            (port,) = self.describe(given, target)
            return (np.zeros((rows, port.shape[-1] or 0), np.float32),)
        arrays = _named(given)
        found = {
            name: as_array(f"array {name!r}", arrays[name])[:rows]
            for name in beside(CALLED, arrays, target)
            if np.ndim(arrays[name])
        }
        return found if isinstance(given, Mapping) else tuple(found.values())


def _unpaired(source: object) -> object:
    """Leave the labels of a pair out."""
    return source[0] if isinstance(source, tuple) else source


def _named(given: object) -> Mapping[str, Any]:
    """Give arrays names, where they have none: ``x``, numbered where there are several."""
    if isinstance(given, Mapping):
        return {str(name): array for name, array in given.items()}
    if isinstance(given, tuple) and len(given) > 1:
        return {f"x_{place}": array for place, array in enumerate(given)}
    return {"x": given[0] if isinstance(given, tuple) else given}


def _columns(frame: Any) -> list[str]:
    return [str(name) for name in frame.columns]


def _by_name(arrays: tuple[object, ...], inputs: Sequence[Port]) -> dict[str, object]:
    """Give arrays the names of the inputs, in order."""
    if len(arrays) != len(inputs):
        raise DataError(
            CALLED,
            f"has {len(arrays)} arrays of inputs, the model has {len(inputs)}: "
            f"{listed([port.name for port in inputs])}",
            "give a dict of arrays by the names of the inputs",
        )
    return {port.name: array for port, array in zip(inputs, arrays, strict=True)}


def _from_arrays(
    source: object, inputs: Sequence[Port], target: str | None, *, allow_missing: bool
) -> tuple[list[Feed], Array | None]:
    arrays = _named(source)
    chosen, label_name = name_arrays(CALLED, arrays, inputs, target)
    feeds = []
    for port in inputs:
        where = f"array {chosen[port.name]!r}"
        store = ArrayStore(as_array(where, arrays[chosen[port.name]]))
        feeds.append(fit(port, store, where, allow_missing=allow_missing))
    if label_name is None:
        return feeds, None
    return feeds, as_array(f"array {label_name!r}", arrays[label_name])


def _is_frame(source: object) -> bool:
    pandas: Any = sys.modules.get("pandas")
    return pandas is not None and isinstance(source, pandas.DataFrame)


def _from_frame(
    frame: Any, inputs: Sequence[Port], target: str | None, *, allow_missing: bool
) -> tuple[list[Feed], Array | None]:
    names = {str(name): frame[name] for name in frame.columns}
    known = _columns(frame)
    feeds = []
    for port, columns in name_columns(CALLED, known, inputs, target):
        parts = [_column(name, names[name], text=port.dtype == "str") for name in columns]
        array = np.stack(parts, axis=1) if len(port.shape) > 1 else parts[0]
        feeds.append(fit(port, ArrayStore(array), CALLED, columns, allow_missing=allow_missing))
    if target is None:
        return feeds, None
    series = names[target]
    return feeds, _column(target, series, text=not _is_numeric(series))


def _is_numeric(series: Any) -> bool:
    pandas: Any = sys.modules["pandas"]
    return bool(pandas.api.types.is_numeric_dtype(series.dtype))


def _column(name: str, series: Any, *, text: bool) -> Array:
    """Give a column as numbers, NaN where one is missing, or as strings, '' where missing."""
    where = f"column {name!r}"
    if text:
        cells = series.astype(object).where(series.notna(), "").to_numpy()
        return as_array(where, cells)
    if not _is_numeric(series):
        raise DataError(where, f"holds {series.dtype}, but the model takes numbers there")
    if series.isna().any():
        return as_array(where, series.to_numpy(dtype=np.float64, na_value=np.nan))
    plain: Array = series.to_numpy()
    return plain if plain.dtype.kind != "O" else plain.astype(np.float64)
