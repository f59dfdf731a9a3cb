"""Transfer learning: from the head down, layers learn a new task, each in its turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from penjing.core.fields import Range
from penjing.core.model import OrdersLayers
from penjing.core.parametrizations import Encoded
from penjing.core.technique import Context, TrainingTechnique
from penjing.core.training import Distillation, Trains, stage_label

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from penjing.core.model import Model, Weight
    from penjing.core.training import Parametrization

__all__ = ["TransferLearning"]


@dataclass(frozen=True, eq=False)
class Slowed(Encoded):
    """Trains a weight in the encoding it is in, at a share of the learning rate."""

    share: float = 1.0

    def rates(self) -> Mapping[str, float]:
        """Slow everything down alike."""
        own = super().rates()
        return {name: self.share * own.get(name, 1.0) for name in self.parameters()}

    def undecayed(self) -> Collection[str]:
        """Spare the steps from weight decay, as always."""
        return super().rates()


@dataclass(frozen=True)
class TransferLearning(TrainingTechnique):
    """Train the last layer by the labels, then more and more layers, slower further down.

    Layers are divided into groups in the order of computation.  In each stage of training one
    more group learns, from the last layer down; the learning rate falls from group to group.

    References:
        Yosinski et al., "How transferable are features in deep neural networks?", NIPS 2014.
        Howard & Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL
        2018: gradual unfreezing and discriminative rates.
    """

    needs = (Trains, OrdersLayers)
    shrinks = False  # what was encoded before has made the model smaller

    stages: Annotated[int, Range(1, 100)] = 3
    """Groups of layers that learn one after the other; 1 trains the last layer alone."""
    decay: Annotated[float, Range(1.0, 1000.0)] = 2.6
    """Factor between the learning rates of a group and of the next one down."""

    @property
    def distillation(self) -> Distillation:
        """Listen to the labels, if there are any: the original knows no new task."""
        return Distillation(weight=0.0)

    def apply(self, model: Model, context: Context) -> Model:
        """Train in stages; ``epochs`` are shared out among them.

        Raises:
            UnsupportedError: there are no training data, or nothing to train.
            TrainingError: the loss became NaN again and again.
        """
        trainer = self.trainer_of(context)
        groups = self._groups(model, context)
        for stage in range(self.stages):
            made: dict[str, Parametrization] = {
                name: Slowed(weight.tensor, self.decay**-depth)
                for depth, names in enumerate(groups[: stage + 1])
                for name, weight in model.weights(context.only).items()
                if name in names
            }
            plan = self.plan(
                made,
                context,
                epochs=self.epochs / self.stages,
                part=stage,
                label=stage_label(stage, self.stages),
            )
            model = self.trained(model, trainer, plan)
        return model

    def parametrize(self, weight: Weight, context: Context) -> Parametrization:
        """Train what is real-valued in the encoding."""
        del context
        return Encoded(weight.tensor)

    def _groups(self, model: Model, context: Context) -> list[set[str]]:
        """Divide what can be trained: the last layer, then groups of layers further down."""
        chosen = self.chosen(model, context)
        assert isinstance(model.backend, OrdersLayers)
        known = [
            [name for name in layer if name in chosen]
            for layer in model.backend.layers(model.to_native())
        ]
        below = [names for names in known if names]
        if not below:
            return [set(chosen)] + [set()] * (self.stages - 1)
        head = below.pop()
        below.reverse()
        groups = [set(head)]
        for stage in range(self.stages - 1):
            first = len(below) * stage // (self.stages - 1)
            last = len(below) * (stage + 1) // (self.stages - 1)
            groups.append({name for names in below[first:last] for name in names})
        return groups
