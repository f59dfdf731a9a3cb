"""What is asked of an entropy coder: arrays to bytes and back, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from penjing.core.tensors import Array


class Coder(Protocol):
    """Turns one array into bytes without loss.  One file in ``coders/`` each.

    A coder has no settings: whatever it chooses for an array is chosen by trial and written
    into the bytes, which are the same on every platform.
    """

    def accepts(self, array: Array) -> bool:
        """Tell whether arrays of this dtype and shape can be coded."""

    def encode(self, array: Array) -> bytes:
        """Code an accepted array of any shape; equal arrays give equal bytes."""

    def decode(
        self, payload: bytes | memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> Array:
        """Rebuild the array that ``encode`` was given.

        Memory and time are bounded by ``shape`` and ``dtype``, whatever the payload says.

        Raises:
            FormatError: The payload is damaged, or not of this shape and dtype.
        """
