"""The last linear layer of an ONNX graph: finding it, and putting a new one in its place."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from penjing.backends.onnx_support.scopes import STANDARD_DOMAINS, Names, is_constant, reads
from penjing.core.errors import UnsupportedError
from penjing.core.model import HEAD_BIAS, HEAD_WEIGHT

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx

    from penjing.backends.onnx_support.roles import Role
    from penjing.core.tensors import Array

PASSED = {"Softmax", "LogSoftmax", "Sigmoid", "Identity", "Cast", "Dropout", "Reshape"}
PASSED |= {"Flatten", "Squeeze"}
"""Operators between the last layer and the output: each number stays one."""
SPREAD = 0.01
"""Standard deviation of new weights."""
FLOATS = {1: np.float32, 10: np.float16, 11: np.float64}


def replace_head(proto: onnx.ModelProto, outputs: int, seed: int) -> None:
    """Put a new linear layer in place of the last one, in a model with its arrays inside.

    A probability of one class becomes those of all of them: Sigmoid becomes Softmax.

    Raises:
        UnsupportedError: the first output is not made by a linear layer with constant weights.
    """
    graph = proto.graph
    made_by = {name: node for node in graph.node for name in node.output}
    arrays = _constants(graph)
    way, node, product = _find(graph, made_by, arrays)
    weight = arrays[product.input[1]]
    into = _columns(product, weight)
    old = weight.shape[0] if _turned(product) else weight.shape[1]
    dtype = weight.dtype
    rng = np.random.default_rng([seed, 0x4EAD])
    fresh = rng.normal(0.0, SPREAD, (outputs, into)).astype(dtype)
    _free(proto, HEAD_WEIGHT, HEAD_BIAS)
    _put(graph, HEAD_WEIGHT, fresh if _turned(product) else np.ascontiguousarray(fresh.T))
    _put(graph, HEAD_BIAS, np.zeros(outputs, dtype))
    product.input[1] = HEAD_WEIGHT
    ends = {product.output[0], node.output[0]}
    _add_bias(proto, node, product)
    _adapt(proto, way, arrays, old, outputs)
    _resize(graph, ends | {name for each in way for name in each.output}, old, outputs)
    _drop_unread(graph)


def layers(proto: onnx.ModelProto, roles: dict[str, Role]) -> tuple[tuple[str, ...], ...]:
    """Give the weights of each layer with its bias, in the order of computation."""
    places = {id(node): place for place, node in enumerate(proto.graph.node)}
    first: dict[str, int] = {}
    for name, role in roles.items():
        inside = [places[id(use.node)] for use in role.uses if id(use.node) in places]
        if inside:
            first[name] = min(inside)
    ordered = sorted(first, key=lambda name: first[name])
    found: list[tuple[str, ...]] = []
    for name in ordered:
        biases = [other for other, role in roles.items() if role.layer == name]
        found.append((name, *biases))
    return tuple(found)


def _find(
    graph: onnx.GraphProto,
    made_by: dict[str, onnx.NodeProto],
    arrays: dict[str, Array],
) -> tuple[list[onnx.NodeProto], onnx.NodeProto, onnx.NodeProto]:
    """Walk back from the first output of real numbers to the product that makes it.

    Returns:
        What is passed on the way; the last node of the layer; its product, the same or before.
    """
    output = next(
        (out for out in graph.output if out.type.tensor_type.elem_type in FLOATS), None
    )
    if output is None:
        raise UnsupportedError("output", "none holds real numbers: there is no head to replace")
    where = f"output {output.name!r}"
    name, way = output.name, []
    while name in made_by:
        node = made_by[name]
        plain = node.domain in STANDARD_DOMAINS
        if plain and node.op_type in PASSED:
            way.append(node)
            name = node.input[0]
            continue
        product = _product(node, made_by, arrays) if plain else None
        if product is None:
            break
        return way, node, product
    by = f"node {made_by[name].op_type} ({name!r})" if name in made_by else f"input {name!r}"
    raise UnsupportedError(
        where,
        f"is made by {by}, not by a linear layer with weights of its own",
        "transfer needs a model that ends in Gemm, or in MatMul and Add",
    )


def _product(
    node: onnx.NodeProto, made_by: dict[str, onnx.NodeProto], arrays: dict[str, Array]
) -> onnx.NodeProto | None:
    """Give the Gemm or MatMul of a layer that ends in this node."""
    if node.op_type == "Add":
        for one, other in ((0, 1), (1, 0)):
            if node.input[other] in arrays and node.input[one] in made_by:
                inner = made_by[node.input[one]]
                is_bias = prod(arrays[node.input[other]].shape) >= 1
                if inner.op_type == "MatMul" and is_bias:
                    return _product(inner, made_by, arrays)
        return None
    if node.op_type not in {"Gemm", "MatMul"} or len(node.input) < 2:  # noqa: PLR2004
        return None
    weight = arrays.get(node.input[1])
    left = node.input[0] not in arrays
    if weight is None or weight.ndim != 2 or weight.dtype.kind != "f" or not left:  # noqa: PLR2004
        return None
    turned = {a.name: a.i for a in node.attribute}
    return None if turned.get("transA", 0) else node


def _turned(product: onnx.NodeProto) -> bool:
    """Tell whether the weight lies with the output axis first."""
    return any(a.name == "transB" and a.i for a in product.attribute)


def _columns(product: onnx.NodeProto, weight: Array) -> int:
    return int(weight.shape[1] if _turned(product) else weight.shape[0])


def _add_bias(proto: onnx.ModelProto, node: onnx.NodeProto, product: onnx.NodeProto) -> None:
    """Let the new bias be added: where the old one was, or behind the product."""
    from onnx import helper

    graph = proto.graph
    if product.op_type == "Gemm":
        kept = [a for a in product.attribute if a.name not in {"alpha", "beta"}]
        del product.attribute[:]
        product.attribute.extend(kept)
        del product.input[2:]
        product.input.append(HEAD_BIAS)
        return
    if node is not product:
        place = 1 if node.input[0] == product.output[0] else 0
        node.input[place] = HEAD_BIAS
        return
    inner = Names(proto).free(f"{product.output[0]}.product")
    at = [id(each) for each in graph.node].index(id(product)) + 1
    added = helper.make_node("Add", [inner, HEAD_BIAS], [product.output[0]])
    product.output[0] = inner
    graph.node.insert(at, added)


def _adapt(
    proto: onnx.ModelProto,
    way: list[onnx.NodeProto],
    arrays: dict[str, Array],
    old: int,
    outputs: int,
) -> None:
    """Let what comes behind the layer take the new number of outputs."""
    from onnx import helper

    graph = proto.graph
    for node in way:
        if node.op_type == "Sigmoid":
            node.op_type = "Softmax"
            node.attribute.append(helper.make_attribute("axis", -1))
        if node.op_type == "Squeeze" and old == 1:
            node.op_type = "Identity"
            del node.input[1:]
            del node.attribute[:]
        if node.op_type == "Reshape":
            shape = arrays.get(node.input[1])
            if shape is None or (old not in shape and -1 not in shape[1:]):
                raise UnsupportedError(
                    f"node Reshape ({node.output[0]!r})",
                    "gives the outputs a shape that cannot be told for other classes",
                    "remove it from the model",
                )
            name = Names(proto).free(f"{node.input[1]}.head")
            _put(graph, name, np.where(shape == old, outputs, shape).astype(np.int64))
            node.input[1] = name
    del graph.value_info[:]


def _resize(graph: onnx.GraphProto, names: set[str], old: int, outputs: int) -> None:
    """Say the new number of classes in the shapes of outputs that have them."""
    for value in graph.output:
        sizes = value.type.tensor_type.shape.dim
        if value.name in names and sizes and value.type.tensor_type.elem_type in FLOATS:
            if old == 1 and len(sizes) == 1:
                sizes.add()
            sizes[-1].dim_value = outputs


def _constants(graph: onnx.GraphProto) -> dict[str, Array]:
    """Give all arrays of the main graph by the names of their values."""
    from onnx import numpy_helper

    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if is_constant(node) and node.attribute[0].HasField("t"):
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def _free(proto: onnx.ModelProto, *names: str) -> None:
    """Let arrays of a head that was replaced before make way."""
    taken = Names(proto)
    for name in names:
        for tensor in proto.graph.initializer:
            if tensor.name == name:
                tensor.name = taken.free(f"{name}.old")
                for node in proto.graph.node:
                    for place, read in enumerate(node.input):
                        if read == name:
                            node.input[place] = tensor.name


def _put(graph: onnx.GraphProto, name: str, array: Array) -> None:
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(array, name))


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Leave out arrays that nothing reads any more."""
    known = {name for node in graph.node for name in reads(node)}
    known |= {value.name for value in graph.output}
    _keep(graph, [tensor for tensor in graph.initializer if tensor.name in known])


def _keep(graph: onnx.GraphProto, kept: Iterable[onnx.TensorProto]) -> None:
    held = list(kept)
    names = {tensor.name for tensor in held}
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in names:
            del graph.initializer[place]
