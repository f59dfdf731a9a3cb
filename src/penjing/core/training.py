"""Training as techniques see it: arrays of any framework, never a framework's classes.

A technique that trains says how each weight is made from the arrays that gradients change (a
``Parametrization``); the one training loop in ``penjing.training`` does the rest.  What a
parametrization computes is written against the array API standard and ``stop_gradient``, so
gradients pass through it whatever the framework.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np

from penjing.core.fields import Range, check_bounds

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from penjing.core.model import Model
    from penjing.core.tensors import Array, Tensor


def stop_gradient(array: Any) -> Any:
    """Give the same numbers, through which no gradient passes."""
    return array.detach() if hasattr(array, "detach") else array


def straight_through(value: Any, latent: Any) -> Any:
    """Give ``value``, with the gradient of ``latent`` (Bengio et al., arXiv:1308.3432)."""
    return stop_gradient(value) + (latent - stop_gradient(latent))


def to_numpy(array: Any) -> Array:
    """Bring an array of a framework, from whatever device, to NumPy."""
    plain = stop_gradient(array)
    return np.asarray(plain.cpu() if hasattr(plain, "cpu") else plain)


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a training run stands."""

    step: int
    """Steps done."""
    steps: int
    """Steps of the whole run."""
    learning_rate: float
    """Of the step at hand."""

    @property
    def progress(self) -> float:
        """Share of the run that is done."""
        return self.step / max(self.steps, 1)


class Parametrization(ABC):
    """How one weight is made from the arrays that are trained.

    Holds no changing state: whatever changes is in ``held``, trained parameters and buffers
    alike, so that the loop can save it and go on later with the same result.
    """

    @abstractmethod
    def parameters(self) -> Mapping[str, Array]:
        """Give the first values of what gradients change, float32."""

    def buffers(self) -> Mapping[str, Array]:
        """Give the first values of what changes between steps only."""
        return {}

    def rates(self) -> Mapping[str, float]:
        """Give factors of the learning rate by parameter; 1 for those left out."""
        return {}

    @property
    def beside(self) -> str:
        """Name of another weight that this one depends on; none unless said.

        Where that one is trained, too, its present array is in ``held["beside"]``.
        """
        return ""

    def undecayed(self) -> Collection[str]:
        """Name parameters that weight decay leaves alone, besides vectors."""
        return self.rates()

    @abstractmethod
    def weight(self, held: Mapping[str, Any]) -> Any:
        """Make the weight, in its own shape; gradients pass to the parameters."""

    def penalty(self, held: Mapping[str, Any], moment: Moment) -> Any:
        """Give a number to add to the loss, or None."""
        del held, moment

    def slopes(self, held: Mapping[str, Any], moment: Moment) -> Mapping[str, Any]:
        """Give, by parameter, a cost per unit of magnitude to be paid past the optimizer.

        After each step every number moves towards zero, and not beyond, by its slope times
        its present rate: the proximal step of a weighted L1 penalty, decoupled from the
        optimizer's averages as weight decay is in AdamW.
        """
        del held, moment
        return {}

    def update(self, held: Mapping[str, Any], moment: Moment) -> Mapping[str, Any]:
        """Give new values of parameters or buffers after a step; those left out stay."""
        del held, moment
        return {}

    @abstractmethod
    def tensor(self, held: Mapping[str, Array]) -> Tensor:
        """Give the trained weight in its encoding, from NumPy arrays.

        Its ``dense()`` is what ``weight`` gives at the end of the run.
        """


Together = (
    "Callable[[Mapping[str, Mapping[str, Any]], Moment], Mapping[str, Mapping[str, Any]]]"
)


class Joint(Protocol):
    """An update that needs all weights at once."""

    def __call__(
        self, held: Mapping[str, Mapping[str, Any]], moment: Moment
    ) -> Mapping[str, Mapping[str, Any]]:
        """Like ``Parametrization.update``, for all weights, by name."""


def stage_label(stage: int, stages: int) -> str:
    """Name a stage of training, counted from 0.

    >>> stage_label(0, 3)
    'training, stage 1 of 3'
    """
    return f"training, stage {stage + 1} of {stages}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What one training run does to a model."""

    parametrizations: Mapping[str, Parametrization]
    """By weight; every other weight stays as it is."""
    epochs: float
    """Passes over the training data."""
    learning_rate: float
    """Largest rate of the schedule; 0 looks for one."""
    key: str = ""
    """What tells this run from others on the same model and data: every setting, as text."""
    joint: Joint | None = None
    """An update that needs all weights at once, after each step."""
    distillation: Distillation | None = None
    """What the loss is made of, in place of what the recipe says."""
    label: str = "training"
    """What to call the run."""
    settled: float = 0.0
    """Share of the run after which a state could be the result: early stopping begins there."""


class Trainer(Protocol):
    """Runs plans on training data; ``penjing.training`` has the one implementation."""

    @property
    def has_labels(self) -> bool:
        """Whether there is more to learn from than the original's outputs."""

    def inputs(self, rows: int) -> Sequence[Mapping[str, Array]]:
        """Give the inputs of some of the rows, in batches: for calibration."""

    def clear(self) -> None:
        """Remove what unfinished and finished runs have left on disk."""

    def configured(self, settings: TrainingSettings, seed: int) -> Trainer:
        """Give a trainer on the same rows with the settings and the seed of a recipe."""

    def fit(self, model: Model, plan: Plan) -> dict[str, dict[str, Array]]:
        """Train; give everything that each parametrization held at the end.

        Raises:
            TrainingError: the loss became NaN again and again, or a GPU's memory is too small.
            UnsupportedError: the model has an operator that cannot be trained.
        """


class Function(Protocol):
    """A model as a differentiable function of its weights and inputs, in PyTorch."""

    @property
    def milestones(self) -> tuple[str, ...]:
        """Values between blocks, in order: all data on the way to the outputs pass them."""

    def __call__(
        self,
        weights: Mapping[str, Any],
        inputs: Mapping[str, Any],
        *,
        watch: Collection[str] = (),
        detach: Collection[str] = (),
    ) -> dict[str, Any]:
        """Give the outputs, and the watched values, by name.

        Args:
            weights: tensors for some weights, laid out as techniques see them; the others are
                the model's own.
            inputs: tensors by input, batch first.
            watch: names of values to give besides the outputs.
            detach: values through which no gradient passes on.
        """


@runtime_checkable
class Trains(Protocol):
    """A capability: the backend can give a model as a differentiable function."""

    def function(self, native: Any) -> Function:
        """Convert the model, in PyTorch.

        Raises:
            UnsupportedError: it has an operator that cannot be trained; the error names it.
            MissingExtraError: PyTorch is not installed.
        """


Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["cosine", "one_cycle", "constant"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Optimization:
    """How the training loop goes about it: the section ``training`` of a recipe."""

    optimizer: Optimizer = "adam"
    """``adam``, ``adamw`` (decoupled weight decay), or ``sgd``."""
    momentum: Annotated[float, Range(0.0, 0.999)] = 0.9
    """Of ``sgd``, in Nesterov's form; 0 goes without."""
    schedule: Schedule = "cosine"
    """Course of the learning rate: down (``cosine``), up and down (``one_cycle``), or level."""
    batch_size: Annotated[int, Range(1, 65536)] = 128
    """Samples of one step, over all processes."""
    weight_decay: Annotated[float, Range(0.0, 1.0)] = 0.0
    """Of weights, not of biases."""
    l1: Annotated[float, Range(0.0, 1.0)] = 0.0
    """Factor of the sum of magnitudes of weights in the loss."""
    clip_norm: Annotated[float, Range(0.0, 1e6)] = 0.0
    """Norm that gradients are cut to; 0 leaves them as they are."""
    precision: Precision = "float32"
    """Number type of the forward pass (mixed precision for the 16-bit ones)."""
    shift: Annotated[int, Range(0, 64)] = 0
    """Pixels by which images are shifted at random, at most."""
    mirror: bool = False
    """Whether every other image is mirrored, left to right."""
    distort: bool = False
    """Whether images are turned, zoomed, and changed in contrast and brightness."""
    blend: bool = False
    """Whether images are blended in pairs, all over or within a rectangle; what they then are,
    the teacher alone says."""
    patience: Annotated[int, Range(0, 10000)] = 0
    """Epochs without a better loss on a tenth of the rows, held out for that, after which
    training ends with the best state; 0 trains on all rows to the end."""

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class Distillation:
    """What the loss is made of: the section ``distillation`` of a recipe.

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.
        Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015 (features).
    """

    weight: Annotated[float, Range(0.0, 1.0)] = 0.5
    """Share of the teacher's word in the loss; the labels have the rest.  The teacher is the
    original model.  Without labels it is 1."""
    temperature: Annotated[float, Range(0.1, 100.0)] = 2.0
    """Divides the logits of teacher and student."""
    features: Annotated[float, Range(0.0, 1e6)] = 0.0
    """Weight of the relative squared distance between blocks' outputs and the teacher's."""
    local: bool = False
    """Whether features train each block for itself: no gradient passes between blocks."""

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """Everything about the loop that is not a technique's own."""

    training: Optimization = field(default_factory=Optimization)
    distillation: Distillation = field(default_factory=Distillation)
