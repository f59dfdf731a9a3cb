"""Batches: DataLoaders and Datasets of PyTorch, and anything else that gives batches."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from penjing.core.errors import DataError
from penjing.core.registry import READERS
from penjing.readers.support.stores import as_array, is_tensor

if TYPE_CHECKING:
    from penjing.core.data import Dataset
    from penjing.core.example import Example
    from penjing.core.model import Port
    from penjing.core.tensors import Array

    Batch = dict[str | int, Array]
    """Inputs by name or position, and labels at ``LABELS``."""

__all__ = ["Loader"]

CALLED = "batches"
LABELS = -1
SEED = 0
PAIR = 2


class Loader:
    """Reads batches, once, into memory.

    * a DataLoader of PyTorch: its own batches in its own order, shuffled and augmented as it
      says, but with all random numbers seeded: the same call gives the same rows
    * a Dataset of PyTorch: its items one by one
    * any other iterable of batches: a generator, a list, a data set of another framework

    A batch is the inputs alone, ``(inputs, labels)``, or ``(first, second, ..., labels)``;
    inputs are an array or tensor, a tuple of them in the order of the model, or a dict of them
    by the names of the model's inputs, in which labels may stand as ``y`` or what ``target``
    says.  Rows stand on the first axis.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()

    def recognises(self, source: object) -> bool:
        """Tell whether ``source`` gives batches, and is nothing that other readers take."""
        if _is_of("DataLoader", source) or _is_of("Dataset", source):
            return True
        if isinstance(source, list):
            return bool(source) and all(_is_batch(item) for item in source)
        known = (str, bytes, bytearray, Mapping, tuple, set, frozenset, range, np.ndarray)
        if isinstance(source, (*known, np.generic)) or is_tensor(source):
            return False
        is_table = type(source).__module__.split(".")[0] in {"pandas", "pyarrow", "polars"}
        return isinstance(source, Iterable) and not is_table

    def open(
        self,
        source: object,
        inputs: Sequence[Port],
        target: str | None,
        *,
        allow_missing: bool = False,
    ) -> Dataset:
        """Read all batches for a model with these inputs; ``target`` names the labels.

        Raises:
            DataError: batches differ in structure, or do not fit the model.
        """
        opened: Dataset = READERS.load("memory")().open(
            self.gather(source), inputs, target, allow_missing=allow_missing
        )
        return opened

    def describe(self, source: object, target: str | None) -> tuple[Port, ...]:
        """Read all batches, and tell what arrays they hold beside the labels.

        Raises:
            DataError: batches differ in structure, or have no such labels.
        """
        ports: tuple[Port, ...] = READERS.load("memory")().describe(self.gather(source), target)
        return ports

    def first_rows(self, source: object, target: str | None, rows: int) -> Example:
        """Read all batches, and give the first rows of their inputs.

        Raises:
            DataError: batches differ in structure, or have no such labels.
        """
        found: Example = READERS.load("memory")().first_rows(self.gather(source), target, rows)
        return found

    def gather(self, source: object) -> object:
        """Read all batches into arrays, in a form that is read from memory.

        Raises:
            DataError: batches differ in structure, or there are none.
        """
        parts: dict[str | int, list[Array]] = {}
        with _seeded(source):
            for index, item in enumerate(_items(source)):
                batch = _batch(item, index)
                if not parts:
                    parts = {key: [] for key in batch}
                _check_alike(batch, parts, index)
                for key, array in batch.items():
                    parts[key].append(array)
        if not parts:
            raise DataError(CALLED, "holds none", "was a generator used before?")
        arrays = {key: np.concatenate(pieces) for key, pieces in parts.items()}
        labels = arrays.pop(LABELS, None)
        if any(isinstance(key, str) for key in arrays):
            return arrays if labels is None else (arrays, labels)
        inputs = tuple(arrays.values())
        return (inputs[0] if len(inputs) == 1 else inputs, labels)


def _is_of(name: str, source: object) -> bool:
    data: Any = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(source, getattr(data, name))


def _is_batch(item: object) -> bool:
    if isinstance(item, (tuple, list)):
        return any(_is_batch(part) for part in item)
    return isinstance(item, (Mapping, np.ndarray)) or is_tensor(item)


def _items(source: Any) -> Iterator[object]:
    """Give batches; the items of a Dataset become batches of one."""
    if not _is_of("Dataset", source):
        yield from source
    elif hasattr(source, "__len__"):
        for index in range(len(source)):
            yield _widened(source[index])
    else:
        for item in source:
            yield _widened(item)


def _widened(item: Any) -> Any:
    """Make a batch of one row."""
    if isinstance(item, Mapping):
        return {name: _widened(value) for name, value in item.items()}
    if isinstance(item, (tuple, list)):
        return tuple(_widened(value) for value in item)
    return as_array("an item of the data set", item)[np.newaxis]


def _batch(item: object, index: int) -> Batch:
    """Take a batch apart."""
    where = f"batch {index} (counting from 0)"
    labels: object = None
    if isinstance(item, (tuple, list)):
        if not item:
            raise DataError(where, "is empty", "a batch is (inputs, labels) or inputs alone")
        *given, labels = item if len(item) > 1 else (*item, None)
        item = given[0] if len(given) == 1 else tuple(given)
    made: Batch = {}
    if isinstance(item, Mapping):
        made = {str(name): _array(where, value) for name, value in item.items()}
    else:
        several = item if isinstance(item, (tuple, list)) else (item,)
        made = {place: _array(where, value) for place, value in enumerate(several)}
    if labels is not None:
        made[LABELS] = _array(where, labels)
    rows = {len(array) for array in made.values()}
    if len(rows) > 1:
        raise DataError(
            where,
            f"holds arrays of {', '.join(map(str, sorted(rows)))} rows",
            "rows must stand on the first axis of each array",
        )
    return made


def _array(where: str, value: object) -> Array:
    if isinstance(value, (tuple, Mapping)):
        raise DataError(
            where,
            f"has a {type(value).__name__} inside its inputs or labels",
            "a batch is (inputs, labels); inputs are an array, a tuple or a dict of arrays",
        )
    array = as_array(where, value)
    if not array.ndim:
        raise DataError(
            where,
            f"holds {value!r}, which is no array of rows",
            "give batches, such as those of torch.utils.data.DataLoader",
        )
    # The next batch may be written into the same memory.
    return array.copy()


def _check_alike(batch: Batch, parts: Mapping[str | int, list[Array]], index: int) -> None:
    where = f"batch {index} (counting from 0)"
    if set(batch) != set(parts):
        raise DataError(
            where,
            f"holds {_said(batch)}, the first one {_said(parts)}",
            "all batches must have the same structure",
        )
    for key, array in batch.items():
        before = parts[key][0] if parts[key] else array
        if array.shape[1:] != before.shape[1:]:
            raise DataError(
                where,
                f"has shape {array.shape} where the first one has {before.shape}",
                "all rows must have the same sizes: pad or crop them alike",
            )
        if array.dtype.kind != before.dtype.kind:
            raise DataError(
                where, f"holds {array.dtype} where the first one holds {before.dtype}"
            )


def _said(keys: Iterable[str | int]) -> str:
    """Name the parts of a batch."""
    names = sorted(repr(key) for key in keys if isinstance(key, str))
    count = len([key for key in keys if isinstance(key, int) and key != LABELS])
    said = [*names, *([f"{count} arrays of inputs"] if count else [])]
    return " and ".join([", ".join(said), *(["labels"] if LABELS in keys else [])])


@contextmanager
def _seeded(source: Any) -> Iterator[None]:
    """Let everything draw the same random numbers each time, and then as before."""
    torch: Any = sys.modules.get("torch")
    plain, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    states = []
    generators = [getattr(source, "generator", None)]
    generators.append(getattr(getattr(source, "sampler", None), "generator", None))
    if torch is not None:
        generators.append(torch.default_generator)
    try:
        for generator in {id(each): each for each in generators if each is not None}.values():
            states.append((generator, generator.get_state()))
            generator.manual_seed(SEED)
        random.seed(SEED)
        np.random.seed(SEED)  # noqa: NPY002
        yield
    finally:
        random.setstate(plain)
        np.random.set_state(numbers)  # noqa: NPY002
        for generator, state in states:
            generator.set_state(state)
