"""Low-rank factorization: a weight matrix becomes the product of two thin ones (SVD)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Annotated

import numpy as np

from penjing.core.fields import Range
from penjing.core.structures import LowRank
from penjing.core.technique import Context, WeightTechnique
from penjing.core.tensors import Dense

if TYPE_CHECKING:
    from penjing.core.model import Weight
    from penjing.core.tensors import Array, Tensor

__all__ = ["LowRankFactorization"]

DAMPING = 0.01
"""Added to the second moments of the inputs, as a share of their mean: no input is free."""


@dataclass(frozen=True)
class LowRankFactorization(WeightTechnique):
    """Keep the leading singular vectors of each weight, seen as outputs by inputs.

    Where calibration saw the inputs, the error of the outputs is what is kept small: the
    factorization is of the weight times a square root of the inputs' second moments.  A weight
    whose factors would be no smaller stays as it is.

    References:
        Denton et al., "Exploiting Linear Structure Within Convolutional Networks for Efficient
        Evaluation", NeurIPS 2014.
        Wang et al., "SVD-LLM: Truncation-aware Singular Value Decomposition", ICLR 2025.
    """

    shrinks = False  # a weight may have no structure to use

    energy: Annotated[float, Range(0.0, 1.0)] = 0.95
    """Share of the squared singular values to keep."""
    rank: Annotated[int, Range(0, 65536)] = 0
    """Singular vectors to keep; 0 lets ``energy`` decide."""

    def encode(self, weight: Weight, context: Context) -> Tensor:
        """Factorize, singular values split evenly between the factors."""
        tensor = weight.tensor
        if not prod(tensor.shape) or not tensor.shape:
            return tensor
        array = tensor.dense()
        seen = context.observation.statistics.get(weight.name)
        gram = seen.gram if seen is not None and weight.groups == 1 else None
        matrix = array.reshape(len(array), -1).astype(np.float64)
        root = _square_root(gram, matrix.shape[1])
        u, s, vt = np.linalg.svd(matrix if root is None else matrix @ root, full_matrices=False)
        rank = min(self.rank, len(s)) or _enough(s**2, self.energy)
        split = np.sqrt(s[:rank])
        right = vt[:rank] if root is None else np.linalg.solve(root.T, vt[:rank].T).T
        factors = LowRank(
            Dense((u[:, :rank] * split).astype(array.dtype)),
            Dense((split[:, None] * right).astype(array.dtype)),
            tuple(array.shape),
        )
        return factors if factors.nbytes < tensor.nbytes else tensor


def _square_root(gram: Array | None, columns: int) -> Array | None:
    """Give L with L Lᵀ the damped second moments, at a mean of 1; None for the identity."""
    if gram is None:
        return None
    level = float(np.trace(gram[0])) / columns
    if level <= 0:
        return None
    root: Array = np.linalg.cholesky(gram[0] / level + DAMPING * np.eye(columns))
    return root


def _enough(power: Array, energy: float) -> int:
    """Count the leading values that hold this share of the sum; at least one."""
    wanted = energy * float(power.sum())
    return min(int(np.searchsorted(np.cumsum(power), wanted)) + 1, len(power))
