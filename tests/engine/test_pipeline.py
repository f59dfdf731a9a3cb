"""What a run refuses before it works, warns of, and does when its time is up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import penjing
from penjing.core.errors import ConfigError, DataError, UnsupportedError
from penjing.core.model import LayerKind
from penjing.core.tensors import Affine
from penjing.engine import packing
from penjing.engine.packing import without_losses
from penjing.engine.pipeline import fed_back
from penjing.engine.running import Running
from penjing.engine.search import TIME_IS_UP, Search
from penjing.testing.onnx_models import gru, mlp

onnx = pytest.importorskip("onnx")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(900, 12)).astype(np.float32)
POINT = penjing.Budget(max_drop=0.03, confidence=None)
RECIPE = penjing.Recipe.from_dict({"steps": [{"use": "round_to_nearest", "bits": 8}]})


def model(
    nodes: list[Any],
    arrays: dict[str, Any],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
) -> Any:
    helper = onnx.helper

    def ports(given: dict[str, list[Any]]) -> list[Any]:
        return [helper.make_tensor_value_info(name, 1, shape) for name, shape in given.items()]

    made = helper.make_graph(
        [helper.make_node(*node) for node in nodes],
        "g",
        ports(inputs),
        ports(outputs),
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    whole = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    whole.ir_version = 8
    return whole


def autoencoder(last: str = "Identity") -> Any:
    arrays = {
        "w": RNG.normal(size=(12, 5)).astype("f4"),
        "v": RNG.normal(size=(5, 12)).astype("f4"),
    }
    nodes = [("MatMul", ["x", "w"], ["h"]), ("MatMul", ["h", "v"], ["z"]), (last, ["z"], ["y"])]
    return model(nodes, arrays, {"x": ["n", 12]}, {"y": ["n", 12]})


def recurrent() -> Any:
    arrays = {
        "w": RNG.normal(size=(12, 4)).astype("f4"),
        "u": RNG.normal(size=(12, 12)).astype("f4"),
    }
    nodes = [
        ("MatMul", ["state", "u"], ["a"]),
        ("Add", ["x", "a"], ["s"]),
        ("Tanh", ["s"], ["next"]),
        ("MatMul", ["next", "w"], ["y"]),
    ]
    ports = {"x": ["n", 12], "state": ["n", 12]}
    return model(nodes, arrays, ports, {"y": ["n", 4], "next": ["n", 12]})


@pytest.mark.parametrize(
    ("native", "metric"),
    [(autoencoder(), "deviation"), (autoencoder("Softmax"), "agreement"), (mlp(), "agreement")],
    ids=["autoencoder", "probabilities", "classifier"],
)
def test_autoencoders_are_judged_by_their_values(native: Any, metric: str) -> None:
    found = penjing.compress(native, X, budget=POINT, recipe=RECIPE)
    assert found.report.metric == metric


def test_outputs_that_are_fed_back_are_warned_about() -> None:
    rows = {"x": X, "state": X[::-1].copy()}
    warned = penjing.compress(recurrent(), rows, budget=POINT, recipe=RECIPE).report.warnings
    assert any("'next'" in text and "fed back" in text for text in warned)
    for native in (mlp(), gru(), autoencoder()):
        assert not fed_back(Running(penjing.wrap(native)))


def test_a_limit_relative_to_nothing_is_refused_before_the_search() -> None:
    native = autoencoder()
    y = Running(penjing.wrap(native)).run({"x": X})["y"]
    started: list[str] = []

    def progress(phase: str, share: float, note: str = "") -> None:
        del share, note
        started.append(phase)

    with pytest.raises(DataError, match="rmse here is 0"):
        penjing.compress(
            native, {"x": X, "y": y}, metric="rmse", budget=POINT, progress=progress
        )
    assert set(started) == {"splitting data"}


def test_strict_refuses_large_integers_before_any_work() -> None:
    table = RNG.integers(0, 99, size=(12, 300))
    nodes = [
        ("Cast", ["t"], ["f"]),
        ("MatMul", ["x", "f"], ["y"]),
    ]
    native = model(nodes, {"t": table}, {"x": ["n", 12]}, {"y": ["n", 300]})
    native.graph.node[0].attribute.append(onnx.helper.make_attribute("to", 1))
    with pytest.raises(UnsupportedError, match="no real numbers"):
        penjing.compress(native, X, budget=POINT, strict=True)


def test_an_original_that_tells_nothing_apart_is_warned_of() -> None:
    right = penjing.wrap(mlp()).predict({"x": X})["y"].argmax(axis=1)
    wrong = (X, (right + 1) % 3)
    with pytest.warns(penjing.PenjingWarning, match="the original is right for .* every time"):
        penjing.compress(mlp(), wrong, budget=POINT, time_limit_s=0)


def test_a_seed_is_a_whole_number() -> None:
    with pytest.raises(ConfigError, match="seed: must be a whole number"):
        penjing.compress(mlp(), X, budget=POINT, seed="x")  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [0.0, 1e-9])
def test_time_that_is_up_while_observing_leaves_lossless_packing(limit: float) -> None:
    found = penjing.compress(mlp(), X, budget=POINT, time_limit_s=limit)
    assert found.met
    assert TIME_IS_UP in found.report.reason
    assert not found.report.reproduce
    assert [c.label for c in found.report.candidates] == ["lossless"]


def test_small_arrays_that_an_encoding_makes_larger_stay_as_they_are() -> None:
    original = penjing.wrap(mlp())
    bias = next(w for w in original.weights().values() if w.kind is LayerKind.BIAS)
    array = bias.tensor.dense()
    dear = Affine.encode(np.asarray(RNG.integers(-(2**31), 2**31, array.shape)), 1e-9)
    cheap = Affine.encode(np.zeros(array.shape, np.int64), 1.0)
    assert not without_losses(original, original.with_weights({bias.name: dear})).changed
    kept = without_losses(original, original.with_weights({bias.name: cheap}))
    assert set(kept.changed) == {bias.name}


@pytest.mark.parametrize("kind", ["matrix", "large"])
def test_matrices_and_large_arrays_are_left_to_the_recipe(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = penjing.wrap(mlp())
    wanted = LayerKind.BIAS if kind == "large" else LayerKind.LINEAR
    weight = next(w for w in original.weights().values() if w.kind is wanted)
    shape = weight.tensor.shape
    monkeypatch.setattr(packing, "FEW", 10**9 if kind == "matrix" else 1)
    dear = Affine.encode(np.asarray(RNG.integers(-(2**31), 2**31, shape)), 1e-9)
    changed = original.with_weights({weight.name: dear})
    assert set(without_losses(original, changed).changed) == {weight.name}


def test_a_recipe_is_given_statistics_whatever_the_budget() -> None:
    recipe = penjing.Recipe.from_dict({"steps": [{"use": "gptq"}]})
    for budget in (penjing.Budget(max_size_bytes=10**7), penjing.Budget(max_drop=0)):
        found = penjing.compress(mlp(), X, budget=budget, recipe=recipe)
        assert [c.label for c in found.report.candidates] == ["lossless", "recipe"]
        assert found.met


def test_an_interrupted_search_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Search) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Search, "run", interrupt)
    found = penjing.compress(mlp(), X, budget=POINT)
    assert "interrupted" in found.report.reason
    assert not found.report.reproduce
