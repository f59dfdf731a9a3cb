"""ONNX graphs that are unusual in one way each, for tests: all take ``x`` and give ``y``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.testing.onnx_zoo import Build, Node, draw, graph, port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROWS: Mapping[str, tuple[str, Sequence[int | str]]] = {"x": ("float32", ["n", 6])}
STEPS: Mapping[str, tuple[str, Sequence[int | str]]] = {"x": ("float32", [5, "n", 6])}
NEWEST_OPSET = 21
LINEAR: Sequence[Node] = (
    ("MatMul", ["x", "w"], "h", {}),
    ("Relu", ["h"], "r", {}),
    ("MatMul", ["r", "v"], "y", {}),
)


def recurrent(
    operator: str = "LSTM",
    direction: str = "forward",
    *,
    states: bool = True,
    start: bool = False,
    lengths: bool = False,
) -> Any:
    """A recurrent layer; ``states`` says whether it gives all or only the last ones."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[operator]
    ways = 2 if direction == "bidirectional" else 1
    arrays = draw(w=(ways, gates * 8, 6), r=(ways, gates * 8, 8), b=(ways, gates * 16))
    ports = dict(STEPS)
    sources = ["x", "w", "r", "b"]
    if lengths or start:
        sources.append("lengths" if lengths else "")
    if lengths:
        arrays["lengths"] = np.full(8, 4, np.int32)
    if start:
        sources.append("start")
        ports["start"] = ("float32", [ways, "n", 8])
    layer: Node = (
        operator,
        sources,
        ["y"] if states else ["", "y"],
        {"hidden_size": 8, "direction": direction},
    )
    shape: list[int | str | None] = [5, ways, "n", 8] if states else [ways, "n", 8]
    return graph([layer], ports, arrays, shape=shape)


def constants() -> Any:
    """Weights in ``Constant`` nodes, as tensors and as lists of floats."""
    from onnx import helper, numpy_helper

    arrays = draw(w=(6, 20), v=(20, 3))
    tensor = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(arrays["w"]))
    floats = helper.make_node("Constant", [], ["f"], value_floats=arrays["v"].ravel().tolist())
    nodes = [floats, tensor, ("Reshape", ["f", "shape"], "v", {}), *LINEAR]
    return graph(nodes, ROWS, {"shape": np.array([20, 3])}, rank=2)


def tied() -> Any:
    """A table that is looked up and, turned, is the head too."""
    nodes: list[Node] = [
        ("Gather", ["w", "x"], "e", {}),
        ("MatMul", ["e", "mix"], "h", {}),
        ("Transpose", ["w"], "t", {"perm": [1, 0]}),
        ("MatMul", ["h", "t"], "y", {}),
    ]
    return graph(nodes, {"x": ("int64", ["n", 4])}, draw(w=(30, 6), mix=(6, 6)), rank=3)


def shared() -> Any:
    """One matrix in two layers."""
    nodes: list[Node] = [
        ("MatMul", ["x", "w"], "h", {}),
        ("Tanh", ["h"], "t", {}),
        ("MatMul", ["t", "w"], "y", {}),
    ]
    return graph(nodes, ROWS, draw(w=(6, 6)), rank=2)


def moved() -> Any:
    """Weights behind operators that only move numbers."""
    nodes: list[Node] = [
        ("Identity", ["a"], "same", {}),
        ("Transpose", ["same"], "w", {"perm": [1, 0]}),
        ("Slice", ["b", "from0", "from8", "axis"], "low", {}),
        ("Slice", ["b", "from8", "to20", "axis"], "high", {}),
        ("Concat", ["high", "low"], "v", {"axis": 0}),
        *LINEAR,
    ]
    marks = {"from0": [0], "from8": [8], "to20": [20], "axis": [0]}
    arrays = draw(a=(20, 6), b=(20, 3)) | {k: np.array(v) for k, v in marks.items()}
    return graph(nodes, ROWS, arrays, rank=2)


def branches() -> Any:
    """Weights inside both branches of an ``If``, of the same name, and one from outside."""
    from onnx import helper, numpy_helper

    def branch(seed: int) -> Any:
        return helper.make_graph(
            [
                helper.make_node("MatMul", ["h", "inner"], ["m"]),
                helper.make_node("MatMul", ["m", "outer"], ["z"]),
            ],
            "branch",
            [],
            [port("z", "float32", ["n", 3])],
            [numpy_helper.from_array(draw(seed, w=(20, 20))["w"], "inner")],
        )

    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch(1), else_branch=branch(2))
    nodes = [
        ("MatMul", ["x", "w"], "h", {}),
        ("ReduceSum", ["x"], "s", {"keepdims": 0}),
        ("Greater", ["s", "zero"], "c", {}),
        choice,
    ]
    arrays = draw(w=(6, 20), outer=(20, 3)) | {"zero": np.zeros((), np.float32)}
    return graph(nodes, ROWS, arrays, rank=2)


def loop() -> Any:
    """A weight inside the body of a ``Loop``."""
    from onnx import helper, numpy_helper

    weight = numpy_helper.from_array(draw(w=(6, 6))["w"], "inner")
    body = helper.make_graph(
        [
            helper.make_node("Constant", [], ["k"], value=weight),
            helper.make_node("MatMul", ["at", "k"], ["next"]),
            helper.make_node("Identity", ["go"], ["still"]),
        ],
        "body",
        [port("i", "int64", []), port("go", "bool", []), port("at", "float32", ["n", 6])],
        [port("still", "bool", []), port("next", "float32", ["n", 6])],
    )
    again = helper.make_node("Loop", ["times", "", "x"], ["h"], body=body)
    nodes = [again, ("MatMul", ["h", "w"], "y", {})]
    return graph(nodes, ROWS, draw(w=(6, 20)) | {"times": np.array(3)}, rank=2)


def function() -> Any:
    """A weight inside a function of the model, which two nodes call."""
    from onnx import helper, numpy_helper

    weight = numpy_helper.from_array(draw(w=(6, 6))["w"])
    body = helper.make_function(
        "local",
        "Mix",
        ["a"],
        ["c"],
        [
            helper.make_node("Constant", [], ["k"], value=weight),
            helper.make_node("MatMul", ["a", "k"], ["c"]),
        ],
        [helper.make_opsetid("", 17)],
    )
    calls = [
        helper.make_node("Mix", ["x"], ["h"], domain="local"),
        helper.make_node("Mix", ["h"], ["g"], domain="local"),
    ]
    model = graph([*calls, ("MatMul", ["g", "w"], "y", {})], ROWS, draw(w=(6, 20)), rank=2)
    model.functions.append(body)
    return model


def old() -> Any:
    """Initializers that are inputs of the graph too, as before IR version 4."""
    model = graph(LINEAR, ROWS, draw(w=(6, 20), v=(20, 3)), rank=2, opset=11)
    model.ir_version = 3
    model.graph.input.extend([port("w", "float32", [6, 20]), port("v", "float32", [20, 3])])
    return model


def names() -> Any:
    """Names with spaces, quotes, line ends, slashes and other letters."""
    one, two, inner = 'a b/"c"\n\\', "盆景#2;../x", "\t.0"
    nodes: list[Node] = [("MatMul", ["x", one], inner, {}), ("MatMul", [inner, two], "y", {})]
    made = draw(w=(6, 20), v=(20, 3))
    return graph(nodes, ROWS, {one: made["w"], two: made["v"]}, rank=2)


def empty() -> Any:
    """An array without elements."""
    nodes: list[Node] = [("Concat", ["w", "none"], "all", {"axis": 0})]
    nodes.append(("MatMul", ["x", "all"], "y", {}))
    arrays = draw(w=(6, 20)) | {"none": np.zeros((0, 20), np.float32)}
    return graph(nodes, ROWS, arrays, rank=2)


def sparse() -> Any:
    """A sparse initializer."""
    from onnx import helper, numpy_helper

    dense = draw(w=(6, 20), v=(20, 3))
    places = np.arange(0, 120, 4)
    model = graph(LINEAR, ROWS, {"v": dense["v"]}, rank=2)
    values = numpy_helper.from_array(dense["w"].ravel()[places], "w")
    indices = numpy_helper.from_array(places, "")
    made = helper.make_sparse_tensor(values, indices, [6, 20])
    model.graph.sparse_initializer.append(made)
    return model


def quantized() -> Any:
    """Whole numbers with scales: ``DequantizeLinear`` and ``QLinearMatMul``."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "q": rng.integers(-9, 9, (6, 20)).astype(np.int8),
        "p": rng.integers(-9, 9, (20, 20)).astype(np.int8),
        "scale": np.full(20, 0.01, np.float32),
        "zeros": np.zeros(20, np.int8),
        "s": np.array(0.1, np.float32),
        "z": np.array(0, np.int8),
    }
    nodes: list[Node] = [
        ("DequantizeLinear", ["q", "scale", "zeros"], "w", {"axis": 1}),
        ("MatMul", ["x", "w"], "h", {}),
        ("QuantizeLinear", ["h", "s", "z"], "hq", {}),
        ("QLinearMatMul", ["hq", "s", "z", "p", "s", "z", "s", "z"], "m", {}),
        ("DequantizeLinear", ["m", "s", "z"], "y", {}),
    ]
    return graph(nodes, ROWS, arrays, rank=2)


def four_bits() -> Any:
    """``MatMulNBits``: packed numbers of four bits."""
    from onnx import helper

    rng = np.random.default_rng(0)
    packed = rng.integers(0, 255, (20, 1, 16)).astype(np.uint8)
    arrays: dict[str, Any] = {"q": packed, **draw(scale=(20,), v=(20, 3))}
    known: dict[str, Any] = {"K": 32, "N": 20, "bits": 4, "block_size": 32}
    inner = helper.make_node(
        "MatMulNBits", ["x", "q", "scale"], ["h"], domain="com.microsoft", **known
    )
    nodes = [inner, ("MatMul", ["h", "v"], "y", {})]
    return graph(nodes, {"x": ("float32", ["n", 32])}, arrays, rank=2)


def typed(kind: str) -> Any:
    """Weights and inputs of another float type."""
    made = draw(dtype=kind, w=(6, 40), v=(40, 3))
    return graph(LINEAR, {"x": (kind, ["n", 6])}, made, rank=2, output=kind)


def pixels() -> Any:
    """Bytes in, several inputs, a mask of truth values, a number that all samples share."""
    nodes: list[Node] = [
        ("Cast", ["x"], "f", {"to": 1}),
        ("Mul", ["f", "gain"], "g", {}),
        ("Where", ["mask", "g", "f"], "m", {}),
        ("Gather", ["table", "id"], "e", {}),
        ("Concat", ["m", "e"], "both", {"axis": 1}),
        ("MatMul", ["both", "w"], "y", {}),
    ]
    ports: Mapping[str, tuple[str, Sequence[int | str]]] = {
        "x": ("uint8", ["n", 6]),
        "mask": ("bool", ["n", 6]),
        "id": ("int64", ["n"]),
        "gain": ("float32", []),
    }
    return graph(nodes, ports, draw(table=(9, 4), w=(10, 20)), rank=2)


def floats_in_fields() -> Any:
    """Numbers in typed fields instead of raw bytes."""
    from onnx import helper

    model = graph(LINEAR, ROWS, {}, rank=2)
    for name, array in draw(w=(6, 20), v=(20, 3)).items():
        tensor = helper.make_tensor(name, 1, array.shape, array.ravel().tolist())
        model.graph.initializer.append(tensor)
    return model


def of_size(rows: int) -> Any:
    """A fixed number of samples."""
    made = draw(w=(6, 20), v=(20, 3))
    shape: list[int | str | None] = [rows, 3]
    return graph(LINEAR, {"x": ("float32", [rows, 6])}, made, shape=shape)


def linear(opset: int) -> Any:
    """Two plain layers."""
    return graph(LINEAR, ROWS, draw(w=(6, 20), v=(20, 3)), rank=2, opset=opset)


ODDITIES: Mapping[str, Build] = {
    **{f"opset_{n}": partial(linear, n) for n in (11, 13, 15, 18, NEWEST_OPSET)},
    **{
        f"{operator.lower()}_{direction}": partial(recurrent, operator, direction)
        for operator in ("LSTM", "GRU", "RNN")
        for direction in ("forward", "reverse", "bidirectional")
    },
    "lstm_last_states": partial(recurrent, states=False),
    "gru_last_states": partial(recurrent, "GRU", "bidirectional", states=False),
    "gru_start": partial(recurrent, "GRU", start=True),
    "rnn_reverse_start": partial(recurrent, "RNN", "reverse", start=True),
    "lstm_lengths": partial(recurrent, lengths=True),
    "constants": constants,
    "tied": tied,
    "shared": shared,
    "moved": moved,
    "branches": branches,
    "loop": loop,
    "function": function,
    "old": old,
    "names": names,
    "empty": empty,
    "sparse": sparse,
    "quantized": quantized,
    "four_bits": four_bits,
    "half": partial(typed, "float16"),
    "double": partial(typed, "float64"),
    "pixels": pixels,
    "floats_in_fields": floats_in_fields,
    "one_sample": partial(of_size, 1),
    "four_samples": partial(of_size, 4),
}
"""Graphs by what is odd about them."""
