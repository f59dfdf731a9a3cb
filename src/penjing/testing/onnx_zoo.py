"""ONNX graphs with a layer in every layout that exporters leave, for tests.

Each graph of ``LAYERS`` ends in the layer under test (``w``, with ``b`` where it has a bias),
behind a first layer (``first``) that a test can disturb.  ``ODDITIES`` are graphs that are
unusual in other ways.  All take their inputs from ``x`` on and give ``y``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from penjing.core.tensors import Array

Node = tuple[str, Sequence[str], str | Sequence[str], dict[str, Any]]
Ports = Mapping[str, tuple[str, Sequence[int | str]]]
Build = Callable[[], Any]


def graph(  # noqa: PLR0913  # all that makes a graph
    nodes: Sequence[Any],
    ports: Ports,
    arrays: Mapping[str, Array],
    *,
    rank: int = 0,
    shape: Sequence[int | str | None] = (),
    opset: int = 17,
    output: str = "float32",
) -> Any:
    """Build a model that gives ``y``; a node is (operator, inputs, outputs, attributes)."""
    from onnx import helper, numpy_helper

    built = [
        node
        if not isinstance(node, tuple)
        else helper.make_node(
            node[0], node[1], [node[2]] if isinstance(node[2], str) else node[2], **node[3]
        )
        for node in nodes
    ]
    made = helper.make_graph(
        built,
        "zoo",
        [port(name, kind, shape) for name, (kind, shape) in ports.items()],
        [port("y", output, shape or ["n", *[None] * (rank - 1)])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    imports = [
        helper.make_opsetid("", opset),
        helper.make_opsetid("com.microsoft", 1),
        helper.make_opsetid("local", 1),
    ]
    used = {node.domain for node in built}
    return helper.make_model(
        made, opset_imports=[o for o in imports if o.domain in used | {""}], ir_version=8
    )


def port(name: str, kind: str, shape: Sequence[int | str | None]) -> Any:
    """Describe an input or output by the NumPy name of its type."""
    from onnx import TensorProto, helper

    is_text = kind == "str"
    code = TensorProto.STRING if is_text else helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    return helper.make_tensor_value_info(name, code, shape)


def draw(seed: int = 7, dtype: str = "float32", **shapes: tuple[int, ...]) -> dict[str, Array]:
    """Draw weights of these shapes, small enough that signals keep their size."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(size=shape) / np.sqrt(max(1, prod(shape[1:])))).astype(dtype)
        for name, shape in shapes.items()
    }


def _gemm(turn_a: int, turn_b: int, **more: float) -> Any:
    """``x @ w`` for each way of turning either; the first layer turns ``x`` as asked."""
    weights = draw(first=(6, 6), w=(20, 6) if turn_b else (6, 20), b=(20,))
    start: Node = ("MatMul", ["x", "first"], "h", {})
    if turn_a:
        start = ("MatMul", ["first", "x"], "h", {})
    layer: Node = (
        "Gemm",
        ["h", "w", "b"],
        "y",
        {"transA": turn_a, "transB": turn_b, **more},
    )
    shape: list[int | str] = [6, "n"] if turn_a else ["n", 6]
    return graph([start, layer], {"x": ("float32", shape)}, weights, rank=2)


def _gemm_left(turn_a: int, turn_b: int) -> Any:
    """``w @ x``: features lie on the first axis of the result."""
    weights = draw(first=(6, 6), w=(6, 20) if turn_a else (20, 6), b=(20, 1))
    start: Node = ("MatMul", ["x", "first"] if turn_b else ["first", "x"], "h", {})
    layer: Node = ("Gemm", ["w", "h", "b"], "y", {"transA": turn_a, "transB": turn_b})
    shape: list[int | str] = ["n", 6] if turn_b else [6, "n"]
    return graph([start, layer], {"x": ("float32", shape)}, weights, shape=[20, "n"])


def _matmul(rows: tuple[int | str, ...], *, bias: int = 20, residual: bool = False) -> Any:
    """``x @ w`` for any number of axes, a bias in an addition of its own, a way around it."""
    width = rows[-1]
    assert isinstance(width, int)
    weights = draw(first=(width, width), w=(width, bias), b=(bias,))
    nodes: list[Node] = [
        ("MatMul", ["x", "first"], "h", {}),
        ("MatMul", ["h", "w"], "m", {}),
        ("Add", ["b", "m"], "s" if residual else "y", {}),
    ]
    if residual:
        nodes.append(("Add", ["h", "s"], "y", {}))
    return graph(nodes, {"x": ("float32", rows)}, weights, rank=len(rows))


def _matmul_left() -> Any:
    weights = draw(first=(6, 6), w=(20, 6), b=(20, 1))
    nodes: list[Node] = [
        ("MatMul", ["first", "x"], "h", {}),
        ("MatMul", ["w", "h"], "m", {}),
        ("Add", ["m", "b"], "y", {}),
    ]
    return graph(nodes, {"x": ("float32", ["n", 6, 5])}, weights, rank=3)


def _stacked(*, left: bool) -> Any:
    """A stack of four matrices, one for each slice of the input."""
    weights = draw(first=(6, 6), w=(4, 9, 6) if left else (1, 4, 6, 9))
    pair = ["w", "h"] if left else ["h", "w"]
    turned = ["first", "x"] if left else ["x", "first"]
    nodes: list[Node] = [("MatMul", turned, "h", {}), ("MatMul", pair, "y", {})]
    shape: list[int | str] = ["n", 4, 6, 5] if left else ["n", 4, 5, 6]
    return graph(nodes, {"x": ("float32", shape)}, weights, rank=4)


def _conv(
    space: tuple[int, ...],
    kernel: tuple[int, ...],
    *,
    group: int = 1,
    out: int = 18,
    residual: bool = False,
    **known: Any,
) -> Any:
    """Convolve over any number of axes, six channels in."""
    ones = (1,) * len(space)
    weights = draw(first=(6, 6, *ones), w=(out, 6 // group, *kernel), b=(out,))
    layer = "s" if residual else "y"
    nodes: list[Node] = [
        ("Conv", ["x", "first"], "h", {}),
        ("Conv", ["h", "w", "b"], layer, {"group": group, **known}),
    ]
    if residual:
        nodes.append(("Add", ["s", "h"], "y", {}))
    shape: list[int | str] = ["n", 6, *space]
    return graph(nodes, {"x": ("float32", shape)}, weights, rank=len(shape))


def _conv_transpose(
    space: tuple[int, ...], kernel: tuple[int, ...], *, group: int = 1, **known: Any
) -> Any:
    ones = (1,) * len(space)
    weights = draw(first=(6, 6, *ones), w=(6, 18 // group, *kernel), b=(18,))
    nodes: list[Node] = [
        ("Conv", ["x", "first"], "h", {}),
        ("ConvTranspose", ["h", "w", "b"], "y", {"group": group, **known}),
    ]
    shape: list[int | str] = ["n", 6, *space]
    return graph(nodes, {"x": ("float32", shape)}, weights, rank=len(shape))


LAYERS: Mapping[str, Build] = {
    **{f"gemm_{a}{b}": partial(_gemm, a, b) for a in (0, 1) for b in (0, 1)},
    "gemm_alpha": lambda: _gemm(0, 1, alpha=0.5),
    **{f"gemm_left_{a}{b}": partial(_gemm_left, a, b) for a in (0, 1) for b in (0, 1)},
    "matmul": lambda: _matmul(("n", 6)),
    "matmul_3d": lambda: _matmul(("n", 5, 6)),
    "matmul_4d": lambda: _matmul(("n", 2, 3, 6)),
    "matmul_small_bias": lambda: _matmul(("n", 6), bias=12),
    "matmul_residual": lambda: _matmul(("n", 5, 20), residual=True),
    "matmul_left": _matmul_left,
    "stacked": lambda: _stacked(left=False),
    "stacked_left": lambda: _stacked(left=True),
    "conv_1d": lambda: _conv((9,), (3,), pads=[1, 0]),
    "conv_2d": lambda: _conv((7, 6), (3, 2), strides=[2, 1], pads=[1, 0, 1, 1]),
    "conv_3d": lambda: _conv((4, 5, 4), (2, 3, 2), dilations=[1, 2, 1]),
    "conv_groups": lambda: _conv((6, 6), (3, 3), group=3, pads=[1, 1, 1, 1]),
    "conv_depthwise": lambda: _conv((6, 6), (3, 3), group=6),
    "conv_same_upper": lambda: _conv((7, 6), (4, 3), auto_pad="SAME_UPPER", strides=[2, 3]),
    "conv_same_lower": lambda: _conv((7, 6), (4, 3), auto_pad="SAME_LOWER", strides=[2, 1]),
    "conv_valid": lambda: _conv((7, 6), (2, 2), auto_pad="VALID"),
    "conv_small_bias": lambda: _conv((5, 5), (3, 3), out=8),
    "conv_residual": lambda: _conv((5, 5), (3, 3), out=6, residual=True, pads=[1, 1, 1, 1]),
    "conv_turned": lambda: _conv_transpose((5, 4), (2, 2), strides=[2, 2]),
    "conv_turned_overlapping": lambda: _conv_transpose(
        (5, 4), (3, 3), strides=[2, 1], pads=[1, 0, 1, 1], output_padding=[1, 0]
    ),
    "conv_turned_groups": lambda: _conv_transpose((6,), (3,), group=3, dilations=[2]),
    "conv_turned_same": lambda: _conv_transpose(
        (5, 4), (3, 3), strides=[2, 2], auto_pad="SAME_UPPER"
    ),
    "conv_turned_to_size": lambda: _conv_transpose(
        (5, 4), (3, 3), strides=[2, 2], output_shape=[10, 9]
    ),
}
"""Layers by name: the last one is ``w``."""
