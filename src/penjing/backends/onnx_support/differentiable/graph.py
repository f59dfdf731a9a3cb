"""An ONNX model as nodes and arrays, with everything parsed that PyTorch needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from penjing.backends.onnx_support.differentiable.node import HINT, TORCH_TYPES, Node
from penjing.backends.onnx_support.scopes import STANDARD_DOMAINS, is_constant, nested
from penjing.core.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx

    from penjing.backends.onnx import OnnxModel
    from penjing.backends.onnx_support.reading import Cut
    from penjing.core.model import Port
    from penjing.core.tensors import Array

BITS: Mapping[str, torch.dtype] = {
    "bfloat16": torch.bfloat16,
}
"""Types that NumPy lacks: arrays hold their bits."""
HIDDEN: Mapping[str, tuple[str, ...]] = {
    "ai.onnx.ml.Imputer": ("imputed_value_floats",),
    "ai.onnx.ml.LinearClassifier": ("coefficients", "intercepts"),
    "ai.onnx.ml.LinearRegressor": ("coefficients", "intercepts"),
    "ai.onnx.ml.Scaler": ("offset", "scale"),
}
"""Attributes that hold arrays: further inputs of their nodes, in this order."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Where an array of the model comes from, and how the graph wants it."""

    name: str
    """Of the array that was cut out; empty where it was left in the graph."""
    kind: str
    """ONNX name of its number type, in small letters."""
    shape: tuple[int, ...]
    """In the graph."""
    swapped: int = 0
    """See ``Slot.swapped``."""
    array: Array | None = None
    """Of those left in the graph."""

    def place(self, given: Tensor) -> Tensor:
        """Lay a weight out as the graph has it; gradients pass back."""
        if self.swapped:
            first, second, *rest = given.shape
            parts = given.reshape(self.swapped, first // self.swapped, second, *rest)
            given = parts.transpose(1, 2)
        if tuple(given.shape) != self.shape:
            given = given.reshape(self.shape)
        return given.to(TORCH_TYPES[self.kind])


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Nodes in the order of computation, and what they read."""

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    """Inputs and outputs of numbers; those of text are left out."""
    stored: Mapping[str, Stored]
    """By value."""
    sparse: Mapping[str, tuple[Stored, Stored, tuple[int, ...]]]
    """Values, indices and shape of sparse arrays, by value."""
    kinds: Mapping[str, str]
    """ONNX names of number types of inputs and arrays."""
    output_types: Mapping[str, str]
    """NumPy names of number types of outputs."""

    def needed(self, wanted: set[str]) -> list[Node]:
        """Give the nodes that these values depend on, in order."""
        found = []
        wanted = set(wanted)
        for node in reversed(self.nodes):
            if not wanted.isdisjoint(node.outputs):
                found.append(node)
                wanted.update(node.inputs)
                wanted.discard("")
        return found[::-1]


def read_graph(native: OnnxModel, outputs: Sequence[Port]) -> Graph:
    """Parse the main graph of a model; functions are put in place of their calls.

    Raises:
        UnsupportedError: a constant is written in a form that cannot be read.
    """
    model = native.cut.graph
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    reader = _Reader(native.cut, native)
    return reader.read(model, outputs)


class _Reader:
    """Reads one graph."""

    def __init__(self, cut: Cut, native: OnnxModel) -> None:
        self.cut, self.native = cut, native
        self.stored: dict[str, Stored] = {}
        self.sparse: dict[str, tuple[Stored, Stored, tuple[int, ...]]] = {}
        self.opsets: dict[str, int] = {}

    def read(self, model: onnx.ModelProto, outputs: Sequence[Port]) -> Graph:
        self.opsets = {
            "" if item.domain in STANDARD_DOMAINS else item.domain: item.version
            for item in model.opset_import
        }
        graph = model.graph
        for tensor in graph.initializer:
            self.stored[tensor.name] = self._tensor(tensor)
        for item in graph.sparse_initializer:
            name = item.values.name
            values = self._tensor(item.values)
            self.sparse[name] = (values, self._tensor(item.indices), tuple(item.dims))
        nodes = [node for item in graph.node for node in self._node(item)]
        given = [item for item in graph.input if item.name not in self.stored]
        kinds = {name: stored.kind for name, stored in self.stored.items()}
        kinds |= {item.name: _port_kind(item) for item in given}
        return Graph(
            tuple(nodes),
            tuple(item.name for item in given if kinds[item.name] != "string"),
            tuple(port.name for port in outputs if port.dtype != "str"),
            self.stored,
            self.sparse,
            kinds,
            {port.name: port.dtype for port in outputs},
        )

    def _tensor(self, tensor: onnx.TensorProto) -> Stored:
        from onnx import TensorProto, numpy_helper

        kind = TensorProto.DataType.Name(tensor.data_type).lower()
        name = self.cut.held(tensor)
        if name is not None:
            role = self.native.roles[name]
            return Stored(name, kind, self.cut.shapes[name], role.swapped)
        if kind not in TORCH_TYPES:
            return Stored("", kind, tuple(tensor.dims))
        array = numpy_helper.to_array(tensor)
        if kind in {"int4", "uint4"}:
            array = array.astype(kind.replace("4", "8"))
        elif kind in BITS:
            array = array.view(f"uint{8 * array.dtype.itemsize}")
        return Stored("", kind, tuple(tensor.dims), array=array)

    def _node(self, node: onnx.NodeProto) -> Iterator[Node]:
        """Give a node; constants become arrays instead."""
        if is_constant(node):
            self.stored[node.output[0]] = self._constant(node)
            return
        domain = "" if node.domain in STANDARD_DOMAINS else node.domain
        op = f"{domain}.{node.op_type}" if domain else node.op_type
        label = node.name or next((name for name in node.output if name), node.op_type)
        attributes = {a.name: self._attribute(a) for a in node.attribute}
        inputs = [*node.input]
        for name in HIDDEN.get(op, ()):
            inputs.append("")
            if name in attributes:
                inputs[-1] = f"{node.output[-1]}.{name}"
                self.stored[inputs[-1]] = self._floats(node, name)
                del attributes[name]
        if any(True for _ in nested(node)):
            attributes = {}
        yield Node(
            op, label, tuple(inputs), tuple(node.output), attributes, self.opsets.get(domain, 1)
        )

    def _constant(self, node: onnx.NodeProto) -> Stored:
        (attribute,) = node.attribute
        if attribute.HasField("t"):
            return self._tensor(attribute.t)
        if attribute.name == "value_floats":
            return self._floats(node, attribute.name)
        if attribute.name in {"value_float", "value_int", "value_ints"}:
            dtype, kind = (
                (np.float32, "float") if "float" in attribute.name else (np.int64, "int64")
            )
            array = np.array(self._attribute(attribute), dtype)
            return Stored("", kind, array.shape, array=array)
        if attribute.name in {"value_string", "value_strings"}:
            return Stored("", "string", ())
        where = f"node {node.name or node.output[0]!r}"
        raise UnsupportedError(where, f"Constant of {attribute.name} cannot be trained", HINT)

    def _floats(self, node: onnx.NodeProto, name: str) -> Stored:
        """Give the floats that an attribute holds."""
        attribute = next(item for item in node.attribute if item.name == name)
        held = self.cut.held_floats(attribute)
        if held is not None:
            return Stored(held, "float", self.cut.shapes[held], self.native.roles[held].swapped)
        array = np.array(attribute.floats, np.float32)
        return Stored("", "float", array.shape, array=array)

    def _attribute(self, attribute: onnx.AttributeProto) -> Any:
        from onnx import AttributeProto, helper

        if attribute.type in {AttributeProto.GRAPH, AttributeProto.GRAPHS}:
            return None
        if attribute.HasField("t"):
            stored = self._tensor(attribute.t)
            return self._array(stored) if stored.kind in TORCH_TYPES else None
        held = self.cut.held_floats(attribute)
        if held is not None:
            return self.native.weights[held].tensor.dense().ravel().tolist()
        value = helper.get_attribute_value(attribute)
        if isinstance(value, (int, float)):
            return value
        return _text(value) if isinstance(value, bytes) else [_text(item) for item in value]

    def _array(self, stored: Stored) -> Array:
        array = stored.array
        if array is None:
            array = self.native.weights[stored.name].tensor.dense().reshape(stored.shape)
        return array


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _port_kind(item: onnx.ValueInfoProto) -> str:
    from onnx import TensorProto

    if not item.type.HasField("tensor_type"):
        return ""
    return TensorProto.DataType.Name(item.type.tensor_type.elem_type).lower()


def to_tensor(array: Array, stored: Stored) -> Tensor:
    """Make a tensor of an array that the graph keeps as ``stored``, on the CPU."""
    kind = stored.kind
    array = np.ascontiguousarray(array).reshape(array.shape)  # which it makes of () else
    if kind in BITS:
        bits = array.view(f"int{8 * array.dtype.itemsize}").copy()
        return torch.from_numpy(bits).view(BITS[kind])
    if kind in {"uint16", "uint32", "uint64"}:
        array = array.astype(np.int32 if kind == "uint16" else np.int64)
    if not array.flags.writeable:
        array = array.copy()
    return torch.from_numpy(array).to(TORCH_TYPES[kind])
