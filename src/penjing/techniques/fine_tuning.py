"""Fine-tuning: every weight goes on learning in the encoding it is in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from penjing.core.parametrizations import Encoded
from penjing.core.technique import Context, TrainingTechnique

if TYPE_CHECKING:
    from penjing.core.model import Weight
    from penjing.core.training import Parametrization

__all__ = ["FineTuning"]


@dataclass(frozen=True)
class FineTuning(TrainingTechnique):
    """Train the weights in the encodings that the steps before have given them.

    What is pruned stays pruned, shared values stay shared and are trained themselves, factors
    stay factors, codes are trained with a straight-through gradient together with their steps.
    So this one step is retraining after pruning, centroid training after clustering, low-rank
    retraining and quantization-aware training.

    References:
        Han et al., "Deep Compression", ICLR 2016.
        Esser et al., "Learned Step Size Quantization", ICLR 2020.
    """

    shrinks = False  # what was encoded before has made the model smaller

    def parametrize(self, weight: Weight, context: Context) -> Parametrization:
        """Train what is real-valued in the encoding."""
        del context
        return Encoded(weight.tensor)
