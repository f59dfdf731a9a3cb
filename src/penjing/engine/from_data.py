"""From a template and rows to a trained model: no model is needed to begin with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.core.architecture import ModelTemplate, Problem, Task
from penjing.core.data import Batch, Part, Wrapped, gathered, open_data
from penjing.core.errors import ConfigError, DataError, MissingExtraError
from penjing.core.metric import decide
from penjing.core.training import TrainingSettings
from penjing.engine import templating
from penjing.engine.job import silent
from penjing.engine.learned import (
    Learned,
    Watch,
    batch_size_for,
    check_alone,
    check_distinct,
    check_measurable,
    epochs_for,
    hold_out,
    measured,
    outputs_of,
    serialized,
    whole,
)
from penjing.engine.training import check_installed, warn_of_shared

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from penjing.core.data import Dataset
    from penjing.core.model import Model
    from penjing.core.tensors import Array
    from penjing.training.module_trainer import Teacher

SOME_ROWS = 64
"""Rows on which the exported model is compared with the trained one."""


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """Everything a template is trained with."""

    template: ModelTemplate
    train: object
    data: object = None
    """Rows to measure on; None holds out a tenth of the others."""
    target: str | None = None
    task: Task | None = None
    teachers: tuple[Model, ...] = ()
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    batch_size: int | None = None
    """None chooses by the number of rows."""
    epochs: float | None = None
    """None makes about 5,000 steps."""
    learning_rate: float | None = None
    """None takes the template's own; 0 looks for one (learning-rate range test)."""
    seed: int = 0
    checkpoints: Path | None = None
    progress: Callable[[str, float, str], None] = silent


@dataclass(frozen=True, slots=True, eq=False)
class Answered(Wrapped):
    """Rows with the answers of teachers for labels."""

    labels: Array

    @property
    def labels_where(self) -> str:
        """How messages call the labels."""
        return "the teachers' answers"

    def take(self, rows: Array) -> Batch:
        """Read rows; they are not trained on by these labels."""
        return self.inner.take(rows).without_labels()


def learn(lesson: Lesson) -> Learned:
    """Train a template's model, export it, and measure the file.

    Raises:
        DataError: rows or labels do not fit the template, each other, or the teachers.
        ConfigError: a setting is out of bounds, or the template is not for this.
        TrainingError: the loss became NaN again and again.
        MissingExtraError: PyTorch, Accelerate or onnxscript is not installed.
    """
    check_alone()
    check_ready("training a model")
    from penjing.training.checkpoints import Checkpoints
    from penjing.training.module_trainer import ModuleTrainee, export, fit

    watch = Watch()
    dataset, source = _opened(lesson, lesson.train)
    teachers = _teachers(lesson, dataset, source)
    has_labels = dataset.labels is not None or not teachers
    if not has_labels:
        dataset = _answered(lesson, dataset, teachers)
    part, held = hold_out(dataset, lesson.seed)
    if lesson.data is not None:
        part = whole(dataset)
    problem = _posed(lesson, part, teachers)
    if lesson.data is not None:
        held = _held(lesson, problem, dataset, has_teachers=bool(teachers))
    if problem.task is Task.CLASSIFICATION and not teachers:
        check_measurable(held)
    _check_pictures(lesson, problem)
    if has_labels and problem.task is Task.CLASSIFICATION:
        templating.warn_of_strays(part)
    size = lesson.batch_size or batch_size_for(len(part))
    epochs = lesson.epochs or epochs_for(len(part), size)
    settings = replace(
        lesson.settings, training=replace(lesson.settings.training, batch_size=size)
    )
    checkpoints = Checkpoints(lesson.checkpoints)
    net: Any = lesson.template.build(problem, lesson.seed)
    trainee = ModuleTrainee(net, problem, settings, teachers)
    fitted = fit(
        trainee,
        part,
        epochs=epochs,
        learning_rate=lesson.template.learning_rate
        if lesson.learning_rate is None
        else lesson.learning_rate,
        seed=lesson.seed,
        key=repr(lesson.template),
        checkpoints=checkpoints,
        progress=lesson.progress,
    )
    lesson.progress("exporting", 0.0, "")
    some = held.dataset.take(held.rows[:SOME_ROWS]).inputs[problem.name]
    model = export(net, problem.name, some)
    content = serialized(model)
    lesson.progress("measuring", 0.0, "")
    name, value = _measured(content, problem, held, teachers)
    return Learned(
        model=model,
        content=content,
        task=problem.task,
        metric=name,
        value=value,
        rows=fitted.rows,
        held_out=len(held),
        split=lesson.data is None,
        epochs=fitted.epochs,
        steps=fitted.steps,
        seconds=watch.seconds,
        checkpoints=checkpoints,
    )


def check_ready(wanted_for: str) -> None:
    """Refuse to begin without the packages that train and export.

    Raises:
        MissingExtraError: one is not installed.
    """
    check_installed(wanted_for)
    if find_spec("onnxscript") is None:
        raise MissingExtraError("torch", wanted_for)


def _opened(lesson: Lesson, given: object) -> tuple[Dataset, object]:
    """Open rows for the template; give them with what they are read from again."""
    source = gathered(given)
    return templating.open_for(lesson.template, source, lesson.target), source


def _teachers(lesson: Lesson, dataset: Dataset, source: object) -> list[Teacher]:
    """Prepare the teachers; what they are asked is decided by what they answer."""
    if not lesson.teachers:
        return []
    from penjing.training.module_trainer import Teacher

    first = dataset.take(np.arange(min(len(dataset), SOME_ROWS), dtype=np.int64))
    (rows,) = first.inputs.values()
    made = []
    for model in lesson.teachers:
        open_data(source, model.backend.inputs(model.native), lesson.target)  # do they fit?
        task = _task(lesson, dataset, model, rows)
        made.append(Teacher.of(model, task, rows))
    return made


def _task(lesson: Lesson, dataset: Dataset, teacher: Model, rows: Array) -> Task:
    """Tell what is learned, before the problem is posed."""
    can = lesson.template.tasks
    if lesson.task is not None or len(can) == 1:
        return lesson.task or can[0]
    if dataset.labels is not None:
        return Task.REGRESSION if dataset.labels.dtype.kind == "f" else Task.CLASSIFICATION
    (port,) = teacher.backend.inputs(teacher.native)
    shape = [len(rows), *(size or 0 for size in port.shape[1:])]
    fed = rows if rows.ndim == len(shape) else rows.reshape(shape)
    answer = teacher.predict({port.name: fed.astype(port.dtype)})
    said = Task.REGRESSION if decide(answer, logits=False) is None else Task.CLASSIFICATION
    return said if said in can else can[0]


def _answered(lesson: Lesson, dataset: Dataset, teachers: list[Teacher]) -> Dataset:
    """Let the teachers' answers stand for labels: they tell the problem, and measure."""
    from penjing.training.losses import Form
    from penjing.training.module_trainer import answers

    if lesson.task is Task.RECONSTRUCTION or lesson.template.tasks == (Task.RECONSTRUCTION,):
        return dataset
    (name,) = dataset.take(np.arange(1, dtype=np.int64)).inputs
    given = answers(teachers, whole(dataset), name)
    if teachers[0].form is Form.VALUES:
        return Answered(dataset, given.reshape(len(given), -1).astype(np.float64))
    return Answered(dataset, given.argmax(axis=1).astype(np.int64))


def _held(lesson: Lesson, problem: Problem, train: Dataset, *, has_teachers: bool) -> Part:
    """Open the rows to measure on, and refuse those that are not like those to train on."""
    held = open_data(gathered(lesson.data), [problem.port], lesson.target)
    check_distinct(train, held)
    if problem.task is not Task.RECONSTRUCTION:
        if held.labels is not None:
            templating.check_labels(problem, held.labels, held.labels_where)
        elif not has_teachers:
            raise DataError(
                held.source, "has no labels to measure by", "give an array y, or --target"
            )
    part = whole(held)
    warn_of_shared(train, {"measure": part})
    return part


def _posed(lesson: Lesson, part: Part, teachers: list[Teacher]) -> Problem:
    problem = templating.pose(lesson.template, part, lesson.task)
    if problem.task is not Task.RECONSTRUCTION:
        assert part.labels is not None
        templating.check_labels(problem, part.labels, part.dataset.labels_where)
    if not teachers:
        return problem
    from penjing.training.module_trainer import check_teachers

    return check_teachers(teachers, problem, part.dataset.source)


def _check_pictures(lesson: Lesson, problem: Problem) -> None:
    """Refuse to change rows that are no images, or to blend those that are to be given back.

    Raises:
        DataError: shift, mirror, distort or blend is asked for, and would change nothing.
        ConfigError: images are to be blended, but the aim is to give them back.
    """
    training = lesson.settings.training
    changes = ("shift", "mirror", "distort", "blend")
    asked = [name for name in changes if getattr(training, name)]
    if asked and len(problem.shape) < 3:  # noqa: PLR2004
        raise DataError(
            asked[0],
            f"{'blends' if asked[0] == 'blend' else 'changes'} images with channels, got "
            f"{problem.sample}",
            "leave it out, or give images as (rows, channels, height, width)",
        )
    if training.blend and problem.task is Task.RECONSTRUCTION:
        raise ConfigError(
            "blend",
            "is for what teachers say of images, not for giving images back",
            "leave it out",
        )


def _measured(
    content: bytes, problem: Problem, held: Part, teachers: list[Teacher]
) -> tuple[str, Any]:
    """Measure the file on the rows held out."""
    outputs = outputs_of(content, held)
    if problem.task is Task.RECONSTRUCTION:
        inputs = [batch.inputs[problem.name] for batch in held.batches(SOME_ROWS)]
        return measured(outputs, problem.task, np.concatenate(inputs).astype(np.float64))
    labels, by_teachers = held.labels, isinstance(held.dataset, Answered)
    if labels is None and teachers:
        from penjing.training.module_trainer import answers

        given, by_teachers = answers(teachers, held, problem.name), True
        labels = given.argmax(axis=1) if problem.task is Task.CLASSIFICATION else given
    assert labels is not None
    return measured(outputs, problem.task, labels, agreement=by_teachers)
