"""N:M sparsity with retraining: the pattern is found while the model trains."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from array_api_compat import array_namespace, device

from penjing.core.errors import ConfigError
from penjing.core.fields import Range
from penjing.core.model import MATRIX_KINDS
from penjing.core.parametrizations import Encoded
from penjing.core.structures import NMSparse
from penjing.core.technique import Context, TrainingTechnique
from penjing.core.training import Moment, Parametrization, straight_through

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.model import Weight
    from penjing.core.tensors import Array, Tensor

__all__ = ["NMTraining"]


@dataclass(frozen=True)
class NMTraining(TrainingTechnique):
    """Train with the largest few of every group of neighbours along a row, the rest zero.

    The pattern is chosen anew in each step from latent weights, which all get gradients
    straight through; those outside the pattern are drawn towards zero, so that patterns settle
    (SR-STE).  A weight whose encoding takes less room than the pattern would keeps it.

    References:
        Zhou et al., "Learning N:M Fine-grained Structured Sparse Neural Networks", ICLR 2021.
    """

    kinds = MATRIX_KINDS

    keep: Annotated[int, Range(1, 16)] = 2
    """Weights kept of every group: the N."""
    out_of: Annotated[int, Range(2, 16)] = 4
    """Weights of a group: the M."""
    decay: Annotated[float, Range(0.0, 1.0)] = 2e-4
    """How strongly latent weights outside the pattern are drawn towards zero."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep > self.out_of:
            raise ConfigError("keep", f"must be at most out_of={self.out_of}, got {self.keep}")

    def takes(self, weight: Weight) -> bool:
        """Take what has rows."""
        return len(weight.tensor.shape) > 1 and prod(weight.tensor.shape) > 0

    def parametrize(self, weight: Weight, context: Context) -> Parametrization:
        """Train all weights, and use those of the pattern; as it is where that is smaller."""
        del context
        values = np.array(weight.tensor.dense(), np.float32)
        if NMSparse.encode(values, self.keep, self.out_of).nbytes > weight.tensor.nbytes:
            return Encoded(weight.tensor)
        return Patterned(values, weight.tensor.dtype, self)


@dataclass(frozen=True, eq=False)
class Patterned(Parametrization):
    """Latent weights, of which the pattern's are used."""

    values: Array
    dtype: np.dtype[Any]
    technique: NMTraining

    def parameters(self) -> Mapping[str, Array]:
        """Train the latent weights."""
        return {"values": self.values}

    def weight(self, held: Mapping[str, Any]) -> Any:
        """Zero what is not in the pattern; gradients reach all."""
        values = held["values"]
        return straight_through(values * self._mask(values), values)

    def penalty(self, held: Mapping[str, Any], moment: Moment) -> Any:
        """Draw what is outside the pattern towards zero."""
        del moment
        values = held["values"]
        outside = values * (1 - self._mask(values))
        return 0.5 * self.technique.decay * array_namespace(values).sum(outside**2)

    def _mask(self, values: Any) -> Any:
        """Mark the largest magnitudes of each group by ones; ties go to the earlier."""
        xp = array_namespace(values)
        keep, out_of = self.technique.keep, self.technique.out_of
        rows = xp.reshape(values, (values.shape[0], -1))
        columns = rows.shape[1]
        missing = -columns % out_of
        if missing:
            empty = xp.zeros((rows.shape[0], missing), dtype=rows.dtype, device=device(rows))
            rows = xp.concat([rows, empty], axis=1)
        groups = xp.abs(xp.reshape(rows, (-1, out_of)))
        order = xp.argsort(xp.argsort(-groups, axis=1, stable=True), axis=1, stable=True)
        kept = xp.astype(order < keep, values.dtype)
        return xp.reshape(xp.reshape(kept, (values.shape[0], -1))[:, :columns], values.shape)

    def tensor(self, held: Mapping[str, Array]) -> Tensor:
        """Keep the pattern's weights and their places."""
        values = held["values"].astype(self.dtype)
        return NMSparse.encode(values, self.technique.keep, self.technique.out_of)
