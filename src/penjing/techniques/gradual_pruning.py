"""Gradual magnitude pruning: sparsity grows while the model learns to do without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from array_api_compat import array_namespace

from penjing.core.fields import Range
from penjing.core.model import MATRIX_KINDS
from penjing.core.parametrizations import Encoded
from penjing.core.structures import zeroed
from penjing.core.technique import Context, TrainingTechnique
from penjing.core.training import stop_gradient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.model import Weight
    from penjing.core.tensors import Array, Tensor
    from penjing.core.training import Joint, Moment, Parametrization

__all__ = ["GradualPruning"]

Scope = Literal["layer", "model"]
UPDATES = 100
"""Times at which the masks change, at most."""


@dataclass(frozen=True)
class GradualPruning(TrainingTechnique):
    """Prune the weights of smallest magnitude, few at first, and train what is left.

    The share of zeros follows ``sparsity * (1 - (1 - t)³)`` and is reached at ``ends_at`` of
    the run; the rest of the run is retraining.  Encodings that weights are in stay.

    References:
        Zhu & Gupta, "To prune, or not to prune", arXiv:1710.01878, 2017.
        Han et al., "Learning both Weights and Connections", NeurIPS 2015.
    """

    kinds = MATRIX_KINDS

    sparsity: Annotated[float, Range(0.0, 1.0)] = 0.8
    """Share of the weights that is zero in the end."""
    ends_at: Annotated[float, Range(0.0, 1.0)] = 0.5
    """Share of the run after which no more weights are pruned."""
    scope: Scope = "layer"
    """What the share is counted in: each ``layer``, or the whole ``model`` at once."""

    def parametrize(self, weight: Weight, context: Context) -> Parametrization:
        """Mask what the weight's encoding gives."""
        del context
        return Masked(weight.tensor, self)

    def joint(self, parametrizations: Mapping[str, Parametrization]) -> Joint | None:
        """Rank the weights of all layers together, where that is the scope."""
        masked = {n: p for n, p in parametrizations.items() if isinstance(p, Masked)}
        if self.scope == "layer" or not masked:
            return None

        def update(
            held: Mapping[str, Mapping[str, Any]], moment: Moment
        ) -> Mapping[str, Mapping[str, Any]]:
            if not self.is_due(moment):
                return {}
            sizes = [masked[name].magnitudes(held[name]) for name in masked]
            xp = array_namespace(sizes[0])
            kept = largest(xp.concat(sizes), self.share(moment))
            found, at = {}, 0
            for name, size in zip(masked, sizes, strict=True):
                part = kept[at : at + size.shape[0]]
                found[name] = {"mask": xp.reshape(part, masked[name].encoding.shape)}
                at += size.shape[0]
            return found

        return update

    def share(self, moment: Moment) -> float:
        """Share of zeros at a moment."""
        done = 1.0 if self.ends_at == 0 else min(moment.progress / self.ends_at, 1.0)
        return self.sparsity * (1 - (1 - done) ** 3)

    def is_due(self, moment: Moment) -> bool:
        """Tell whether masks change at this moment."""
        last = max(1, round(self.ends_at * moment.steps))
        every = max(1, last // UPDATES)
        return moment.step <= last and (moment.step % every == 0 or moment.step == last)


@dataclass(frozen=True, eq=False)
class Masked(Encoded):
    """A weight in its encoding, under a mask."""

    technique: GradualPruning

    def buffers(self) -> Mapping[str, Array]:
        """Begin with every weight that is not zero."""
        return {"mask": (self.encoding.dense() != 0).astype(np.float32)}

    def weight(self, held: Mapping[str, Any]) -> Any:
        """Zero what is masked."""
        return super().weight(held) * held["mask"]

    def magnitudes(self, held: Mapping[str, Any]) -> Any:
        """Give the size of every weight, flat; zeros stay the first to go."""
        made = stop_gradient(self.weight(held))
        xp = array_namespace(made)
        return xp.reshape(xp.abs(made), (-1,))

    def update(self, held: Mapping[str, Any], moment: Moment) -> Mapping[str, Any]:
        """Choose the mask anew, where the layer is what the share is counted in."""
        if self.technique.scope == "model" or not self.technique.is_due(moment):
            return {}
        kept = largest(self.magnitudes(held), self.technique.share(moment))
        return {"mask": array_namespace(kept).reshape(kept, self.encoding.shape)}

    def tensor(self, held: Mapping[str, Array]) -> Tensor:
        """Keep the encoding, with zeros in it."""
        made = super().tensor(held)
        return zeroed(made, held["mask"] != 0)


def largest(magnitudes: Any, share: float) -> Any:
    """Mark, by ones, all but the ``share`` of smallest elements of a flat array.

    Of equal ones the earlier go first.
    """
    xp = array_namespace(magnitudes)
    ranks = xp.argsort(xp.argsort(magnitudes, stable=True), stable=True)
    return xp.astype(ranks >= round(share * magnitudes.shape[0]), xp.float32)
