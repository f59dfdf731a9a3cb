"""Watching calibration data, and measuring forward only how much errors matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penjing
from penjing.core.data import Part, open_data
from penjing.core.errors import DataError
from penjing.core.model import LayerKind, Statistics, Weight
from penjing.core.tensors import Dense
from penjing.engine import observe as module
from penjing.engine.observe import error_energy, observe
from penjing.testing.onnx_models import mlp

if TYPE_CHECKING:
    from penjing.core.model import Model
    from penjing.core.technique import Observation
    from penjing.core.tensors import Array

onnx = pytest.importorskip("onnx")

X = np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32)


def scaled(scale: Array, *, classes: int = 6, inputs: str | int = "n") -> Model:
    """Two layers with a scale between them: ``y = (relu(x a) * scale) b``."""
    rng, helper = np.random.default_rng(1), onnx.helper
    arrays = {
        "a": rng.normal(size=(20, 30)).astype(np.float32),
        "scale": scale.astype(np.float32),
        "b": rng.normal(size=(30, classes)).astype(np.float32) / 6,
    }
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Mul", ["r", "scale"], ["s"]),
        helper.make_node("MatMul", ["s", "b"], ["y"]),
    ]
    kind = onnx.TensorProto.FLOAT
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, [inputs, 20])],
        [helper.make_tensor_value_info("y", kind, [inputs, classes])],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return penjing.wrap(model)


def part(model: Model, x: Array = X) -> Part:
    return Part(open_data(x, model.backend.inputs(model.native)), np.arange(len(x)))


def seen(model: Model, **options: Any) -> Observation:
    return observe(model, part(model), 0, **options)


def test_sensitivities_do_not_depend_on_how_equal_the_numbers_are() -> None:
    ones, spread = np.ones(30), 1 + 0.2 * np.random.default_rng(2).normal(size=30)
    equal, varied = seen(scaled(ones)).sensitivity, seen(scaled(spread)).sensitivity
    for name in ("a", "scale", "b"):
        assert 0.3 < equal[name] / varied[name] < 3, name


def test_constants_survive_compression() -> None:
    model = scaled(np.ones(30))
    found = penjing.compress(model, X, budget=penjing.Budget(max_drop=0.1, confidence=None))
    assert found.report.ratio > 1.5
    np.testing.assert_allclose(found.artifact.arrays()["scale"], 1, atol=0.15)


def test_a_layer_whose_outputs_are_scaled_up_matters_more() -> None:
    small, large = (seen(scaled(np.full(30, s))).sensitivity["a"] for s in (0.1, 1.0))
    assert large > 20 * small


def test_actual_errors_are_measured_once() -> None:
    model = scaled(np.ones(30))
    prober = seen(model).prober
    assert prober is not None
    asked = []

    def values() -> dict[str, Array]:
        asked.append(1)
        return {"a": model.weights()["a"].tensor.dense() * np.float32(1.1)}

    first, second = prober("key", values), prober("key", values)
    assert first is second
    assert set(first) == {"a"}
    assert first["a"] > 0
    assert len(asked) == 1


def test_no_error_is_no_sensitivity() -> None:
    model = scaled(np.ones(30))
    prober = seen(model).prober
    assert prober is not None
    assert prober("same", lambda: {"b": model.weights()["b"].tensor.dense()}) == {"b": 0.0}


def test_observations_come_out_alike() -> None:
    first, second = (seen(scaled(np.ones(30))) for _ in range(2))
    assert first.sensitivity == second.sensitivity
    for name, statistics in first.statistics.items():
        np.testing.assert_array_equal(statistics.gram, second.statistics[name].gram)
        np.testing.assert_array_equal(statistics.row_metric, second.statistics[name].row_metric)


def test_biases_share_a_sensitivity_only_with_layers_that_were_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = penjing.wrap(mlp())
    rows = part(model, np.random.default_rng(0).normal(size=(64, 12)).astype(np.float32))
    biases = {n for n, w in model.weights().items() if w.kind is LayerKind.BIAS}
    assert biases
    assert not biases & set(observe(model, rows, 0).sensitivity)
    monkeypatch.setattr(module, "Observes", int)  # a backend that cannot watch
    assert biases <= set(observe(model, rows, 0).sensitivity)


def test_values_and_classes_are_told_apart() -> None:
    as_classes, as_values = (
        seen(scaled(np.ones(30)), classes=classes).sensitivity["b"] for classes in (True, False)
    )
    assert as_classes != as_values


def test_a_fixed_batch_is_watched_like_a_free_one() -> None:
    fixed, free = seen(scaled(np.ones(30), inputs=20)), seen(scaled(np.ones(30)))
    for name in ("a", "b"):
        one, other = fixed.statistics[name].gram, free.statistics[name].gram
        assert one is not None
        assert other is not None
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        assert fixed.sensitivity[name] == pytest.approx(free.sensitivity[name], rel=1e-3)


def test_calibration_rows_on_which_the_original_fails_are_refused() -> None:
    model = scaled(np.full(30, 1e38))
    with pytest.raises(DataError, match="NaN or infinity"):
        seen(model)


def test_error_energy_is_that_of_the_outputs() -> None:
    rng = np.random.default_rng(3)
    rows, error = rng.normal(size=(50, 8)), rng.normal(size=(6, 4))
    groups = rows.reshape(50, 2, 4).swapaxes(0, 1)
    grams = groups.swapaxes(1, 2) @ groups / 50
    weight = Weight("w", LayerKind.CONV, Dense(error), groups=2)
    outputs = np.concatenate(
        [g @ e.T for g, e in zip(groups, np.split(error, 2), strict=True)], 1
    )
    expected = (outputs**2).sum(axis=1).mean()
    assert error_energy(error, weight, Statistics(grams)) == pytest.approx(expected)
    metric = np.cov(rng.normal(size=(6, 20)))
    one = Weight("w", LayerKind.LINEAR, Dense(error))
    found = error_energy(error, one, Statistics(grams[:1], row_metric=metric))
    assert found == pytest.approx(np.trace(metric @ error @ grams[0] @ error.T))
    table = Statistics(row_importance=np.arange(6.0))
    assert error_energy(error, one, table) == pytest.approx((error**2).sum(1) @ np.arange(6.0))
