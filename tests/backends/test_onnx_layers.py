"""Statistics of every layer layout, against the error energies that they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from penjing.backends.onnx_support import moments
from penjing.core.model import LayerKind, Model, Statistics, Weight
from penjing.core.registry import BACKENDS
from penjing.testing import models
from penjing.testing.onnx_oddities import recurrent
from penjing.testing.onnx_zoo import LAYERS, Node, draw, graph

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from penjing.core.tensors import Array


def opened(proto: Any) -> Model:
    model: Model = BACKENDS.load("onnx")().open(proto)
    return model


class Layer:
    """The layer ``w`` of a graph, with the first layer disturbed or not."""

    def __init__(self, build: Callable[[], Any], *, disturbed: bool) -> None:
        self.model = opened(build())
        self.weights = self.model.weights()
        self.batches = [models.inputs(self.model, 8, seed) for seed in (1, 2)]
        self.rng = np.random.default_rng(0)
        self.disturbed: dict[str, Array] = {}
        if disturbed:
            self.disturbed["first"] = self.moved("first", 0.3)
        self.outputs = self.run({})

    def moved(self, name: str, size: float) -> Array:
        array = self.weights[name].tensor.dense()
        noise = np.asarray(self.rng.normal(0, size, array.shape), array.dtype)
        return np.asarray(array + noise)

    def run(self, changes: Mapping[str, Array]) -> list[Array]:
        written = self.model.backend.write_weights(self.model.native, changes)
        return [Model(written, self.model.backend).predict(b)["y"] for b in self.batches]

    @property
    def bias(self) -> Weight | None:
        return next((w for w in self.weights.values() if w.layer == "w"), None)

    def statistics(self) -> Statistics:
        seen: dict[str, Statistics] = {}

        def encode(name: str, found: Statistics) -> Mapping[str, Array]:
            seen[name] = found
            return {k: v for k, v in self.disturbed.items() if k == name}

        self.model.backend.walker(self.model.native, self.batches).run(encode)  # type: ignore[attr-defined]
        return seen["w"]

    def loss(self, changes: Mapping[str, Array]) -> float:
        pairs = zip(self.run({**self.disturbed, **changes}), self.outputs, strict=True)
        total = sum(float(np.square(a.astype(float) - b).sum()) for a, b in pairs)
        return total / (8 * len(self.batches))

    def predicted(self, seen: Statistics, changes: Mapping[str, Array]) -> float:
        """The loss that statistics tell, up to what does not depend on ``changes``."""
        assert seen.gram is not None
        assert seen.mean is not None
        bias, groups, columns = self.bias, self.weights["w"].groups, seen.gram.shape[-1]
        own = {"w": self.weights["w"], **({} if bias is None else {bias.name: bias})}
        at = {}
        for name, weight in own.items():
            shape = (groups, -1, columns) if name == "w" else (groups, -1)
            at[name] = changes[name].astype(float).reshape(shape)
            if seen.cross is None:  # the goal is what the layer gives now
                at[name] = at[name] - weight.tensor.dense().reshape(shape)
        total = float(np.einsum("gri,gij,grj->", at["w"], seen.gram, at["w"]))
        if seen.cross is not None:
            total -= 2 * float((at["w"] * seen.cross).sum())
        if bias is not None:
            offset = at[bias.name]
            total += 2 * float(np.einsum("gri,gi,gr->", at["w"], seen.mean, offset))
            total += seen.positions * float((offset**2).sum())
            if seen.target is not None:
                total -= 2 * float((offset * seen.target).sum())
        return total


@pytest.mark.parametrize("disturbed", [False, True], ids=["plain", "disturbed"])
@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS)
def test_statistics_tell_the_error_energy(
    build: Callable[[], Any],
    disturbed: bool,  # noqa: FBT001  # pytest passes it by name
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(moments, "FEWEST_POSITIONS", 10**9)
    layer = Layer(build, disturbed=disturbed)
    seen = layer.statistics()
    assert (seen.cross is not None) == disturbed
    names = ["w"] if layer.bias is None else ["w", layer.bias.name]
    before = {name: layer.weights[name].tensor.dense() for name in names}
    after = {name: layer.moved(name, 0.1) for name in names}
    actual = layer.loss(after) - layer.loss(before)
    told = layer.predicted(seen, after) - layer.predicted(seen, before)
    assert told == pytest.approx(actual, abs=1e-4 * layer.loss(after))


def test_fewer_positions_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Layer(LAYERS["conv_residual"], disturbed=True)
    monkeypatch.setattr(moments, "FEWEST_POSITIONS", 10**9)
    exact = layer.statistics()
    monkeypatch.setattr(moments, "FEWEST_POSITIONS", 12)
    monkeypatch.setattr(moments, "POSITIONS_PER_COLUMN", 0)
    drawn = layer.statistics()
    assert drawn.positions == pytest.approx(exact.positions)
    for name in ("gram", "cross"):
        whole, part = getattr(exact, name), getattr(drawn, name)
        assert np.linalg.norm(part - whole) < 0.5 * np.linalg.norm(whole), name


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("operator", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_see_inputs_and_states(operator: str, direction: str) -> None:
    model = opened(recurrent(operator, direction, start=True))
    batch = models.inputs(model)
    seen: dict[str, Statistics] = {}
    model.backend.walker(model.native, [batch]).run(lambda n, s: seen.update({n: s}) or {})  # type: ignore[attr-defined]
    inputs = batch["x"].reshape(-1, 6).astype(float)
    states, start = model.predict(batch)["y"], batch["start"]
    for way in range(states.shape[1]):
        own = states[:, way]
        backward = direction == "reverse" or way == 1
        fed = [*own[1:], start[way]] if backward else [start[way], *own[:-1]]
        flat = np.concatenate(fed).astype(float)
        assert seen["w"].gram is not None
        assert seen["r"].gram is not None
        np.testing.assert_allclose(seen["w"].gram[way], inputs.T @ inputs / 8, rtol=1e-4)
        np.testing.assert_allclose(seen["r"].gram[way], flat.T @ flat / 8, rtol=1e-3, atol=1e-4)
    assert seen["r"].positions == pytest.approx(5)


def test_what_divides_is_known() -> None:
    """By the operator that divides, or takes the root of what another divides by."""
    arrays = draw(m=(6, 6), d=(6, 6), r=(6, 6), v=(6, 6))
    nodes: list[Node] = [
        ("Mul", ["x", "m"], "a", {}),
        ("Div", ["a", "d"], "b", {}),
        ("Sqrt", ["v"], "root", {}),
        ("Div", ["b", "root"], "c", {}),
        ("Div", ["r", "c"], "y", {}),
    ]
    made = graph(nodes, {"x": ("float32", ["n", 6])}, arrays, rank=2)
    weights = opened(made).weights()
    assert {name for name, weight in weights.items() if weight.divides} == {"d", "v"}


def test_biases_know_their_layers() -> None:
    for name in ("gemm_00", "matmul", "matmul_left", "conv_2d", "conv_turned_groups"):
        weights = opened(LAYERS[name]()).weights()
        assert weights["b"].kind is LayerKind.BIAS, name
        assert weights["b"].layer == "w", name
