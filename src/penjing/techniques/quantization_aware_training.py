"""Quantization-aware training: weights and steps learn on the grid they will be stored on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from array_api_compat import array_namespace

from penjing.core.errors import ConfigError, UnsupportedError
from penjing.core.fields import Range
from penjing.core.model import ACTIVATION_SCALES, MATRIX_KINDS, Model, QuantizesActivations
from penjing.core.parametrizations import STEP_RATE, Encoded, fake_quantized
from penjing.core.structures import LowRank, Tucker, pruned_mask
from penjing.core.technique import Context, TrainingTechnique
from penjing.core.tensors import Affine, Dense
from penjing.core.training import Parametrization
from penjing.techniques.support.activation_ranges import How, activation_ranges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.model import Weight
    from penjing.core.tensors import Array, Tensor

__all__ = ["QuantizationAwareTraining"]

Granularity = Literal["per_tensor", "per_channel"]
SMALLEST_STEP = 1e-12
WHOLE_BYTE, FEWEST_ACTIVATION_BITS = 8, 4
SHARES = np.linspace(1.0, 0.2, 33)
"""Of the step that reaches the largest weight: where a step may begin."""
RANGE_ROWS = 1024
"""Rows on which the ranges of activations are looked at."""


@dataclass(frozen=True)
class QuantizationAwareTraining(TrainingTechnique):
    """Train on symmetric grids of few bits whose steps are learned with the weights.

    A step begins where rounding alone has the least squared error.  What was pruned before
    stays zero.  With ``activation_bits``, what comes out as a file can run in
    integers: ``penjing unpack --form qdq``.

    References:
        Esser et al., "Learned Step Size Quantization", ICLR 2020 (equations 1 to 3).
    """

    kinds = MATRIX_KINDS

    bits: Annotated[int, Range(2, 8)] = 8
    """Bits of each weight."""
    granularity: Granularity = "per_channel"
    """Steps: one per weight, or one per output channel."""
    activation_bits: Annotated[int, Range(0, 8)] = 0
    """Bits of the values between layers, at least 4; 0 leaves them as they are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.activation_bits < FEWEST_ACTIVATION_BITS:
            raise ConfigError(
                "activation_bits",
                f"must be 0 or in [{FEWEST_ACTIVATION_BITS}, 8], got {self.activation_bits}",
            )

    def prepared(self, model: Model, context: Context) -> Model:
        """Let the values between layers pass through grids, by their ranges on some rows."""
        if not self.activation_bits:
            return model
        backend = model.backend
        if not isinstance(backend, QuantizesActivations):
            raise UnsupportedError(
                type(self).__name__,
                f"cannot quantize the activations of {backend.name} models",
                "set activation_bits: 0",
            )
        assert context.trainer is not None
        names = backend.activations(model.native)
        how: How = "minmax" if self.activation_bits == WHOLE_BYTE else "mse"
        ranges = activation_ranges(
            model.decoded(),
            context.trainer.inputs(RANGE_ROWS),
            names,
            how=how,
            bits=self.activation_bits,
        )
        native = backend.with_quantized_activations(model.native, ranges, self.activation_bits)
        return Model(native, backend, model.changed)

    def besides(self, model: Model) -> dict[str, Parametrization]:
        """Train the steps of activations, too."""
        found = model.weights(ACTIVATION_SCALES) if self.activation_bits else {}
        return {name: Positive(weight.tensor.dense()) for name, weight in found.items()}

    def parametrize(self, weight: Weight, context: Context) -> Parametrization:
        """Give the weight a grid; of factors, each its own."""
        del context
        if isinstance(weight.tensor, LowRank | Tucker):
            return Encoded(weight.tensor.map_values(self._rounded))
        return Stepped(weight.tensor, self)

    def _rounded(self, array: Array) -> Tensor:
        """Put one factor on the grid to begin with."""
        stepped = Stepped(Dense(array), self)
        return stepped.tensor(stepped.parameters())


@dataclass(frozen=True, eq=False)
class Positive(Parametrization):
    """Numbers that stay above zero: their logarithms are trained."""

    values: Array

    def parameters(self) -> Mapping[str, Array]:
        """Train the logarithms."""
        return {"log_step": np.log(np.maximum(self.values, SMALLEST_STEP)).astype(np.float32)}

    def rates(self) -> Mapping[str, float]:
        """Change steps slowly."""
        return {"log_step": STEP_RATE}

    def weight(self, held: Mapping[str, Any]) -> Any:
        """Give the numbers."""
        return array_namespace(held["log_step"]).exp(held["log_step"])

    def tensor(self, held: Mapping[str, Array]) -> Tensor:
        """Give the numbers as they are."""
        return Dense(np.exp(held["log_step"]).astype(np.float32))


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
        rows = values.reshape(len(values) if self._by_row else 1, -1)
        step = np.maximum(_least_squares_step(rows, self.largest), SMALLEST_STEP)
        return {"values": values, "log_step": np.log(step).reshape(self._step_shape)}

    @property
    def _by_row(self) -> bool:
        shape = self.source.shape
        return self.technique.granularity == "per_channel" and len(shape) > 1 and shape[0] > 0

    @property
    def _step_shape(self) -> tuple[int, ...]:
        count = len(self.source.shape)
        return (self.source.shape[0] if self._by_row else 1, *(1,) * (count - 1))[:count]

    def buffers(self) -> Mapping[str, Array]:
        """Hold what an earlier pruning has left."""
        mask = pruned_mask(self.source)
        return {} if mask is None else {"mask": mask}

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


def _least_squares_step(rows: Array, largest: int) -> Array:
    """Give the step of each row, (rows, 1), whose rounding has the least squared error."""
    reach = np.abs(rows).max(axis=1, initial=0.0, keepdims=True) / largest
    best = np.full(reach.shape, np.inf)
    found = reach.astype(np.float32)
    for share in SHARES:
        step = np.maximum(share * reach, SMALLEST_STEP)
        rounded = np.clip(np.round(rows / step), -largest, largest) * step
        error = ((rows - rounded) ** 2).sum(axis=1, keepdims=True)
        found = np.where(error < best, step, found)
        best = np.minimum(best, error)
    step_of_row: Array = found.astype(np.float32)
    return step_of_row
