"""What the engine needs for training: a trainer on the right rows, and a look at those."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from penjing.core.data import Batch, Part, Wrapped
from penjing.core.errors import MissingExtraError, PenjingWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from penjing.core.data import Dataset, Splits
    from penjing.core.model import Model
    from penjing.core.tensors import Array
    from penjing.training.trainer import TorchTrainer

ROWS = 4096
"""Read in one go."""


@dataclass(frozen=True, slots=True, eq=False)
class Unlabelled(Wrapped):
    """The rows of a data set without their labels."""

    labels: None = None

    def take(self, rows: Array) -> Batch:
        """Read rows, and leave their labels out."""
        return self.inner.take(rows).without_labels()


def trainer_for(
    model: Model,
    part: Part,
    *,
    seed: int,
    checkpoints: Path | None,
    progress: Callable[[str, float, str], None],
) -> TorchTrainer:
    """Make a trainer whose teacher is the original.

    Args:
        model: the original.
        part: rows to train on, with labels or without.
        seed: of every random choice.
        checkpoints: folder for unfinished runs.
        progress: told what is going on.

    Raises:
        MissingExtraError: PyTorch or Accelerate is not installed.
    """
    check_installed("training")
    from penjing.training.checkpoints import Checkpoints
    from penjing.training.trainer import TorchTrainer

    return TorchTrainer(
        part, (model,), seed=seed, checkpoints=Checkpoints(checkpoints), progress=progress
    )


def unlabelled(trainer: TorchTrainer) -> TorchTrainer:
    """Give a trainer on the same rows that does not look at their labels."""
    part = trainer.part
    if part.labels is None:
        return trainer
    return replace(trainer, part=Part(Unlabelled(part.dataset), part.rows))


def check_installed(wanted_for: str) -> None:
    """Refuse to go on without the packages that train.

    Raises:
        MissingExtraError: PyTorch or Accelerate is not installed.
    """
    if not is_installed():
        raise MissingExtraError("torch", wanted_for)


def is_installed() -> bool:
    """Tell whether the packages that train are there."""
    return find_spec("torch") is not None and find_spec("accelerate") is not None


def training_part(splits: Splits, train: Dataset | None) -> Part:
    """Choose what is trained on: the rows given for it, or those that calibrate."""
    if train is None:
        known = splits.calibration
        return Part(Unlabelled(known.dataset), known.rows)
    return Part(train, np.arange(len(train), dtype=np.int64))


def warn_of_overlap(train: Dataset | None, splits: Splits) -> None:
    """Warn of rows that are trained on and judged by: the judgement is too kind by them."""
    if train is None:
        return
    warn_of_shared(train, {"search": splits.search, "certify": splits.certification})


def warn_of_shared(train: Dataset, parts: Mapping[str, Part]) -> None:
    """Warn of rows that are trained on, too; parts are named by what their rows do."""
    known = set(_digests(Part(train, np.arange(len(train), dtype=np.int64))))
    for purpose, part in parts.items():
        both = sum(digest in known for digest in _digests(part))
        if both:
            warnings.warn(
                f"{both} of {len(part)} rows that {purpose} ({part.dataset.source}) are also "
                f"trained on ({train.source}): what is measured on them looks too good",
                PenjingWarning,
                stacklevel=2,
            )


def _digests(part: Part) -> list[bytes]:
    """Digest the inputs of every row."""
    found = []
    for batch in part.batches(ROWS):
        flat = [
            np.ascontiguousarray(array).reshape(batch.rows, -1)
            for array in batch.inputs.values()
            if len(array) == batch.rows
        ]
        for row in range(batch.rows):
            seen = hashlib.blake2b(digest_size=16)
            for array in flat:
                seen.update(array[row].tobytes())
            found.append(seen.digest())
    return found
