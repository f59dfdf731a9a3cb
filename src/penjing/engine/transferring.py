"""From a trained classifier to one of other classes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.core.architecture import Task
from penjing.core.data import gathered, open_data
from penjing.core.errors import DataError, UnsupportedError
from penjing.core.model import Model, ReplacesHead
from penjing.core.registry import TECHNIQUES
from penjing.core.technique import Context
from penjing.core.training import Optimization, TrainingSettings
from penjing.engine.job import silent
from penjing.engine.learned import (
    Learned,
    Watch,
    batch_size_for,
    check_alone,
    check_distinct,
    check_measurable,
    hold_out,
    measured,
    outputs_of,
    serialized,
    whole,
)
from penjing.engine.templating import check_classes, count_classes, warn_of_strays
from penjing.engine.training import check_installed, trainer_for, warn_of_shared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from penjing.core.data import Dataset

TECHNIQUE = "transfer_learning"


@dataclass(frozen=True, slots=True, eq=False)
class Transfer:
    """Everything a model is moved to a new task with."""

    model: Model
    train: object
    data: object = None
    """Rows to measure on; None holds out a tenth of the others."""
    target: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the technique ``transfer_learning``."""
    training: Optimization = field(default_factory=Optimization)
    batch_size: int | None = None
    """None chooses by the number of rows."""
    seed: int = 0
    checkpoints: Path | None = None
    progress: Callable[[str, float, str], None] = silent


def move(transfer: Transfer) -> Learned:
    """Replace the last layer, train from there down, and measure the file.

    Raises:
        UnsupportedError: the model has no last layer to replace, or cannot be trained.
        DataError: rows do not fit the model, or labels are no classes.
        TrainingError: the loss became NaN again and again.
        MissingExtraError: PyTorch or Accelerate is not installed.
    """
    check_alone()
    check_installed("transfer")
    technique = TECHNIQUES.load(TECHNIQUE)(**transfer.settings)
    watch = Watch()
    old = transfer.model
    if not isinstance(old.backend, ReplacesHead):
        raise UnsupportedError(
            old.backend.name, "models of this backend have no head to replace", "give ONNX"
        )
    technique.check_supports(old)
    ports = old.backend.inputs(old.native)
    dataset = open_data(gathered(transfer.train), ports, transfer.target)
    _check_labels(dataset)
    part, held = hold_out(dataset, transfer.seed)
    if transfer.data is not None:
        other = open_data(gathered(transfer.data), ports, transfer.target)
        _check_labels(other)
        check_distinct(dataset, other)
        part, held = whole(dataset), whole(other)
    classes = count_classes(part)
    warn_of_strays(part)
    assert held.labels is not None
    check_classes(held.labels, classes, held.dataset.labels_where)
    check_measurable(held)
    if transfer.data is not None:
        warn_of_shared(dataset, {"measure": held})
    model = Model(old.backend.with_head(old.to_native(), classes, transfer.seed), old.backend)
    size = transfer.batch_size or batch_size_for(len(part))
    settings = TrainingSettings(replace(transfer.training, batch_size=size))
    trainer = trainer_for(
        model,
        part,
        seed=transfer.seed,
        checkpoints=transfer.checkpoints,
        progress=transfer.progress,
    ).configured(settings, transfer.seed)
    trained = technique.apply(model, Context(seed=transfer.seed, trainer=trainer))
    transfer.progress("measuring", 0.0, "")
    content = serialized(trained)
    outputs = outputs_of(content, held)
    name, value = measured(outputs, Task.CLASSIFICATION, held.labels)
    per_epoch = max(1, (len(part) + size // 2) // size)
    steps = technique.stages * max(
        1, int(np.ceil(technique.epochs / technique.stages * per_epoch))
    )
    return Learned(
        model=trained,
        content=content,
        task=Task.CLASSIFICATION,
        metric=name,
        value=value,
        rows=len(part),
        held_out=len(held),
        split=transfer.data is None,
        epochs=technique.epochs,
        steps=steps,
        seconds=watch.seconds,
        checkpoints=trainer.checkpoints,
    )


def _check_labels(dataset: Dataset) -> None:
    """Refuse rows without classes.

    Raises:
        DataError: there are no labels, or they are no whole numbers.
    """
    if dataset.labels is None:
        raise DataError(
            dataset.source, "has no labels of the new task", "give an array y, or --target"
        )
    if dataset.labels.dtype.kind != "i":
        raise DataError(
            dataset.labels_where,
            "holds no class numbers, and transfer is for classes",
            "number them from 0: y = np.unique(y, return_inverse=True)[1]",
        )
