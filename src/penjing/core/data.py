"""Data as the engine sees it: rows that can be read in pieces."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import numpy as np

from penjing.core.errors import DataError
from penjing.core.registry import READERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from penjing.core.example import Example
    from penjing.core.model import Port
    from penjing.core.tensors import Array


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some rows: the model's inputs, and the labels where they are known."""

    inputs: Mapping[str, Array]
    labels: Array | None
    rows: int

    def without_labels(self) -> Batch:
        """Give the inputs alone."""
        return Batch(self.inputs, None, self.rows)


class Dataset(Protocol):
    """Rows of inputs that fit one model, read in pieces; memory stays bounded."""

    @property
    def source(self) -> str:
        """Where the rows come from, as the user named it."""

    @property
    def labels(self) -> Array | None:
        """Labels with the rows on axis 0, or None.

        Their type says the task: int64 class numbers, float64 values, or strings (``str``).
        """

    @property
    def labels_where(self) -> str:
        """How messages call the labels: with their file, and their array or column."""

    @property
    def digest(self) -> str:
        """SHA-256 of the rows as the model sees them and of the labels, hexadecimal.

        The same content gives the same digest whatever file or array it comes from.
        """

    def __len__(self) -> int:
        """Count the rows."""

    def take(self, rows: Array) -> Batch:
        """Read these rows (ascending, int64), inputs laid out and typed as the model asks."""


@dataclass(frozen=True, slots=True, eq=False)
class Wrapped:
    """The rows of another data set; subclasses say what its labels are, and how it is read."""

    inner: Dataset

    @property
    def source(self) -> str:
        """Where the rows come from."""
        return self.inner.source

    @property
    def labels_where(self) -> str:
        """How messages call the labels."""
        return self.inner.labels_where

    @property
    def digest(self) -> str:
        """Digest of the rows as they were, and of their labels."""
        return self.inner.digest

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.inner)


class Reader(Protocol):
    """Opens one kind of source.  One file in readers/ each."""

    suffixes: ClassVar[tuple[str, ...]]
    """Endings of the files it opens, for messages; empty for what is not a file."""

    def recognises(self, source: object) -> bool:
        """Tell by looking whether this reader is for ``source``: a path, or arrays."""

    def open(
        self,
        source: object,
        inputs: Sequence[Port],
        target: str | None,
        *,
        allow_missing: bool = False,
    ) -> Dataset:
        """Open it for a model with these inputs.

        Args:
            source: a path, or arrays in memory.
            inputs: of the model; the rows are checked against them and laid out for them.
            target: name of the label column or array; None for the reader's own custom.
            allow_missing: let NaN through in float inputs, for models that fill them in.

        Raises:
            DataError: the source cannot be read, or does not fit the model.
        """

    def describe(self, source: object, target: str | None) -> tuple[Port, ...]:
        """Tell what the source holds beside the labels: inputs for a model to be made.

        Types and shapes are those of what is there; opening it for inputs of these names with
        narrower or wider types works as for any model.

        Raises:
            DataError: the source cannot be read, or has no such labels.
        """

    def first_rows(self, source: object, target: str | None, rows: int) -> Example:
        """Give the first rows of all that may be an input, before a model's inputs are known.

        By name where the source has names; ``y`` is among them unless ``target`` says so,
        since a model may call an input so.  A table gives zeros, as many as it has features.

        Raises:
            DataError: the source cannot be read, or has no such labels.
        """


@runtime_checkable
class Gathers(Protocol):
    """A capability of a reader: it reads what may give its rows only once."""

    def gather(self, source: object) -> object:
        """Read everything into a form that another reader takes.

        Raises:
            DataError: it cannot be read.
        """


def open_data(
    source: object,
    inputs: Sequence[Port],
    target: str | None = None,
    *,
    allow_missing: bool = False,
) -> Dataset:
    """Open a source with the reader that recognises it; see ``Reader.open``.

    Raises:
        DataError: no reader recognises it, it cannot be read, or it does not fit the model.
    """
    reader = _reader_of(source)
    return reader.open(source, inputs, target, allow_missing=allow_missing)


def describe_data(source: object, target: str | None = None) -> tuple[Port, ...]:
    """Tell what a source holds beside the labels; see ``Reader.describe``.

    Raises:
        DataError: no reader recognises it, or it cannot be read.
    """
    return _reader_of(source).describe(source, target)


def first_rows(source: object, target: str | None = None, rows: int = 2) -> Example:
    """Give a few rows of a source as an example; see ``Reader.first_rows``.

    Raises:
        DataError: no reader recognises it, or it cannot be read.
    """
    return _reader_of(source).first_rows(source, target, rows)


def gathered(source: object) -> object:
    """Read what may give its rows only once into memory; give all else as it is.

    Raises:
        DataError: no reader recognises it, or it cannot be read.
    """
    reader = _reader_of(source)
    return reader.gather(source) if isinstance(reader, Gathers) else source


def _reader_of(source: object) -> Reader:
    """Find the reader that recognises a source."""
    readers: list[Reader] = [READERS.load(name)() for name in READERS.names()]
    for reader in readers:
        if reader.recognises(source):
            return reader
    known = ", ".join(sorted(suffix for reader in readers for suffix in reader.suffixes))
    if not isinstance(source, (str, PathLike)):
        raise DataError(
            f"data of type {type(source).__name__}",
            "cannot be read",
            f"give a file ({known}), an array, a pair (inputs, labels), a dict of arrays, or "
            "batches of them",
        )
    problem = "is no kind of data file known here" if Path(source).exists() else "no such file"
    raise DataError(str(fspath(source)), problem, f"data files end in {known}")


def batches(dataset: Dataset, rows: Array, size: int) -> Iterator[Batch]:
    """Read ``rows`` in order, at most ``size`` at a time."""
    for start in range(0, len(rows), size):
        yield dataset.take(rows[start : start + size])


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Rows of a data set that serve one purpose."""

    dataset: Dataset
    rows: Array

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.rows)

    @property
    def labels(self) -> Array | None:
        """Labels of these rows."""
        known = self.dataset.labels
        return None if known is None else known[self.rows]

    def batches(self, size: int) -> Iterator[Batch]:
        """Read in pieces."""
        return batches(self.dataset, self.rows, size)


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """Calibration steers, search picks, certification proves; no row is shared."""

    calibration: Part
    search: Part
    certification: Part

    def describe(self) -> str:
        """Say in one line how many rows serve what."""
        return (
            f"{len(self.calibration)} rows calibrate, {len(self.search)} search, "
            f"{len(self.certification)} certify"
        )


CALIBRATION_SHARE = 0.2
MOST_CALIBRATION = 1024
SEARCH_SHARE = 0.4
"""Of what is not calibration; the rest certifies."""


def split(
    data: Dataset,
    calibration: Dataset | None,
    test: Dataset | None,
    seed: int,
    *,
    train: Dataset | None = None,
) -> Splits:
    """Divide rows at random, with a seed; sets given for a purpose override it.

    Args:
        data: what the search may use; divided further unless the other two are given.
        calibration: unlabelled rows for calibration, if given.
        test: rows for certification, if given.
        seed: of the shuffle.
        train: rows to train on, if given: they serve nothing else.

    Raises:
        DataError: there are too few rows to divide, or two of the sets are the same rows.
    """
    _check_distinct(data, calibration, test, train)
    parts = 1 + (calibration is None) + (test is None)
    if len(data) < parts:
        count = "1 row" if len(data) == 1 else f"{len(data)} rows"
        raise DataError(
            data.source,
            f"has {count}, too few to divide into {parts} parts",
            "give more rows, or separate files with --calibration and --test",
        )
    order = np.random.default_rng([seed, 0x5B117]).permutation(len(data)).astype(np.int64)
    first = 0
    if calibration is None:
        first = min(MOST_CALIBRATION, max(1, round(CALIBRATION_SHARE * len(data))))
    rest = order[first:]
    second = len(rest)
    if test is None:
        second = min(len(rest) - 1, max(1, round(SEARCH_SHARE * len(rest))))
    return Splits(
        Part(data, np.sort(order[:first])) if calibration is None else _all_of(calibration),
        Part(data, np.sort(rest[:second])),
        Part(data, np.sort(rest[second:])) if test is None else _all_of(test),
    )


def _check_distinct(*given: Dataset | None) -> None:
    """Refuse one set for two purposes: what is measured there would mean nothing."""
    purposes = ("data", "calibration", "test", "train")
    first: dict[str, str] = {}
    for purpose, dataset in zip(purposes, given, strict=True):
        if dataset is None:
            continue
        other = first.setdefault(dataset.digest, purpose)
        if other != purpose:
            raise DataError(
                dataset.source,
                f"holds the same rows for --{other} and for --{purpose}",
                "train on other rows: those of --data are to judge by"
                if purpose == "train"
                else f"leave out --{purpose}: the rows of --data are divided then",
            )


def _all_of(dataset: Dataset) -> Part:
    return Part(dataset, np.arange(len(dataset), dtype=np.int64))
