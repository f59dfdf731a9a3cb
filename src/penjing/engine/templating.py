"""From rows without a model to the problem that a template builds one for.

Rows are opened for an input that the template can read (``open_for``); what the training rows
then show is a ``Problem`` (``pose``); and the problem says what a batch is to be held against
(``targets``), whichever rows it comes from.
"""

from __future__ import annotations

import warnings
from dataclasses import fields
from difflib import get_close_matches
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.core.architecture import IMAGE_RANK, InputKind, Problem, Task
from penjing.core.data import describe_data, gathered, open_data
from penjing.core.errors import ConfigError, DataError, PenjingWarning
from penjing.core.metric import is_one_hot
from penjing.core.model import Port
from penjing.core.registry import TEMPLATES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from penjing.core.architecture import ModelTemplate
    from penjing.core.data import Batch, Dataset, Part
    from penjing.core.tensors import Array

BATCH_BYTES = 4 << 20
"""About this much is looked at in one go."""
AS_THEY_ARE = {"uint8", "int8"}
"""Types that the built model takes; other numbers come as float32, tokens as int64."""
MOST_CLASSES = 1 << 20
MOST_TOKENS = 1 << 24
EASILY_UNUSED = 1024
"""More classes than this, most of them without a row, are no classes."""
GAPS = 2
"""Class numbers for each class that occurs, from which on gaps are a surprise."""
MANY_OF_A_CLASS = 10
"""Rows that most classes have, for one of a single row to be a surprise."""
NUMBERING = "number them from 0: y = np.unique(y, return_inverse=True)[1]"


def make_template(name: str, settings: Mapping[str, Any] | None = None) -> ModelTemplate:
    """Make a template from its public name and its settings.

    Raises:
        ConfigError: there is no such template or setting, or a value is out of bounds.
    """
    template = TEMPLATES.load(name)
    known = sorted(field.name for field in fields(template))
    for key in settings or {}:
        if key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            raise ConfigError(f"{name}.{key}", "no such setting", hint if known else "")
    try:
        made: ModelTemplate = template(**(settings or {}))
    except ConfigError as error:
        raise ConfigError(f"{name}.{error.where}", error.problem, error.hint) from None
    return made


def open_for(template: ModelTemplate, source: object, target: str | None = None) -> Dataset:
    """Open rows for the model that a template will make of them.

    Args:
        template: says how the rows are read.
        source: a file, or arrays in memory, as for ``open_data``.
        target: name of the label column or array.

    Raises:
        DataError: the source cannot be read, or holds no single array of numbers.
        ConfigError: the template does not take what it holds.
    """
    where, source = _called(source), gathered(source)
    ports = describe_data(source, target)
    if len(ports) != 1:
        listed = ", ".join(repr(port.name) for port in ports)
        raise DataError(
            where,
            f"has several arrays that could be inputs: {listed}",
            "call the inputs x, and the labels y or name them with --target",
        )
    (port,) = ports
    if port.dtype == "str":
        raise DataError(
            where,
            f"array {port.name!r} holds strings, but templates take numbers",
            "turn words into whole numbers (tokens), from 0",
        )
    return open_data(source, [_taken(template, port)], target)


def _called(source: object) -> str:
    return str(source) if isinstance(source, (str, PathLike)) else "data in memory"


def _taken(template: ModelTemplate, port: Port) -> Port:
    """Give the input of the model to be made: with the type that it will have."""
    dtype = "uint8" if port.dtype == "bool" else port.dtype
    shape = tuple(size or 0 for size in port.shape[1:])
    kind = template.reading(shape, dtype)
    if kind is InputKind.TOKENS:
        dtype = "int64"
    elif dtype not in AS_THEY_ARE:
        dtype = "float32"
    return Port(port.name, dtype, port.shape)


def pose(template: ModelTemplate, part: Part, task: Task | None = None) -> Problem:
    """Work out the problem from the training rows, and from nothing else.

    Args:
        template: what the problem is for.
        part: the training rows.
        task: what to train for; by default what the labels say and the template can do.

    Raises:
        DataError: rows or labels are not usable for this.
        ConfigError: the template does not take such rows, or is not for this task.
    """
    if not len(part):
        raise DataError(part.dataset.source, "has no rows to train on", "give some")
    first = part.dataset.take(part.rows[:1])
    if len(first.inputs) != 1:
        listed = ", ".join(map(repr, first.inputs))
        raise DataError(
            part.dataset.source, f"feeds several inputs: {listed}", "templates take one"
        )
    ((name, array),) = first.inputs.items()
    shape, dtype = array.shape[1:], array.dtype.name
    template.reading(shape, dtype)  # what does not fit at all is told first
    chosen = _choose_task(template, part, task)
    kind = template.check_fits(Problem(shape, dtype, chosen))
    facts: dict[str, Any] = {}
    if kind is InputKind.TOKENS:
        facts["vocabulary"] = _vocabulary(part, name)
    else:
        facts["mean"], facts["std"] = _scale(part, name, kind, shape)
    if chosen is Task.CLASSIFICATION:
        facts["outputs"] = count_classes(part)
    elif chosen is Task.REGRESSION:
        facts["target_mean"], facts["target_std"] = _target_scale(part)
        facts["outputs"] = len(facts["target_mean"])
    return Problem(shape, dtype, chosen, name=name, **facts)


def _choose_task(template: ModelTemplate, part: Part, task: Task | None) -> Task:
    labels, can = part.labels, template.tasks
    if task is Task.RECONSTRUCTION or (task is None and can == (Task.RECONSTRUCTION,)):
        return Task.RECONSTRUCTION
    if labels is None:
        raise DataError(
            part.dataset.source,
            f"has no labels, which {TEMPLATES.name_of(type(template))} is trained by",
            "give an array y, or name the label column or array with --target; "
            "autoencoder does without",
        )
    if labels.dtype.kind not in "iuf":
        raise DataError(
            part.dataset.labels_where,
            f"holds strings, such as {labels.flat[0].item()!r}, and a model gives numbers",
            NUMBERING,
        )
    if task is not None:
        return task
    said = Task.REGRESSION if labels.dtype.kind == "f" else Task.CLASSIFICATION
    return said if said in can else can[0]


def count_classes(part: Part) -> int:
    """Count classes from 0 to the largest label."""
    assert part.labels is not None
    labels = class_numbers(part.labels, part.dataset.labels_where)
    different, largest = len(np.unique(labels)), int(labels.max())
    where = part.dataset.labels_where
    if different == 1:
        raise DataError(
            where, f"all labels are {largest}", "give training rows of at least two classes"
        )
    if largest >= min(MOST_CLASSES, max(EASILY_UNUSED, 2 * different)):
        raise DataError(
            where,
            f"labels outside the head's range: the largest of {different} different ones is "
            f"{largest}",
            f"{NUMBERING}; or give values to predict as floats: y = y.astype(float)",
        )
    if largest >= GAPS * different:
        warnings.warn(
            f"{where}: {different} classes occur, but the largest is {largest}: the model gets "
            f"{largest + 1} outputs; {NUMBERING}",
            PenjingWarning,
            stacklevel=2,
        )
    return largest + 1


def warn_of_strays(part: Part) -> None:
    """Warn of classes that may be slips: of a single row, where most have many."""
    assert part.labels is not None
    where = part.dataset.labels_where
    labels = class_numbers(part.labels, where)
    classes, counts = np.unique(labels, return_counts=True)
    strays = classes[counts == 1]
    if len(strays) and np.median(counts) >= MANY_OF_A_CLASS:
        many = len(strays) > 1
        warnings.warn(
            f"{where}: class{'es' if many else ''} {', '.join(map(str, strays[:5]))}"
            f"{' and more' if len(strays) > 5 else ''} "  # noqa: PLR2004  # those shown
            f"{'have' if many else 'has'} a single row{' each' if many else ''}, most others "
            f"{np.median(counts):g}: if it is a slip, correct the label or leave the row out",
            PenjingWarning,
            stacklevel=2,
        )


def class_numbers(labels: Array, where: str) -> Array:
    """Give one whole number for each row, or raise DataError."""
    if labels.ndim != 1:
        raise DataError(
            where,
            f"labels have shape {labels.shape}, which is no class for each row",
            "give y.argmax(axis=1) instead"
            if is_one_hot(labels)
            else "give one class number for each row, or values to predict as floats",
        )
    if labels.dtype.kind == "f" and (labels != np.trunc(labels)).any():
        odd = labels[labels != np.trunc(labels)][0]
        raise DataError(
            where,
            f"labels such as {odd:g} are values, not classes",
            "choose a template for regression, such as mlp or linear_regression",
        )
    if labels.min() < 0:
        raise DataError(
            where,
            f"labels outside the head's range: the smallest is {labels.min():g}",
            NUMBERING,
        )
    return labels.astype(np.int64)


def _values(labels: Array, where: str) -> Array:
    """Give values as (rows, targets)."""
    if labels.ndim > 2 or not labels.size:  # noqa: PLR2004  # rows and targets
        raise DataError(
            where,
            f"labels have shape {labels.shape}",
            "give one value for each row, or the same few for each: (rows, targets)",
        )
    return labels.astype(np.float64).reshape(len(labels), -1)


def _target_scale(part: Part) -> tuple[Array, Array]:
    assert part.labels is not None
    values = _values(part.labels, part.dataset.labels_where)
    return values.mean(axis=0), _usable(values.std(axis=0), values.mean(axis=0))


def targets(problem: Problem, batch: Batch, where: str = "the labels") -> Array:
    """Give what the outputs for these rows are held against.

    Returns:
        (rows,) int64 classes; (rows, targets) float32 values; or the input as float32.

    Raises:
        DataError: the labels do not fit the problem that training rows posed.
    """
    if problem.task is Task.RECONSTRUCTION:
        return np.asarray(batch.inputs[problem.name]).astype(np.float32)
    if batch.labels is None:
        raise DataError(where, "there are none", "give labels for all rows")
    check_labels(problem, batch.labels, where)
    if problem.task is Task.CLASSIFICATION:
        return batch.labels.astype(np.int64)
    return _values(batch.labels, where).astype(np.float32)


def check_labels(problem: Problem, labels: Array, where: str = "the labels") -> None:
    """Raise DataError where labels are none that a model of the problem could give."""
    if labels.dtype.kind not in "iuf":
        raise DataError(where, "holds strings, and the model gives numbers", NUMBERING)
    if problem.task is Task.CLASSIFICATION:
        check_classes(labels, problem.outputs, where)
    elif (width := _values(labels, where).shape[1]) != problem.outputs:
        raise DataError(
            where, f"holds {width} values for each row, but training rows {problem.outputs}"
        )


def check_classes(labels: Array, classes: int, where: str) -> None:
    """Raise DataError where labels are none of these classes, counted from 0."""
    largest = int(class_numbers(labels, where).max())
    if largest >= classes:
        raise DataError(
            where,
            f"labels outside the head's range: the largest is {largest}, but training "
            f"rows have classes from 0 to {classes - 1}",
            "give training rows of every class",
        )


def _pieces(part: Part, name: str) -> Iterator[Array]:
    row_bytes = part.dataset.take(part.rows[:1]).inputs[name].nbytes
    for batch in part.batches(max(1, BATCH_BYTES // max(row_bytes, 1))):
        yield batch.inputs[name]


def _vocabulary(part: Part, name: str) -> int:
    """Give the largest token and one."""
    smallest, largest = 0, 0
    for piece in _pieces(part, name):
        smallest, largest = min(smallest, int(piece.min())), max(largest, int(piece.max()))
    if smallest < 0 or largest >= MOST_TOKENS:
        bad = smallest if smallest < 0 else largest
        raise DataError(
            f"{part.dataset.source}, array {name!r}",
            f"holds {bad}, which is no token: tokens are whole numbers from 0, "
            f"below {MOST_TOKENS:,}",
            "number the tokens from 0; for measured values use floats: x.astype(np.float32)",
        )
    return largest + 1


def _scale(
    part: Part, name: str, kind: InputKind, shape: tuple[int, ...]
) -> tuple[Array, Array]:
    """Give mean and standard deviation by channel, or by feature.

    Pieces are put together as Chan, Golub and LeVeque do, "Updating Formulae and a Pairwise
    Algorithm for Computing Sample Variances", 1979.
    """
    axes: tuple[int, ...] = tuple(range(len(shape)))  # rows, and all but the last
    kept: tuple[int, ...] = shape[-1:]
    if kind is InputKind.IMAGES:
        grey = len(shape) < IMAGE_RANK
        axes, kept = ((0, 1, 2), (1, 1)) if grey else ((0, 2, 3), (shape[0], 1, 1))
    count, mean, squares = 0, np.zeros(kept), np.zeros(kept)
    for piece in _pieces(part, name):
        values = piece.astype(np.float64)
        own = values.mean(axis=axes, keepdims=True)
        own_squares = np.square(values - own).sum(axis=axes).reshape(kept)
        own, more = own.reshape(kept), values.size // max(mean.size, 1)
        away = own - mean
        mean = mean + away * (more / (count + more))
        squares = squares + own_squares + np.square(away) * (count * more / (count + more))
        count += more
    return mean, _usable(np.sqrt(squares / count), mean)


def _usable(std: Array, mean: Array) -> Array:
    """Put 1 where the values are the same, as far as float32 tells them apart."""
    smallest = np.finfo(np.float32).eps * np.abs(mean)
    return np.where(std > smallest, std, 1.0)
