"""GPTQ: quantization that corrects later weights for the errors of earlier ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Annotated

import numpy as np

from penjing.core.errors import UnsupportedError
from penjing.core.fields import Range
from penjing.core.structures import Bitmask, LowRank, NMSparse
from penjing.core.technique import Context, ObservingTechnique
from penjing.core.tensors import Affine, Cast, Dense

if TYPE_CHECKING:
    from penjing.core.model import Weight
    from penjing.core.tensors import Array, Tensor

__all__ = ["GPTQ"]

SHARES = np.linspace(1.0, 0.3, 36)
"""Of the full range: what the step of a row is chosen from."""
BLOCK = 128
"""Columns corrected one by one before BLAS corrects all the later ones at once."""
ELEMENTWISE = (Dense, Cast, Affine, Bitmask, NMSparse)
"""Encodings that hold each element for itself."""


@dataclass(frozen=True)
class GPTQ(ObservingTechnique):
    """Quantize column by column; each error is made good by the columns still to come.

    The output error on the calibration inputs is what counts.  Pruned weights stay zero.
    Weights whose inputs were not seen, shared values and Tucker parts are rounded to nearest.
    A weight that would not get smaller stays as it is.

    References:
        Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
        Transformers", ICLR 2023.
        Hassibi and Stork, "Second Order Derivatives for Network Pruning: Optimal Brain
        Surgeon", NeurIPS 1992.
    """

    bits: Annotated[int, Range(2, 8)] = 4
    """Bits of each weight; one step per output channel."""
    damping: Annotated[float, Range(0.0001, 1.0)] = 0.01
    """Added to the second moments of the inputs, as a share of their mean."""

    def encode(self, weight: Weight, context: Context) -> Tensor:
        """Quantize one weight.

        Raises:
            UnsupportedError: there were no calibration data.
        """
        if not context.observation.statistics:
            raise UnsupportedError(
                type(self).__name__,
                "needs calibration data",
                "give some inputs of the model, or use round_to_nearest",
            )
        seen = context.observation.statistics.get(weight.name)
        tensor = weight.tensor
        gram = None if seen is None else seen.gram
        if not tensor.shape or not prod(tensor.shape):
            return tensor
        if gram is None:
            encoded = tensor.map_values(self._plain)
        elif isinstance(tensor, ELEMENTWISE):
            encoded = self._fit(tensor, gram)
        elif (
            isinstance(tensor, LowRank)
            and isinstance(tensor.left, ELEMENTWISE)
            and isinstance(tensor.right, ELEMENTWISE)
            and len(gram) == 1
        ):
            encoded = self._fit_factors(tensor, gram)
        else:
            encoded = tensor.map_values(self._plain)
        return encoded if encoded.nbytes <= tensor.nbytes else tensor

    def _fit(self, tensor: Tensor, gram: Array) -> Tensor:
        """Prefer a step per channel; then one for all, which can stay behind a mask."""
        array = tensor.dense()
        masked = isinstance(tensor, (Bitmask, NMSparse))
        keep = array != 0 if masked else np.ones(array.shape, bool)
        fine = self._quantize(array, gram, keep, len(array))
        if fine.nbytes <= tensor.nbytes:
            return fine
        coarse = self._quantize(array, gram, keep, 1)
        if not isinstance(tensor, (Bitmask, NMSparse)):
            return coarse
        plain = replace(tensor, values=Dense(tensor.values.dense()))
        codes = plain.project(coarse.codes).values.dense()
        return replace(tensor, values=Affine.encode(codes, coarse.scale.reshape(1)))

    def _fit_factors(self, tensor: LowRank, gram: Array) -> Tensor:
        """Quantize the factor that sees the inputs, then the one that sees its outputs."""
        right = self._fit(tensor.right, gram)
        matrix = right.dense().astype(np.float64)
        moments = matrix @ gram[0] @ matrix.T
        left = tensor.left
        level = self.damping * float(np.trace(moments)) / len(moments)
        if isinstance(left, Dense) and level > 0:  # make good what the first one lost
            array = left.array.astype(np.float64)
            wanted = array @ (tensor.right.dense() @ gram[0] @ matrix.T) + level * array
            solved = np.linalg.solve(moments + level * np.eye(len(moments)), wanted.T).T
            left = Dense(solved.astype(left.dtype))
        return replace(tensor, left=self._fit(left, moments[None]), right=right)

    def _plain(self, array: Array) -> Tensor:
        """Round to nearest."""
        for steps in (len(array), 1) if array.ndim > 1 else (1,):
            if array.size:
                rounded = self._quantize(array, None, np.ones(array.shape, bool), steps)
                if rounded.nbytes < array.nbytes:
                    return rounded
        return Dense(array)

    def _quantize(self, array: Array, gram: Array | None, keep: Array, steps: int) -> Affine:
        """Quantize with this many steps, each for as many rows; 0 where not ``keep``."""
        low, high = -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        rows = array.reshape(len(array), -1).astype(np.float64)
        kept = keep.reshape(rows.shape)
        importance = np.ones(rows.shape)
        if gram is not None:
            diagonals = np.diagonal(gram, axis1=1, axis2=2)
            importance = np.repeat(diagonals, len(rows) // len(gram), axis=0)
        scale = _steps(
            rows.reshape(steps, -1), importance.reshape(steps, -1), low, high
        ).astype(np.float32)
        wide = np.broadcast_to(scale.astype(np.float64), (steps, len(rows) // steps)).ravel()
        if gram is None:
            codes = np.clip(np.rint(rows / wide[:, None]), low, high) * kept
        else:
            height = len(rows) // len(gram)
            parts = [slice(start, start + height) for start in range(0, len(rows), height)]
            codes = np.concatenate(
                [
                    self._correct(rows[part], kept[part], wide[part], moments)
                    for part, moments in zip(parts, gram, strict=True)
                ]
            )
        shape = (steps, *(1,) * (array.ndim - 1))
        return Affine.encode(codes.reshape(array.shape), scale.reshape(shape))

    def _correct(self, rows: Array, keep: Array, scale: Array, gram: Array) -> Array:
        """Give the codes of (r, d) rows whose inputs have these second moments (d, d).

        Columns go from the most active to the least; of equals the earlier goes first.
        """
        low, high = -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        columns = len(gram)
        level = float(np.trace(gram)) / columns
        if level <= 0:  # never active: every error counts alike
            return np.clip(np.rint(rows / scale[:, None]), low, high) * keep
        order = np.argsort(-np.diagonal(gram), kind="stable")
        damped = gram[np.ix_(order, order)] / level + self.damping * np.eye(columns)
        factor = np.linalg.cholesky(np.linalg.inv(damped)).T  # inverse = factorᵀ factor
        rest, kept = rows.T[order], keep.T[order]  # copies, one input after the other
        codes = np.empty(rest.shape)
        for start in range(0, columns, BLOCK):
            end = min(start + BLOCK, columns)
            errors = np.empty((end - start, len(rows)))
            for j in range(start, end):
                codes[j] = np.clip(np.rint(rest[j] / scale), low, high) * kept[j]
                errors[j - start] = (rest[j] - codes[j] * scale) / factor[j, j]
                rest[j + 1 : end] -= factor[j, j + 1 : end, None] * errors[j - start]
            rest[end:] -= factor[start:end, end:].T @ errors
        out = np.empty(rows.shape)
        out[:, order] = codes.T
        return out


def _steps(rows: Array, importance: Array, low: int, high: int) -> Array:
    """Choose the step of each row by weighted squared error; (r, 1) float64."""
    full = np.maximum(
        rows.max(axis=1, keepdims=True) / high, rows.min(axis=1, keepdims=True) / low
    )
    full = np.maximum(full, np.finfo(np.float32).tiny)
    best: Array = full
    least = np.full(full.shape, np.inf)
    for share in SHARES:
        decoded = np.clip(np.rint(rows / (full * share)), low, high) * (full * share)
        error = (importance * np.square(decoded - rows)).sum(axis=1, keepdims=True)
        best = np.where(error < least, full * share, best)
        least = np.minimum(error, least)
    return best
