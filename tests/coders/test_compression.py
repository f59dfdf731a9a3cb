"""How few bits the coders need."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest

from penjing.coders.context_arithmetic import ContextArithmetic
from penjing.coders.float_split import FloatSplit
from penjing.coders.huffman import Huffman
from penjing.coders.rans import Rans

if TYPE_CHECKING:
    from penjing.core.tensors import Array


def entropy(array: Array) -> float:
    """Order-0 entropy of all symbols together, in bytes."""
    counts = np.unique(array, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


def structured(shape: tuple[int, ...], sigma: float, seed: int = 0) -> Array:
    """Draw weights whose rows and columns differ in scale, as those of trained layers do."""
    rng = np.random.default_rng(seed)
    out, into = (np.exp(0.6 * rng.standard_normal(n)) for n in shape[:2])
    scale = np.multiply.outer(out, into).reshape(shape[:2] + (1,) * (len(shape) - 2))
    return np.rint(sigma * scale * rng.standard_normal(shape)).astype(np.int16)


def smooth(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Draw kernels whose neighbouring weights tend to agree."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    for axis in (2, 3):
        noise = noise + np.roll(noise, 1, axis)
    return np.rint(noise / 2).astype(np.int8)


@pytest.mark.parametrize("sigma", [0.2, 0.5, 2, 20, 1000])
def test_rans_is_within_one_percent_of_the_entropy(sigma: float) -> None:
    values = np.random.default_rng(1).standard_normal(400_000) * sigma
    array = np.rint(values).astype(np.int16)
    assert len(Rans().encode(array)) <= 1.01 * entropy(array)


def test_rans_splits_wide_integers() -> None:
    array = np.random.default_rng(1).integers(-(2**31), 2**31, 10_000).astype(np.int32)
    assert len(Rans().encode(array)) <= 1.01 * array.nbytes


@pytest.mark.parametrize("sigma", [2, 20])
def test_huffman_is_within_three_percent_of_the_entropy(sigma: float) -> None:
    values = np.random.default_rng(1).standard_normal(100_000) * sigma
    array = np.rint(values).astype(np.int16)
    assert entropy(array) <= len(Huffman().encode(array)) <= 1.03 * entropy(array)


@pytest.mark.parametrize("shape", [(200, 300), (64, 32, 3, 3)], ids=str)
@pytest.mark.parametrize("sigma", [0.3, 0.8])
def test_contexts_go_well_below_the_entropy_of_structured_weights(
    shape: tuple[int, ...], sigma: float
) -> None:
    array = structured(shape, sigma)
    assert len(ContextArithmetic().encode(array)) <= 0.93 * entropy(array)


def test_contexts_cost_next_to_nothing_where_there_is_no_structure() -> None:
    for sigma in (0.3, 1, 8):
        values = np.random.default_rng(2).standard_normal((300, 400)) * sigma
        array = np.rint(values).astype(np.int8)
        assert len(ContextArithmetic().encode(array)) <= 1.01 * entropy(array)


def test_contexts_predict_signs_in_smooth_kernels() -> None:
    array = smooth((64, 32, 3, 3))
    shuffled = np.random.default_rng(0).permutation(array.reshape(-1)).reshape(array.shape)
    coder = ContextArithmetic()
    assert len(coder.encode(array)) <= 0.9 * len(coder.encode(shuffled))


@pytest.mark.parametrize("transposed", [False, True])
def test_pictures_are_found_in_matrices(transposed: bool) -> None:  # noqa: FBT001  # a case
    kernels = smooth((100, 1, 20, 20)).reshape(100, 400)
    array = np.ascontiguousarray(kernels.T) if transposed else kernels
    shuffled = array[:, np.random.default_rng(0).permutation(array.shape[1])]
    shuffled = shuffled[np.random.default_rng(0).permutation(array.shape[0])]
    coder = ContextArithmetic()
    assert len(coder.encode(array)) <= 0.9 * len(coder.encode(shuffled))


def test_small_tensors_have_small_overhead() -> None:
    rng = np.random.default_rng(3)
    for count, sigma in product((16, 64), (1.5, 30, 1000)):
        array = np.rint(rng.standard_normal(count) * sigma).astype(np.int32)
        ideal = count * np.log2(sigma * np.sqrt(2 * np.pi * np.e)) / 8
        assert len(ContextArithmetic().encode(array)) <= ideal + 5 + 0.06 * count


def test_zeros_cost_nothing() -> None:
    coder = ContextArithmetic()
    assert coder.encode(np.zeros((64, 64, 3, 3), np.int8)) == b""
    assert not coder.decode(b"", (64, 3), np.dtype(np.int8)).any()


@pytest.mark.parametrize(
    ("dtype", "bits"), [(np.float16, 13.6), (np.float32, 26.6), (np.float64, 55.6)]
)
@pytest.mark.parametrize("count", [10_000, 300_000])
def test_floats_come_close_to_the_entropy_of_their_exponents(
    dtype: type[np.floating], bits: float, count: int
) -> None:
    array = np.random.default_rng(4).standard_normal(count).astype(dtype)
    assert len(FloatSplit().encode(array)) * 8 <= bits * count


def test_zeros_and_unused_digits_of_floats_cost_next_to_nothing() -> None:
    rng = np.random.default_rng(5)
    array = rng.standard_normal(50_000).astype(np.float16).astype(np.float32)
    assert len(FloatSplit().encode(array)) * 8 <= 13.8 * array.size
    array[rng.random(array.size) < 0.9] = 0
    assert len(FloatSplit().encode(array)) * 8 <= 1.9 * array.size


def test_special_floats_survive() -> None:
    coder = FloatSplit()
    for dtype in (np.float16, np.float32, np.float64):
        tiny = np.finfo(dtype).smallest_subnormal
        special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, tiny, -tiny, 1], dtype)
        decoded = coder.decode(coder.encode(special), special.shape, special.dtype)
        assert decoded.tobytes() == special.tobytes()
