"""Gradual magnitude pruning: sparsity grows while the model learns to do without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from penjing.core.fields import Range
from penjing.core.model import MATRIX_KINDS
from penjing.core.technique import Context, TrainingTechnique
from penjing.techniques.support.masks import Growth, Masked, masked, ranked_together

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.model import Weight
    from penjing.core.training import Joint, Parametrization

__all__ = ["GradualPruning"]

Scope = Literal["layer", "model"]


@dataclass(frozen=True)
class GradualPruning(TrainingTechnique):
    """Prune the weights of smallest magnitude, few at first, and train what is left.

    The share of zeros follows ``sparsity * (1 - (1 - t)³)`` and is reached at ``ends_at`` of
    the run; the rest of the run is retraining.  Encodings that weights are in stay; factors of
    low-rank weights are trained, not pruned.

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

    @property
    def settled(self) -> float:
        """Share of the run after which everything to be pruned is."""
        return self.ends_at

    def parametrize(self, weight: Weight, context: Context) -> Parametrization:
        """Mask what the weight's encoding gives."""
        del context
        growth = Growth(self.sparsity, self.ends_at)
        return masked(weight.tensor, Masked, growth, together=self.scope == "model")

    def joint(self, parametrizations: Mapping[str, Parametrization]) -> Joint | None:
        """Rank the weights of all layers together, where that is the scope."""
        return ranked_together(parametrizations)
