"""Layers that runtimes can compute in integers, and what has to become of their biases.

Kernels add the bias to sums of products, in 32 bits, in units of a product's step.  Where the
result is quantized, ONNX Runtime rounds a float bias to that by itself.  Where it is not, a
float bias keeps it from using the kernel, and it would decode the weights in every run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx

    from penjing.backends.onnx_support.scopes import Names
    from penjing.core.tensors import Array

INTEGER_LAYERS = {"Conv", "Gemm", "MatMul"}
"""Operators with integer kernels; the weight is the second input."""
CUTS = {"Relu", "Clip"}
"""Operators that a quantizer right behind them replaces."""
LARGEST_BIAS = 2**30
"""In units of the products' step."""
BIAS = 2
"""Place of the bias among the inputs of a layer."""


class IntegerLayers:
    """Looks at the layers of a main graph, and changes their biases in place."""

    def __init__(
        self,
        graph: onnx.GraphProto,
        constants: Iterable[tuple[str, onnx.TensorProto]],
        names: Names,
    ) -> None:
        """Note what makes and what reads each value."""
        self.graph, self.names = graph, names
        self.constants = dict(constants)
        self.first: list[onnx.NodeProto] = []
        """New nodes that come before all others."""
        self.replaced: set[str] = set()
        """Biases that some layer reads no longer."""
        self.makers = {name: node for node in graph.node for name in node.output if name}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {item.name for item in graph.output}

    def suits(self, node: onnx.NodeProto) -> bool:
        """Tell whether there is an integer kernel for a layer, if its weight is integers."""
        source = self.makers.get(node.input[0])
        if source is None or source.op_type != "DequantizeLinear":
            return False
        if source.input[1] not in self.constants:
            return False
        if node.op_type == "MatMul" or self._is_quantized(node.output[0]):
            return True
        return node.op_type == "Gemm" and (not _has_bias(node) or self._bias(node) is not None)

    def least_steps(self, node: onnx.NodeProto) -> Array:
        """Give the steps of a weight below which the bias would run over."""
        bias = self._bias(node)
        if bias is None:
            return np.zeros(1)
        return np.abs(bias.astype(np.float64)) / (self._input_step(node) * LARGEST_BIAS)

    def settle_bias(self, node: onnx.NodeProto, scale: Array) -> None:
        """Bring the bias of a layer into a form that leaves the layer to its kernel."""
        from onnx import helper

        bias = self._bias(node)
        if bias is None or self._is_quantized(node.output[0]):
            return
        if node.op_type == "Gemm":
            step = (np.float32(self._input_step(node)) * scale).astype(np.float32)
            codes = np.rint(bias / step.astype(np.float64)).astype(np.int32)
            sources = [
                self._store(f"{node.output[0]}/bias", codes),
                self._store(f"{node.output[0]}/bias_scale", step),
                self._store(f"{node.output[0]}/bias_zero", np.zeros(step.shape, np.int32)),
            ]
            target = self.names.free(f"{node.output[0]}/bias_real")
            self.first.append(helper.make_node("DequantizeLinear", sources, [target]))
            if step.ndim:
                self.first[-1].attribute.append(helper.make_attribute("axis", 0))
            self.replaced.add(node.input[BIAS])
            node.input[BIAS] = target
            return
        # ONNX Runtime would join a product and an addition to a layer with a float bias.
        (addition,) = self.readers[node.output[0]]
        self.replaced |= set(addition.input) - {node.output[0]}
        addition.op_type = "Sub"
        addition.input[:] = [node.output[0], self._store(f"{node.output[0]}/offset", -bias)]

    def _is_quantized(self, value: str) -> bool:
        """Tell whether a result is quantized and not used otherwise."""
        reader = self._only_reader(value)
        while reader is not None:
            if reader.op_type == "QuantizeLinear":
                return True
            is_bias = reader.op_type == "Add" and self._addend(reader, value) is not None
            if reader.op_type not in CUTS and not is_bias:
                return False
            value = reader.output[0]
            reader = self._only_reader(value)
        return False

    def _only_reader(self, value: str) -> onnx.NodeProto | None:
        readers = self.readers.get(value, [])
        return readers[0] if len(readers) == 1 and value not in self.outputs else None

    def _input_step(self, node: onnx.NodeProto) -> float:
        step = self._array(self.makers[node.input[0]].input[1])
        assert step is not None, "quantizers of layers have constant steps"
        return float(step.min())

    def _bias(self, node: onnx.NodeProto) -> Array | None:
        """Give the vector added to a product, by the layer itself or behind it."""
        if node.op_type == "MatMul":
            reader = self._only_reader(node.output[0])
            is_sum = reader is not None and reader.op_type == "Add"
            return self._addend(reader, node.output[0]) if reader and is_sum else None
        bias = self._array(node.input[BIAS]) if _has_bias(node) else None
        return bias if bias is not None and bias.ndim == 1 else None

    def _addend(self, node: onnx.NodeProto, value: str) -> Array | None:
        (other,) = [name for name in node.input if name != value] or [""]
        array = self._array(other)
        return array if array is not None and array.ndim == 1 else None

    def _array(self, name: str) -> Array | None:
        from onnx import numpy_helper

        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def _store(self, name: str, array: Array) -> str:
        from onnx import numpy_helper

        free = self.names.free(name)
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(array), free))
        return free


def _has_bias(node: onnx.NodeProto) -> bool:
    return len(node.input) > BIAS and bool(node.input[BIAS])
