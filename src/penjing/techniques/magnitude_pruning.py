"""Magnitude pruning: the weights nearest zero become zero."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from penjing.core.fields import Range
from penjing.core.model import MATRIX_KINDS
from penjing.core.structures import LowRank, Tucker, zeroed
from penjing.core.technique import Context, Technique

if TYPE_CHECKING:
    from penjing.core.model import Model
    from penjing.core.tensors import Array, Tensor

__all__ = ["MagnitudePruning"]

Scope = Literal["layer", "model"]


@dataclass(frozen=True)
class MagnitudePruning(Technique):
    """Set the weights of smallest magnitude to zero.

    Weights that are quantized, shared or cast stay so.  Of low-rank and Tucker weights the
    factors are pruned, each for itself.

    References:
        Han et al., "Learning both Weights and Connections", NeurIPS 2015.
        Hoefler et al., "Sparsity in Deep Learning", JMLR 2021 (scopes).
    """

    kinds = MATRIX_KINDS

    sparsity: Annotated[float, Range(0.0, 1.0)] = 0.5
    """Share of the weights that becomes zero."""
    scope: Scope = "layer"
    """What the share is counted in: each ``layer``, or the whole ``model`` at once."""

    def apply(self, model: Model, context: Context) -> Model:
        """Zero the ``sparsity`` share of smallest magnitude; ties go to the earlier element.

        Raises:
            UnsupportedError: no weight is of the right kind and name.
        """
        chosen = self.chosen(model, context)
        shares = dict.fromkeys(chosen, self.sparsity)
        if self.scope == "model":
            magnitudes = {n: np.abs(chosen[n].tensor.dense()).ravel() for n in sorted(chosen)}
            smallest = _smallest(np.concatenate(list(magnitudes.values())), self.sparsity)
            ends = np.cumsum([part.size for part in magnitudes.values()])[:-1]
            for name, part in zip(magnitudes, np.split(smallest, ends), strict=True):
                shares[name] = float(part.mean()) if part.size else 0.0
        return model.with_weights(
            {name: _prune(weight.tensor, shares[name]) for name, weight in chosen.items()}
        )


def _prune(tensor: Tensor, share: float) -> Tensor:
    if isinstance(tensor, LowRank):
        left, right = _prune(tensor.left, share), _prune(tensor.right, share)
        return replace(tensor, left=left, right=right)
    if isinstance(tensor, Tucker):
        parts = (tensor.core, tensor.outputs, tensor.inputs)
        return Tucker(*(_prune(part, share) for part in parts))
    array = tensor.dense()
    smallest = _smallest(np.abs(array).ravel(), share)
    if not smallest.any():
        return tensor
    before = array != 0
    keep = before & ~smallest.reshape(array.shape)
    pruned = zeroed(tensor, keep)
    nothing_new = np.array_equal(keep, before)
    return tensor if nothing_new and pruned.nbytes >= tensor.nbytes else pruned


def _smallest(magnitudes: Array, share: float) -> Array:
    """Mark the ``share`` of smallest elements; ties go to the earlier ones."""
    count = round(share * magnitudes.size)
    marked = np.zeros(magnitudes.size, bool)
    if count:
        limit = np.partition(magnitudes, count - 1)[count - 1]
        marked = magnitudes < limit
        ties = np.flatnonzero(magnitudes == limit)
        marked[ties[: count - int(marked.sum())]] = True
    return marked
