"""Small ONNX graphs for tests: the layouts in which exporters leave weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penjing.core.tensors import Array

HIDDEN = 12


def _graph(
    name: str,
    nodes: list[tuple[str, list[str], dict[str, Any]]],
    ports: Mapping[str, tuple[str, list[int | str]]],
    arrays: Mapping[str, Array],
) -> Any:
    """Build a model: each node gives ``<operator><number>``, the last one ``y``."""
    from onnx import TensorProto, checker, helper, numpy_helper

    built = []
    for number, (operator, sources, attributes) in enumerate(nodes):
        target = "y" if number == len(nodes) - 1 else f"{operator}{number}"
        outputs = ["", target] if operator == "GRU" else [target]
        built.append(helper.make_node(operator, sources, outputs, **attributes))
    kinds = {"float": TensorProto.FLOAT, "int64": TensorProto.INT64}
    graph = helper.make_graph(
        built,
        name,
        [helper.make_tensor_value_info(p, kinds[k], s) for p, (k, s) in ports.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    checker.check_model(model)
    return model


def _draw(**shapes: tuple[int, ...]) -> dict[str, Array]:
    rng = np.random.default_rng(7)
    return {
        name: (rng.laplace(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        for name, shape in shapes.items()
    }


def mlp() -> Any:
    """One matrix in each layout: ``Gemm`` turned and straight, ``MatMul`` plus bias."""
    nodes: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Gemm", ["x", "w1", "b1"], {"transB": 1}),
        ("Relu", ["Gemm0"], {}),
        ("Gemm", ["Relu1", "w2", "b2"], {}),
        ("Relu", ["Gemm2"], {}),
        ("MatMul", ["Relu3", "w3"], {}),
        ("Add", ["MatMul4", "b3"], {}),
    ]
    arrays = _draw(w1=(24, 12), b1=(24,), w2=(24, 16), b2=(16,), w3=(16, 3), b3=(3,))
    return _graph("mlp", nodes, {"x": ("float", ["n", 12])}, arrays)


def conv() -> Any:
    """Plain, grouped and transposed convolutions."""
    nodes: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Conv", ["x", "plain", "b1"], {}),
        ("Relu", ["Conv0"], {}),
        ("Conv", ["Relu1", "grouped"], {"group": 2}),
        ("Relu", ["Conv2"], {}),
        ("ConvTranspose", ["Relu3", "turned"], {"group": 2, "strides": [2, 2]}),
        ("GlobalAveragePool", ["ConvTranspose4"], {}),
        ("Flatten", ["GlobalAveragePool5"], {}),
        ("Gemm", ["Flatten6", "head", "b2"], {"transB": 1}),
    ]
    arrays = _draw(
        plain=(8, 4, 3, 3),
        b1=(8,),
        grouped=(12, 4, 3, 3),
        turned=(12, 4, 2, 2),
        head=(3, 8),
        b2=(3,),
    )
    return _graph("conv", nodes, {"x": ("float", ["n", 4, 8, 8])}, arrays)


def gru() -> Any:
    """A recurrent layer over a short sequence, and a head."""
    nodes: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Transpose", ["x"], {"perm": [1, 0, 2]}),
        ("GRU", ["Transpose0", "w", "r", "b"], {"hidden_size": HIDDEN}),
        ("Reshape", ["GRU1", "flat"], {}),
        ("Gemm", ["Reshape2", "head"], {"transB": 1}),
    ]
    arrays = _draw(
        w=(1, 3 * HIDDEN, 6), r=(1, 3 * HIDDEN, HIDDEN), b=(1, 6 * HIDDEN), head=(3, HIDDEN)
    )
    arrays["flat"] = np.array([-1, HIDDEN])
    return _graph("gru", nodes, {"x": ("float", ["n", 5, 6])}, arrays)


def embedding() -> Any:
    """A table looked up by whole numbers, their mean, and a head."""
    nodes: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Gather", ["table", "ids"], {}),
        ("ReduceMean", ["Gather0"], {"axes": [1], "keepdims": 0}),
        ("Gemm", ["ReduceMean1", "head", "b"], {"transB": 1}),
    ]
    arrays = _draw(table=(20, 10), head=(3, 10), b=(3,))
    return _graph("embedding", nodes, {"ids": ("int64", ["n", 5])}, arrays)


TOYS: Mapping[str, Callable[[], Any]] = {
    "mlp": mlp,
    "conv": conv,
    "gru": gru,
    "embedding": embedding,
}
