"""From data to models: training a template, and moving a trained model to a new task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from penjing.api import wrap
from penjing.core.architecture import ModelTemplate, Task
from penjing.core.errors import ConfigError
from penjing.core.training import (
    Distillation,
    Optimization,
    Optimizer,
    Precision,
    Schedule,
    TrainingSettings,
)
from penjing.engine.job import silent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penjing.engine.learned import Learned
    from penjing.engine.search import Progress

__all__ = ["train", "transfer"]

MOST_EPOCHS = 10_000.0
LARGEST_RATE = 10.0


def train(  # noqa: PLR0913  # the one function that takes everything
    template: str | ModelTemplate,
    train: object,
    *,
    data: object = None,
    settings: Mapping[str, Any] | None = None,
    target: str | None = None,
    task: str | None = None,
    teachers: Sequence[object] = (),
    temperature: float = 2.0,
    teacher_weight: float = 0.5,
    epochs: float | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    optimizer: Optimizer = "adam",
    schedule: Schedule = "cosine",
    weight_decay: float = 0.0,
    l1: float = 0.0,
    clip_norm: float = 0.0,
    precision: Precision = "float32",
    patience: int = 0,
    shift: int = 0,
    mirror: bool = False,
    distort: bool = False,
    blend: bool = False,
    seed: int = 0,
    checkpoints: str | Path | None = None,
    progress: Progress = silent,
) -> Learned:
    """Train a model from data alone: an architecture by its name, and rows.

    >>> made = penjing.train("resnet_8", "train.npz")  # doctest: +SKIP
    >>> made.save("base.onnx")  # doctest: +SKIP

    Args:
        template: name of a model template, or one with its settings.
        train: rows with labels, as for ``compress``; with teachers, labels may be missing.
        data: rows with labels to measure on; a tenth of ``train``, drawn with ``seed``, unless
            given.
        settings: of the template, by name.
        target: name of the label column of tables, or of the array.
        task: ``classification``, ``regression`` or ``reconstruction``; by default what labels
            say and the template can do: whole numbers are classes, floats values.
        teachers: models, as for ``compress``, whose outputs are learned as well: one, or
            several that speak as one by the mean of what they give.
        temperature: divides the logits of teachers and student.
        teacher_weight: share of the teachers' word in the loss; the labels have the rest.  With
            ``blend`` all of it is the teachers'.
        epochs: passes over the rows; about 5,000 steps unless given.
        learning_rate: largest of the schedule; the template's own unless given.  0 looks for
            one (Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017).
        batch_size: rows of one step; 16 to 128, by their number, unless given.
        optimizer: ``adam``, ``adamw`` or ``sgd``.
        schedule: ``cosine``, ``one_cycle`` or ``constant``.
        weight_decay: of weights, not of biases.
        l1: factor of the sum of magnitudes of weights in the loss.
        clip_norm: norm that gradients are cut to; 0 leaves them as they are.
        precision: ``float32``, or ``bfloat16`` or ``float16`` in the forward pass.
        patience: epochs without a better loss on a tenth of the rows, held out for that, after
            which training ends with the best state; 0 trains on all rows to the end.
        shift: pixels by which images are shifted at random, at most.
        mirror: whether every other image is mirrored, left to right.
        distort: whether images are turned, zoomed, and changed in contrast and brightness.
        blend: whether images are blended in pairs, all over or within a rectangle, with
            teachers: what blends are, these alone say, and labels have no part.  Worth it
            for long training, of 30 epochs or more.
        seed: of every random choice; the same seed gives the same model.
        checkpoints: folder in which unfinished training is kept; the same call goes on from
            there, to the same result.
        progress: told what is going on.

    Returns:
        The model, its ONNX file, and what it is worth on rows that it was not trained on.

    Raises:
        PenjingError: rows, labels, teachers or settings do not fit.

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.
        Beyer et al., "Knowledge Distillation: A Good Teacher Is Patient and Consistent", CVPR
        2022 (blends, long training).
    """
    from penjing.engine.from_data import Lesson, learn
    from penjing.engine.templating import make_template

    if isinstance(template, ModelTemplate):
        if settings:
            raise ConfigError("settings", "are given beside a template that has its own")
        made = template
    else:
        made = make_template(template, settings)
    _check(epochs, learning_rate)
    if blend and not teachers:
        raise ConfigError(
            "blend",
            "needs a teacher: nobody else knows what blended images are",
            "give one with --teacher (teachers= in Python), or leave it out",
        )
    lesson = Lesson(
        template=made,
        train=train,
        data=data,
        target=target,
        task=_read_task(task),
        teachers=tuple(wrap(teacher) for teacher in teachers),
        settings=TrainingSettings(
            Optimization(
                optimizer=optimizer,
                schedule=schedule,
                batch_size=128 if batch_size is None else batch_size,
                weight_decay=weight_decay,
                l1=l1,
                clip_norm=clip_norm,
                precision=precision,
                patience=patience,
                shift=shift,
                mirror=mirror,
                distort=distort,
                blend=blend,
            ),
            Distillation(weight=teacher_weight, temperature=temperature),
        ),
        batch_size=batch_size,
        epochs=epochs,
        learning_rate=learning_rate,
        seed=seed,
        checkpoints=None if checkpoints is None else Path(checkpoints),
        progress=progress,
    )
    return learn(lesson)


def transfer(  # noqa: PLR0913  # the one function that takes everything
    model: object,
    train: object,
    *,
    data: object = None,
    target: str | None = None,
    epochs: float = 30.0,
    learning_rate: float = 1e-3,
    stages: int = 3,
    decay: float = 2.6,
    batch_size: int | None = None,
    optimizer: Optimizer = "adam",
    schedule: Schedule = "cosine",
    weight_decay: float = 0.0,
    l1: float = 0.0,
    clip_norm: float = 0.0,
    precision: Precision = "float32",
    shift: int = 0,
    mirror: bool = False,
    distort: bool = False,
    seed: int = 0,
    checkpoints: str | Path | None = None,
    progress: Progress = silent,
) -> Learned:
    """Move a trained classifier to new classes: all but its last layer is kept to begin with.

    The last layer is replaced by one with as many outputs as ``train`` has classes, and
    trained alone; then more and more layers are trained, those further down more slowly.

    >>> made = penjing.transfer("resnet20.onnx", "new.npz")  # doctest: +SKIP
    >>> made.save("new.onnx")  # doctest: +SKIP

    Args:
        model: as for ``compress``.
        train: rows with class numbers from 0 as labels.
        data: rows with labels to measure on; a tenth of ``train``, drawn with ``seed``, unless
            given.
        target: name of the label column of tables, or of the array.
        epochs: passes over the rows, shared out among the stages.
        learning_rate: of the last layer; 0 looks for one in each stage.
        stages: of training, each with more layers than the one before; 1 trains the last
            layer alone.
        decay: factor between the rates of a group of layers and of the next one below.
        batch_size: rows of one step; 16 to 128, by their number, unless given.
        optimizer: ``adam``, ``adamw`` or ``sgd``.
        schedule: ``cosine``, ``one_cycle`` or ``constant``, in each stage.
        weight_decay: of weights, not of biases.
        l1: factor of the sum of magnitudes of weights in the loss.
        clip_norm: norm that gradients are cut to; 0 leaves them as they are.
        precision: ``float32``, or ``bfloat16`` or ``float16`` in the forward pass.
        shift: pixels by which images are shifted at random, at most.
        mirror: whether every other image is mirrored, left to right.
        distort: whether images are turned, zoomed, and changed in contrast and brightness.
        seed: of every random choice; the same seed gives the same model.
        checkpoints: folder in which unfinished training is kept.
        progress: told what is going on.

    Returns:
        The model, its ONNX file, and what it is worth on rows that it was not trained on.

    Raises:
        PenjingError: the model has no last layer to replace, or rows do not fit.

    References:
        Yosinski et al., "How transferable are features in deep neural networks?", NIPS 2014.
        Howard & Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL
        2018: gradual unfreezing and discriminative rates.
    """
    from penjing.engine.transferring import Transfer, move

    _check(epochs, learning_rate)
    return move(
        Transfer(
            model=wrap(model, train, target),
            train=train,
            data=data,
            target=target,
            settings={
                "epochs": epochs,
                "learning_rate": learning_rate,
                "stages": stages,
                "decay": decay,
            },
            training=Optimization(
                optimizer=optimizer,
                schedule=schedule,
                batch_size=128 if batch_size is None else batch_size,
                weight_decay=weight_decay,
                l1=l1,
                clip_norm=clip_norm,
                precision=precision,
                shift=shift,
                mirror=mirror,
                distort=distort,
            ),
            batch_size=batch_size,
            seed=seed,
            checkpoints=None if checkpoints is None else Path(checkpoints),
            progress=progress,
        )
    )


def _check(epochs: float | None, learning_rate: float | None) -> None:
    if epochs is not None and not 0 < epochs <= MOST_EPOCHS:
        raise ConfigError(
            "epochs", f"must be above 0 and at most {MOST_EPOCHS:g}, got {epochs!r}"
        )
    if learning_rate is not None and not 0 <= learning_rate <= LARGEST_RATE:
        raise ConfigError(
            "learning_rate", f"must be in [0, {LARGEST_RATE:g}], got {learning_rate!r}"
        )


def _read_task(given: str | None) -> Task | None:
    if given is None:
        return None
    if given not in list(Task):
        raise ConfigError("task", f"must be one of {', '.join(Task)}, got {given!r}")
    return Task(given)
