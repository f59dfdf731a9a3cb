"""What the quantizer for size promises: less loss for the same bytes, for any weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.core.model import LayerKind, Model, Statistics, Weight
from penjing.core.registry import TECHNIQUES
from penjing.core.structures import Bitmask
from penjing.core.technique import Context, Observation
from penjing.core.tensors import Affine, Array, Dense, Tensor
from penjing.techniques.support import rate_distortion as support
from penjing.techniques.support.rate_distortion import Problem, natural_step, quantize
from penjing.testing.models import Arrays, Chain, odd_arrays

if TYPE_CHECKING:
    from collections.abc import Mapping

ROWS, COLUMNS = 24, 70  # more than one block of columns, and of rows


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def heavy(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).laplace(size=shape)


def curvature(columns: int, seed: int = 1) -> Array:
    """Second moments of inputs that move together."""
    mixing = normal(columns, columns, seed=seed)
    mixing *= np.exp(-np.arange(columns) / columns * 5)[:, None]
    return mixing.T @ mixing + 0.01 * np.eye(columns)


def interaction(rows: int, seed: int = 2) -> Array:
    """A row metric as networks have it: a strong common direction."""
    mixing = normal(rows, rows, seed=seed)
    metric: Array = mixing.T @ mixing / rows + np.eye(rows)
    return metric


def problem(seed: int = 0, **changes: Any) -> Problem:
    return Problem(
        **{"wanted": heavy(ROWS, COLUMNS, seed=seed), "curvature": curvature(COLUMNS)} | changes
    )


def loss(stated: Problem, codes: Array, steps: Array | float) -> float:
    error = stated.wanted - codes * steps
    metric = np.eye(len(error)) if stated.metric is None else stated.metric
    return float(np.sum((metric @ error) * (error @ stated.curvature)))


def bits(stated: Problem, codes: Array, table: Array) -> float:
    used = np.abs(codes[:, : stated.weight_columns]).astype(int)
    return float(table[np.minimum(used, len(table) - 1)].sum())


def entropy(codes: Array) -> float:
    """Bits of all codes under an ideal order-0 coder."""
    _, counts = np.unique(codes, return_counts=True)
    return float(-(counts * np.log2(counts / codes.size)).sum())


def solve(stated: Problem, step: float, mu: float, **changes: Any) -> Array:
    options = {"rate_term": True, "descents": 4} | changes
    (codes,) = quantize([stated], (step, step), mu, **options)
    return codes


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rows interact": {"metric": interaction(ROWS)},
    "pruned": {"keep": np.random.default_rng(5).random((ROWS, COLUMNS)) > 0.6},
    "biased": {"biased": True},
    "all": {
        "metric": interaction(ROWS),
        "keep": np.pad(
            np.random.default_rng(5).random((ROWS, COLUMNS - 1)) > 0.6,
            ((0, 0), (0, 1)),
            constant_values=True,
        ),
        "biased": True,
    },
}


@pytest.mark.parametrize("mu", [0.0, 0.02, 0.5])
@pytest.mark.parametrize("variant", VARIANTS)
def test_descent_never_raises_the_cost(variant: str, mu: float) -> None:
    stated = problem(**VARIANTS[variant])
    steps = np.full(COLUMNS, 0.5)
    steps[-1] = 0.2 if stated.biased else 0.5
    table = support.first_bits(stated.wanted, 0.5)
    codes = solve(stated, 0.5, mu, descents=0)
    before = loss(stated, codes, steps) + mu * bits(stated, codes, table)
    first = before
    for _ in range(5):
        codes = support._descend(stated, codes, steps, mu, table)  # noqa: SLF001  # one sweep
        after = loss(stated, codes, steps) + mu * bits(stated, codes, table)
        assert after <= before * (1 + 1e-9)
        before = after
    assert before < first


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_descent_never_raises_the_cost_of_any_problem(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(1, 20, 2)
    metric = interaction(rows, seed) if seed % 2 else None
    wanted = heavy(rows, columns, seed=seed) * 10.0 ** rng.uniform(-2, 2)
    stated = Problem(wanted, curvature(columns, seed), metric=metric)
    mu = 10.0 ** rng.uniform(-4, 1)
    step = natural_step([stated], mu, 2.0)
    codes = solve(stated, step, mu, descents=0)
    table = support.bits_of(codes)
    moved = support._descend(stated, codes, np.full(columns, step), mu, table)  # noqa: SLF001  # one sweep
    before = loss(stated, codes, step) + mu * bits(stated, codes, table)
    after = loss(stated, moved, step) + mu * bits(stated, moved, table)
    assert after <= before * (1 + 1e-9)


def test_feedback_loses_far_less_than_rounding_at_equal_bytes() -> None:
    stated = problem(wanted=heavy(48, COLUMNS))
    for step in (0.3, 0.8):
        rounded = np.rint(stated.wanted / step)
        fed = solve(stated, step, 0.0, rate_term=False, descents=2)
        assert entropy(fed) <= 1.05 * entropy(rounded)
        assert loss(stated, fed, step) < 0.4 * loss(stated, rounded, step)


def test_the_rate_term_buys_bytes_at_less_than_a_larger_step_costs() -> None:
    stated = problem(wanted=heavy(48, COLUMNS))
    with_rate = solve(stated, 0.6, 0.05)
    coarse = next(
        (step, codes)
        for step in np.linspace(0.6, 3, 60)
        for codes in [solve(stated, step, 0.0, rate_term=False)]
        if entropy(codes) <= entropy(with_rate)
    )
    assert loss(stated, with_rate, 0.6) < loss(stated, coarse[1], coarse[0])


def test_without_correlation_or_rate_it_is_rounding() -> None:
    stated = problem(curvature=np.diag(np.linspace(0.1, 3, COLUMNS)))
    for options in ({"rate_term": False}, {"rate_term": True}):
        codes = solve(stated, 0.4, 0.0, **options)
        np.testing.assert_array_equal(codes, np.rint(stated.wanted / 0.4))


def test_rows_that_do_not_interact_need_no_metric() -> None:
    for mu in (0.0, 0.05):
        without = solve(problem(), 0.5, mu)
        identity = solve(problem(metric=np.eye(ROWS)), 0.5, mu)
        assert np.mean(without != identity) < 0.001  # rounding of ties


def test_knowing_how_rows_interact_lowers_the_loss() -> None:
    metric = interaction(ROWS) + 8.0  # errors of the same sign add up
    aware, unaware = problem(metric=metric), problem()
    codes = [solve(stated, 0.5, 0.0, rate_term=False) for stated in (aware, unaware)]
    assert loss(aware, codes[0], 0.5) < 0.7 * loss(aware, codes[1], 0.5)


def test_pruned_weights_stay_zero() -> None:
    for variant in ("pruned", "all"):
        stated = problem(**VARIANTS[variant])
        codes = solve(stated, 0.3, 0.01)
        assert stated.keep is not None
        assert not codes[~stated.keep].any()
        assert codes[stated.keep].any()


def test_a_bias_has_its_own_step_and_no_rate() -> None:
    stated = problem(biased=True)
    (coarse,) = quantize([stated], (2.0, 0.001), 5.0, rate_term=True, descents=4)
    assert (coarse[:, :-1] == 0).mean() > 0.8
    assert np.all(coarse[:, -1] != 0)


def test_a_larger_price_of_bits_gives_fewer_bits() -> None:
    stated = problem()
    sizes = [entropy(solve(stated, 0.5, mu)) for mu in (0.0, 0.02, 0.2, 2.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.5 * sizes[0]


def test_tables_know_every_code() -> None:
    table = support.bits_of(np.array([0, 0, 0, 0, 5, -5]))
    assert np.isfinite(table).all()
    assert table[0] < table[5] < table[3]
    assert len(support.bits_of(np.array([10**9]))) == support.LARGEST_TABLE + 3
    assert np.isfinite(support.first_bits(np.array([1e-3, -4e3]), 1e-4)).all()


# --- the technique ------------------------------------------------------------------------


def model_of(weights: Mapping[str, Weight]) -> Model:
    return Model(Chain(weights), Arrays())


def quantized(
    weights: Mapping[str, Weight], seen: Mapping[str, Statistics] | None = None, **options: Any
) -> Mapping[str, Weight]:
    context = Context(only=options.pop("only", "*"), observation=Observation(seen or {}, {}))
    model = TECHNIQUES.load("rate_distortion")(**options).apply(model_of(weights), context)
    found: Mapping[str, Weight] = model.weights()
    return found


def statistics(columns: int, groups: int = 1, scale: float = 1.0) -> Statistics:
    """Moments of correlated inputs whose mean is not zero."""
    rng = np.random.default_rng(3)
    mixing = curvature(columns)
    rows = rng.normal(size=(groups, 500, columns)) @ mixing + 0.5
    rows *= scale
    return Statistics(rows.swapaxes(1, 2) @ rows / 500, rows.mean(axis=1))


def linear(array: Array | Tensor, groups: int = 1) -> Weight:
    tensor = array if isinstance(array, Tensor) else Dense(array.astype(np.float32))
    return Weight("w", LayerKind.LINEAR, tensor, groups)


@pytest.mark.parametrize("kind", [LayerKind.LINEAR, LayerKind.OTHER, LayerKind.EMBEDDING])
@pytest.mark.parametrize("name", odd_arrays())
def test_odd_weights_are_kept_at_a_low_price_and_survive_a_high_one(
    name: str, kind: LayerKind
) -> None:
    array = odd_arrays()[name]
    size = float(np.abs(array).max(initial=0)) or 1.0
    for seen in ({}, {"w": Statistics(row_importance=np.ones(len(array)))}):
        weight = Weight("w", kind, Dense(array))
        for trade_off in (1e-15, 1e6):
            tensor = quantized({"w": weight}, seen, trade_off=trade_off)["w"].tensor
            assert isinstance(tensor, Affine)
            assert tensor.shape == array.shape
            assert np.isfinite(tensor.dense()).all()
            if trade_off < 1 and size > 1e-3:
                np.testing.assert_allclose(tensor.dense(), array, atol=1e-5 * size)


@pytest.mark.parametrize("name", ["infinite", "beyond float32", "no columns"])
def test_what_steps_cannot_reach_is_left_alone(name: str) -> None:
    array = {
        "infinite": np.array([[0, -np.inf]], np.float32),
        "beyond float32": np.array([[1.0, 1e300]]),
        "no columns": np.zeros((3, 0), np.float32),
    }[name]
    weights = {"mask": Weight("mask", LayerKind.OTHER, Dense(array)), "w": linear(heavy(4, 5))}
    after = quantized(weights, {"mask": Statistics(np.zeros((1, 0, 0)), np.zeros((1, 0)))})
    np.testing.assert_array_equal(after["mask"].tensor.dense(), array)
    assert isinstance(after["w"].tensor, Affine)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_scale_of_weights_and_inputs_is_no_matter(scale: float) -> None:
    array, bias = heavy(10, 20).astype(np.float32), heavy(10, seed=4).astype(np.float32)
    weights = {
        "w": linear(array / scale),
        "b": Weight("b", LayerKind.BIAS, Dense(bias), layer="w"),
    }
    plain = {"w": linear(array), "b": weights["b"]}
    seen = {"w": statistics(20, scale=scale)}
    after, wanted = quantized(weights, seen), quantized(plain, {"w": statistics(20)})
    for name in ("w", "b"):
        one, other = after[name].tensor, wanted[name].tensor
        assert isinstance(one, Affine)
        assert isinstance(other, Affine)
        assert np.mean(one.codes != other.codes) < 0.02


def test_groups_are_quantized_each_by_its_own_inputs() -> None:
    array = heavy(8, 3, 2, 2)
    both = Statistics(
        np.stack([curvature(12, 1), 50 * curvature(12, 2)]), np.zeros((2, 12)), positions=4
    )
    weight = Weight("w", LayerKind.CONV, Dense(array.astype(np.float32)), groups=2)
    tensor = quantized({"w": weight}, {"w": both}, trade_off=1e-1)["w"].tensor
    error = (tensor.dense() - array).reshape(2, 4, 12)
    energy = [np.einsum("ri,ij,rj", e, g, e) for e, g in zip(error, both.gram, strict=True)]  # type: ignore[arg-type]
    swapped = [
        np.einsum("ri,ij,rj", e, g, e)
        for e, g in zip(error, both.gram[::-1], strict=True)  # type: ignore[index]
    ]
    assert sum(energy) < 0.7 * sum(swapped)


def test_a_bias_makes_up_for_the_mean_error_of_its_layer() -> None:
    bias = Weight("b", LayerKind.BIAS, Dense(heavy(10, seed=4).astype(np.float32)), layer="w")
    seen = {"w": statistics(20)}
    weights = {"w": linear(heavy(10, 20)), "b": bias}
    mean = seen["w"].mean
    assert mean is not None

    def mean_errors(after: Mapping[str, Weight]) -> Array:
        change = {k: after[k].tensor.dense() - weights[k].tensor.dense() for k in weights}
        return np.asarray(change["w"] @ mean[0] + change["b"])

    together = quantized(weights, seen, trade_off=1.0)
    apart = quantized(weights, seen, trade_off=1.0, only="w")
    assert np.square(mean_errors(together)).sum() < 0.3 * np.square(mean_errors(apart)).sum()


def test_pruned_and_factored_encodings_are_understood() -> None:
    pruned = TECHNIQUES.load("magnitude_pruning")(sparsity=0.7).apply(
        model_of({"w": linear(heavy(20, 30))}), Context()
    )
    assert isinstance(pruned.weights()["w"].tensor, Bitmask)
    after = quantized(pruned.weights(), {"w": statistics(30)})
    gone = pruned.weights()["w"].tensor.dense() == 0
    assert not after["w"].tensor.dense()[gone].any()
    thin = TECHNIQUES.load("low_rank")(rank=4).apply(
        model_of({"w": linear(heavy(20, 30))}), Context()
    )
    factors = quantized(thin.weights(), trade_off=1e-9)["w"].tensor
    assert type(factors) is type(thin.weights()["w"].tensor)
    np.testing.assert_allclose(
        factors.dense(), thin.weights()["w"].tensor.dense(), rtol=0, atol=1e-3
    )


def test_the_same_input_gives_the_same_codes() -> None:
    weights = {"w": linear(heavy(40, 50))}
    first, second = (quantized(weights, {"w": statistics(50)})["w"].tensor for _ in range(2))
    assert isinstance(first, Affine)
    assert isinstance(second, Affine)
    np.testing.assert_array_equal(first.codes, second.codes)
    np.testing.assert_array_equal(first.scale, second.scale)


# --- passes over a chain of layers --------------------------------------------------------


def chain(*, biased: bool, depth: int = 4, width: int = 24) -> Model:
    rng, weights = np.random.default_rng(0), {}
    for name in (f"layer{number}" for number in range(depth)):
        array = rng.laplace(size=(width, width)) / np.sqrt(width)
        weights[name] = Weight(name, LayerKind.LINEAR, Dense(array.astype(np.float32)))
        if biased:
            bias = rng.normal(size=width).astype(np.float32)
            tensor = Dense(bias)
            weights[f"{name}.bias"] = Weight(f"{name}.bias", LayerKind.BIAS, tensor, layer=name)
    return model_of(weights)


def rows(seed: int, count: int = 600, width: int = 24) -> Array:
    mixing = np.random.default_rng(9).normal(size=(width, width))
    mixing *= np.exp(-3 * np.arange(width) / width)[:, None]
    drawn = np.random.default_rng(seed).normal(size=(count, width)) @ mixing + 0.5
    return drawn.astype(np.float32)


def observed(model: Model) -> Observation:
    walker = Arrays().walker(model.native, [{"x": rows(1)}])
    seen: dict[str, Statistics] = {}

    def note(name: str, statistics: Statistics) -> Mapping[str, Array]:
        seen[name] = statistics
        return {}

    walker.run(note)
    return Observation(seen, {}, walker)


@pytest.mark.parametrize("only", ["*", "layer?"], ids=["with biases", "weights alone"])
@pytest.mark.parametrize("biased", [True, False], ids=["biased", "without biases"])
@pytest.mark.parametrize(("trade_off", "share"), [(3e-3, 0.85), (1e-2, 0.52)])
def test_layers_make_up_for_what_earlier_ones_have_lost(
    only: str, trade_off: float, share: float, *, biased: bool
) -> None:
    model = chain(biased=biased)
    context = Context(only=only, observation=observed(model))
    inputs = {"x": rows(2)}
    wanted = model.predict(inputs)["y"]
    energies = []
    for sequential in (False, True):
        after = TECHNIQUES.load("rate_distortion")(
            trade_off=trade_off, sequential=sequential
        ).apply(model, context)
        energies.append(np.square(after.predict(inputs)["y"] - wanted).mean())
        if only != "*":
            assert not any("bias" in name for name in after.changed)
    assert energies[1] < share * energies[0]


def test_only_the_weights_named_are_touched() -> None:
    model = chain(biased=True)
    context = Context(only="layer[12]*", observation=observed(model))
    for sequential in (False, True):
        technique = TECHNIQUES.load("rate_distortion")(sequential=sequential)
        after = technique.apply(model, context)
        assert set(after.changed) == {"layer1", "layer1.bias", "layer2", "layer2.bias"}


def test_biases_and_other_arrays_need_no_layer() -> None:
    weights = {
        "lonely": Weight("lonely", LayerKind.BIAS, Dense(heavy(9).astype(np.float32))),
        "orphan": Weight(
            "orphan", LayerKind.BIAS, Dense(heavy(9).astype(np.float32)), layer="gone"
        ),
        "scale": Weight("scale", LayerKind.OTHER, Dense(np.ones((3, 3), np.float32))),
        "ids": Weight("ids", LayerKind.OTHER, Dense(np.arange(4))),
    }
    after = quantized(weights, trade_off=1e-12)
    for name, weight in weights.items():
        np.testing.assert_allclose(
            after[name].tensor.dense(), weight.tensor.dense(), atol=1e-4, err_msg=name
        )
    assert after["ids"] is not None
    assert isinstance(after["ids"].tensor, Dense)
