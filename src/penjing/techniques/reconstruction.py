"""Reconstruction: blocks learn to give what the original's blocks give; no labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from penjing.core.fields import Range
from penjing.core.parametrizations import Encoded
from penjing.core.technique import Context, TrainingTechnique
from penjing.core.training import Distillation

if TYPE_CHECKING:
    from penjing.core.model import Weight
    from penjing.core.training import Parametrization

__all__ = ["Reconstruction"]


@dataclass(frozen=True)
class Reconstruction(TrainingTechnique):
    """Train what is there, in its encodings, towards the outputs of the original's blocks.

    Needs a thousand or so inputs and no labels: the step between post-training and training.
    Blocks end where all data pass through one value, such as the sum of a residual block.

    References:
        Li et al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block
        Reconstruction", ICLR 2021.
        Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020.
    """

    shrinks = False  # what was encoded before has made the model smaller

    features: Annotated[float, Range(0.0, 1e6)] = 1.0
    """Weight of the blocks' outputs, beside the outputs of the model."""
    local: bool = False
    """Whether each block learns for itself: no gradient passes between blocks."""

    @property
    def distillation(self) -> Distillation:
        """Listen to the original alone."""
        return Distillation(weight=1.0, features=self.features, local=self.local)

    def parametrize(self, weight: Weight, context: Context) -> Parametrization:
        """Train what is real-valued in the encoding."""
        del context
        return Encoded(weight.tensor)
