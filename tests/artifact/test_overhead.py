"""What is not weights must be next to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

from penjing.artifact import Artifact, container
from penjing.core.template import Slot, Template
from penjing.core.tensors import Affine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.tensors import Tensor

HEADER = {
    "model": {"backend": "onnx", "name": "lenet.onnx", "sha256": "5e" * 32},
    "recipe": {"seed": 0, "steps": [{"use": "rate_distortion", "lambda": 0.000312}]},
    "evidence": {
        "metric": "accuracy", "confidence": 0.95, "drop": 0.0012, "drop_upper": 0.0041,
        "limit": {"max_drop": 0.005}, "met": True, "original_metric": 0.9912, "samples": 5000,
    },
}  # fmt: skip


def convolutions(count: int) -> Artifact:
    """Give a chain of quantized convolutions as an exporter writes them."""
    rng = np.random.default_rng(0)
    nodes, skeleton_of, tensors = [], [], {}
    last = "input"
    for index in range(count):
        name = f"layer{index}.conv.weight"
        nodes += [
            helper.make_node(
                "Conv", [last, name, f"layer{index}.conv.bias"], [f"conv2d_{index}"],
                name=f"node_conv2d_{index}", kernel_shape=[3, 3], pads=[1, 1, 1, 1],
                strides=[1, 1], dilations=[1, 1], group=1,
            ),
            helper.make_node("Relu", [f"conv2d_{index}"], [f"relu_{index}"]),
        ]  # fmt: skip
        last = f"relu_{index}"
        for full, shape in ((name, (16, 16, 3, 3)), (f"layer{index}.conv.bias", (16,))):
            codes = np.round(rng.laplace(0, 2, shape)).astype(np.int32)
            tensors[full] = Affine.encode(codes, rng.random())
            skeleton_of.append((full, shape))
    edges = [
        helper.make_tensor_value_info(port, TensorProto.FLOAT, ["batch", 16, 32, 32])
        for port in ("input", last)
    ]
    floats = [
        helper.make_tensor(
            name, TensorProto.FLOAT, shape, np.full(shape, 1.5, "f4").tobytes(), raw=True
        )
        for name, shape in skeleton_of
    ]
    graph = helper.make_graph(nodes, "main_graph", edges[:1], edges[1:], floats)
    return cut(helper.make_model(graph, producer_name="pytorch"), tensors)


def cut(model: onnx.ModelProto, tensors: Mapping[str, Tensor]) -> Artifact:
    rest, skeleton, slots = model.SerializeToString(), b"", []
    for tensor in model.graph.initializer:
        before, rest = rest.split(tensor.raw_data, 1)
        skeleton += before
        slots.append(Slot(tensor.name, len(skeleton), tuple(tensor.dims), "float32"))
    return Artifact(Template(skeleton + rest, tuple(slots)), tensors, HEADER)


def overhead(artifact: Artifact) -> int:
    weights = next(s for s in container.sections(artifact.to_bytes()) if s.name == "weights")
    return artifact.size_bytes - weights.size_bytes


def test_a_small_network_costs_less_than_900_bytes() -> None:
    made = convolutions(4)
    onnx.checker.check_model(onnx.load_model_from_string(made.onnx_bytes()))
    assert overhead(made) < 900


def test_a_tensor_costs_less_than_12_bytes() -> None:
    few, many = convolutions(20), convolutions(60)
    layers = overhead(many) - overhead(few)
    text = len(many.template.skeleton) - len(few.template.skeleton)
    assert text > 40 * 200, "most of what is added is the graph"
    assert layers < 80 * 12
