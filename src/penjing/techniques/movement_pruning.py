"""Movement pruning: weights go that training moves towards zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from array_api_compat import array_namespace

from penjing.core.fields import Range
from penjing.core.parametrizations import Encoded
from penjing.core.tensors import like
from penjing.core.training import straight_through
from penjing.techniques.support.masks import GrowingPruning, Masked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.tensors import Array

__all__ = ["MovementPruning"]

LAST = 1e9
"""Below every score."""
SCORE_RATE = 10.0
"""Learning rate of scores, relative to that of weights."""


@dataclass(frozen=True, eq=False)
class Scored(Masked):
    """A weight under a mask of its best scores."""

    def parameters(self) -> Mapping[str, Array]:
        """Train the scores with the weight; all begin equal."""
        return {
            **super().parameters(),
            "scores": np.zeros(self.encoding.shape, np.float32),
        }

    def rates(self) -> Mapping[str, float]:
        """Let scores move faster than weights."""
        return {**super().rates(), "scores": SCORE_RATE}

    def weight(self, held: Mapping[str, Any]) -> Any:
        """Zero what is masked; a score's gradient is the weight times that of its product."""
        return Encoded.weight(self, held) * straight_through(held["mask"], held["scores"])

    def merit(self, held: Mapping[str, Any]) -> Any:
        """Give the scores, flat; what was zero from the beginning goes first."""
        xp = array_namespace(held["scores"])
        first = like(held["scores"], (self.encoding.dense() == 0).astype(np.float32))
        return xp.reshape(held["scores"] - LAST * first, (-1,))


@dataclass(frozen=True)
class MovementPruning(GrowingPruning):
    """Prune the weights that training moves towards zero, whatever their size.

    Each weight has a score, which a straight-through gradient lowers when the weight shrinks
    and raises when it grows; the lowest scores are pruned, and may come back.  Made for
    fine-tuning, where a large weight may be a relic of what the model was trained for before.
    Factors of low-rank weights are trained, not pruned.

    References:
        Sanh, Wolf, Rush, "Movement Pruning: Adaptive Sparsity by Fine-Tuning", NeurIPS 2020.
    """

    masks = Scored

    ends_at: Annotated[float, Range(0.0, 1.0)] = 0.7
    """Share of the run after which the masks stay as they are."""
