"""The encodings: what they hold, what pruning leaves of them, and how they nest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from penjing.core.structures import Bitmask, LowRank, NMSparse, Tucker, selected, zeroed
from penjing.core.tensors import Affine, Array, Cast, Codebook, Dense, Tensor, narrowest
from penjing.testing.encodings import affine, half, shared

if TYPE_CHECKING:
    from collections.abc import Callable

reals = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
anything = arrays(np.float32, array_shapes(max_dims=5, max_side=6), elements=reals)


def normal(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@settings(deadline=None)
@given(anything)
def test_a_bitmask_is_lossless(array: Array) -> None:
    np.testing.assert_array_equal(Bitmask.encode(array).dense(), array)


@settings(deadline=None)
@given(anything, st.integers(1, 4), st.integers(4, 8))
def test_n_of_m_keeps_the_largest(array: Array, keep: int, out_of: int) -> None:
    dense = NMSparse.encode(array, keep, out_of).dense()
    rows, pruned = array.reshape(len(array), -1), dense.reshape(len(array), -1)
    np.testing.assert_array_equal(pruned[pruned != 0], rows[pruned != 0])
    for start in range(0, rows.shape[1], out_of):
        group, left = (
            np.sort(np.abs(part[:, start : start + out_of])) for part in (rows, pruned)
        )
        np.testing.assert_array_equal(left[:, -keep:], group[:, -keep:])
        assert not left[:, :-keep].any()


@settings(deadline=None)
@given(anything, st.sampled_from(["float16", "bfloat16"]))
def test_casting_rounds_to_nearest(array: Array, form: str) -> None:
    tensor = Cast.encode(array, form)
    fraction = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[form]
    error = np.abs(tensor.dense().astype(np.float64) - array)
    assert np.all(error <= np.abs(array) * fraction + 2.0**-25)
    np.testing.assert_array_equal(Cast.encode(tensor.dense(), form).bits, tensor.bits)


@pytest.mark.parametrize("form", ["float16", "bfloat16"])
def test_casting_saturates(form: str) -> None:
    largest = np.finfo(np.float32).max
    dense = Cast.encode(np.array([largest, -largest]), form).dense()
    assert np.isfinite(dense).all()
    assert dense[0] == -dense[1] > 6e4


@pytest.mark.parametrize("form", ["float16", "bfloat16"])
def test_casting_a_single_number_keeps_it_single(form: str) -> None:
    tensor = Cast.encode(np.array(0.5), form)
    assert tensor.shape == tensor.dense().shape == ()
    assert tensor.dense() == 0.5


@settings(deadline=None)
@given(arrays(np.int64, array_shapes(max_dims=3), elements=st.integers(-(2**31), 2**31 - 1)))
def test_codes_are_held_in_the_narrowest_type(codes: Array) -> None:
    held = narrowest(codes)
    np.testing.assert_array_equal(held, codes)
    assert held.shape == codes.shape
    limits = [np.iinfo(kind) for kind in (np.int8, np.int16, np.int32)]
    fitting = [n for n in limits if n.min <= codes.min() and codes.max() <= n.max]
    assert held.dtype == fitting[0].dtype


def test_affine_values_are_steps_from_the_zero_point() -> None:
    tensor = Affine.encode(np.array([[1, 2], [3, 4]]), np.array([[0.5], [2.0]]), 1)
    np.testing.assert_array_equal(tensor.dense(), [[0, 0.5], [4, 6]])


def test_a_codebook_learns_the_mean_of_its_members() -> None:
    tensor = Codebook(np.array([0, 0, 1], np.uint8), Dense(np.array([0, 0, 7], np.float32)))
    moved = tensor.project(np.array([1, 3, 5], np.float32))
    np.testing.assert_array_equal(moved.dense(), [2, 2, 5])
    np.testing.assert_array_equal(moved.centroids.dense(), [2, 5, 7])


def test_a_codebook_counts_its_indices_at_their_width() -> None:
    tensor = Codebook(np.zeros((10, 8), np.uint8), Dense(np.zeros(8, np.float32)))
    assert tensor.nbytes == 10 * 8 * 3 // 8 + 8 * 4


def test_projecting_plain_factors_gives_the_best_of_their_rank() -> None:
    array = normal(12, 9)
    u, s, vt = np.linalg.svd(array)
    best = u[:, :3] * s[:3] @ vt[:3]
    projected = LowRank.encode(normal(9, 12).T, 3).project(array)
    np.testing.assert_allclose(projected.dense(), best, atol=1e-5)


@pytest.mark.parametrize("encode", [affine, half, shared])
def test_factors_keep_their_grid_when_projected(encode: Callable[[Array], Tensor]) -> None:
    low_rank = LowRank.encode(normal(30, 20), 5).map_values(encode)
    moved = low_rank.dense() + 0.01 * normal(30, 20)
    closer = low_rank.project(moved)
    assert isinstance(closer, LowRank)
    assert type(closer.left) is type(encode(np.ones((2, 2), np.float32)))
    change = np.linalg.norm(closer.dense() - low_rank.dense())
    assert change <= np.linalg.norm(moved - low_rank.dense())


def test_projecting_a_kernel_of_full_rank_changes_nothing() -> None:
    kernel = normal(5, 4, 3, 3)
    identity = Tucker(Dense(kernel), Dense(np.eye(5, dtype="f4")), Dense(np.eye(4, dtype="f4")))
    np.testing.assert_allclose(identity.dense(), kernel, atol=1e-6)
    np.testing.assert_allclose(identity.project(kernel).dense(), kernel, atol=1e-5)


def test_pruned_codes_stay_codes() -> None:
    tensor = Affine.encode(np.array([[5, 6], [7, 8]]), 0.5, 3)
    pruned = zeroed(tensor, np.array([[True, False], [False, True]]))
    assert isinstance(pruned, Affine)
    np.testing.assert_array_equal(pruned.codes, [[5, 3], [3, 8]])


def test_pruned_indices_point_to_a_zero_where_there_is_one() -> None:
    table = Affine.encode(np.array([0, 4, 9]), 0.5, 4)
    tensor = Codebook(np.array([0, 1, 2], np.uint8), table)
    pruned = zeroed(tensor, np.array([True, True, False]))
    assert isinstance(pruned, Codebook)
    np.testing.assert_array_equal(pruned.indices, [0, 1, 1])


def test_pruned_indices_go_behind_a_mask_where_there_is_no_zero() -> None:
    tensor = Codebook(np.array([0, 1, 1], np.uint8), Dense(np.array([2, 3], np.float32)))
    pruned = zeroed(tensor, np.array([True, False, True]))
    assert isinstance(pruned, Bitmask)
    assert isinstance(pruned.values, Codebook)
    np.testing.assert_array_equal(pruned.dense(), [2, 0, 3])


@settings(deadline=None)
@given(anything, st.integers(0, 2**32))
def test_pruning_twice_keeps_what_both_keep(array: Array, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, two = (rng.integers(0, 2, array.shape, np.uint8).astype(bool) for _ in range(2))
    for tensor in (Dense(array), half(array), affine(array)):
        pruned = zeroed(zeroed(tensor, one), two)
        np.testing.assert_array_equal(pruned.dense(), np.where(one & two, tensor.dense(), 0))
        np.testing.assert_array_equal(selected(tensor, one).dense(), tensor.dense()[one])


def test_a_mask_over_quantized_values_drops_the_pruned_ones() -> None:
    values = affine(normal(6))
    tensor = Bitmask(values, np.packbits(np.ones(6, bool)), (6,))
    pruned = zeroed(tensor, np.arange(6) < 2)
    assert isinstance(pruned, Bitmask)
    assert isinstance(pruned.values, Affine)
    assert pruned.values.shape == (2,)


def test_three_encodings_nest() -> None:
    array = normal(16, 16)
    pruned = Bitmask.encode(array, np.abs(array) > 1)
    nested = pruned.map_values(shared).map_values(half)
    assert isinstance(nested, Bitmask)
    assert isinstance(nested.values, Codebook)
    assert isinstance(nested.values.centroids, Cast)
    np.testing.assert_array_equal(nested.dense() == 0, np.abs(array) <= 1)
    assert nested.nbytes == 16 * 16 // 8 + -(-int((np.abs(array) > 1).sum()) * 3 // 8) + 8 * 2
