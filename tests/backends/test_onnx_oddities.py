"""Graphs that nobody tuned for: they come back bit for bit, and can be walked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

from penjing.core.data import Part, open_data
from penjing.core.model import MATRIX_KINDS, Model, Statistics
from penjing.core.registry import BACKENDS
from penjing.engine.observe import observe
from penjing.testing.onnx_oddities import ODDITIES
from penjing.testing.onnx_zoo import LAYERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penjing.core.tensors import Array

GRAPHS = {**ODDITIES, **LAYERS}
OUT_OF_SIGHT = {"branches": {"inner", "inner#2", "outer"}, "loop": {"k"}, "function": {"k"}}
"""Weights that only nested graphs and functions use: nobody watches there."""


def opened(proto: Any) -> Model:
    model: Model = BACKENDS.load("onnx")().open(proto)
    return model


def drawn(model: Model, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    made = {}
    for port in model.backend.inputs(model.native):
        shape = [size or 8 for size in port.shape]
        is_float = port.dtype.startswith("float")
        array = rng.normal(size=shape) if is_float else rng.integers(0, 2, shape)
        made[port.name] = np.asarray(array, port.dtype)
    return made


def run(data: bytes, feed: Mapping[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    results: list[Array] = onnxruntime.InferenceSession(data, options).run(None, dict(feed))
    return results


def arrays(model: Model) -> dict[str, Array]:
    return {name: weight.tensor.dense() for name, weight in model.weights().items()}


@pytest.mark.parametrize("build", GRAPHS.values(), ids=GRAPHS)
def test_filled_template_is_the_model(build: Callable[[], Any]) -> None:
    proto = build()
    onnx.checker.check_model(proto)
    model = opened(proto)
    template = model.backend.template(model.native)  # type: ignore[attr-defined]
    filled = template.fill(arrays(model))
    assert len(filled) == template.size_bytes
    onnx.checker.check_model(onnx.load_model_from_string(filled))
    feed = drawn(model)
    for before, after in zip(
        run(proto.SerializeToString(), feed), run(filled, feed), strict=True
    ):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("build", GRAPHS.values(), ids=GRAPHS)
def test_opening_what_was_filled_changes_nothing(build: Callable[[], Any]) -> None:
    model = opened(build())
    again = opened(model.backend.template(model.native).fill(arrays(model)))  # type: ignore[attr-defined]
    assert again.backend.template(again.native) == model.backend.template(model.native)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", GRAPHS)
def test_every_matrix_in_sight_is_seen(name: str) -> None:
    model = opened(GRAPHS[name]())
    weights = model.weights()
    wanted = {
        key for key, w in weights.items() if w.kind in MATRIX_KINDS and w.is_float
    } - OUT_OF_SIGHT.get(name, set())
    walker = model.backend.walker(model.native, [drawn(model, seed) for seed in (1, 2)])  # type: ignore[attr-defined]
    seen: list[str] = []

    def changed(key: str, found: Statistics) -> Mapping[str, Array]:
        seen.append(key)
        assert found.samples in {2, 8, 16}
        return {key: weights[key].tensor.dense() * 0.9}

    walker.run(changed)
    assert sorted(seen) == sorted(wanted)


@pytest.mark.parametrize("name", ["moved", "branches", "empty"])
def test_folding_needs_no_more_bytes(name: str) -> None:
    proto = GRAPHS[name]()
    model = opened(proto)
    assert model.backend.template(model.native).size_bytes <= proto.ByteSize()  # type: ignore[attr-defined]


def test_moved_weights_are_weights_of_their_layers() -> None:
    kinds = {name: str(w.kind) for name, w in opened(ODDITIES["moved"]()).weights().items()}
    assert kinds == {"w": "linear", "v": "linear"}


def test_a_tied_table_counts_both_of_its_uses() -> None:
    model = opened(ODDITIES["tied"]())
    batch = drawn(model)
    seen: dict[str, Statistics] = {}
    model.backend.walker(model.native, [batch]).run(lambda n, s: seen.update({n: s}) or {})  # type: ignore[attr-defined]
    weights = arrays(model)
    hidden = (weights["w"][batch["x"]] @ weights["mix"].T).reshape(-1, 6).astype(float)
    looked_up = batch["x"].size / 8 / 30
    wanted = hidden.T @ hidden / 8 + looked_up * np.eye(6)
    assert seen["w"].gram is not None
    np.testing.assert_allclose(seen["w"].gram[0], wanted, rtol=1e-4, atol=1e-5)


def test_same_names_in_both_branches_are_two_weights() -> None:
    weights = arrays(opened(ODDITIES["branches"]()))
    assert not np.array_equal(weights["inner"], weights["inner#2"])


def test_integers_are_never_floats() -> None:
    for name in ("quantized", "four_bits"):
        weights = opened(ODDITIES[name]()).weights().values()
        assert {w.is_float for w in weights if "int" in w.tensor.dtype.name} == {False}


@pytest.mark.parametrize("name", ["one_sample", "four_samples"])
def test_models_of_a_fixed_size_are_observed(name: str) -> None:
    model = opened(ODDITIES[name]())
    rows = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)
    data = open_data(rows, model.backend.inputs(model.native))
    seen = observe(model, Part(data, np.arange(10)), 0).statistics
    assert set(seen) == {"w", "v"}
    assert seen["w"].samples in {10, 12}


@pytest.mark.parametrize("name", ["lstm_forward", "conv_2d", "tied", "matmul_residual"])
def test_threads_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for count in (1, 3):
        monkeypatch.setattr("os.cpu_count", lambda count=count: count)
        model = opened(GRAPHS[name]())
        weights = model.weights()
        seen: dict[str, Statistics] = {}

        def changed(
            key: str,
            statistics: Statistics,
            seen: dict[str, Statistics] = seen,
            weights: Mapping[str, Any] = weights,
        ) -> Mapping[str, Array]:
            seen[key] = statistics
            return {key: weights[key].tensor.dense() * 0.9}

        batches = [drawn(model, seed) for seed in range(12)]
        model.backend.walker(model.native, batches).run(changed)  # type: ignore[attr-defined]
        found.append(seen)
    for key, one in found[0].items():
        other = found[1][key]
        for part in ("gram", "mean", "cross", "target", "row_importance"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part), part)
