"""What a model template is: an architecture for those who have data and no model yet.

Every template is one file in ``penjing/templates``, holding one frozen dataclass: its fields
are what can be chosen, and ``build`` gives an untrained model for a ``Problem``, which is all
that a template learns about the training data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from penjing.core.errors import ConfigError
from penjing.core.fields import check_bounds
from penjing.core.model import Port
from penjing.core.registry import TEMPLATES

if TYPE_CHECKING:
    from penjing.core.tensors import Array

PLANE_RANK = 2
"""Axes of one sample that is a single-channel image, or a sequence of vectors."""
IMAGE_RANK = 3
"""Axes of one sample that is an image: channels, height, width."""
MOST_COLOURS = 4
"""Channels of pictures: grey, RGB or RGBA."""


class InputKind(StrEnum):
    """What one sample is."""

    FEATURES = "rows of features"
    IMAGES = "images"
    SEQUENCES = "sequences"
    TOKENS = "sequences of tokens"


class Task(StrEnum):
    """What a model is trained to do."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    RECONSTRUCTION = "reconstruction"


def readings(shape: tuple[int, ...], dtype: str) -> frozenset[InputKind]:
    """Tell as what a sample of this shape can be read; a template takes the one it knows.

    >>> sorted(readings((28, 28), "uint8"))
    [<InputKind.IMAGES: 'images'>, <InputKind.SEQUENCES: 'sequences'>]
    """
    kind = np.dtype(dtype).kind
    if kind not in "iuf" or 0 in shape:
        return frozenset()
    if len(shape) == 1:
        tokens = {InputKind.TOKENS} if kind in "iu" else set()
        return frozenset({InputKind.FEATURES} | tokens)
    if len(shape) == PLANE_RANK:
        return frozenset({InputKind.SEQUENCES, InputKind.IMAGES})
    return frozenset({InputKind.IMAGES} if len(shape) == IMAGE_RANK else ())


def describe_sample(shape: tuple[int, ...], dtype: str) -> str:
    """Say in words what one sample looks like.

    >>> describe_sample((8,), "float32")
    'rows of 8 features (float32)'
    """
    if len(shape) == 1 and np.dtype(dtype).kind in "iuf":
        what = "features" if np.dtype(dtype).kind == "f" else "whole numbers"
        return f"rows of {shape[0]} {what} ({dtype})"
    return f"samples of shape {shape} ({dtype})"


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """What a model is to be built for; everything here comes from the training data."""

    shape: tuple[int, ...]
    """Of one sample, without the axis of rows."""
    dtype: str
    """NumPy name of the type of the rows that the model takes, raw as they are."""
    task: Task
    outputs: int = 1
    """Number of classes or of targets; a reconstruction has the shape of its input."""
    vocabulary: int = 0
    """The largest token and one; 0 where the rows are not tokens."""
    mean: Array = field(default_factory=lambda: np.zeros(()))
    """Of the raw rows, shaped to be taken from one sample: by feature or by channel."""
    std: Array = field(default_factory=lambda: np.ones(()))
    """Of the raw rows, shaped like ``mean``; all above 0."""
    target_mean: Array = field(default_factory=lambda: np.zeros(()))
    """Of the targets of a regression, (outputs,) or ()."""
    target_std: Array = field(default_factory=lambda: np.ones(()))
    """Of the targets of a regression; errors divided by it are of the order of one."""
    name: str = "x"
    """Of the input."""

    @property
    def port(self) -> Port:
        """Describe the input that the built model has."""
        return Port(self.name, self.dtype, (None, *self.shape))

    @property
    def size(self) -> int:
        """Count the numbers of one sample."""
        return prod(self.shape)

    @property
    def output_scale(self) -> tuple[Array, Array]:
        """Give mean and standard deviation of what the outputs are held against."""
        if self.task is Task.RECONSTRUCTION:
            return self.mean, self.std
        if self.task is Task.REGRESSION:
            return self.target_mean, self.target_std
        return np.zeros(()), np.ones(())

    @property
    def sample(self) -> str:
        """Say in words what one sample looks like."""
        return describe_sample(self.shape, self.dtype)


@dataclass(frozen=True)
class ModelTemplate(ABC):
    """An architecture with its choices.  Subclasses are frozen and final.

    The built model takes raw rows and scales them itself, so an exported file needs no code
    around it.  It gives logits for classes, and values in their own units otherwise.
    """

    kinds: ClassVar[tuple[InputKind, ...]]
    """What it takes, the preferred reading first."""
    tasks: ClassVar[tuple[Task, ...]] = (Task.CLASSIFICATION, Task.REGRESSION)
    """What it can be trained to do."""
    smallest: ClassVar[int] = 1
    """Height and width that images must have at least."""
    learning_rate: ClassVar[float] = 1e-3
    """Of Adam, where nobody says which."""

    def __post_init__(self) -> None:
        check_bounds(self)

    @abstractmethod
    def build(self, problem: Problem, seed: int = 0) -> Any:
        """Give an untrained model in float32; equal seeds give equal weights.

        No global random state is read or changed.

        Raises:
            ConfigError: the template does not fit the problem.
            MissingExtraError: the framework is not installed.
        """

    @classmethod
    def reading(cls, shape: tuple[int, ...], dtype: str) -> InputKind:
        """Tell as what the template reads samples of this shape.

        Raises:
            ConfigError: it cannot read them.
        """
        possible = readings(shape, dtype)
        for kind in cls.kinds:
            if kind in possible:
                if kind is InputKind.IMAGES:
                    cls._check_image(shape, dtype)
                return kind
        takes = " or ".join(cls.kinds)
        raise ConfigError(
            TEMPLATES.name_of(cls),
            f"takes {takes}, got {describe_sample(shape, dtype)}",
            _others(possible),
        )

    @classmethod
    def check_fits(cls, problem: Problem) -> InputKind:
        """Tell as what the template reads the samples of a problem that it can solve.

        Raises:
            ConfigError: it cannot read the samples, or is not for this task.
        """
        kind = cls.reading(problem.shape, problem.dtype)
        if problem.task not in cls.tasks:
            fitting = _others(frozenset({kind}), problem.task)
            raise ConfigError(
                TEMPLATES.name_of(cls),
                f"is for {' or '.join(cls.tasks)}, not for {problem.task}",
                fitting,
            )
        return kind

    @classmethod
    def _check_image(cls, shape: tuple[int, ...], dtype: str) -> None:
        height, width = shape[-2:]
        if len(shape) == IMAGE_RANK and shape[2] <= MOST_COLOURS < min(shape[:2]):
            raise ConfigError(
                TEMPLATES.name_of(cls),
                f"takes images with the channels first, got {describe_sample(shape, dtype)}",
                "use x.transpose(0, 3, 1, 2)",
            )
        if min(height, width) < cls.smallest:
            raise ConfigError(
                TEMPLATES.name_of(cls),
                f"takes images of {cls.smallest} x {cls.smallest} pixels or more, got "
                f"{height} x {width}",
                "try mlp",
            )


def _others(possible: frozenset[InputKind], task: Task | None = None) -> str:
    """Name the templates that take what there is."""
    fitting = [
        name
        for name in TEMPLATES.names()
        for template in [TEMPLATES.load(name)]
        if possible & set(template.kinds) and (task is None or task in template.tasks)
    ]
    if fitting:
        return f"try {', '.join(fitting)}"
    return (
        "templates take rows of features (n,), sequences (steps, features), tokens (steps,) "
        "or images (channels, height, width) or (height, width), each with a first axis of rows"
    )
