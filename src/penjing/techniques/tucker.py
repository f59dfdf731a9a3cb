"""Tucker-2 decomposition: a convolution becomes a small one between two 1x1 ones."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Annotated

import numpy as np

from penjing.core.fields import Range
from penjing.core.model import LayerKind
from penjing.core.structures import Tucker
from penjing.core.technique import Context, WeightTechnique
from penjing.core.tensors import Dense

if TYPE_CHECKING:
    from penjing.core.model import Weight
    from penjing.core.tensors import Array, Tensor

__all__ = ["TuckerDecomposition"]

LEAST_DIMENSIONS = 3


@dataclass(frozen=True)
class TuckerDecomposition(WeightTechnique):
    """Keep the leading directions of a kernel's output and input channels.

    The ranks come from the higher-order SVD, the factors from higher-order orthogonal
    iteration.  A kernel whose parts would be no smaller stays as it is.

    References:
        Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power
        Mobile Applications", ICLR 2016.
        De Lathauwer et al., "On the Best Rank-1 and Rank-(R1, ..., RN) Approximation of
        Higher-Order Tensors", SIAM J. Matrix Anal. Appl., 2000.
    """

    kinds = frozenset({LayerKind.CONV})
    shrinks = False  # a kernel may have no structure to use

    energy: Annotated[float, Range(0.0, 1.0)] = 0.95
    """Share of the squared singular values to keep, in outputs and in inputs."""
    sweeps: Annotated[int, Range(0, 100)] = 3
    """Rounds of orthogonal iteration; 0 keeps the higher-order SVD."""

    def takes(self, weight: Weight) -> bool:
        """Take kernels of at least two taps; one tap is a matrix, for low_rank."""
        shape = weight.tensor.shape
        return len(shape) >= LEAST_DIMENSIONS and prod(shape[2:]) > 1 and prod(shape) > 0

    def encode(self, weight: Weight, context: Context) -> Tensor:
        """Decompose one kernel."""
        del context  # deterministic
        array = weight.tensor.dense()
        cube = array.reshape(*array.shape[:2], -1).astype(np.float64)
        turned = cube.swapaxes(0, 1)
        outputs = _leading(cube, _rank(cube, self.energy))
        inputs = _leading(turned, _rank(turned, self.energy))
        for _ in range(self.sweeps):
            reduced = np.einsum("oit,ir->ort", cube, inputs, optimize=True)
            outputs = _leading(reduced, outputs.shape[1])
            reduced = np.einsum("oit,or->irt", cube, outputs, optimize=True)
            inputs = _leading(reduced, inputs.shape[1])
        core = np.einsum("oit,or,is->rst", cube, outputs, inputs, optimize=True)
        parts = (core.reshape(*core.shape[:2], *array.shape[2:]), outputs, inputs)
        decomposed = Tucker(*(Dense(np.ascontiguousarray(p, array.dtype)) for p in parts))
        return decomposed if decomposed.nbytes < weight.tensor.nbytes else weight.tensor


def _leading(cube: Array, rank: int) -> Array:
    """Leading left singular vectors of a cube unfolded along its first axis."""
    vectors = np.linalg.svd(cube.reshape(len(cube), -1), full_matrices=False)[0]
    return np.ascontiguousarray(vectors[:, :rank])


def _rank(cube: Array, energy: float) -> int:
    """Count the directions of the first axis that hold this share of the energy."""
    matrix = cube.reshape(len(cube), -1)
    power = np.linalg.svd(matrix, compute_uv=False) ** 2
    wanted = energy * float(power.sum())
    return min(int(np.searchsorted(np.cumsum(power), wanted)) + 1, len(power))
