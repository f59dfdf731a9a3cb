"""Which values of a graph to quantize, so that its layers can be computed in integers.

A runtime fuses a layer into an integer kernel where every input comes out of a
``DequantizeLinear`` and its output goes into a ``QuantizeLinear``.  So the inputs of products
are quantized, the outputs of convolutions, and what lies between them as far as there are
integer kernels for it: sums of two branches, averages, and operators that only move numbers,
which take over the step of their input.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from penjing.backends.onnx_support.scopes import STANDARD_DOMAINS, is_constant, reads
from penjing.core.model import ACTIVATION_SCALES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx

PRODUCTS = {"Conv": (0,), "ConvTranspose": (0,), "Gemm": (0, 1), "MatMul": (0, 1)}
"""Operators that multiply, and which of their inputs may be quantized values."""
JOINS = {"Add", "Mul", "Concat"}
POOLS = {"AveragePool", "GlobalAveragePool"}
CUTS = {"Relu", "Clip"}
"""Operators that a quantizer right behind them replaces."""
MOVES = {
    *("DepthToSpace", "Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Slice"),
    *("SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze"),
}
"""Operators whose results are some of their inputs, or zeros."""
FLOAT = 1
"""``TensorProto.FLOAT``."""


@dataclass(frozen=True, slots=True)
class Points:
    """Values to quantize."""

    like: Mapping[str, str]
    """Value -> the value whose range it shares (itself, mostly); in the order of the graph."""

    @property
    def ranges(self) -> tuple[str, ...]:
        """Values with a range of their own."""
        return tuple(dict.fromkeys(name for name in self.like if self.like[name] == name))


def find_points(model: onnx.ModelProto) -> Points:
    """Look through the main graph of a model that holds its arrays.

    There are none where values are quantized already.
    """
    if any(tensor.name == ACTIVATION_SCALES for tensor in model.graph.initializer):
        return Points({})
    found = _Search(model)
    for node in reversed(model.graph.node):
        if node.domain in STANDARD_DOMAINS:
            found.visit(node)
    order = [item.name for item in model.graph.input]
    order += [name for node in model.graph.node for name in node.output]
    return Points({name: found.root(name) for name in order if name in found.wanted})


@dataclass(slots=True)
class _Facts:
    """What is known about the values of a graph."""

    fixed: set[str]
    """Values that do not depend on the inputs."""
    constants: dict[str, onnx.TensorProto]
    """Those that are written in the graph."""
    makers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    readers: dict[str, list[onnx.NodeProto | None]] = field(default_factory=dict)
    """None stands for the caller."""


def _facts(graph: onnx.GraphProto) -> _Facts:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {
        node.output[0]: node.attribute[0].t
        for node in graph.node
        if is_constant(node) and node.attribute[0].HasField("t")
    }
    facts = _Facts(set(constants), constants)
    facts.fixed |= {item.values.name for item in graph.sparse_initializer}
    for node in graph.node:
        read = reads(node)
        facts.makers.update({name: node for name in node.output if name})
        for name in read:
            facts.readers.setdefault(name, []).append(node)
        if read <= facts.fixed:
            facts.fixed.update(node.output)
    for item in graph.output:
        facts.readers.setdefault(item.name, []).append(None)
    return facts


class _Search:
    """Goes from the outputs to the inputs, and notes what layers and their readers need."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.facts = _facts(model.graph)
        self.types = _types(model)
        self.wanted: set[str] = set()
        self.same: dict[str, str] = {}
        """Value -> another one whose range it takes over."""

    def root(self, name: str) -> str:
        """Give the value whose range a value shares."""
        while name in self.same:
            name = self.same[name]
        return name

    def visit(self, node: onnx.NodeProto) -> None:
        """Note the values that have to be quantized for the sake of this node."""
        operator = node.op_type
        if operator in PRODUCTS:
            self._product(node)
        elif operator in CUTS and node.output[0] in self.wanted:
            self._cut(node)
        elif operator in JOINS | POOLS and self._behind(node.output[0]) in self.wanted:
            operands = list(node.input) if operator in JOINS else [node.input[0]]
            if all(self._varies(name) for name in operands):
                self._want(operands)

    def _product(self, node: onnx.NodeProto) -> None:
        operands = [node.input[at] for at in PRODUCTS[node.op_type]]
        is_conv = node.op_type.startswith("Conv")
        if is_conv and node.input[1] not in self.facts.fixed:
            return
        varying = [name for name in operands if name not in self.facts.fixed]
        if not all(self._varies(name) for name in varying):
            return
        self._want(varying)
        if node.op_type == "Conv":
            self._want([self._behind(node.output[0])])

    def _varies(self, name: str) -> bool:
        """Tell whether a value is real, depends on the inputs, and may be quantized."""
        return name not in self.facts.fixed and self.types.get(name, FLOAT) == FLOAT

    def _want(self, names: Iterable[str]) -> None:
        """Quantize values, and those they are moved from."""
        for name in names:
            at = name
            while at not in self.wanted and not self._is_quantized(at):
                self.wanted.add(at)
                maker = self.facts.makers.get(at)
                if maker is None or not self._moves(maker):
                    break
                self.same[at] = maker.input[0]
                at = maker.input[0]

    def _is_quantized(self, name: str) -> bool:
        maker = self.facts.makers.get(name)
        return maker is not None and maker.op_type == "DequantizeLinear"

    def _moves(self, node: onnx.NodeProto) -> bool:
        if node.op_type not in MOVES or node.domain not in STANDARD_DOMAINS:
            return False
        filled = node.input[2:3] if node.op_type == "Pad" else []
        zeros = all(self._is_zero(name) for name in filled if name)
        return zeros and self._varies(node.input[0])

    def _is_zero(self, name: str) -> bool:
        from onnx import numpy_helper

        tensor = self.facts.constants.get(name)
        return tensor is not None and not numpy_helper.to_array(tensor).any()

    def _behind(self, name: str) -> str:
        """Give the value behind the one reader, where a quantizer replaces that."""
        readers = self.facts.readers.get(name, [])
        if len(readers) == 1 and readers[0] is not None and readers[0].op_type in CUTS:
            return readers[0].output[0]
        return name

    def _cut(self, node: onnx.NodeProto) -> None:
        """Let a convolution whose results are moved before they are cut share one range."""
        at, passed = node.input[0], [node.input[0]]
        while self._is_read_once(at) and self._moves_into(at):
            at = self.facts.makers[at].input[0]
            passed.append(at)
        maker = self.facts.makers.get(at)
        if len(passed) > 1 and self._is_read_once(at) and maker and maker.op_type == "Conv":
            self.wanted.update(passed)
            self.same.update(dict.fromkeys(passed, node.output[0]))

    def _moves_into(self, name: str) -> bool:
        maker = self.facts.makers.get(name)
        return maker is not None and self._moves(maker)

    def _is_read_once(self, name: str) -> bool:
        readers = self.facts.readers.get(name, [])
        return len(readers) == 1 and readers[0] is not None


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Give the element types of values, as far as they can be inferred."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    infos = (*graph.value_info, *graph.input, *graph.output)
    return {info.name: info.type.tensor_type.elem_type for info in infos}
