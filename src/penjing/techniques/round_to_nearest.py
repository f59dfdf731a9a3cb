"""Round-to-nearest: uniform quantization of each weight on its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from penjing.core.fields import Range
from penjing.core.technique import Context, WeightTechnique
from penjing.core.tensors import Affine, Dense

if TYPE_CHECKING:
    from penjing.core.model import Weight
    from penjing.core.tensors import Array, Tensor

__all__ = ["RoundToNearest"]

Granularity = Literal["per_channel", "per_tensor"]
Grid = Literal["symmetric", "affine"]
Clipping = Literal["mse", "none"]
SHARES = np.linspace(1.0, 0.3, 36)
"""Of the full range: what clipping at least squared error chooses from."""
BLOCK = 1 << 20
"""Elements whose range is searched at once; bounds the memory."""


@dataclass(frozen=True)
class RoundToNearest(WeightTechnique):
    """Round every weight to the nearest of ``2**bits`` evenly spaced values.

    Zero is always one of them.  A weight that would not get smaller with one step per channel
    gets one step for all, and one that still would not stays as it is.

    References:
        Jacob et al., "Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference", CVPR 2018.
        Krishnamoorthi, "Quantizing Deep Convolutional Networks", arXiv:1806.08342, 2018.
        Banner et al., "Post Training 4-bit Quantization", NeurIPS 2019 (clipping).
    """

    bits: Annotated[int, Range(2, 8)] = 8
    """Bits of each weight."""
    granularity: Granularity = "per_channel"
    """One step ``per_channel`` (output) or one ``per_tensor``."""
    grid: Grid = "symmetric"
    """``symmetric`` about zero, or ``affine``: fitted to smallest and largest weight."""
    clipping: Clipping = "mse"
    """Cut the range where the squared error is least (``mse``), or nowhere (``none``)."""

    def encode(self, weight: Weight, context: Context) -> Tensor:
        """Choose the steps and round; ties go to the even code."""
        del context  # deterministic
        rounded = weight.tensor.map_values(self._round)
        return rounded if rounded.nbytes <= weight.tensor.nbytes else weight.tensor

    def _round(self, array: Array) -> Tensor:
        if not array.size:
            return Dense(array)
        if self.granularity == "per_channel" and array.ndim > 1:
            rounded = self._quantize(array, len(array))
            if rounded.nbytes < array.nbytes:
                return rounded
        rounded = self._quantize(array, 1)
        return rounded if rounded.nbytes < array.nbytes else Dense(array)

    def _quantize(self, array: Array, parts: int) -> Affine:
        """Round with one step for each of ``parts`` equal parts of axis 0."""
        rows = array.reshape(parts, -1)
        codes = np.empty(rows.shape, np.int8)
        scale = np.empty((parts, 1), np.float32)
        zero_point = np.zeros((parts, 1), np.int32)
        height = max(1, BLOCK // rows.shape[1])
        for start in range(0, parts, height):
            here = slice(start, start + height)
            codes[here], scale[here], zero_point[here] = self._fit(
                rows[here].astype(np.float64)
            )
        shape = (parts, *(1,) * (array.ndim - 1))
        if self.grid == "symmetric":
            return Affine.encode(codes.reshape(array.shape), scale.reshape(shape))
        return Affine.encode(
            codes.reshape(array.shape), scale.reshape(shape), zero_point.reshape(shape)
        )

    def _fit(self, rows: Array) -> tuple[Array, Array, Array]:
        """Give codes, steps and zero points of (r, n) float64, one step per row."""
        least = np.full((len(rows), 1), np.inf)
        best = self._grid(rows, 1.0)
        if self.clipping == "none":
            return self._codes(rows, *best), *best
        scale, zero_point = best
        for share in SHARES:
            tried = self._grid(rows, share)
            codes = self._codes(rows, *tried)
            decoded = (codes - tried[1]) * tried[0].astype(np.float64)
            error = np.square(decoded - rows).sum(axis=1, keepdims=True)
            better = error < least
            least = np.where(better, error, least)
            scale = np.where(better, tried[0], scale)
            zero_point = np.where(better, tried[1], zero_point)
        return self._codes(rows, scale, zero_point), scale, zero_point

    def _grid(self, rows: Array, share: float) -> tuple[Array, Array]:
        """Steps (float32) and zero points that cover this share of each row's range."""
        low, high = -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        smallest = np.minimum(rows.min(axis=1, keepdims=True), 0) * share
        largest = np.maximum(rows.max(axis=1, keepdims=True), 0) * share
        if self.grid == "symmetric":
            scale = np.maximum(largest / high, smallest / low)
            return _step(scale), np.zeros(scale.shape, np.int32)
        scale = _step((largest - smallest) / (high - low))
        zero_point = np.rint(low - smallest / scale)
        return scale, np.clip(zero_point, low, high).astype(np.int32)

    def _codes(self, rows: Array, scale: Array, zero_point: Array) -> Array:
        low, high = -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        codes: Array = np.clip(np.rint(rows / scale) + zero_point, low, high)
        return codes


def _step(scale: Array) -> Array:
    """Make steps float32 and positive: a row of zeros has a step too."""
    steps: Array = np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32)
    return steps
