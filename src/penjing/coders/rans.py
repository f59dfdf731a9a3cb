"""Interleaved static rANS for integers: the fastest to decode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.coders.native.tokens import decode_rans, encode_rans

if TYPE_CHECKING:
    from penjing.core.tensors import Array

__all__ = ["Rans"]


class Rans:
    """Codes integers with four interleaved rANS streams and one static table per array.

    Within 1 % of the order-0 entropy from about 100,000 symbols on, and several times faster
    to decode than adaptive coding.

    Reference: J. Duda, Asymmetric numeral systems, arXiv:1311.2540, 2013; F. Giesen,
    Interleaved entropy coders, arXiv:1402.3392, 2014.

    >>> coder, array = Rans(), np.arange(12).reshape(3, 4)
    >>> payload = coder.encode(array.astype(np.uint8))
    >>> coder.decode(payload, (3, 4), np.dtype(np.uint8)).sum()
    np.uint64(66)
    """

    def accepts(self, array: Array) -> bool:
        """Accept integers of up to 32 bits, signed or not, in any shape."""
        return array.dtype.kind in "iu" and array.dtype.itemsize <= 4  # noqa: PLR2004  # bytes

    def encode(self, array: Array) -> bytes:
        """Code the array with the cheapest of a few token layouts and table sizes."""
        return encode_rans(array) if array.size else b""

    def decode(
        self, payload: bytes | memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> Array:
        """Rebuild the array; raises FormatError on damaged bytes."""
        array = np.empty(shape, dtype.newbyteorder("="))
        decode_rans(payload, array)
        return array
