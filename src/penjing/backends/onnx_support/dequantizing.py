"""Quantized values in the form that runtimes compute with integers.

In a model with float weights the codes of values become numbers by ``Cast``, ``Sub`` and
``Mul``.  A ``DequantizeLinear`` there would be taken as leave to quantize the weights behind
it: ONNX Runtime does so, one step for each array, on whatever grid they were before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penjing.core.model import ACTIVATION_SCALES, ACTIVATION_ZERO_POINTS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import onnx

    from penjing.backends.onnx_support.scopes import Names

HELD = (ACTIVATION_SCALES, ACTIVATION_ZERO_POINTS)
TOUCHY = {"Conv", "ConvTranspose", "Gemm"}
"""Operators whose float weights ONNX Runtime quantizes behind ``DequantizeLinear``."""


def to_numbers(  # all that makes a number of a code
    codes: str, scale: str, zero: str, target: str, names: Names
) -> list[onnx.NodeProto]:
    """Give the nodes that turn codes into numbers; ``zero`` is a float."""
    from onnx import TensorProto, helper

    real, above = (names.free(f"{target}/{part}") for part in ("real", "above"))
    return [
        helper.make_node("Cast", [codes], [real], to=TensorProto.FLOAT),
        helper.make_node("Sub", [real, zero], [above]),
        helper.make_node("Mul", [above, scale], [target]),
    ]


def to_qdq(graph: onnx.GraphProto) -> None:
    """Put ``DequantizeLinear``, with steps that are constants, in place of what we wrote."""
    from onnx import helper, numpy_helper

    arrays = {tensor.name: tensor for tensor in graph.initializer}
    if ACTIVATION_SCALES not in arrays:
        return
    makers = {name: node for node in graph.node for name in node.output if name}
    new, gone = {}, set()
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in HELD:
            array, place = (numpy_helper.to_array(arrays[name]) for name in node.input)
            number = np.asarray(array[int(place)])
            graph.initializer.append(numpy_helper.from_array(number, node.output[0]))
            gone |= {*node.input, *node.output}
        elif _dequantizes(node, makers):
            above = makers[node.input[0]]
            real, zero = (makers[name] for name in above.input)
            sources = [real.input[0], node.input[1], zero.input[0]]
            new[node.output[0]] = helper.make_node("DequantizeLinear", sources, node.output)
            gone |= {*above.input, above.output[0]}
    nodes = [
        new.get(node.output[0], node) if node.output else node
        for node in graph.node
        if not (node.output and node.output[0] in gone)
    ]
    _replace(graph, nodes)
    read = {name for node in graph.node for name in node.input}
    _drop(graph, gone - read - {item.name for item in graph.output})


def _dequantizes(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> bool:
    """Tell whether a node is the last of ``to_numbers``, with a step of ours."""
    if node.op_type != "Mul":
        return False
    scale, above = makers.get(node.input[1]), makers.get(node.input[0])
    is_ours = scale is not None and scale.op_type == "Gather"
    return is_ours and scale.input[0] == ACTIVATION_SCALES and above is not None  # type: ignore[union-attr]


def shield(graph: onnx.GraphProto, names: Names) -> None:
    """Hide from layers with float weights that their inputs are quantized."""
    from onnx import TensorProto, helper

    makers = {name: node for node in graph.node for name in node.output if name}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        source = makers.get(node.input[0]) if node.op_type in TOUCHY else None
        weight = makers.get(node.input[1]) if source is not None else None
        is_quantized = source is not None and source.op_type == "DequantizeLinear"
        if is_quantized and (weight is None or weight.op_type != "DequantizeLinear"):
            assert source is not None
            codes, scale, point = source.input
            zero = names.free(f"{node.output[0]}/zero")
            target = names.free(f"{node.output[0]}/input")
            nodes.append(helper.make_node("Cast", [point], [zero], to=TensorProto.FLOAT))
            nodes += to_numbers(codes, scale, zero, target, names)
            node.input[0] = target
        nodes.append(node)
    _replace(graph, nodes)


def _replace(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)


def _drop(graph: onnx.GraphProto, names: Collection[str]) -> None:
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name in names:
            del graph.initializer[index]
