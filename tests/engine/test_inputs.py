"""Models and data of every kind: those that work, and one clear error for those that do not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penjing
from penjing.core.errors import ConfigError, DataError, ModelError, UnsupportedError
from penjing.testing.onnx_models import TOYS, mlp

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from penjing.core.tensors import Array

onnx = pytest.importorskip("onnx")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(1500, 12)).astype(np.float32)
POINT = penjing.Budget(max_drop=0.03, confidence=None)


def run(model: Any, inputs: Mapping[str, Array]) -> list[Array]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    return [np.asarray(output) for output in session.run(None, dict(inputs))]


DATA = X, run(mlp(), {"x": X})[0].argmax(axis=1)
KINDS = {"float": 1, "int64": 7, "str": 8}


def graph(
    nodes: list[tuple[Any, ...]],
    arrays: Mapping[str, Array],
    *,
    x: list[int | str] | None = None,
    y: tuple[str, list[int | str]] = ("float", ["n", 3]),
    opset: int = 17,
) -> Any:
    """Build a model from (operator, inputs, outputs, attributes)."""
    helper = onnx.helper
    made = helper.make_graph(
        [helper.make_node(n[0], n[1], n[2], **(n[3] if len(n) > 3 else {})) for n in nodes],
        "g",
        [helper.make_tensor_value_info("x", KINDS["float"], x or ["n", 12])],
        [helper.make_tensor_value_info("y", KINDS[y[0]], y[1])],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


WEIGHT = (RNG.normal(size=(12, 3)) * 2).astype(np.float32)
TALL = RNG.normal(size=(12, 40)).astype(np.float32)
PRODUCT = [("MatMul", ["x", "w"], ["y"])]


def linear(weight: Array = WEIGHT, **options: Any) -> Any:
    return graph(PRODUCT, {"w": weight}, **options)


# --- kinds of models ----------------------------------------------------------------------

CASES: dict[str, tuple[Any, Any]] = {
    "fixed batch of one": (linear(x=[1, 12], y=("float", [1, 3])), X[:200]),
    "fixed batch of seven": (linear(x=[7, 12], y=("float", [7, 3])), X[:200]),
    "classes only": (
        graph(
            [
                ("MatMul", ["x", "w"], ["s"]),
                ("ArgMax", ["s"], ["y"], {"axis": 1, "keepdims": 0}),
            ],
            {"w": WEIGHT},
            y=("int64", ["n"]),
        ),
        X[:300],
    ),
    "names": (
        graph(
            [
                ("MatMul", ["x", "w"], ["s"]),
                ("ArgMax", ["s"], ["a"], {"axis": 1, "keepdims": 0}),
                ("Cast", ["a"], ["y"], {"to": 8}),
            ],
            {"w": WEIGHT},
            y=("str", ["n"]),
        ),
        X[:300],
    ),
    "batch on axis 1": (
        graph(
            [("Transpose", ["x"], ["t"], {"perm": [1, 0]}), ("MatMul", ["t", "w"], ["y"])],
            {"w": WEIGHT},
            x=[12, "n"],
        ),
        X[:300].T.copy(),
    ),
    "sequences": (
        linear(x=["n", 4, 12], y=("float", ["n", 4, 3])),
        X[:1200].reshape(300, 4, 12),
    ),
    "embedding": (TOYS["embedding"](), {"ids": RNG.integers(0, 20, (300, 5))}),
    "recurrent": (TOYS["gru"](), RNG.normal(size=(150, 5, 6)).astype(np.float32)),
}


@pytest.mark.parametrize("name", CASES)
def test_models_of_every_kind_are_compressed(name: str) -> None:
    model, data = CASES[name]
    found = penjing.compress(model, data, budget=penjing.Budget(max_drop=0.2, confidence=None))
    assert found.report.metric in {"agreement", "deviation"}
    smallest = min(row.size_bytes for row in found.report.candidates)
    assert smallest < found.report.candidates[0].size_bytes


@pytest.mark.parametrize("metric", ["rmse", "mse", "mae"])
def test_regression_is_certified_approximately(metric: str) -> None:
    model = linear(TALL, y=("float", ["n", 40]))
    values = run(model, {"x": X[:400]})[0]
    noisy = values + np.random.default_rng(3).normal(size=values.shape)
    found = penjing.compress(
        model,
        (X[:400], noisy),
        metric=metric,
        budget=penjing.Budget(max_drop=0.03),
    )
    assert found.met
    assert found.report.certificate["approximate"]
    assert found.report.certificate["upper"] <= 0.03
    assert not found.report.higher_is_better
    assert found.report.layers[0].bits_per_weight < 12


def test_too_few_rows_to_prove_anything_say_so() -> None:
    model = linear(TALL, y=("float", ["n", 40]))
    values = run(model, {"x": X[:40]})[0]
    values = values + np.random.default_rng(3).normal(size=values.shape)
    found = penjing.compress(model, (X[:40], values))
    summary = found.summary()
    assert summary["verdict"] == "undecided"
    assert summary["drop_upper"] is None
    assert json.dumps(summary, allow_nan=False)


def test_small_constants_that_others_divide_by_are_not_ruined() -> None:
    scale = np.concatenate([[1e3], np.full(39, 1e-3)]).astype(np.float32)
    nodes: list[tuple[Any, ...]] = [("MatMul", ["x", "w"], ["s"]), ("Div", ["s", "d"], ["y"])]
    model = graph(nodes, {"w": TALL, "d": scale}, y=("float", ["n", 40]))
    found = penjing.compress(model, X[:400], metric="deviation", budget=POINT)
    assert found.met
    assert np.isfinite(found.summary()["drop"])


def test_masks_of_infinities_are_left_as_they_are() -> None:
    mask = np.where(np.arange(40) % 4 == 0, -np.inf, 0).astype(np.float32)
    nodes: list[tuple[Any, ...]] = [
        ("MatMul", ["x", "w"], ["s"]),
        ("Add", ["s", "mask"], ["masked"]),
        ("Softmax", ["masked"], ["y"], {"axis": 1}),
    ]
    model = graph(nodes, {"w": TALL, "mask": mask}, y=("float", ["n", 40]))
    found = penjing.compress(model, X[:400], budget=penjing.Budget(max_drop=0.05))
    np.testing.assert_array_equal(found.artifact.arrays()["mask"], mask)
    assert found.report.ratio > 1


# --- bad input ----------------------------------------------------------------------------


def with_nan(array: Array) -> Array:
    bad = array.copy()
    bad[1, 1] = np.nan
    return bad


Y = DATA[1]
BAD: dict[str, tuple[Any, Any, dict[str, Any], type[penjing.PenjingError], str]] = {
    "NaN weights": (linear(with_nan(WEIGHT)), DATA, {}, ModelError, "weight 'w'.*NaN"),
    "no weights": (graph([("Relu", ["x"], ["y"])], {}), DATA, {}, ModelError, "no weights"),
    "NaN outputs": (
        graph([("MatMul", ["x", "w"], ["s"]), ("Log", ["s"], ["y"])], {"w": WEIGHT}),
        X,
        {},
        DataError,
        "NaN or infinity in 'y'",
    ),
    "old opset": (linear(opset=6), DATA, {}, ModelError, "opset 6"),
    "future opset": (linear(opset=99), DATA, {}, ModelError, "uses opset 99; ONNX Runtime"),
    "not a model": (b"nothing of the kind", DATA, {}, ModelError, "model"),
    "an object": (object(), DATA, {}, UnsupportedError, "no backend knows"),
    "no such model": ("gone.onnx", DATA, {}, ModelError, "no such file"),
    "a pickle": (__file__, DATA, {}, ModelError, "no kind of model file"),
    "NaN data": (linear(), (with_nan(X), Y), {}, DataError, "array 'x'.*NaN"),
    "wrong shape": (linear(), (X[:, :5], Y), {}, DataError, r"array 'x'.*\(1500, 5\)"),
    "no such data": (linear(), "gone.npz", {}, DataError, "gone.npz"),
    "no data": (linear(), (X[:0], Y[:0]), {}, DataError, "no rows"),
    "two rows": (linear(), (X[:2], Y[:2]), {}, DataError, "too few"),
    "too few labels": (linear(), (X, Y[:5]), {}, DataError, "number of rows"),
    "one class": (linear(), (X, 0 * Y), {}, DataError, "one class"),
    "labels too large": (linear(), (X, Y + 5), {}, DataError, "3 classes"),
    "negative labels": (linear(), (X, Y - 1), {}, DataError, "smallest is -1"),
    "one fixed row": (linear(x=[1, 12]), (X[:3], Y[:3]), {}, DataError, "too few rows"),
    "unknown metric": (linear(), DATA, {"metric": "acuracy"}, ConfigError, "accuracy"),
    "wrong metric": (linear(), DATA, {"metric": "rmse"}, DataError, "wrong for the task"),
    "no labels": (linear(), X, {"metric": "accuracy"}, DataError, "labels"),
    "negative seed": (linear(), DATA, {"seed": -1}, ConfigError, "seed"),
    "same rows twice": (linear(), DATA, {"test": DATA}, DataError, "same rows"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, data, options, kind, message = BAD[name]
    with pytest.raises(penjing.PenjingError, match=f"(?s){message}") as raised:
        penjing.compress(model, data, **options)
    assert type(raised.value) is kind
    assert raised.value.where
    assert raised.value.problem
    assert not list(tmp_path.iterdir())
