"""What the quantizer for size promises: less loss for the same bytes, for any weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.core.model import LayerKind, Model, Statistics, Weight
from penjing.core.registry import TECHNIQUES
from penjing.core.structures import Bitmask
from penjing.core.technique import Context, Observation
from penjing.core.tensors import Affine, Array, Dense, Tensor
from penjing.testing.models import Arrays, Chain, odd_arrays

if TYPE_CHECKING:
    from collections.abc import Mapping


def heavy(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).laplace(size=shape)


def curvature(columns: int, seed: int = 1) -> Array:
    """Second moments of inputs that move together."""
    mixing = np.random.default_rng(seed).normal(size=(columns, columns))
    mixing *= np.exp(-np.arange(columns) / columns * 5)[:, None]
    return mixing.T @ mixing + 0.01 * np.eye(columns)


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


@pytest.mark.parametrize("trade_off", [1e-8, 1e-2, 1e4])
def test_what_divides_never_comes_to_zero_nor_past_it(trade_off: float) -> None:
    spread = np.array([[0.04, -0.001, 6.5, 0.0, -3.0, 1e-20]], np.float32)
    weight = Weight("w", LayerKind.OTHER, Dense(spread), divides=True)
    after = quantized({"w": weight}, trade_off=trade_off)["w"].tensor.dense()
    np.testing.assert_array_equal(np.sign(after), np.sign(spread))


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
