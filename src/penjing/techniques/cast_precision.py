"""Casting to 16-bit floating point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from penjing.core.model import MATRIX_KINDS, LayerKind
from penjing.core.technique import Context, WeightTechnique
from penjing.core.tensors import Cast, Dense

if TYPE_CHECKING:
    from penjing.core.model import Weight
    from penjing.core.tensors import Array, Tensor

__all__ = ["CastPrecision"]

LARGEST = {"float16": 65504.0, "bfloat16": 2.0**127 * (2 - 2.0**-7)}


@dataclass(frozen=True)
class CastPrecision(WeightTechnique):
    """Round real numbers to half precision or bfloat16, biases and scales included.

    Left as they are: numbers beyond the largest of the format and, outside weights and
    biases, numbers that would vanish (a small constant may stand under a fraction bar).

    References:
        IEEE 754-2019, binary16.
        Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training", arXiv:1905.12322.
    """

    kinds = frozenset(LayerKind)

    form: Literal["float16", "bfloat16"] = "float16"
    """``float16`` (10 bits of fraction) or ``bfloat16`` (7, and the range of float32)."""

    def encode(self, weight: Weight, context: Context) -> Tensor:
        """Round to nearest, ties to even."""
        del context  # deterministic
        may_vanish = weight.kind in MATRIX_KINDS | {LayerKind.BIAS}

        def cast(array: Array) -> Tensor:
            if np.any(np.abs(array) > LARGEST[self.form]):
                return Dense(array)
            rounded = Cast.encode(array, self.form)
            if not may_vanish and np.any((rounded.dense() == 0) & (array != 0)):
                return Dense(array)
            return rounded if rounded.nbytes < array.nbytes else Dense(array)

        encoded = weight.tensor.map_values(cast)
        return encoded if encoded.nbytes < weight.tensor.nbytes else weight.tensor
