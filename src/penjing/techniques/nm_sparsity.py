"""N:M sparsity: of every few neighbouring weights only some are kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import numpy as np

from penjing.core.errors import ConfigError
from penjing.core.fields import Range
from penjing.core.structures import LowRank, NMSparse, Tucker, zeroed
from penjing.core.technique import Context, WeightTechnique
from penjing.core.tensors import Dense

if TYPE_CHECKING:
    from penjing.core.model import Weight
    from penjing.core.tensors import Tensor

__all__ = ["NMSparsity"]


@dataclass(frozen=True)
class NMSparsity(WeightTechnique):
    """Keep the largest few of every group of neighbours along a row.

    A weight whose pattern would take more room than it saves stays as it is.  Of low-rank and
    Tucker weights the factors are pruned, each for itself.

    References:
        Mishra et al., "Accelerating Sparse Deep Neural Networks", arXiv:2104.08378, 2021.
        Zhou et al., "Learning N:M Fine-grained Structured Sparse Neural Networks", ICLR 2021.
    """

    keep: Annotated[int, Range(1, 16)] = 2
    """Weights kept of every group: the N."""
    out_of: Annotated[int, Range(2, 16)] = 4
    """Weights of a group: the M."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep > self.out_of:
            raise ConfigError("keep", f"must be at most out_of={self.out_of}, got {self.keep}")

    def encode(self, weight: Weight, context: Context) -> Tensor:
        """Keep the largest magnitudes; ties go to the earlier element."""
        del context  # deterministic
        return self._prune(weight.tensor)

    def _prune(self, tensor: Tensor) -> Tensor:
        if isinstance(tensor, LowRank):
            left, right = self._prune(tensor.left), self._prune(tensor.right)
            return replace(tensor, left=left, right=right)
        if isinstance(tensor, Tucker):
            parts = (tensor.core, tensor.outputs, tensor.inputs)
            return Tucker(*(self._prune(part) for part in parts))
        array = tensor.dense()
        if not array.ndim or not array.size:
            return tensor
        pattern = NMSparse.encode(array, self.keep, self.out_of)
        if isinstance(tensor, Dense):
            pruned: Tensor = pattern
        else:
            flags = Dense(np.ones(pattern.values.shape, bool))
            pruned = zeroed(tensor, replace(pattern, values=flags).dense() & (array != 0))
        return pruned if pruned.nbytes <= tensor.nbytes else tensor
