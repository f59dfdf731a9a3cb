"""Weights as the integers that a file stores: QDQ models.

Layers whose inputs are quantized get the codes through ``DequantizeLinear``: runtimes fuse that
with the layer and compute in integers (Jacob et al., CVPR 2018).  All other readers get them
through ``Cast`` and ``Mul``, which runtimes compute once, when they load the model.  There a
``DequantizeLinear`` would be computed in every run or, by ONNX Runtime's ``MatMulNBits``, be
taken as leave to round the inputs of the layer too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from penjing.backends.onnx_support.dequantizing import shield, to_qdq
from penjing.backends.onnx_support.integer_layers import INTEGER_LAYERS, IntegerLayers
from penjing.backends.onnx_support.roles import attributes
from penjing.backends.onnx_support.scopes import STANDARD_DOMAINS, Names, is_constant, scopes
from penjing.core.model import IntegerModel
from penjing.core.template import Form, to_stored
from penjing.core.tensors import Affine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx

    from penjing.core.template import Slot, Template
    from penjing.core.tensors import Array, Tensor

PLACES = {"Conv": (1,), "ConvTranspose": (1,), "Gather": (0,), "Gemm": (0, 1), "MatMul": (0, 1)}
"""Inputs of operators at which integers are worth having."""
WEIGHT = 1
"""Place of the weight among the inputs of an integer layer."""
PER_AXIS_OPSET = 13
"""First operator set with one step per channel."""
UNLISTED_IR = 4
"""First version of the format whose initializers need not be inputs."""


def with_integers(
    plain: bytes, template: Template, tensors: Mapping[str, Tensor]
) -> IntegerModel:
    """Put codes in place of weights; see ``penjing.core.model.ExportsIntegers``."""
    import onnx

    model = onnx.load_model_from_string(plain)
    model.ir_version = max(model.ir_version, UNLISTED_IR)
    to_qdq(model.graph)
    slots = {slot.name: slot for slot in template.slots if slot.form is Form.RAW}
    writer = _Writer(model)
    done = []
    for name, tensor in list(_constants(model.graph)):
        slot, stored = slots.get(name), tensors.get(name)
        if slot is None or not isinstance(stored, Affine) or not writer.suits(name):
            continue
        found = integers(stored, slot, tuple(tensor.dims))
        same = tensor.raw_data == bytes(to_stored(stored.dense(), slot))
        if same and found is not None:
            writer.write(name, found)
            done.append(name)
    writer.finish()
    shield(model.graph, writer.names)
    quantized = sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
    return IntegerModel(model.SerializeToString(deterministic=True), tuple(done), quantized)


@dataclass(frozen=True, slots=True, eq=False)
class Integers:
    """What ``DequantizeLinear`` takes, laid out as in the graph."""

    codes: Array
    """int8."""
    scale: Array
    """float32: a number, or one for each index along ``axis``."""
    zero_point: int
    axis: int | None


def integers(tensor: Affine, slot: Slot, shape: tuple[int, ...]) -> Integers | None:
    """Give codes that fit int8, with one step for all or along one axis; None without such.

    Args:
        tensor: laid out as techniques see it.
        slot: how it is stored in the graph.
        shape: of the array in the graph.
    """
    if slot.dtype != "float32" or not prod(shape) or not np.isfinite(tensor.scale).all():
        return None
    scale = np.broadcast_to(_steps(tensor), tensor.shape)
    if not (scale > 0).all():
        return None
    codes, zero_point = tensor.codes.astype(np.int32) - tensor.zero_point, 0
    if not _fits(codes):
        zero_point = int(tensor.zero_point.flat[0])
        codes = tensor.codes
        if (tensor.zero_point != zero_point).any() or not _fits(codes, zero_point):
            return None
    laid = [
        np.frombuffer(to_stored(array, replace(slot, dtype=dtype)), dtype).reshape(shape)
        for array, dtype in ((codes, "int8"), (scale, "<f4"))
    ]
    if (laid[1] == laid[1].flat[0]).all():
        return Integers(laid[0], laid[1].flat[0], zero_point, None)
    for axis, size in enumerate(shape):
        lines = np.moveaxis(laid[1], axis, 0).reshape(size, -1)
        if (lines == lines[:, :1]).all():
            return Integers(laid[0], lines[:, 0].copy(), zero_point, axis)
    return None


def widened(found: Integers, least: Array) -> Integers:
    """Give steps that are no smaller than these, and the nearest codes.

    Only channels whose weights are next to nothing beside their bias get other codes: kernels
    add the bias in 32 bits, in units of the weights' step.
    """
    steps = np.atleast_1d(found.scale).astype(np.float64)
    if least.size != steps.size:
        least = np.full(steps.shape, least.max(initial=0.0))
    short = steps < least
    if not short.any() or found.zero_point:
        return found
    wide = np.where(short, least, steps).astype(np.float32)
    behind = [1] * (found.codes.ndim - 1 - (found.axis or 0))
    ratio = np.where(short, steps / wide, 1.0).reshape(-1, *behind)
    codes = np.rint(found.codes * ratio).astype(np.int8)
    return replace(found, codes=codes, scale=wide.reshape(np.shape(found.scale)))


def _steps(tensor: Affine) -> Array:
    """Give the steps; where all codes stand for zero, the largest one of the others.

    Any step does for zeros.  The tiny ones that techniques leave there would let biases, which
    kernels hold in units of them, run over.
    """
    scale = np.array(np.broadcast_to(tensor.scale, _channels(tensor)), np.float32)
    used = (tensor.codes != tensor.zero_point).any(
        axis=tuple(axis for axis, size in enumerate(scale.shape) if size == 1), keepdims=True
    )
    scale[~used] = scale[used].max() if used.any() else 1.0
    return scale


def _channels(tensor: Affine) -> tuple[int, ...]:
    """Give the shape of the steps with as many axes as the codes."""
    ones = (1,) * (len(tensor.shape) - tensor.scale.ndim)
    return (*ones, *tensor.scale.shape)


def _fits(codes: Array, *others: int) -> bool:
    low, high = min(int(codes.min()), *others, 0), max(int(codes.max()), *others, 0)
    limits = np.iinfo(np.int8)
    return limits.min <= low and high <= limits.max


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if is_constant(node) and node.attribute[0].HasField("t"):
            yield node.output[0], node.attribute[0].t


class _Writer:
    """Changes the main graph of a model."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.model, self.graph = model, graph
        self.opset = max(o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS)
        self.inputs = {item.name for item in graph.input}
        self.outputs = {item.name for item in graph.output}
        self.names = Names(model)
        self.integer = IntegerLayers(graph, _constants(graph), self.names)
        self.first: list[onnx.NodeProto] = []
        """New nodes that come before all others."""
        self.instead: dict[str, list[onnx.NodeProto]] = {}
        """First output of a node -> nodes in its place."""
        self.removed: set[str] = set()
        self.lookups: dict[str, list[onnx.NodeProto]] = {}
        """Value -> nodes of the main graph that take rows of it."""
        self.layers: dict[str, list[onnx.NodeProto]] = {}
        """Value -> layers that can be computed in integers with it as the weight."""
        self.readers: Counter[str] = Counter()
        """How many inputs of any nodes a value is."""
        self.wanted: set[str] = set()
        for scope in scopes(model):
            for node in scope.nodes:
                self._note(node, in_main=scope.graph is graph)
        self.readers.update(item.name for item in graph.output)

    def _note(self, node: onnx.NodeProto, *, in_main: bool) -> None:
        self.readers.update(name for name in node.input if name)
        if node.domain not in STANDARD_DOMAINS:
            return
        places = [at for at in PLACES.get(node.op_type, ()) if at < len(node.input)]
        self.wanted |= {node.input[at] for at in places}
        if not in_main:
            return
        if node.op_type == "Gather" and attributes(node).get("axis", 0) == 0:
            self.lookups.setdefault(node.input[0], []).append(node)
        if node.op_type in INTEGER_LAYERS and self.integer.suits(node):
            self.layers.setdefault(node.input[WEIGHT], []).append(node)

    def suits(self, name: str) -> bool:
        """Tell whether a layer multiplies or looks up a value, which callers cannot replace."""
        return name in self.wanted and name not in self.inputs

    def write(self, name: str, found: Integers) -> None:
        """Put codes in place of an array."""
        lookups = self.lookups.get(name, [])
        layers = self.layers.get(name, [])
        if found.axis is not None and self.opset < PER_AXIS_OPSET:
            layers = []
        for node in layers:
            found = widened(found, self.integer.least_steps(node))
        codes = self._store(f"{name}/codes", found.codes)
        if layers:
            self._dequantize(name, codes, found, layers)
        if lookups:
            self._look_up(name, codes, found, lookups)
        if self.readers[name] > len(layers) + len(lookups):
            steps = self._steps(name, found, found.codes.ndim)
            self.first += self._multiplied(codes, steps, found.zero_point, name)
        self.removed.add(name)

    def _dequantize(
        self, name: str, codes: str, found: Integers, layers: list[onnx.NodeProto]
    ) -> None:
        from onnx import helper

        point = np.full(np.shape(found.scale), found.zero_point, np.int8)
        sources = [
            codes,
            self._store(f"{name}/scale", found.scale),
            self._store(f"{name}/zero_point", point),
        ]
        target = name
        if self.readers[name] > len(layers):
            target = self.names.free(f"{name}/dequantized")
        for node in layers:
            node.input[WEIGHT] = target
            self.integer.settle_bias(node, found.scale)
        self.first.append(helper.make_node("DequantizeLinear", sources, [target]))
        if found.axis is not None:
            self.first[-1].attribute.append(helper.make_attribute("axis", found.axis))

    def _steps(self, name: str, found: Integers, rank: int) -> str:
        """Store steps so that they broadcast against codes of this many axes."""
        shape = [*np.shape(found.scale), *[1] * (rank - 1 - (found.axis or 0))]
        return self._store(
            f"{name}/steps", np.reshape(found.scale, () if found.axis is None else shape)
        )

    def _look_up(
        self, name: str, codes: str, found: Integers, lookups: list[onnx.NodeProto]
    ) -> None:
        """Take rows of codes and multiply only those: tables are large."""
        from onnx import helper

        steps = self._steps(name, found, found.codes.ndim)
        for node in lookups:
            output, rows = node.output[0], node.input[1]
            taken = self.names.free(f"{output}/codes")
            made, by = [helper.make_node("Gather", [codes, rows], [taken])], steps
            if found.axis == 0:
                by = self.names.free(f"{output}/steps")
                made.append(helper.make_node("Gather", [steps, rows], [by]))
            self.instead[output] = made + self._multiplied(taken, by, found.zero_point, output)

    def _multiplied(
        self, codes: str, steps: str, zero_point: int, target: str
    ) -> list[onnx.NodeProto]:
        from onnx import TensorProto, helper

        real = self.names.free(f"{target}/real")
        made = [helper.make_node("Cast", [codes], [real], to=TensorProto.FLOAT)]
        if zero_point:
            point = self._store(f"{target}/point", np.array(zero_point, np.float32))
            above = self.names.free(f"{target}/above")
            made.append(helper.make_node("Sub", [real, point], [above]))
            real = above
        return [*made, helper.make_node("Mul", [real, steps], [target])]

    def _store(self, name: str, array: Array) -> str:
        from onnx import numpy_helper

        free = self.names.free(name)
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(array), free))
        return free

    def finish(self) -> None:
        """Remove the float arrays and put the new nodes first."""
        nodes = [*self.integer.first, *self.first]
        for node in self.graph.node:
            if not (is_constant(node) and node.output[0] in self.removed):
                nodes += self.instead.get(node.output[0] if node.output else "", [node])
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        read = {name for scope in scopes(self.model) for n in scope.nodes for name in n.input}
        gone = self.removed | (self.integer.replaced - read - self.outputs - self.inputs)
        for index in reversed(range(len(self.graph.initializer))):
            if self.graph.initializer[index].name in gone:
                del self.graph.initializer[index]
