"""Binary weights: each becomes plus or minus the mean magnitude of its channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np

from penjing.core.fields import Range
from penjing.core.technique import Context, WeightTechnique
from penjing.core.tensors import Affine

if TYPE_CHECKING:
    from penjing.core.model import Weight
    from penjing.core.tensors import Tensor

__all__ = ["BinaryWeights"]


@dataclass(frozen=True)
class BinaryWeights(WeightTechnique):
    """Keep the sign of each weight, and one magnitude per output channel.

    References:
        Rastegari et al., "XNOR-Net", ECCV 2016.
    """

    gap: Annotated[float, Range(0.0, 1.0)] = 0.0
    """Weights below this share of the mean magnitude become zero (ternary weights)."""

    def encode(self, weight: Weight, context: Context) -> Tensor:
        """Give codes of -1, 0 and 1, and the mean magnitude as their step."""
        del context  # deterministic
        array = weight.tensor.dense()
        if not array.size or array.ndim < 2:  # noqa: PLR2004  # a vector has no channels
            return weight.tensor
        axes = tuple(range(1, array.ndim))
        magnitude = np.abs(array).mean(axis=axes, keepdims=True, dtype=np.float64)
        codes = np.where(np.abs(array) < self.gap * magnitude, 0, np.sign(array))
        step = np.where(magnitude > 0, magnitude, 1)  # a channel of zeros has no magnitude
        binary = Affine.encode(codes, step)
        return binary if binary.nbytes < weight.tensor.nbytes else weight.tensor
