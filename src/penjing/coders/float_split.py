"""Lossless floats: signs and exponents are modelled, mantissas stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.coders.native.binding import (
    as_bytes,
    call,
    damaged,
    little_endian,
    native_order,
    tables,
    work_buffer,
)
from penjing.coders.native.tokens import decode_rans, encode_rans

if TYPE_CHECKING:
    from penjing.core.tensors import Array

__all__ = ["FloatSplit"]

_MANTISSA = {2: 10, 4: 23, 8: 52}
_CHUNK = 1 << 17
_ADAPTIVE_UP_TO = 1 << 11


class FloatSplit:
    """Codes floats exactly, close to what is possible for weights of bell-shaped spread.

    Each number other than zero becomes a symbol, its sign and how far its exponent is below
    the largest one; a zero is a symbol of its own.  Symbols are coded adaptively in short
    arrays and with one rANS table per 131,072 numbers in long ones.  Mantissas hold no
    pattern and are stored, less low bits that are zero throughout (as after a cast from a
    narrower type).

    Reference: M. Hershcovitch et al., ZipNN: lossless compression for AI models,
    arXiv:2411.05239, 2024, shows that only exponents can be compressed.

    >>> coder, array = FloatSplit(), np.linspace(-1, 1, 1000, dtype=np.float32)
    >>> bool((coder.decode(coder.encode(array), (1000,), array.dtype) == array).all())
    True
    """

    def accepts(self, array: Array) -> bool:
        """Accept float16, float32 and float64 arrays of any shape."""
        return array.dtype.kind == "f" and array.dtype.itemsize in _MANTISSA

    def encode(self, array: Array) -> bytes:
        """Code the array: symbols first, then the mantissas of all numbers but zeros."""
        if not array.size:
            return b""
        mantissa = _MANTISSA[array.dtype.itemsize]
        bits = native_order(array).ravel().view(f"u{array.dtype.itemsize}")
        whole = np.bitwise_or.reduce(bits & _mask(bits.dtype, mantissa))
        unused = mantissa if whole == 0 else (int(whole) & -int(whole)).bit_length() - 1
        top = int(_exponents(bits, mantissa).max())
        parts = [bytes([unused]), _varint(top)]
        for start in range(0, bits.size, _CHUNK):
            chunk = bits[start : start + _CHUNK]
            symbols = _symbols(chunk, mantissa, top)
            coded = _encode_symbols(symbols)
            stored = chunk[chunk != 0] & _mask(bits.dtype, mantissa)
            packed = _pack(stored >> bits.dtype.type(unused), mantissa - unused)
            parts += [_varint(len(coded)), coded, packed]
        return b"".join(parts)

    def decode(
        self, payload: bytes | memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> Array:
        """Rebuild the array; raises FormatError on damaged bytes."""
        array = np.empty(shape, dtype.newbyteorder("="))
        if not array.size:
            if len(payload):
                raise damaged("there are bytes for an empty array")
            return array
        mantissa = _MANTISSA[dtype.itemsize]
        bits = array.reshape(-1).view(f"u{dtype.itemsize}")
        data = memoryview(payload)
        if not data or data[0] > mantissa:
            raise damaged("the header is cut or unknown")
        unused, (top, data) = data[0], _read_varint(data[1:])
        for start in range(0, bits.size, _CHUNK):
            chunk = bits[start : start + _CHUNK]
            data = _decode_chunk(data, chunk, mantissa, unused, top)
        if len(data):
            raise damaged("there are bytes left over")
        return array


def _varint(number: int) -> bytes:
    """Write seven bits per byte, lowest first; the top bit says that more follow."""
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])


def _read_varint(data: memoryview) -> tuple[int, memoryview]:
    """Read what ``_varint`` wrote, up to 28 bits, and return it with what follows."""
    number = 0
    for place, byte in enumerate(data[:4]):
        number |= (byte & 127) << (7 * place)
        if byte < 128:  # noqa: PLR2004  # no more follow
            return number, data[place + 1 :]
    raise damaged("a number is cut off")


def _mask(dtype: np.dtype[Any], count: int) -> Any:
    return dtype.type((1 << count) - 1)


def _exponents(bits: Array, mantissa: int) -> Array:
    sign = bits.dtype.itemsize * 8 - 1
    exponents: Array = (bits & _mask(bits.dtype, sign)) >> bits.dtype.type(mantissa)
    return exponents


def _symbols(bits: Array, mantissa: int, top: int) -> Array:
    below = top + 1 - _exponents(bits, mantissa).astype(np.int16)
    negative = bits >> bits.dtype.type(bits.dtype.itemsize * 8 - 1)
    return np.where(bits == 0, 0, np.where(negative, -below, below)).astype(np.int16)


def _decode_chunk(
    data: memoryview, bits: Array, mantissa: int, unused: int, top: int
) -> memoryview:
    """Fill ``bits`` from the start of ``data`` and return what follows."""
    size, data = _read_varint(data)
    if len(data) < size:
        raise damaged("the exponents are cut off")
    symbols = np.zeros(bits.size, np.int16)
    _decode_symbols(data[:size], symbols)
    data = data[size:]
    there = np.flatnonzero(symbols)
    found = symbols[there]
    exponents = top + 1 - np.abs(found.astype(np.int32))
    width = bits.dtype.itemsize * 8
    if there.size and not 0 <= exponents.min() <= exponents.max() < 1 << (width - 1 - mantissa):
        raise damaged("an exponent is out of range")
    stored = _packed_size(there.size, mantissa - unused)
    if len(data) < stored:
        raise damaged("the mantissas are cut off")
    number = bits.dtype.type
    values = _unpack(as_bytes(data[:stored]), there.size, mantissa - unused, bits.dtype)
    values = values << number(unused)
    values |= exponents.astype(bits.dtype) << number(mantissa)
    values |= (found < 0).astype(bits.dtype) << number(width - 1)
    bits[:] = 0
    bits[there] = values
    return data[stored:]


def _encode_symbols(symbols: Array) -> bytes:
    if symbols.size > _ADAPTIVE_UP_TO:
        return encode_rans(symbols)
    shape = np.array([1, symbols.size, 1, 1], np.uint64)
    choice = np.array([3, 0, 0, 0, 0, 0, 0, 0, 0], np.uint32)  # in the order they come
    work = work_buffer(call("context_work", shape, choice))
    out = np.empty(8 * symbols.size + 64, np.uint8)
    size = call(
        "context_encode",
        *(tables(), symbols, 2, shape, choice, work, work.nbytes, out, out.nbytes),
    )
    return out[:size].tobytes()


def _decode_symbols(payload: memoryview, symbols: Array) -> None:
    if symbols.size > _ADAPTIVE_UP_TO:
        decode_rans(payload, symbols)
        return
    data, shape = as_bytes(payload), np.array([1, symbols.size, 1, 1], np.uint64)
    work = work_buffer(call("context_decode_work", data, data.size, shape))
    call(
        "context_decode",
        *(tables(), data, data.size, symbols, 2, shape, work, work.nbytes),
    )


def _packed_size(count: int, width: int) -> int:
    return count * (width // 8) + -(-count * (width % 8) // 8)


def _pack(values: Array, width: int) -> bytes:
    """Store the low ``width`` bits of each value: whole bytes first, then what is left."""
    whole, rest = divmod(width, 8)
    planes = np.frombuffer(little_endian(values), np.uint8).reshape(-1, values.itemsize)
    packed = planes[:, :whole].tobytes()
    if rest:
        bits = np.unpackbits(planes[:, whole, None], axis=1)[:, 8 - rest :]
        packed += np.packbits(bits).tobytes()
    return packed


def _unpack(packed: Array, count: int, width: int, dtype: np.dtype[Any]) -> Array:
    whole, rest = divmod(width, 8)
    planes = np.zeros((count, dtype.itemsize), np.uint8)
    planes[:, :whole] = packed[: count * whole].reshape(count, whole)
    if rest:
        bits = np.unpackbits(packed[count * whole :], count=count * rest)
        padded = np.zeros((count, 8), np.uint8)
        padded[:, 8 - rest :] = bits.reshape(count, rest)
        planes[:, whole] = np.packbits(padded, axis=1)[:, 0]
    return planes.reshape(-1).view(dtype.newbyteorder("<")).astype(dtype)
