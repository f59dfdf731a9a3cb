"""What a compression technique is.

Every technique is one file in ``penjing/techniques``, holding one frozen dataclass.  The
dataclass is the configuration and the algorithm: there is no second config object to keep in
step with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from penjing.core.errors import UnsupportedError
from penjing.core.fields import check_bounds
from penjing.core.model import LayerKind, Observes

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from penjing.core.model import Model, Statistics, Walker, Weight
    from penjing.core.tensors import Array, Tensor


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
