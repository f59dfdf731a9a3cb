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
INTEGER_LAYERS = ("Conv", "Gemm", "MatMul")
"""Operators with integer kernels."""
PER_AXIS_OPSET = 13
"""First operator set with one step per channel."""
LARGEST_BIAS = 2**30
"""In units of the products' step: kernels hold biases in 32 bits."""
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
        self.graph = graph
        self.opset = max(o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS)
        self.inputs = {item.name for item in graph.input}
        self.outputs = {item.name for item in graph.output}
        self.names = Names(model)
        self.made_by = {name: node for node in graph.node for name in node.output if name}
        self.arrays = {tensor.name: tensor for tensor in graph.initializer}
        self.first: list[onnx.NodeProto] = []
        """New nodes that come before all others."""
        self.instead: dict[str, list[onnx.NodeProto]] = {}
        """First output of a node -> nodes in its place."""
        self.removed: set[str] = set()
        self.lookups: dict[str, list[onnx.NodeProto]] = {}
        """Value -> nodes of the main graph that take rows of it."""
        self.layers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        """Value -> layers with quantized inputs that multiply it, and where."""
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
        for at in places if node.op_type in INTEGER_LAYERS else ():
            if self._dequantizes(node.input[1 - at]) is not None:
                self.layers.setdefault(node.input[at], []).append((node, at))

    def _dequantizes(self, value: str) -> onnx.NodeProto | None:
        node = self.made_by.get(value)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def suits(self, name: str) -> bool:
        """Tell whether a layer multiplies or looks up a value, which callers cannot replace."""
        return name in self.wanted and name not in self.inputs

    def write(self, name: str, found: Integers) -> None:
        """Put codes in place of an array."""
        lookups = self.lookups.get(name, [])
        layers = self.layers.get(name, [])
        if found.axis is not None and self.opset < PER_AXIS_OPSET:
            layers = []
        for node, at in layers:
            found = widened(found, self._least_steps(node, node.input[1 - at]))
        codes = self._store(f"{name}/codes", found.codes)
        if layers:
            self._dequantize(name, codes, found, layers)
        if lookups:
            self._look_up(name, codes, found, lookups)
        if self.readers[name] > len(layers) + len(lookups):
            steps = self._steps(name, found, found.codes.ndim)
            self.first += self._multiplied(codes, steps, found.zero_point, name)
        self.removed.add(name)

    def _least_steps(self, node: onnx.NodeProto, value: str) -> Array:
        """Give the steps of a weight below which the bias of a layer would run over."""
        source = self._dequantizes(value)
        assert source is not None
        step, bias = self._array(source.input[1]), self._bias(node)
        if step is None or bias is None:
            return np.zeros(1)
        return np.abs(bias.astype(np.float64).ravel()) / (float(step.min()) * LARGEST_BIAS)

    def _bias(self, node: onnx.NodeProto) -> Array | None:
        """Give what is added to a product: by the layer itself, or by the node behind it."""
        if len(node.input) > 2:  # noqa: PLR2004  # input, weight and bias
            return self._array(node.input[2])
        behind = [n for n in self.graph.node if node.output[0] in n.input]
        if len(behind) != 1 or behind[0].op_type != "Add":
            return None
        known = [self._array(name) for name in behind[0].input]
        return next((array for array in known if array is not None), None)

    def _array(self, name: str) -> Array | None:
        from onnx import numpy_helper

        tensor = self.arrays.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def _dequantize(
        self, name: str, codes: str, found: Integers, layers: list[tuple[onnx.NodeProto, int]]
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
        for node, at in layers:
            node.input[at] = target
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
        for index in reversed(range(len(self.graph.initializer))):
            if self.graph.initializer[index].name in self.removed:
                del self.graph.initializer[index]
        nodes = list(self.first)
        for node in self.graph.node:
            if not (is_constant(node) and node.output[0] in self.removed):
                nodes += self.instead.get(node.output[0] if node.output else "", [node])
        del self.graph.node[:]
        self.graph.node.extend(nodes)
