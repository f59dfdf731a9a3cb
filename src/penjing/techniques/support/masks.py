"""What the techniques share that prune while they train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from array_api_compat import array_namespace

from penjing.core.fields import Range
from penjing.core.model import MATRIX_KINDS
from penjing.core.parametrizations import Encoded
from penjing.core.structures import LowRank, Tucker, zeroed
from penjing.core.technique import Context, TrainingTechnique
from penjing.core.training import stop_gradient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.model import Weight
    from penjing.core.tensors import Array, Tensor
    from penjing.core.training import Joint, Moment, Parametrization

Scope = Literal["layer", "model"]
UPDATES = 100
"""Times at which the masks change, at most."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How sparsity grows: fast at first, while there is much that nobody needs.

    References:
        Zhu & Gupta, "To prune, or not to prune", arXiv:1710.01878, 2017, equation 1.
    """

    sparsity: float
    """Share of zeros in the end."""
    ends_at: float
    """Share of the run at which that is reached."""

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
    """A weight in its encoding, under a mask: the largest magnitudes are kept."""

    growth: Growth
    together: bool = False
    """Whether masks are chosen over all layers at once, by ``ranked_together``."""

    def buffers(self) -> Mapping[str, Array]:
        """Begin with every weight that is not zero."""
        return {"mask": (self.encoding.dense() != 0).astype(np.float32)}

    def weight(self, held: Mapping[str, Any]) -> Any:
        """Zero what is masked."""
        return super().weight(held) * held["mask"]

    def merit(self, held: Mapping[str, Any]) -> Any:
        """Give what each weight is kept for, flat: its magnitude; what is zero goes first."""
        made = stop_gradient(self.weight(held))
        xp = array_namespace(made)
        return xp.reshape(xp.abs(made), (-1,))

    def update(self, held: Mapping[str, Any], moment: Moment) -> Mapping[str, Any]:
        """Choose the mask anew, where the layer is what the share is counted in."""
        if self.together or not self.growth.is_due(moment):
            return {}
        kept = largest(self.merit(held), self.growth.share(moment))
        return {"mask": array_namespace(kept).reshape(kept, self.encoding.shape)}

    def tensor(self, held: Mapping[str, Array]) -> Tensor:
        """Keep the encoding, with zeros in it."""
        return zeroed(super().tensor(held), held["mask"] != 0)


@dataclass(frozen=True)
class GrowingPruning(TrainingTechnique):
    """What techniques share whose masks grow while the model trains: all but the merit."""

    kinds = MATRIX_KINDS
    masks: ClassVar[type[Masked]] = Masked
    """How a weight is masked, and by what merit."""

    sparsity: Annotated[float, Range(0.0, 1.0)] = 0.8
    """Share of the weights that is zero in the end."""
    ends_at: Annotated[float, Range(0.0, 1.0)] = 0.5
    """Share of the run after which no more weights are pruned."""
    scope: Scope = "layer"
    """What the share is counted in: each ``layer``, or the whole ``model`` at once."""

    @property
    def settled(self) -> float:
        """Share of the run after which everything to be pruned is."""
        return self.ends_at

    def parametrize(self, weight: Weight, context: Context) -> Parametrization:
        """Mask what has elements; factors of low rank are trained, not pruned."""
        del context
        if isinstance(weight.tensor, LowRank | Tucker):
            return Encoded(weight.tensor)
        growth = Growth(self.sparsity, self.ends_at)
        return self.masks(weight.tensor, growth, together=self.scope == "model")

    def joint(self, parametrizations: Mapping[str, Parametrization]) -> Joint | None:
        """Rank the weights of all layers together, where that is the scope."""
        return ranked_together(parametrizations)


def ranked_together(parametrizations: Mapping[str, Parametrization]) -> Joint | None:
    """Choose the masks of all layers by one ranking, where they ask for that."""
    masked = {n: p for n, p in parametrizations.items() if isinstance(p, Masked) and p.together}
    if not masked:
        return None

    def update(
        held: Mapping[str, Mapping[str, Any]], moment: Moment
    ) -> Mapping[str, Mapping[str, Any]]:
        growth = next(iter(masked.values())).growth
        if not growth.is_due(moment):
            return {}
        merits = [masked[name].merit(held[name]) for name in sorted(masked)]
        xp = array_namespace(merits[0])
        kept = largest(xp.concat(merits), growth.share(moment))
        found, at = {}, 0
        for name, merit in zip(sorted(masked), merits, strict=True):
            part = kept[at : at + merit.shape[0]]
            found[name] = {"mask": xp.reshape(part, masked[name].encoding.shape)}
            at += merit.shape[0]
        return found

    return update


def largest(merits: Any, share: float) -> Any:
    """Mark, by ones, all but the ``share`` of smallest elements of a flat array.

    Of equal ones the earlier go first.
    """
    xp = array_namespace(merits)
    ranks = xp.argsort(xp.argsort(merits, stable=True), stable=True)
    return xp.astype(ranks >= round(share * merits.shape[0]), xp.float32)
