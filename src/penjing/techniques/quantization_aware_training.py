"""Quantization-aware training: weights and steps learn on the grid they will be stored on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from array_api_compat import array_namespace

from penjing.core.fields import Range
from penjing.core.model import MATRIX_KINDS
from penjing.core.parametrizations import STEP_RATE, fake_quantized
from penjing.core.structures import Bitmask
from penjing.core.technique import Context, TrainingTechnique
from penjing.core.tensors import Affine
from penjing.core.training import Parametrization

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.model import Weight
    from penjing.core.tensors import Array, Tensor

__all__ = ["QuantizationAwareTraining"]

Granularity = Literal["per_tensor", "per_channel"]
SMALLEST_STEP = 1e-12


@dataclass(frozen=True)
class QuantizationAwareTraining(TrainingTechnique):
    """Train on symmetric grids of few bits whose steps are learned with the weights.

    A step begins at twice the mean magnitude over the root of the largest code.  What was
    pruned before stays zero.

    References:
        Esser et al., "Learned Step Size Quantization", ICLR 2020 (equations 1 to 3).
    """

    kinds = MATRIX_KINDS

    bits: Annotated[int, Range(2, 8)] = 8
    """Bits of each weight."""
    granularity: Granularity = "per_channel"
    """Steps: one per weight, or one per output channel."""

    def parametrize(self, weight: Weight, context: Context) -> Parametrization:
        """Give the weight a grid."""
        del context
        return Stepped(weight.tensor, self)


@dataclass(frozen=True, eq=False)
class Stepped(Parametrization):
    """Latent weights on a grid with learned steps."""

    source: Tensor
    technique: QuantizationAwareTraining

    @property
    def largest(self) -> int:
        """Largest code; the grid is symmetric."""
        return int(2 ** (self.technique.bits - 1) - 1)

    def parameters(self) -> Mapping[str, Array]:
        """Train latent weights and the logarithms of steps."""
        values = np.array(self.source.dense(), np.float32)
        sizes = np.abs(values)
        if self.technique.granularity == "per_channel" and values.ndim > 1:
            mean = sizes.mean(axis=tuple(range(1, values.ndim)), keepdims=True)
        else:
            mean = np.full((1,) * values.ndim, sizes.mean() if sizes.size else 0.0)
        step = np.maximum(2 * mean / np.sqrt(self.largest), SMALLEST_STEP)
        return {"values": values, "log_step": np.log(step).astype(np.float32)}

    def buffers(self) -> Mapping[str, Array]:
        """Hold what an earlier pruning has left."""
        kept = self.source.kept() if isinstance(self.source, Bitmask) else None
        return {} if kept is None else {"mask": kept.astype(np.float32)}

    def rates(self) -> Mapping[str, float]:
        """Change steps slowly: a step moves all of its weights."""
        return {"log_step": STEP_RATE}

    def weight(self, held: Mapping[str, Any]) -> Any:
        """Round onto the grid."""
        step = array_namespace(held["log_step"]).exp(held["log_step"])
        made = fake_quantized(held["values"], step, -self.largest, self.largest)
        return made * held["mask"] if "mask" in held else made

    def tensor(self, held: Mapping[str, Array]) -> Tensor:
        """Give codes and steps."""
        step = np.exp(held["log_step"])
        codes = np.clip(np.round(held["values"] / step), -self.largest, self.largest)
        if "mask" in held:
            codes = codes * held["mask"]
        return Affine.encode(codes.astype(np.int64), step)
