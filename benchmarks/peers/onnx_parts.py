"""Split an ONNX model into the weights a peer codes and the graph it leaves alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import zstandard
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Weights = dict[str, NDArray[np.float32]]

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


class OnnxParts:
    """Hold one model's weights and biases, and everything else as a packed graph.

    The weights get short names, in the graph too, because some peers write every name
    into their file; documentation and metadata are dropped. Both favour the peers.

    Attributes:
        weights: the float32 inputs 1 and 2 of convolutions and matrix products, by
            short name, in the order of the graph.
        packed_graph: the model without them, zstd level 19.
    """

    def __init__(self, content: bytes) -> None:
        model = onnx.load_from_string(content)
        short = _short_names(model.graph)
        for initializer in model.graph.initializer:
            initializer.name = short.get(initializer.name, initializer.name)
        for node in model.graph.node:
            node.input[:] = [short.get(name, name) for name in node.input]
        self.weights: Weights = {}
        rest = []
        for initializer in model.graph.initializer:
            if initializer.name in short.values():
                self.weights[initializer.name] = numpy_helper.to_array(initializer).copy()
            else:
                rest.append(initializer)
        del model.graph.initializer[:]
        model.graph.initializer.extend(rest)
        _drop_remarks(model)
        self._graph = model
        self.packed_graph = zstandard.compress(model.SerializeToString(deterministic=True), 19)
        self.original_name_bytes = sum(len(old) - len(new) for old, new in short.items())

    def with_weights(self, weights: Mapping[str, NDArray[np.float32]]) -> bytes:
        """Serialize the model with other values for its weights.

        Raises:
            ValueError: a weight is missing or has another shape.
        """
        model = onnx.ModelProto()
        model.CopyFrom(self._graph)
        for name, before in self.weights.items():
            after = weights[name]
            if after.shape != before.shape:
                raise ValueError(f"{name}: expected shape {before.shape}, got {after.shape}")
            model.graph.initializer.append(
                numpy_helper.from_array(after.astype(np.float32, copy=False), name)
            )
        return model.SerializeToString(deterministic=True)


def _short_names(graph: onnx.GraphProto) -> dict[str, str]:
    kept = {item.name: item for item in graph.initializer}
    used = [
        name
        for node in graph.node
        if node.op_type in _WEIGHTED
        for name in node.input[1:3]
        if name in kept and kept[name].data_type == onnx.TensorProto.FLOAT
    ]
    return {name: f"w{number}" for number, name in enumerate(dict.fromkeys(used))}


def _drop_remarks(model: onnx.ModelProto) -> None:
    model.ClearField("doc_string")
    model.ClearField("metadata_props")
    graph = model.graph
    graph.ClearField("doc_string")
    graph.ClearField("metadata_props")
    graph.ClearField("value_info")
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
