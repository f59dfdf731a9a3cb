"""Arrays as they are."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.coders.native.binding import damaged, little_endian

if TYPE_CHECKING:
    from penjing.core.tensors import Array

__all__ = ["Raw"]


class Raw:
    """Stores an array's bytes, least significant first."""

    def accepts(self, array: Array) -> bool:
        """Accept arrays of numbers or truth values."""
        return array.dtype.kind in "biufc"

    def encode(self, array: Array) -> bytes:
        """Give the elements' bytes in C order."""
        return little_endian(array)

    def decode(
        self, payload: bytes | memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> Array:
        """Rebuild the array; raises FormatError where the length does not fit the shape."""
        if len(payload) != prod(shape) * dtype.itemsize:
            raise damaged("there are more or fewer bytes than the shape needs")
        stored = np.frombuffer(payload, dtype.newbyteorder("<"))
        return stored.astype(dtype.newbyteorder("=")).reshape(shape)
