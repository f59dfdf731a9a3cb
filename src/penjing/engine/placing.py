"""Errors deep in the engine, told with the files and options that the user knows."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from penjing.core.data import Part
from penjing.core.errors import DataError, MissingExtraError, PenjingError
from penjing.engine.evaluate import NotFiniteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from penjing.core.data import Dataset
    from penjing.core.model import Port
    from penjing.core.tensors import Array

ROWS = 4096
"""Looked at in one go."""
INDEX = re.compile(r"looks up index (-?\d+)")


@contextmanager
def placing(
    model: str, ports: Sequence[Port], datasets: Sequence[Dataset], metric: str
) -> Iterator[None]:
    """Complete the place of an error: which file, which array or column, which row.

    Args:
        model: how the user calls it.
        ports: inputs of the model.
        datasets: whose rows it runs on.
        metric: as it was asked for.
    """
    try:
        yield
    except MissingExtraError:
        raise
    except NotFiniteError as error:
        missing = _first_row(ports, datasets, "f", np.isnan)
        if not missing:
            raise DataError(error.where, error.problem, error.hint) from error
        raise DataError(
            missing,
            f"{error.problem}: there, values are missing, and it does not fill them in",
            "fill them in or leave those rows out: --allow-missing is for models that do it",
        ) from error
    except PenjingError as error:
        where = _place(error, model, ports, datasets)
        if metric == "auto" and where.startswith("metric "):
            where = f"the {where}, chosen automatically"
        if where == error.where:
            raise
        raise type(error)(where, error.problem, error.hint) from error


def _place(
    error: PenjingError, model: str, ports: Sequence[Port], datasets: Sequence[Dataset]
) -> str:
    where = error.where
    if where == "model":
        return model
    if where.startswith(("weight ", "output ")):
        return f"{model}, {where}"
    if where == "labels":
        return " or ".join(
            dict.fromkeys(
                data.labels_where if data.labels is not None else data.source
                for data in datasets
            )
        )
    if where != "inputs":
        return where
    if found := INDEX.search(error.problem):
        index = int(found[1])
        row = _first_row(ports, datasets, "iu", lambda array: array == index)
        if row:
            return row
    return " or ".join(dict.fromkeys(data.source for data in datasets))


def _first_row(
    ports: Sequence[Port],
    datasets: Sequence[Dataset],
    kinds: str,
    odd: Callable[[Array], Array],
) -> str:
    """Name the first row with such a value in an input of these kinds; empty if none has it."""
    for data in datasets:
        part, start = Part(data, np.arange(len(data), dtype=np.int64)), 0
        for batch in part.batches(ROWS):
            for port in ports:
                array = batch.inputs[port.name]
                if port.batch_axis is None or array.dtype.kind not in kinds:
                    continue
                rows = np.moveaxis(odd(array), port.batch_axis, 0).reshape(batch.rows, -1)
                if rows.any():
                    row = start + int(np.flatnonzero(rows.any(axis=1))[0])
                    return f"{data.source}, input {port.name!r}, row {row} (counting from 0)"
            start += batch.rows
    return ""
