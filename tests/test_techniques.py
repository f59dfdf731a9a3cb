"""What each technique does to a weight; what all promise is in the conformance suite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from penjing.core.errors import ConfigError, UnsupportedError
from penjing.core.model import LayerKind, Model, Statistics, Weight
from penjing.core.registry import TECHNIQUES
from penjing.core.structures import Bitmask, LowRank, NMSparse, Tucker
from penjing.core.technique import Context, Observation
from penjing.core.tensors import Affine, Array, Cast, Codebook, Dense, Tensor
from penjing.testing.models import Arrays, Chain

RNG = np.random.default_rng(0)


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run(
    name: str, tensor: Tensor | Array | list[Any], gram: Array | None = None, **settings: Any
) -> Tensor:
    """Apply a technique to one weight."""
    if not isinstance(tensor, Tensor):
        tensor = Dense(np.asarray(tensor, np.float32))
    kind = settings.pop("kind", LayerKind.CONV if len(tensor.shape) > 2 else LayerKind.LINEAR)
    weight = Weight("w", kind, tensor, settings.pop("groups", 1))
    seen = {} if gram is None else {"w": Statistics(gram)}
    model = Model(Chain({"w": weight}), Arrays())
    context = Context(observation=Observation(seen, {}))
    after: Model = TECHNIQUES.load(name)(**settings).apply(model, context)
    return after.weights()["w"].tensor


def correlated(columns: int, groups: int = 1) -> Array:
    """Second moments of inputs that move together."""
    mixing = normal(groups, columns, columns, seed=9).astype(np.float64)
    mixing *= np.exp(-np.arange(columns) / columns * 6)[:, None]
    return mixing.swapaxes(1, 2) @ mixing


def loss(tensor: Tensor, array: Array, gram: Array) -> float:
    """Error energy of the outputs."""
    error = (tensor.dense().astype(np.float64) - array).reshape(len(gram), -1, gram.shape[2])
    return float(np.einsum("gij,gjk,gik", error, gram, error))


def test_pruning_zeroes_the_smallest() -> None:
    pruned = run("magnitude_pruning", [[1, -4, 3, -2]], sparsity=0.5)
    np.testing.assert_array_equal(pruned.dense(), [[0, -4, 3, 0]])


def test_pruning_ties_go_to_the_earlier() -> None:
    pruned = run("magnitude_pruning", [[1, -1, 1, 1]], sparsity=0.5)
    np.testing.assert_array_equal(pruned.dense(), [[0, 0, 1, 1]])


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(1, 200))
def test_sparsity_is_the_share_of_zeros(sparsity: float, size: int) -> None:
    pruned = run("magnitude_pruning", normal(size, 1), sparsity=sparsity)
    assert np.count_nonzero(pruned.dense() == 0) == round(sparsity * size)


def test_pruning_over_the_model_takes_more_where_weights_are_smaller() -> None:
    weights = {
        name: Weight(name, LayerKind.LINEAR, Dense(scale * normal(10, 10)))
        for name, scale in (("large", 10), ("small", 0.1))
    }
    model = Model(Chain(weights), Arrays())
    pruning = TECHNIQUES.load("magnitude_pruning")(sparsity=0.5, scope="model")
    after = pruning.apply(model, Context()).weights()
    zeros = {name: int((w.tensor.dense() == 0).sum()) for name, w in after.items()}
    assert sum(zeros.values()) == 100
    assert zeros["small"] > 90


def test_pruning_keeps_codes_and_factors() -> None:
    coded = run("round_to_nearest", normal(20, 20))
    pruned = run("magnitude_pruning", coded)
    assert isinstance(pruned, Affine)
    assert (pruned.dense() == 0).mean() >= 0.5
    kept = pruned.dense() != 0
    np.testing.assert_array_equal(pruned.dense()[kept], coded.dense()[kept])
    thin = run("magnitude_pruning", run("low_rank", normal(20, 20), rank=2))
    assert isinstance(thin, LowRank)
    assert isinstance(thin.left, Bitmask)


def test_n_of_m_keeps_two_of_four() -> None:
    pruned = run("nm_sparsity", [[1, -4, 3, 2, 5, 6, 7, 8]])
    assert isinstance(pruned, NMSparse)
    np.testing.assert_array_equal(pruned.dense(), [[0, -4, 3, 0, 0, 0, 7, 8]])


def test_n_of_m_must_keep_fewer_than_there_are() -> None:
    with pytest.raises(ConfigError, match="at most out_of=4"):
        TECHNIQUES.load("nm_sparsity")(keep=5, out_of=4)


@pytest.mark.parametrize("start", ["linear", "quantile"])
def test_clustering_finds_separate_values(start: str) -> None:
    middles = np.array([-3.0, -1.0, 0.5, 4.0])
    array = (middles[RNG.integers(0, 4, (30, 30))] + 0.01 * normal(30, 30)).astype(np.float32)
    book = run("weight_clustering", array, bits=2, start=start)
    assert isinstance(book, Codebook)
    np.testing.assert_allclose(book.centroids.dense(), middles, atol=0.01)


@settings(deadline=None)
@given(arrays(np.float32, (40, 6), elements=st.sampled_from([0, -1.5, 2.25, 7, 9, 1e-3])))
def test_clustering_is_lossless_where_the_table_has_room(array: Array) -> None:
    np.testing.assert_array_equal(run("weight_clustering", array, bits=3).dense(), array)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_clustered_values_are_means_of_their_members(bits: int, seed: int) -> None:
    array = normal(30, 20, seed=seed)
    book = run("weight_clustering", array, bits=bits)
    assert isinstance(book, Codebook)
    assert len(book.centroids.dense()) <= 2**bits
    for index, value in enumerate(book.centroids.dense()):
        np.testing.assert_allclose(array[book.indices == index].mean(), value, atol=2e-2)


def test_clustering_keeps_pruned_weights_at_zero() -> None:
    pruned = run("magnitude_pruning", normal(20, 20), sparsity=0.7)
    book = run("weight_clustering", pruned, bits=4)
    assert isinstance(book, Bitmask)
    assert isinstance(book.values, Codebook)
    np.testing.assert_array_equal(book.dense() == 0, pruned.dense() == 0)
    zeros = run("weight_clustering", Dense(pruned.dense()), bits=4)
    assert isinstance(zeros, Codebook)
    assert not zeros.dense()[pruned.dense() == 0].any()


def test_clustering_again_with_fewer_bits_makes_one_table() -> None:
    once = run("weight_clustering", normal(30, 30), bits=6)
    twice = run("weight_clustering", once, bits=3)
    assert isinstance(twice, Codebook)
    assert isinstance(twice.centroids, Dense)
    assert twice.centroids.shape == (8,)


@pytest.mark.parametrize("grid", ["symmetric", "affine"])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_rounding_stays_within_half_a_step(grid: str, granularity: str, bits: int) -> None:
    array = normal(16, 60) * np.linspace(0.1, 3, 16, dtype=np.float32)[:, None]
    coded = run(
        "round_to_nearest",
        array,
        bits=bits,
        grid=grid,
        granularity=granularity,
        clipping="none",
    )
    assert isinstance(coded, Affine)
    assert coded.scale.shape == ((16, 1) if granularity == "per_channel" else (1, 1))
    assert np.ptp(coded.codes) < 2**bits
    assert np.all(np.abs(coded.dense() - array) <= coded.scale * 0.5001)


def test_clipping_never_raises_the_squared_error() -> None:
    array = RNG.standard_t(3, (16, 200)).astype(np.float32)
    for grid in ("symmetric", "affine"):
        errors = [
            np.square(
                run("round_to_nearest", array, bits=3, grid=grid, clipping=clipping).dense()
                - array
            ).sum(axis=1)
            for clipping in ("mse", "none")
        ]
        assert np.all(errors[0] <= errors[1])
        assert errors[0].sum() < 0.8 * errors[1].sum()


def test_rounding_keeps_zero_exact() -> None:
    array = np.abs(normal(8, 40)) + 1
    array[:, ::3] = 0
    for grid in ("symmetric", "affine"):
        coded = run("round_to_nearest", array, bits=3, grid=grid)
        assert not coded.dense()[:, ::3].any()


def test_rounding_quantizes_the_factors() -> None:
    thin = run("round_to_nearest", run("low_rank", normal(40, 40), rank=4))
    assert isinstance(thin, LowRank)
    assert isinstance(thin.left, Affine)
    assert isinstance(thin.right, Affine)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bits", [2, 4])
def test_gptq_halves_the_output_error_of_rounding(groups: int, bits: int) -> None:
    array, gram = normal(24, 16, 3, 3), correlated(144, groups)
    rounded = run("round_to_nearest", array, bits=bits)
    coded = run("gptq", array, gram, bits=bits, groups=groups)
    assert isinstance(coded, Affine)
    assert loss(coded, array, gram) < 0.5 * loss(rounded, array, gram)


def test_gptq_without_correlation_is_rounding() -> None:
    array = normal(10, 300)
    coded = run("gptq", array, np.eye(300)[None], bits=4)
    np.testing.assert_array_equal(coded.dense(), run("round_to_nearest", array, bits=4).dense())


def test_gptq_corrects_across_blocks_as_within() -> None:
    array, gram = normal(6, 300), correlated(300)
    coded = run("gptq", array, gram, bits=4)
    order = np.argsort(-np.diagonal(gram[0]), kind="stable")
    level = np.trace(gram[0]) / 300
    damped = gram[0][np.ix_(order, order)] / level + 0.01 * np.eye(300)
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    rest = array[:, order].astype(np.float64)
    assert isinstance(coded, Affine)
    scale = coded.scale[:, 0].astype(np.float64)
    codes = np.empty_like(rest)
    for j in range(300):
        codes[:, j] = np.clip(np.rint(rest[:, j] / scale), -8, 7)
        error = (rest[:, j] - codes[:, j] * scale) / factor[j, j]
        rest[:, j + 1 :] -= np.outer(error, factor[j, j + 1 :])
    np.testing.assert_array_equal(coded.codes[:, order], codes)


@pytest.mark.parametrize("pruning", ["magnitude_pruning", "nm_sparsity"])
def test_gptq_keeps_pruned_weights_at_zero(pruning: str) -> None:
    array, gram = normal(20, 40), correlated(40)
    pruned = run(pruning, array)
    coded = run("gptq", pruned, gram)
    assert not coded.dense()[pruned.dense() == 0].any()
    assert loss(coded, pruned.dense(), gram) < loss(
        run("round_to_nearest", pruned.dense(), bits=4), pruned.dense(), gram
    )


def test_gptq_stays_behind_a_thin_mask() -> None:
    pruned = run("magnitude_pruning", normal(60, 40), sparsity=0.95)
    coded = run("gptq", pruned, correlated(40))
    assert isinstance(coded, Bitmask)
    assert isinstance(coded.values, Affine)
    assert not coded.dense()[pruned.dense() == 0].any()


def test_gptq_quantizes_both_factors() -> None:
    array, gram = normal(40, 40), correlated(40)
    thin = run("low_rank", array, gram, rank=8)
    coded = run("gptq", thin, gram, bits=4)
    assert isinstance(coded, LowRank)
    rounded = run("round_to_nearest", thin, bits=4)
    assert loss(coded, thin.dense(), gram) < 0.5 * loss(rounded, thin.dense(), gram)


def test_gptq_needs_data() -> None:
    with pytest.raises(UnsupportedError, match="needs calibration data"):
        run("gptq", normal(4, 4))


def test_casting_leaves_what_would_overflow_or_vanish() -> None:
    for value, kind, form, left in (
        (1e6, LayerKind.LINEAR, "float16", True),
        (1e6, LayerKind.LINEAR, "bfloat16", False),
        (1e-12, LayerKind.OTHER, "float16", True),
        (1e-12, LayerKind.OTHER, "bfloat16", False),
        (1e-12, LayerKind.LINEAR, "float16", False),
    ):
        cast = run("cast_precision", [[value, 1.0]], kind=kind, form=form)
        assert isinstance(cast, Dense if left else Cast), (value, kind, form)


def test_low_rank_recovers_a_low_rank_matrix() -> None:
    array = normal(30, 4) @ normal(4, 50, seed=1)
    thin = run("low_rank", array, energy=1 - 1e-6)
    assert isinstance(thin, LowRank)
    assert thin.left.shape == (30, 4)
    np.testing.assert_allclose(thin.dense(), array, atol=1e-4)


def test_low_rank_looks_at_the_inputs_where_they_were_seen() -> None:
    array, gram = normal(60, 60), correlated(60)
    seeing, blind = run("low_rank", array, gram, rank=10), run("low_rank", array, rank=10)
    assert loss(seeing, array, gram) < 0.5 * loss(blind, array, gram)


@pytest.mark.parametrize("technique", ["low_rank", "tucker"])
def test_a_weight_without_structure_stays_as_it_is(technique: str) -> None:
    array = Dense(normal(8, 8, 3, 3))
    assert run(technique, array, energy=1.0) is array


def test_tucker_recovers_a_kernel_of_low_rank() -> None:
    core = normal(3, 2, 3, 3)
    outputs, inputs = normal(20, 3, seed=1), normal(16, 2, seed=2)
    array = np.einsum("rsxy,or,is->oixy", core, outputs, inputs).astype(np.float32)
    parts = run("tucker", array, energy=1 - 1e-7)
    assert isinstance(parts, Tucker)
    assert parts.core.shape == (3, 2, 3, 3)
    np.testing.assert_allclose(parts.dense(), array, atol=1e-4)


def test_iteration_makes_tucker_no_worse() -> None:
    array = normal(24, 16, 3, 3)
    errors = [
        float(np.linalg.norm(run("tucker", array, energy=0.7, sweeps=sweeps).dense() - array))
        for sweeps in (0, 1, 5)
    ]
    assert errors[0] >= errors[1] >= errors[2]
    assert errors[0] > errors[2]
