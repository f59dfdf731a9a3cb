"""Predictions as a file: a table with one row per sample, or arrays."""

from __future__ import annotations

import csv
import io
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.core.errors import ConfigError, MissingExtraError
from penjing.core.files import write_file
from penjing.core.metric import decide

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from penjing.core.tensors import Array

PREDICTED = "predicted_class"
MOST_COLUMNS = 10_000
"""Beyond this a table serves nobody."""


def check_format(path: Path) -> None:
    """Refuse an ending nobody here can write.

    Raises:
        ConfigError: the ending is unknown.
        MissingExtraError: what writes it is not installed.
    """
    if path.suffix.lower() not in WRITERS:
        raise ConfigError(
            str(path),
            f"cannot write files that end in {path.suffix!r}",
            f"known: {', '.join(WRITERS)}",
        )
    if path.suffix.lower() == ".parquet":
        _arrow()


def write(outputs: Mapping[str, Array], path: Path) -> dict[str, Array]:
    """Write a model's outputs; give the arrays or columns that were written.

    Args:
        outputs: by name, samples on axis 0 of each.
        path: its ending says how.

    Raises:
        ConfigError: the outputs have too many values per sample for a table.
        OutputError: the file cannot be written.
    """
    kind = path.suffix.lower()
    named = {**outputs, **_decision(outputs)}
    if kind == ".npz":
        columns = {name: _storable(array) for name, array in named.items()}
    else:
        columns = _as_columns(named)
    write_file(path, WRITERS[kind](columns))
    return columns


def _decision(outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Give the class a model decides for, where it gives scores and not classes."""
    decision = decide(outputs)
    if decision is None or decision.classes is None or PREDICTED in outputs:
        return {}
    one_score = decision.classes == 2 and outputs[decision.output].shape[1:] in {(), (1,)}  # noqa: PLR2004  # yes and no
    if one_score:
        return {}  # a value as well as a score: the model does not say which
    return {PREDICTED: decision.predicted}


def _as_columns(arrays: Mapping[str, Array]) -> dict[str, Array]:
    width = sum(int(np.prod(array.shape[1:])) for array in arrays.values())
    if width > MOST_COLUMNS:
        raise ConfigError(
            "--output",
            f"the outputs have {width:,} values per row, too many for the columns of a table",
            "write arrays instead, to a file that ends in .npz",
        )
    columns: dict[str, Array] = {}
    for name, array in arrays.items():
        if array.shape[1:] in {(), (1,)}:
            columns[name] = _storable(array.reshape(-1))
            continue
        places = product(*map(range, array.shape[1:]))
        values = _storable(array).reshape(len(array), -1).T
        for place, column in zip(places, values, strict=True):
            columns["_".join([name, *map(str, place)])] = column
    return columns


def _storable(array: Array) -> Array:
    """Turn Python objects, which only text comes as, into text."""
    return array.astype(str) if array.dtype == object else array


def _csv(columns: Mapping[str, Array]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    # As text before rows are made: the shortest digits that give the same float32 again.
    writer.writerows(zip(*(array.astype(str) for array in columns.values()), strict=True))
    return text.getvalue().encode("utf-8")


def _npz(columns: Mapping[str, Array]) -> bytes:
    data = io.BytesIO()
    np.savez_compressed(data, allow_pickle=False, **columns)
    return data.getvalue()


def _parquet(columns: Mapping[str, Array]) -> bytes:
    pa, parquet = _arrow()
    data = io.BytesIO()
    parquet.write_table(pa.table(dict(columns)), data)
    return data.getvalue()


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as missing:
        raise MissingExtraError("data", "writing Parquet") from missing
    return pa, parquet


WRITERS: dict[str, Callable[[Mapping[str, Array]], bytes]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".npz": _npz,
}
