"""Training rows in batches: the same batches for the same seed, from any step on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from penjing.core.data import Part
from penjing.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from penjing.core.tensors import Array

LARGEST_IN_MEMORY = 2**30
"""Bytes of rows that are kept as tensors; larger data are read anew in every epoch."""

Sample = tuple[dict[str, torch.Tensor], torch.Tensor | None]
"""Inputs and labels of a batch."""
HELD_OUT = 0.1
"""Share of the rows that are held out where training may end early."""


class Rows(Dataset[Sample]):
    """Rows of a data set; a whole batch is read at once."""

    def __init__(self, part: Part, axes: Mapping[str, int | None]) -> None:
        """Take the rows of ``part``; ``axes`` tells each input's batch axis."""
        self.part, self.axes = part, axes
        self._kept: Sample | None = None
        first = part.dataset.take(part.rows[:1]) if len(part) else None
        row_bytes = sum(a.nbytes for a in first.inputs.values()) if first is not None else 0
        if row_bytes * len(part) <= LARGEST_IN_MEMORY:
            self._kept = self._read(np.arange(len(part)))

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.part)

    def __getitem__(self, index: int) -> Sample:
        """Read one row, as a batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, index: list[int]) -> Sample:
        """Read one batch, by its places among the rows."""
        if self._kept is None:
            return self._read(np.asarray(index))
        inputs, labels = self._kept
        chosen = torch.as_tensor(index)
        picked = {
            name: array
            if self.axes[name] is None
            else array.index_select(self.axes[name] or 0, chosen)
            for name, array in inputs.items()
        }
        return picked, None if labels is None else labels[chosen]

    def pieces(self, sample: Sample, count: int) -> Iterator[tuple[Sample, float]]:
        """Cut a batch into so many pieces, or one for each row; each with its share of rows."""
        if count == 1:
            yield sample, 1.0
            return
        inputs, labels = sample
        rows = next(
            array.shape[axis]
            for name, array in inputs.items()
            if (axis := self.axes[name]) is not None
        )
        count = min(count, rows)
        for number in range(count):
            first, last = rows * number // count, rows * (number + 1) // count
            piece = {
                name: array if axis is None else array.narrow(axis, first, last - first)
                for name, array in inputs.items()
                for axis in [self.axes[name]]
            }
            own = None if labels is None else labels[first:last]
            yield (piece, own), (last - first) / rows

    def _read(self, places: Array) -> Sample:
        order = np.argsort(places, kind="stable")  # data sets are read in ascending order
        batch = self.part.dataset.take(self.part.rows[places[order]])
        back = np.argsort(order, kind="stable")
        inputs = {}
        for name, array in batch.inputs.items():
            axis = self.axes[name]
            turned = array if axis is None else np.take(array, back, axis)
            inputs[name] = torch.from_numpy(np.ascontiguousarray(turned))
        labels = batch.labels
        if labels is None or labels.dtype.kind not in "iuf":
            return inputs, None
        return inputs, torch.from_numpy(np.ascontiguousarray(labels[back]))


@dataclass(frozen=True)
class SeededBatches(Sampler[list[int]]):
    """Batches of shuffled places, from one step to another; each epoch has its own order."""

    rows: int
    batch_size: int
    seed: int
    first: int
    """Step to begin with."""
    last: int
    """Step before which to end."""

    drop_last = False

    @property
    def steps_per_epoch(self) -> int:
        """Count the batches of an epoch; a last one of less than half the size is left out."""
        return steps_per_epoch(self.rows, self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Give the places of each batch."""
        known, order = -1, np.arange(0)
        for step in range(self.first, self.last):
            epoch, at = divmod(step, self.steps_per_epoch)
            if epoch != known:
                known = epoch
                order = np.random.default_rng([self.seed, 0xBA7C4, epoch]).permutation(
                    self.rows
                )
            yield order[at * self.batch_size : (at + 1) * self.batch_size].tolist()

    def __len__(self) -> int:
        """Count the batches."""
        return self.last - self.first


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Count the batches of an epoch; a last one of less than half the size is left out."""
    return max(1, (rows + batch_size // 2) // batch_size)


def divided(part: Part, seed: int) -> tuple[Part, Part]:
    """Divide rows at random into those to train on and a tenth that is held out.

    Raises:
        ConfigError: there is only one.
    """
    count = len(part)
    if count < 2:  # noqa: PLR2004  # one for each
        raise ConfigError(
            "training.patience",
            f"needs rows to hold out, but there is {count} to train on",
            "set it to 0, or give more rows",
        )
    order = np.random.default_rng([seed, 0x4E1D]).permutation(count)
    held = max(1, round(HELD_OUT * count))
    return (
        Part(part.dataset, part.rows[np.sort(order[held:])]),
        Part(part.dataset, part.rows[np.sort(order[:held])]),
    )
