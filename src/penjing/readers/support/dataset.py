"""The data set all readers give: arrays, each feeding one input of the model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from penjing.core.data import Batch
from penjing.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penjing.core.tensors import Array
    from penjing.readers.support.fit import Feed


@dataclass(frozen=True, eq=False)
class ArrayData:
    """Rows of arrays that fit one model, with their labels."""

    source: str
    """Where the rows come from, as the user named it."""
    feeds: tuple[Feed, ...]
    """One for each input of the model, in the order of the model."""
    rows: int
    labels: Array | None
    """Labels with the rows on axis 0, or None."""
    labels_where: str = "the labels"
    """How messages call the labels."""

    def __len__(self) -> int:
        """Count the rows."""
        return self.rows

    def take(self, rows: Array) -> Batch:
        """Read these rows, inputs laid out and typed as the model asks."""
        return Batch(
            {feed.port.name: feed.read(rows) for feed in self.feeds},
            None if self.labels is None else self.labels[rows],
            len(rows),
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the rows as the model sees them and of the labels, hexadecimal.

        It covers, input by input, name, type, shape and the values row by row, little-endian;
        it depends neither on the kind of file nor on how much is read at a time.
        """
        found = hashlib.sha256()
        for feed in self.feeds:
            axis = feed.port.batch_axis or 0
            head = f"{feed.port.name}\0{feed.port.dtype}\0"
            for start, rows in feed.chunks():
                part = feed.read(rows)
                if start == 0:
                    shape = list(part.shape)
                    if feed.rows is not None:
                        shape[axis] = feed.rows
                    found.update(f"{head}{shape}\0".encode())
                found.update(_content(np.moveaxis(part, axis, 0) if part.ndim else part))
        if self.labels is not None:
            labels = self.labels
            found.update(f"labels\0{labels.dtype.kind}\0{list(labels.shape)}\0".encode())
            found.update(_content(labels))
        return found.hexdigest()


def _content(array: Array) -> bytes:
    if array.dtype.kind in "OU":
        encoded = [str(item).encode() for item in array.ravel()]
        return b"".join(len(item).to_bytes(8, "little") + item for item in encoded)
    return array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).tobytes()


def assemble(
    source: str, feeds: Sequence[Feed], labels: Array | None, labels_where: str
) -> ArrayData:
    """Put inputs and labels together.

    Args:
        source: where the rows come from.
        feeds: one for each input of the model.
        labels: with the rows on axis 0, or None.
        labels_where: how messages call the labels.

    Raises:
        DataError: they have no rows, or not the same number of them.
    """
    counts = {feed.where: feed.rows for feed in feeds if feed.rows is not None}
    if not counts:
        raise DataError(
            source, "the model has no input that holds samples", "is it the right model?"
        )
    if labels is not None:
        counts[labels_where] = len(labels)
    sizes = set(counts.values())
    if len(sizes) > 1:
        listed = ", ".join(f"{count} in {where}" for where, count in counts.items())
        raise DataError(
            source,
            f"inputs and labels differ in their number of rows: {listed}",
            "give one label for each row of the inputs",
        )
    (rows,) = sizes
    return ArrayData(source, tuple(feeds), rows, labels, labels_where)
