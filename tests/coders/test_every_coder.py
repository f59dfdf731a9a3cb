"""What every coder promises, whichever it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from penjing.core.errors import FormatError
from penjing.core.registry import CODERS

if TYPE_CHECKING:
    from penjing.core.coder import Coder
    from penjing.core.tensors import Array

DTYPES = [np.dtype(name) for name in ("i1", "i2", "i4", "u1", "u2", "u4", "f2", "f4", "f8")]
SHAPES = [(), (0,), (1,), (5,), (0, 3), (3, 7), (8, 64), (4, 3, 3, 3), (1, 6, 10), (3, 2, 5)]
NAMES = CODERS.names()


def make(name: str) -> Coder:
    made: Coder = CODERS.load(name)()
    return made


def weights(shape: tuple[int, ...], dtype: np.dtype[np.generic], seed: int = 0) -> Array:
    """Draw an array as quantizers and networks make them: many small values, few large."""
    rng = np.random.default_rng(seed)
    values = rng.standard_t(3, shape) * (1.5 if dtype.kind != "f" else 0.1)
    values = np.where(rng.random(shape) < 0.4, 0, values)
    if dtype.kind == "u":
        values = np.abs(values)
    return np.asarray(np.clip(values, -100, 100)).astype(dtype)


def assert_lossless(coder: Coder, array: Array) -> None:
    decoded = coder.decode(coder.encode(array), array.shape, array.dtype)
    assert decoded.shape == array.shape
    assert decoded.dtype == array.dtype
    assert decoded.tobytes() == array.tobytes()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_coding_is_lossless(
    name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...]
) -> None:
    coder, array = make(name), weights(shape, dtype)
    if coder.accepts(array):
        assert_lossless(coder, array)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_coding_is_lossless_for_any_numbers(name: str, data: st.DataObject) -> None:
    coder = make(name)
    dtype = data.draw(st.sampled_from([d for d in DTYPES if coder.accepts(np.empty(0, d))]))
    shape = data.draw(array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))
    assert_lossless(coder, data.draw(arrays(dtype, shape)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["min", "max"])
def test_extreme_integers_survive(name: str, value: str) -> None:
    coder = make(name)
    for dtype in DTYPES:
        if dtype.kind in "iu" and coder.accepts(np.empty(0, dtype)):
            extreme = getattr(np.iinfo(dtype), value)
            assert_lossless(coder, np.full(40, extreme, dtype))
            assert_lossless(coder, np.array([0, 1, extreme, 2] * 9, dtype))


@pytest.mark.parametrize("name", NAMES)
def test_equal_arrays_give_equal_bytes_in_any_memory_layout(name: str) -> None:
    coder = make(name)
    dtype = next(d for d in DTYPES if coder.accepts(np.empty(0, d)))
    array = weights((12, 10), dtype)
    strided = np.asfortranarray(np.repeat(array, 2, axis=0))[::2]
    swapped = array.astype(dtype.newbyteorder("S"))
    assert coder.encode(strided) == coder.encode(array) == coder.encode(array)
    assert coder.encode(swapped) == coder.encode(array)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damaged_bytes_give_an_error_or_other_numbers(name: str, data: st.DataObject) -> None:
    coder = make(name)
    dtype = data.draw(st.sampled_from([d for d in DTYPES if coder.accepts(np.empty(0, d))]))
    array = weights((6, 5, 3, 3), dtype, data.draw(st.integers(0, 3)))
    payload = bytearray(coder.encode(array))
    if data.draw(st.booleans()):
        del payload[data.draw(st.integers(0, len(payload) - 1)) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if payload:
            place = data.draw(st.integers(0, len(payload) - 1))
            payload[place] ^= data.draw(st.integers(1, 255))
    shape = data.draw(st.sampled_from([array.shape, (270,), (7, 40), (0,), (1,)]))
    decode_or_refuse(coder, bytes(payload), shape, array.dtype)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(DTYPES), st.sampled_from(SHAPES))
def test_hostile_bytes_give_an_error_or_numbers(
    name: str, payload: bytes, dtype: np.dtype[np.generic], shape: tuple[int, ...]
) -> None:
    coder = make(name)
    if coder.accepts(np.empty(0, dtype)):
        decode_or_refuse(coder, payload, shape, dtype)


def decode_or_refuse(
    coder: Coder, payload: bytes, shape: tuple[int, ...], dtype: np.dtype[np.generic]
) -> None:
    try:
        decoded = coder.decode(memoryview(payload), shape, dtype)
    except FormatError:
        return
    assert decoded.shape == shape
    assert decoded.dtype == dtype


@pytest.mark.parametrize("name", NAMES)
def test_bytes_for_an_empty_array_are_refused(name: str) -> None:
    coder = make(name)
    dtype = next(d for d in DTYPES if coder.accepts(np.empty(0, d)))
    assert coder.encode(np.empty((0, 4), dtype)) == b""
    with pytest.raises(FormatError, match="get it again"):
        coder.decode(b"\x01\x02", (0, 4), dtype)


@pytest.mark.parametrize("name", NAMES)
def test_text_is_not_accepted(name: str) -> None:
    assert not make(name).accepts(np.array(["a"]))
