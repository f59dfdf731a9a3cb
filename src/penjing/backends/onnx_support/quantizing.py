"""Values of a graph rounded to the codes of few bits, and back.

All steps are one array, and each quantizer takes its own out of it: so they are a weight of the
model, which can be trained and stored like any other.  Runtimes compute that once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penjing.backends.onnx_support.activations import Points, find_points
from penjing.backends.onnx_support.dequantizing import HELD, to_numbers
from penjing.backends.onnx_support.scopes import STANDARD_DOMAINS, Names
from penjing.core.errors import ConfigError, UnsupportedError
from penjing.core.model import ACTIVATION_SCALES, ACTIVATION_ZERO_POINTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from penjing.core.tensors import Array

FEWEST_BITS, MOST_BITS = 2, 8
OLDEST_OPSET = 13
"""First operator set with all that integer kernels need: steps for each channel of weights."""


def quantize_values(
    model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]], bits: int
) -> None:
    """Quantize values in place; see ``penjing.core.model.QuantizesActivations``."""
    points = find_points(model)
    _check(model, points, ranges, bits)
    names = [name for name in points.ranges if name in ranges]
    fitted = [fit(name, *ranges[name], bits) for name in names]
    writer = _Writer(model, bits)
    writer.scales(names, fitted)
    for value, root in points.like.items():
        if root in ranges:
            writer.quantize(value, root)
    writer.finish()


def _check(
    model: onnx.ModelProto,
    points: Points,
    ranges: Mapping[str, tuple[float, float]],
    bits: int,
) -> None:
    if any(tensor.name == ACTIVATION_SCALES for tensor in model.graph.initializer):
        raise UnsupportedError(
            "activations", "are quantized already", "begin with the original"
        )
    for name in ranges:
        if name not in points.ranges:
            known = ", ".join(points.ranges) or "none"
            raise UnsupportedError(name, "is no value to quantize", f"there are: {known}")
    if not FEWEST_BITS <= bits <= MOST_BITS:
        raise ConfigError("bits", f"must be {FEWEST_BITS} to {MOST_BITS}, got {bits}")
    opset = max(o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS)
    if opset < OLDEST_OPSET:
        raise UnsupportedError(
            "activations",
            f"the model uses opset {opset}; quantizing them takes {OLDEST_OPSET}",
            "convert it first: onnx.version_converter.convert_version(model, 17)",
        )


def fit(name: str, low: float, high: float, bits: int) -> tuple[np.float32, int]:
    """Give the step and the code of zero that cover a range, and zero, with ``bits`` bits.

    >>> fit("x", 0.0, 25.5, 8)
    (np.float32(0.1), 0)

    Raises:
        ConfigError: it is no range.
    """
    if not (np.isfinite([low, high]).all() and low <= high):
        raise ConfigError(f"ranges[{name!r}]", f"must be finite and rise, got {low}, {high}")
    low, high, levels = min(low, 0.0), max(high, 0.0), 2**bits - 1
    scale = np.float32((high - low) / levels) if high > low else np.float32(1.0)
    scale = max(scale, np.finfo(np.float32).tiny)
    return np.float32(scale), int(np.clip(round(-low / float(scale)), 0, levels))


class _Writer:
    """Puts quantizers into the main graph."""

    def __init__(self, model: onnx.ModelProto, bits: int) -> None:
        self.graph = model.graph
        self.bits = bits
        self.names = Names(model)
        self.inputs = {item.name for item in model.graph.input}
        self.makers = {name: node for node in model.graph.node for name in node.output if name}
        self.first: list[onnx.NodeProto] = []
        self.behind: dict[str, list[onnx.NodeProto]] = {}
        """First output of a node -> what comes after it."""
        self.parameters: dict[str, tuple[str, str, str]] = {}
        """Value -> its step and its code of zero, as an integer and as a float."""
        self.top = ""

    def scales(self, names: Sequence[str], fitted: Sequence[tuple[np.float32, int]]) -> None:
        """Store all steps and codes of zero, and take them out one by one."""
        from onnx import TensorProto, helper

        self._store(ACTIVATION_SCALES, np.array([scale for scale, _ in fitted], np.float32))
        self._store(ACTIVATION_ZERO_POINTS, np.array([zero for _, zero in fitted], np.uint8))
        if self.bits < MOST_BITS:
            self.top = self.names.free("penjing.activation_top")
            self._store(self.top, np.array(2**self.bits - 1, np.uint8))
        for index, name in enumerate(names):
            at = self.names.free(f"{name}/index")
            self._store(at, np.array(index, np.int64))
            scale, point, zero = (
                self.names.free(f"{name}/{part}") for part in ("scale", "zero_point", "zero")
            )
            for array, one in zip(HELD, (scale, point), strict=True):
                self.first.append(helper.make_node("Gather", [array, at], [one]))
            self.first.append(helper.make_node("Cast", [point], [zero], to=TensorProto.FLOAT))
            self.parameters[name] = scale, point, zero

    def quantize(self, value: str, root: str) -> None:
        """Pass one value through a quantizer with the step of ``root``."""
        from onnx import helper

        scale, point, zero = self.parameters[root]
        source, target = value, value
        if value in self.inputs:
            target = self.names.free(f"{value}/quantized")
            for node in self.graph.node:
                node.input[:] = [target if name == value else name for name in node.input]
        else:
            source = self.names.free(f"{value}/unquantized")
            maker = self.makers[value]
            first = maker.output[0]
            maker.output[:] = [source if name == value else name for name in maker.output]
            if first == value:
                self.behind[source] = self.behind.pop(value, [])
        codes = self.names.free(f"{value}/codes")
        made = [helper.make_node("QuantizeLinear", [source, scale, point], [codes])]
        if self.top:
            cut = self.names.free(f"{value}/cut")
            made.append(helper.make_node("Clip", [codes, "", self.top], [cut]))
            codes = cut
        made += to_numbers(codes, scale, zero, target, self.names)
        if value in self.inputs:
            self.first += made
        else:
            self.behind.setdefault(self.makers[value].output[0], []).extend(made)

    def _store(self, name: str, array: Array) -> None:
        from onnx import numpy_helper

        self.graph.initializer.append(numpy_helper.from_array(array, name))

    def finish(self) -> None:
        """Put the new nodes in their places."""
        nodes = list(self.first)
        for node in self.graph.node:
            nodes.append(node)
            if node.output:
                nodes += self.behind.get(node.output[0], [])
        del self.graph.node[:]
        self.graph.node.extend(nodes)
