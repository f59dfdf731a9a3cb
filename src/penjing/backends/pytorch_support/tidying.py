"""Exported graphs as people would write them: names of parameters, tied weights once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.backends.pytorch_support.origins import Origins, digest, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx

PREFIX = "module."
SMALLEST_BYTES = 64
"""Smaller arrays stay inside the graph and are never listed."""
WITH_BIAS = {"Conv", "ConvTranspose", "Gemm"}
WEIGHT, BIAS = 1, 2
"""Places among the inputs of these operators."""


def tidy(model: onnx.ModelProto, module: Any) -> None:
    """Drop what varies from run to run, store tied weights once and name arrays, in place."""
    model.producer_version = ""
    del model.metadata_props[:]
    graph = model.graph
    for inner in _graphs(graph):
        inner.ClearField("value_info")
        items: list[Any] = [inner, *inner.node, *inner.initializer, *inner.input, *inner.output]
        for item in items:
            item.ClearField("doc_string")
            # Where in the module a node comes from: more bytes than a small model has.
            del item.metadata_props[:]
    taken = _values(graph)
    shorter = {t.name: plain(t.name.removeprefix(PREFIX)) for t in graph.initializer}
    rename(graph, {old: new for old, new in shorter.items() if new not in taken})
    origins = Origins(getattr(module, "module", module))
    _tie(graph, origins)
    _name(graph, origins)


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename values, also where inner graphs read them."""
    for inner in _graphs(graph):
        for tensor in inner.initializer:
            tensor.name = names.get(tensor.name, tensor.name)
        for value in (*inner.input, *inner.output, *inner.value_info):
            value.name = names.get(value.name, value.name)
        for node in inner.node:
            for side in (node.input, node.output):
                new = [names.get(name, name) for name in side]
                del side[:]
                side.extend(new)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graphs(inner)


def _values(graph: onnx.GraphProto) -> set[str]:
    """Give the names of all values."""
    found = {value.name for value in (*graph.input, *graph.output)}
    for inner in _graphs(graph):
        found |= {tensor.name for tensor in inner.initializer}
        found |= {name for node in inner.node for name in node.output}
    return found


def _tie(graph: onnx.GraphProto, origins: Origins) -> None:
    """Read a weight that is stored twice, once turned, from one place.

    The exporter computes transposes beforehand.
    """
    from onnx import helper, numpy_helper

    held = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if len(tensor.dims) == 2 and len(tensor.raw_data) >= SMALLEST_BYTES  # noqa: PLR2004
    }
    named = {digest(a): name for name, a in reversed(held.items()) if origins.knows(name)}
    turned = []
    for tensor in list(graph.initializer):
        array = held.get(tensor.name)
        if array is None or origins.knows(tensor.name):
            continue
        source = named.get(digest(array.T))
        if source is not None:
            turned.append(helper.make_node("Transpose", [source], [tensor.name], perm=[1, 0]))
            graph.initializer.remove(tensor)
    if turned:
        rest = list(graph.node)
        del graph.node[:]
        graph.node.extend([*turned, *rest])


def _name(graph: onnx.GraphProto, origins: Origins) -> None:
    """Call arrays what the parameters are called that they are made of."""
    from onnx import numpy_helper

    taken = _values(graph)
    biases = {
        node.input[BIAS]: node.input[WEIGHT].removesuffix("weight") + "bias"
        for node in graph.node
        if node.op_type in WITH_BIAS and len(node.input) > BIAS
        if node.input[WEIGHT].endswith(".weight")
    }
    names = {}
    for tensor in graph.initializer:
        if origins.knows(tensor.name) or not _is_float(tensor):
            continue
        label = biases.get(tensor.name) or origins.label(numpy_helper.to_array(tensor))
        if label and label not in taken:
            names[tensor.name] = label
            taken.add(label)
    rename(graph, names)


def _is_float(tensor: onnx.TensorProto) -> bool:
    from onnx import helper

    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return len(tensor.dims) > 0 and np.issubdtype(dtype, np.floating)


def rename_inputs(graph: onnx.GraphProto, names: Mapping[str, str]) -> dict[str, str]:
    """Give inputs other names; what is called so already makes way for them.

    Returns:
        All values that have a new name now.
    """
    known = _values(graph) | {*names.values()}
    changed = {old: new for old, new in names.items() if old != new}
    for name in sorted(_values(graph) & {*changed.values()} - {*changed}):
        count = 1
        while f"{name}_{count}" in known:
            count += 1
        changed[name] = f"{name}_{count}"
        known.add(changed[name])
    rename(graph, changed)
    return changed
