"""Where a graph can be divided into blocks, and what can be watched and detached there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.core.registry import BACKENDS
from penjing.testing.onnx_models import TOYS
from penjing.testing.onnx_oddities import ODDITIES, ROWS
from penjing.testing.onnx_zoo import Node, Ports, draw, graph

torch = pytest.importorskip("torch", reason="training needs PyTorch")

if TYPE_CHECKING:
    from collections.abc import Callable

    from penjing.core.model import Model


def opened(native: Any) -> Model:
    model: Model = BACKENDS.load("onnx")().open(native)
    return model


def function_of(model: Model) -> Any:
    return model.backend.function(model.native)  # type: ignore[attr-defined]


def trained(model: Model) -> dict[str, Any]:
    return {
        name: torch.from_numpy(weight.tensor.dense().copy()).requires_grad_()
        for name, weight in model.weights().items()
        if weight.is_float
    }


def residual() -> Any:
    """Two blocks with shortcuts, one of which has a weight; shapes are computed on the way."""
    nodes: list[Node] = [
        ("Gemm", ["x", "w0"], "stem", {}),
        ("Relu", ["stem"], "a", {}),
        ("Gemm", ["a", "w1"], "h1", {}),
        ("Relu", ["h1"], "r1", {}),
        ("Gemm", ["r1", "w2"], "h2", {}),
        ("Add", ["h2", "a"], "s1", {}),
        ("Relu", ["s1"], "b", {}),
        ("Gemm", ["b", "w3"], "h3", {}),
        ("Gemm", ["b", "w4"], "way", {}),
        ("Add", ["h3", "way"], "s2", {}),
        ("Relu", ["s2"], "c", {}),
        ("Shape", ["x"], "size", {}),
        ("Gather", ["size", "zero"], "rows", {"axis": 0}),
        ("Concat", ["rows", "rest"], "shape", {"axis": 0}),
        ("Reshape", ["c", "shape"], "flat", {}),
        ("Gemm", ["flat", "w5"], "y", {}),
    ]
    shape = (6, 6)
    arrays = draw(w0=shape, w1=shape, w2=shape, w3=shape, w4=shape, w5=shape)
    arrays |= {"zero": np.array([0]), "rest": np.array([-1])}
    return graph(nodes, ROWS, arrays, rank=2)


def lstm() -> Any:
    nodes: list[Node] = [
        ("LSTM", ["x", "w", "r"], ["steps"], {"hidden_size": 8}),
        ("Squeeze", ["steps", "one"], "h", {}),
        ("LSTM", ["h", "v", "s"], ["", "last"], {"hidden_size": 8}),
        ("Squeeze", ["last", "zero"], "t", {}),
        ("Gemm", ["t", "head"], "y", {}),
    ]
    arrays = draw(w=(1, 32, 6), r=(1, 32, 8), v=(1, 32, 8), s=(1, 32, 8), head=(8, 3))
    arrays |= {"zero": np.array([0]), "one": np.array([1])}
    return graph(nodes, {"x": ("float32", [5, "n", 6])}, arrays, rank=2)


def masked() -> Any:
    """A mask goes into each block, but carries nothing that a layer made."""
    nodes: list[Node] = [
        ("Cast", ["mask"], "m", {"to": 1}),
        ("MatMul", ["x", "w"], "h", {}),
        ("Mul", ["h", "m"], "a", {}),
        ("MatMul", ["a", "v"], "g", {}),
        ("Mul", ["g", "m"], "y", {}),
    ]
    ports: Ports = {"x": ("float32", ["n", 6]), "mask": ("int64", ["n", 1])}
    return graph(nodes, ports, draw(w=(6, 6), v=(6, 6)), rank=2)


def wide() -> Any:
    """A layer straight from the input to the output goes past all others."""
    nodes: list[Node] = [
        ("MatMul", ["x", "w"], "h", {}),
        ("MatMul", ["h", "v"], "g", {}),
        ("MatMul", ["x", "u"], "past", {}),
        ("Add", ["g", "past"], "y", {}),
    ]
    return graph(nodes, ROWS, draw(w=(6, 6), v=(6, 6), u=(6, 6)), rank=2)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (TOYS["mlp"], ("Relu1", "Relu3")),
        (residual, ("a", "b", "flat")),
        (lstm, ("h", "t")),
        (masked, ("a",)),
        (wide, ()),
        (ODDITIES["lstm_forward"], ()),
    ],
    ids=["chain", "residual", "lstm", "masked", "wide", "one_layer"],
)
def test_milestones_lie_between_blocks(build: Callable[[], Any], expected: tuple[str]) -> None:
    assert function_of(opened(build())).milestones == expected


def test_no_gradient_passes_a_detached_milestone() -> None:
    model = opened(residual())
    function, given = function_of(model), {"x": torch.linspace(-1, 1, 48).reshape(8, 6)}
    weights = trained(model)
    found = function(weights, given, watch=["b"], detach=["b"])
    found["y"].sum().backward(retain_graph=True)
    assert {n for n, w in weights.items() if w.grad is not None} == {"w3", "w4", "w5"}
    found["b"].sum().backward()
    assert {n for n, w in weights.items() if w.grad is not None} == set(weights)


def test_watching_and_detaching_change_no_value() -> None:
    model = opened(residual())
    function, given = function_of(model), {"x": torch.linspace(-1, 1, 48).reshape(8, 6)}
    plain = function({}, given)["y"]
    found = function({}, given, watch=["a", "x", "y", "w5"], detach=["x", "a", "y"])
    assert list(found) == ["y", "a", "w5", "x"]
    assert torch.equal(found["y"], plain)
    assert torch.equal(found["x"], given["x"])
