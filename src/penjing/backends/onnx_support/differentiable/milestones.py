"""Values that separate the blocks of a network.

A value is a milestone if all data that pass a layer before it, on the way to the outputs, pass
it, and layers follow.  Of several such values without a layer between, the last one counts: the
value behind the activation, or behind the sum with the shortcut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penjing.backends.onnx_support.differentiable.operators import HOST_FROM
from penjing.backends.onnx_support.differentiable.program import MEASURES

if TYPE_CHECKING:
    from penjing.backends.onnx_support.differentiable.graph import Graph, Stored
    from penjing.backends.onnx_support.differentiable.node import Node

WEIGHTED = frozenset(
    (
        *("Conv", "ConvTranspose", "Einsum", "GRU", "Gather", "Gemm", "LSTM", "MatMul", "RNN"),
        *(f"ai.onnx.ml.{name}" for name in ("LinearClassifier", "LinearRegressor")),
    )
)
"""Operators that are layers where one of their inputs is an array of at least two axes."""
WHOLE = frozenset(
    (
        *("ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
        *("IsInf", "IsNaN", "NonZero", "Not", "QuantizeLinear"),
    )
)
"""Operators that give whole numbers or truth values: nothing to compare or to pass on."""
NUMBERS = frozenset(
    ("float", "double", "float16", "bfloat16", "int8", "uint8", "int4", "uint4")
)
"""Types of weights, quantized ones among them; others are places and sizes."""
FEWEST_AXES = 2


def find_milestones(graph: Graph) -> tuple[str, ...]:
    """Give the milestones of a graph, in order."""
    nodes = graph.needed(set(graph.outputs))
    flows, layers = _flows(graph, nodes)
    flows = _reaching(flows, graph)
    order = {value: index for index, value in enumerate(flows)}
    ends = {value for value in graph.outputs if value in order}
    first_end = min((order[value] for value in ends), default=-1)
    starts = [order[value] for value, sources in flows.items() if not sources]
    whole = _whole(nodes)
    places = sorted(order[value] for value in layers if value in order)
    # The last value that anything before the one at hand leads to, without passing it.
    reach = max(starts, default=-1)
    furthest = [-1] * len(flows)
    for value, sources in flows.items():
        for source in sources:
            furthest[order[source]] = max(furthest[order[source]], order[value])
    found: dict[int, str] = {}
    for value, index in order.items():
        is_cut = reach <= index <= first_end
        behind = sum(place <= index for place in places)
        if is_cut and behind < len(places) and value not in whole:
            found[behind] = value
        reach = max(reach, furthest[index])
    return tuple(found.values())


def _whole(nodes: list[Node]) -> set[str]:
    return {name for node in nodes if node.op in WHOLE for name in node.outputs}


def _flows(graph: Graph, nodes: list[Node]) -> tuple[dict[str, list[str]], set[str]]:
    """Give the values behind a layer with those they are made of, and the outputs of layers."""
    data = set(graph.inputs)
    arrays = {name for name, stored in graph.stored.items() if _is_matrix(stored)}
    arrays |= graph.sparse.keys()
    flows: dict[str, list[str]] = {}
    layers: set[str] = set()
    for node in nodes:
        fed = set(node.inputs[: HOST_FROM.get(node.op, len(node.inputs))])
        if node.op in MEASURES:
            continue
        if not data & fed:
            arrays.update(node.outputs if arrays & fed else ())
            continue
        data.update(node.outputs)
        behind = [name for name in fed if name in flows]
        is_layer = node.op in WEIGHTED and bool(arrays & fed)
        if is_layer or behind:
            flows.update({name: behind for name in node.outputs if name})
        if is_layer:
            layers.update(name for name in node.outputs if name)
    return flows, layers


def _is_matrix(stored: Stored) -> bool:
    return stored.kind in NUMBERS and sum(size > 1 for size in stored.shape) >= FEWEST_AXES


def _reaching(flows: dict[str, list[str]], graph: Graph) -> dict[str, list[str]]:
    """Leave out the values that lead to no output."""
    wanted = set(graph.outputs)
    for value in reversed(flows):
        if value in wanted:
            wanted.update(flows[value])
    return {value: sources for value, sources in flows.items() if value in wanted}
