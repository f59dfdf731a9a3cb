"""What a compression technique is.

Every technique is one file in ``penjing/techniques``, holding one frozen dataclass.  The
dataclass is the configuration and the algorithm: there is no second config object to keep in
step with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, ClassVar, Protocol

import numpy as np

from penjing.core.errors import UnsupportedError
from penjing.core.fields import Range, check_bounds
from penjing.core.model import LayerKind, Observes
from penjing.core.parametrizations import Encoded
from penjing.core.training import Plan, Trains

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from penjing.core.model import Model, Statistics, Walker, Weight
    from penjing.core.tensors import Array, Tensor
    from penjing.core.training import Distillation, Joint, Parametrization, Trainer


class Prober(Protocol):
    """Measures how much given errors of each weight matter."""

    def __call__(
        self, key: Hashable, values: Callable[[], Mapping[str, Array]]
    ) -> Mapping[str, float]:
        """Change one layer at a time to ``values()``; give loss per unit of output error.

        The answer is remembered under ``key``; ``values`` is called only for a new key.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What one pass over the calibration data showed."""

    statistics: Mapping[str, Statistics]
    """Statistics of each weight whose inputs could be seen."""
    sensitivity: Mapping[str, float]
    """Loss per unit of output error energy, by weight; measured forward-only."""
    walker: Walker | None = None
    """Runs the calibration data again, through layers that have been compressed."""
    prober: Prober | None = None
    """Measures sensitivities anew, from actual errors instead of random noise."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a technique may use besides the model."""

    seed: int = 0
    only: str = "*"
    observation: Observation = field(
        default_factory=lambda: Observation(MappingProxyType({}), MappingProxyType({}))
    )
    """Empty where there were no calibration data."""
    trainer: Trainer | None = None
    """Trains on the rows given for that; None where there are none."""

    def rng(self, name: str) -> np.random.Generator:
        """Random stream for one weight: the same however many weights come before it."""
        return np.random.default_rng([self.seed, *name.encode()])


@dataclass(frozen=True)
class Technique(ABC):
    """Turns a model into a smaller or faster model.  Subclasses are frozen and final."""

    needs: ClassVar[tuple[type, ...]] = ()
    """Capabilities, such as ``Observes``, that the model's backend must have."""
    shrinks: ClassVar[bool] = True
    """Whether the default settings promise fewer bytes."""
    kinds: ClassVar[frozenset[LayerKind]] = frozenset(LayerKind)
    """Kinds of layer it works on."""

    def __post_init__(self) -> None:
        check_bounds(self)

    @classmethod
    def check_supports(cls, model: Model) -> None:
        """Raise UnsupportedError, before any work is done, if the backend lacks something."""
        for need in cls.needs:
            if not isinstance(model.backend, need):
                raise UnsupportedError(
                    cls.__name__, f"needs {need.__name__}, which {model.backend.name} lacks"
                )

    def chosen(self, model: Model, context: Context) -> dict[str, Weight]:
        """Weights of the right kind and name; an error if there are none."""
        named = model.weights(context.only)
        found = {
            name: weight
            for name, weight in named.items()
            if weight.kind in self.kinds and weight.is_float and self.takes(weight)
        }
        if not found:
            raise UnsupportedError(
                type(self).__name__,
                f"found no weights to work on: it takes {', '.join(sorted(self.kinds))} "
                f"weights named {context.only!r}",
                f"the model has {', '.join(sorted(model.weights())) or 'no weights'}",
            )
        return found

    def takes(self, weight: Weight) -> bool:
        """Tell whether this weight has a form the technique can work on; True unless said."""
        del weight
        return True

    @abstractmethod
    def apply(self, model: Model, context: Context) -> Model:
        """Return a compressed copy of ``model``; leave ``model`` as it was."""


@dataclass(frozen=True)
class WeightTechnique(Technique):
    """A technique that treats each weight on its own: write ``encode`` and nothing else."""

    kinds = frozenset(
        {LayerKind.LINEAR, LayerKind.CONV, LayerKind.RECURRENT, LayerKind.EMBEDDING}
    )

    def apply(self, model: Model, context: Context) -> Model:
        """Encode every weight of the right kind whose name matches."""
        chosen = self.chosen(model, context)
        return model.with_weights({w.name: self.encode(w, context) for w in chosen.values()})

    @abstractmethod
    def encode(self, weight: Weight, context: Context) -> Tensor:
        """Return the new encoding of one weight."""


@dataclass(frozen=True)
class ObservingTechnique(WeightTechnique):
    """A technique that uses calibration statistics."""

    needs = (Observes,)


@dataclass(frozen=True)
class TrainingTechnique(Technique):
    """A technique that learns: write ``parametrize`` and nothing else.

    Weights of its ``kinds`` are trained as it says; all others that match, in the encoding
    they are in.
    """

    needs: ClassVar[tuple[type, ...]] = (Trains,)

    epochs: Annotated[float, Range(0.0, 10000.0)] = 10.0
    """Passes over the training data."""
    learning_rate: Annotated[float, Range(0.0, 10.0)] = 1e-3
    """Largest learning rate; 0 looks for one (learning-rate range test)."""

    def apply(self, model: Model, context: Context) -> Model:
        """Train the model, and give it with its weights as training left them.

        Raises:
            UnsupportedError: there are no training data, or nothing to train.
            TrainingError: the loss became NaN again and again.
        """
        trainer = self.trainer_of(context)
        model = self.prepared(model, context)
        chosen = self.chosen(model, context)
        made = {
            name: self.parametrize(weight, context)
            if name in chosen
            else Encoded(weight.tensor)
            for name, weight in model.weights(context.only).items()
            if name in chosen or self.keeps_training(weight)
        }
        made |= self.besides(model)
        return self.trained(model, trainer, self.plan(made, context))

    def trainer_of(self, context: Context) -> Trainer:
        """Give the trainer.

        Raises:
            UnsupportedError: there are no training data.
        """
        if context.trainer is None:
            raise UnsupportedError(
                type(self).__name__,
                "needs training data",
                "give rows to train on, with --train or train=",
            )
        return context.trainer

    def plan(
        self,
        made: Mapping[str, Parametrization],
        context: Context,
        *,
        epochs: float | None = None,
        part: int = 0,
        label: str = "training",
    ) -> Plan:
        """Say what one run does; a technique may make several, told apart by ``part``."""
        return Plan(
            made,
            self.epochs if epochs is None else epochs,
            self.learning_rate,
            key=repr((self, context.only, context.seed, *([part] if part else []))),
            joint=self.joint(made),
            distillation=self.distillation,
            settled=self.settled,
            label=label,
        )

    @staticmethod
    def trained(model: Model, trainer: Trainer, plan: Plan) -> Model:
        """Run a plan; give the model with its weights as training left them."""
        held, made = trainer.fit(model, plan), plan.parametrizations
        return model.with_weights({name: made[name].tensor(held[name]) for name in held})

    def prepared(self, model: Model, context: Context) -> Model:
        """Change the model before it is trained; as it is unless a subclass says so."""
        del context
        return model

    def besides(self, model: Model) -> dict[str, Parametrization]:
        """Say what else is trained, whatever its kind and name; nothing unless said."""
        del model
        return {}

    def keeps_training(self, weight: Weight) -> bool:
        """Tell whether a weight of no kind of its own is trained, in the encoding it is in."""
        return weight.is_float and weight.kind is not LayerKind.OTHER

    @property
    def distillation(self) -> Distillation | None:
        """Say what the loss is made of; None leaves that to the recipe."""
        return None

    @property
    def settled(self) -> float:
        """Share of the run after which weights have the form they are to have in the end."""
        return 0.0

    @abstractmethod
    def parametrize(self, weight: Weight, context: Context) -> Parametrization:
        """Say how one weight is made from what is trained."""

    def joint(self, parametrizations: Mapping[str, Parametrization]) -> Joint | None:
        """Give an update that needs all weights at once; None where there is none."""
        del parametrizations
        return None
