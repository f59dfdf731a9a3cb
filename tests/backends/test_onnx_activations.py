"""Quantized values between layers: what they compute, and the integer kernels they allow."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

from penjing.artifact.artifact import Artifact
from penjing.core.errors import ConfigError, DataError, UnsupportedError
from penjing.core.model import (
    ACTIVATION_SCALES,
    ACTIVATION_ZERO_POINTS,
    LayerKind,
    Model,
    QuantizesActivations,
)
from penjing.core.registry import BACKENDS, RUNTIMES, TECHNIQUES
from penjing.core.technique import Context
from penjing.core.tensors import Affine, Dense
from penjing.engine.packing import pack
from penjing.techniques.round_to_nearest import RoundToNearest
from penjing.techniques.support.activation_ranges import How, activation_ranges
from penjing.testing import models
from penjing.testing.onnx_models import TOYS
from penjing.testing.onnx_oddities import ODDITIES
from penjing.testing.onnx_zoo import LAYERS, Ports, draw, graph

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from penjing.core.tensors import Array, Tensor

ROWS: Ports = {"x": ("float32", ["n", 6])}
IMAGES: Ports = {"x": ("float32", ["n", 4, 8, 8])}


def opened(proto: Any) -> Model:
    model: Model = BACKENDS.load("onnx")().open(proto)
    return model


def batch(model: Model, seed: int = 1) -> dict[str, Array]:
    port = model.backend.inputs(model.native)[0]
    return models.inputs(model, (port.batch_axis == 0 and port.shape[0]) or 8, seed)


def names_of(model: Model) -> tuple[str, ...]:
    assert isinstance(model.backend, QuantizesActivations)
    return model.backend.activations(model.native)


def quantized(
    model: Model, ranges: Mapping[str, tuple[float, float]] | None = None, bits: int = 8
) -> Model:
    backend = model.backend
    assert isinstance(backend, QuantizesActivations)
    if ranges is None:
        ranges = activation_ranges(model, [batch(model)], names_of(model))
    return Model(backend.with_quantized_activations(model.native, ranges, bits), backend)


def rounded(model: Model, **settings: Any) -> Model:
    return RoundToNearest(clipping="none", **settings).apply(model, Context())


def forms(model: Model) -> tuple[bytes, bytes]:
    """Give the model as it is unpacked, with floats and with integers."""
    artifact = Artifact.from_bytes(pack(model, {}).to_bytes())
    plain = artifact.onnx_bytes()
    made = model.backend.with_integers(plain, artifact.template, artifact.tensors)  # type: ignore[attr-defined]
    onnx.checker.check_model(plain)
    onnx.checker.check_model(made.serialized)
    return plain, made.serialized


def run(proto: bytes, feed: Mapping[str, Array]) -> Array:
    found: Array = RUNTIMES.load("onnx_runtime")().load(proto).run(feed)["y"]
    return found


def kernels(proto: bytes, folder: Path) -> Counter[str]:
    """Count the operators of the graph that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def distance(one: Array, other: Array) -> float:
    """Relative distance of two results."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def block() -> Any:
    """A residual block with a shortcut of its own, an average and a head."""
    nodes = [
        ("Conv", ["x", "a", "b1"], "c1", {"pads": [1, 1, 1, 1]}),
        ("Relu", ["c1"], "r1", {}),
        ("Conv", ["r1", "b", "b2"], "c2", {"pads": [1, 1, 1, 1]}),
        ("Add", ["c2", "r1"], "s", {}),
        ("Relu", ["s"], "r2", {}),
        ("GlobalAveragePool", ["r2"], "p", {}),
        ("Flatten", ["p"], "f", {}),
        ("Gemm", ["f", "head", "b3"], "h", {"transB": 1}),
        ("Relu", ["h"], "r3", {}),
        ("MatMul", ["r3", "last"], "y", {}),
    ]
    arrays = draw(a=(8, 4, 3, 3), b1=(8,), b=(8, 8, 3, 3), b2=(8,), head=(20, 8), b3=(20,))
    return graph(nodes, IMAGES, {**arrays, **draw(last=(20, 5))}, rank=2)


def pooled() -> Any:
    """A convolution whose results are moved before they are cut."""
    nodes = [
        ("Conv", ["x", "a"], "c", {}),
        ("MaxPool", ["c"], "m", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Relu", ["m"], "r", {}),
        ("Conv", ["r", "b"], "y", {}),
    ]
    return graph(nodes, IMAGES, draw(a=(8, 4, 3, 3), b=(6, 8, 2, 2)), rank=4)


def line(bias: Array | None = None) -> Any:
    """Two layers of rows."""
    arrays = draw(w=(20, 6), v=(3, 20))
    sources = ["x", "w"]
    if bias is not None:
        arrays["b"] = bias
        sources.append("b")
    nodes: list[Any] = [
        ("Gemm", sources, "h", {"transB": 1}),
        ("Relu", ["h"], "r", {}),
        ("Gemm", ["r", "v"], "y", {"transB": 1}),
    ]
    return graph(nodes, ROWS, arrays, rank=2)


def test_values_that_integer_kernels_need_are_named() -> None:
    assert names_of(opened(block())) == ("x", "r1", "c2", "r2", "p", "r3")
    assert names_of(opened(pooled())) == ("x", "r", "y")
    assert names_of(opened(line())) == ("x", "r")
    assert names_of(opened(ODDITIES["half"]())) == ()


def test_a_value_is_rounded_to_its_levels() -> None:
    x = np.linspace(-3, 5, 1200).reshape(-1, 6).astype(np.float32)
    weights = draw(w=(6, 20))
    model = opened(graph([("MatMul", ["x", "w"], "y", {})], ROWS, weights, rank=2))
    for bits in range(2, 9):
        made = quantized(model, {"x": (-1.0, 4.0)}, bits)
        scale = np.float32(5 / (2**bits - 1))
        zero = np.rint(1 / scale)
        codes = np.clip(np.rint(x / scale) + zero, 0, 2**bits - 1)
        expected = (codes - zero) * scale @ weights["w"]
        np.testing.assert_allclose(made.predict({"x": x})["y"], expected, rtol=1e-5, atol=1e-5)
        assert len(np.unique(codes)) == 2**bits


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("weight_bits", [8, 4])
def test_layers_are_computed_in_integers(bits: int, weight_bits: int, tmp_path: Path) -> None:
    model = opened(block())
    plain, whole = forms(rounded(quantized(model, bits=bits), bits=weight_bits))
    found = kernels(whole, tmp_path)
    assert found["QLinearConv"] == 2
    assert found["QLinearAdd"] == 1
    assert found["QLinearGlobalAveragePool"] == 1
    assert found["QGemm"] == 1
    assert found["MatMulIntegerToFloat"] == 1
    assert found["Conv"] + found["FusedConv"] + found["Add"] + found["Gemm"] == 0
    assert not any(
        "Integer" in name or name.startswith("QL") for name in kernels(plain, tmp_path)
    )
    feed = batch(model, 2)
    assert distance(run(whole, feed), run(plain, feed)) < (0.02 if bits == 8 else 0.1)


def test_values_moved_before_they_are_cut_share_one_range(tmp_path: Path) -> None:
    model = opened(pooled())
    made = quantized(model, dict.fromkeys(("x", "r"), (0.0, 2.0)) | {"y": (-4.0, 4.0)})
    plain, whole = forms(rounded(made))
    found = kernels(whole, tmp_path)
    assert found["QLinearConv"] == 2
    assert found["MaxPool"] + found["NhwcMaxPool"] == 1
    assert found["Relu"] == 0
    assert found["QuantizeLinear"] == 1, "of the input; all else stays integers"
    feed = batch(model)
    feed = {"x": np.abs(feed["x"])}
    assert distance(run(whole, feed), run(plain, feed)) < 0.02


@pytest.mark.parametrize("build", [*LAYERS.values(), *TOYS.values()], ids=[*LAYERS, *TOYS])
def test_every_layout_keeps_its_outputs(build: Callable[[], Any]) -> None:
    model = opened(build())
    assert names_of(model)
    feed = batch(model)
    made = quantized(model)
    expected = model.predict(feed)["y"]
    assert distance(made.predict(feed)["y"], expected) < 0.05
    for settings in ({}, {"granularity": "per_tensor", "grid": "affine"}):
        plain, whole = forms(rounded(made, **settings))
        assert distance(run(whole, feed), run(plain, feed)) < 0.02
        assert distance(run(whole, feed), expected) < 0.06


@pytest.mark.parametrize(("name", "build"), ODDITIES.items(), ids=ODDITIES)
def test_odd_models_keep_their_outputs(name: str, build: Callable[[], Any]) -> None:
    model = opened(build())
    if name in {"opset_11", "old"}:
        with pytest.raises(UnsupportedError, match="opset 11"):
            quantized(model)
        return
    feed = batch(model)
    made = quantized(model)
    expected = model.predict(feed)["y"]
    steps = {"quantized": 0.1}  # its own output has few levels
    assert distance(made.predict(feed)["y"], expected) < steps.get(name, 0.05)
    plain, whole = forms(rounded(made) if name != "quantized" else made)
    assert distance(run(whole, feed), run(plain, feed)) < 0.02


def test_float_weights_are_not_rounded_by_the_runtime() -> None:
    """ONNX Runtime quantizes float weights between quantized values by itself."""
    model = opened(block())
    made = quantized(model)
    wide: dict[str, Tensor] = {}
    for name, weight in made.weights().items():
        array = weight.tensor.dense()
        if array.ndim > 1:
            wide[name] = Affine.encode(np.rint(array * 3000), 1 / 3000)
    for changes in ({}, wide):
        plain, whole = forms(made.with_weights(changes))
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        exact = onnxruntime.InferenceSession(plain, options)
        feed = batch(model)
        (expected,) = exact.run(None, feed)
        assert distance(run(plain, feed), expected) < 0.002
        assert distance(run(whole, feed), expected) < 0.002


def test_biases_too_large_for_their_steps_are_kept(tmp_path: Path) -> None:
    """Kernels hold biases in 32 bits, in units of the weights' steps."""
    bias = np.linspace(-2, 2, 20).astype(np.float32)
    model = opened(line(bias))
    weights = model.weights()["w"].tensor.dense().copy()
    weights[::3] *= 1e-9
    weights[1] = 0
    model = model.with_weights({"w": Dense(weights)}).decoded()
    plain, whole = forms(rounded(quantized(model)))
    assert kernels(whole, tmp_path)["QGemm"] == 2
    feed = batch(model)
    assert distance(run(whole, feed), run(plain, feed)) < 0.01


@pytest.mark.parametrize("operator", ["Gemm", "turned Gemm", "MatMul", "MatMul of rows"])
def test_layers_whose_results_stay_floats_are_computed_in_integers(
    operator: str, tmp_path: Path
) -> None:
    turned = operator.startswith("turned")
    arrays = draw(w=(3, 20) if turned else (20, 3), b=(3,))
    nodes: list[Any] = [("Relu", ["x"], "h", {})]
    if "Gemm" in operator:
        nodes.append(("Gemm", ["h", "w", "b"], "y", {"transB": int(turned)}))
    else:
        nodes += [("MatMul", ["h", "w"], "m", {}), ("Add", ["b", "m"], "y", {})]
    rows: list[int | str] = ["n", 7, 20] if operator.endswith("rows") else ["n", 20]
    model = opened(graph(nodes, {"x": ("float32", rows)}, arrays, rank=len(rows)))
    plain, whole = forms(rounded(quantized(model)))
    found = kernels(whole, tmp_path)
    assert found["QGemm"] + found["MatMulIntegerToFloat"] == 1
    assert found["DequantizeLinear"] == 0
    assert "b" not in {tensor.name for tensor in onnx.load_from_string(whole).graph.initializer}
    feed = batch(model)
    assert distance(run(whole, feed), run(plain, feed)) < 0.01


@pytest.mark.parametrize("name", ["gemm_left_00", "gemm_left_11", "matmul_left", "conv_turned"])
def test_layers_without_integer_kernels_are_not_decoded_in_every_run(
    name: str, tmp_path: Path
) -> None:
    model = quantized(opened(LAYERS[name]()))
    _, whole = forms(rounded(model))
    proto = onnx.load_from_string(whole)
    taken = {node.input[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    assert "w/codes" in {tensor.name for tensor in proto.graph.initializer}
    assert "w/codes" not in taken
    assert kernels(whole, tmp_path)["Cast"] <= 2, "of the inputs alone"


def test_steps_are_a_weight_of_the_model_and_of_the_file() -> None:
    model = opened(line())
    made = quantized(model, {"r": (0.0, 2.55), "x": (-1.0, 1.55)})
    weights = made.weights()
    assert weights[ACTIVATION_SCALES].kind is LayerKind.OTHER
    assert weights[ACTIVATION_ZERO_POINTS].tensor.dtype == np.uint8
    np.testing.assert_allclose(weights[ACTIVATION_SCALES].tensor.dense(), [0.01, 0.01])
    np.testing.assert_array_equal(weights[ACTIVATION_ZERO_POINTS].tensor.dense(), [100, 0])
    twice = made.with_weights({ACTIVATION_SCALES: Dense(np.array([0.02, 0.02], np.float32))})
    wider = quantized(model, {"x": (-2.0, 3.1), "r": (0.0, 5.1)})
    feed = batch(model)
    np.testing.assert_array_equal(twice.predict(feed)["y"], wider.predict(feed)["y"])
    plain, whole = forms(rounded(twice))
    assert distance(run(whole, feed), run(plain, feed)) < 0.02
    assert set(weights) - set(model.weights()) == {ACTIVATION_SCALES, ACTIVATION_ZERO_POINTS}


def test_some_values_can_be_left_alone() -> None:
    model = opened(line())
    feed = batch(model)
    one = quantized(model, {"r": (0.0, 3.0)}, 3).predict(feed)["y"]
    both = quantized(model, {"r": (0.0, 3.0), "x": (-3.0, 3.0)}, 3).predict(feed)["y"]
    assert (
        0 < distance(one, model.predict(feed)["y"]) < distance(both, model.predict(feed)["y"])
    )
    assert quantized(model, {}).native is model.native


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero"),
    [
        (-3.0, -1.0, 3 / 255, 255),
        (2.0, 2.0, 2 / 255, 0),
        (0.0, 0.0, 1.0, 0),
        (-1.0, 0.0, 1 / 255, 255),
    ],
    ids=["negative", "constant", "zero", "up to zero"],
)
def test_zero_is_in_every_range(low: float, high: float, scale: float, zero: int) -> None:
    made = quantized(opened(line()), {"x": (low, high)}).weights()
    assert made[ACTIVATION_SCALES].tensor.dense()[0] == np.float32(scale)
    assert made[ACTIVATION_ZERO_POINTS].tensor.dense()[0] == zero


def test_constant_and_negative_values_are_computed_in_integers(tmp_path: Path) -> None:
    model = opened(line())
    feed = {"x": np.full((8, 6), -0.7, np.float32)}
    ranges = activation_ranges(model, [feed], ["x", "r"])
    assert ranges["x"] == (float(np.float32(-0.7)), 0.0)
    plain, whole = forms(rounded(quantized(model, ranges)))
    assert kernels(whole, tmp_path)["QGemm"] == 2
    assert distance(run(whole, feed), model.predict(feed)["y"]) < 0.02
    assert distance(run(plain, feed), model.predict(feed)["y"]) < 0.02


def test_what_cannot_be_quantized_is_refused() -> None:
    model = opened(line())
    with pytest.raises(UnsupportedError, match="there are: x, r"):
        quantized(model, {"h": (0.0, 1.0)})
    for low, high in ((1.0, -1.0), (float("nan"), 1.0), (0.0, float("inf"))):
        with pytest.raises(ConfigError, match=r"ranges\['x'\]"):
            quantized(model, {"x": (low, high)})
    for bits in (1, 9):
        with pytest.raises(ConfigError, match="bits"):
            quantized(model, {"x": (0.0, 1.0)}, bits)
    made = quantized(model)
    assert names_of(made) == ()
    with pytest.raises(UnsupportedError, match="already"):
        quantized(made, {"x": (0.0, 1.0)})


def test_techniques_work_on_models_with_quantized_values() -> None:
    model = quantized(opened(block()))
    made = TECHNIQUES.load("gptq")(bits=8).apply(model, models.context(model))
    feed = batch(model)
    assert distance(made.predict(feed)["y"], model.predict(feed)["y"]) < 0.05


def test_ranges_cover_all_the_tails_or_what_costs_least() -> None:
    model = opened(graph([("MatMul", ["x", "w"], "y", {})], ROWS, draw(w=(6, 20)), rank=2))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30000, 6)).astype(np.float32)
    x[7, 3], x[8, 2] = 100.0, np.inf
    batches = [{"x": x[:15000]}, {"x": x[15000:]}]
    found = {how: _range(model, batches, how) for how in ("minmax", "percentile", "mse")}
    assert found["minmax"] == (x.min(), 100.0)
    low, high = found["percentile"]
    assert -4.2 < low < -3.4
    assert 3.4 < high < 4.2
    low, high = found["mse"]
    assert -4 < low < -1.5
    assert 1.5 < high < 5
    assert _error(x, *found["mse"]) < 0.2 * _error(x, *found["minmax"])


def _range(model: Model, batches: list[dict[str, Array]], how: How) -> tuple[float, float]:
    return activation_ranges(model, batches, ["x"], how, bits=4)["x"]


def _error(x: Array, low: float, high: float) -> float:
    real = np.delete(x.ravel(), [7 * 6 + 3, 8 * 6 + 2])
    scale = (high - low) / 15
    zero = np.rint(-low / scale)
    codes = np.clip(np.rint(real / scale) + zero, 0, 15)
    return float(np.square((codes - zero) * scale - real).mean())


def test_ranges_that_cannot_be_seen_are_refused() -> None:
    model = opened(line())
    with pytest.raises(DataError, match="no finite number"):
        activation_ranges(model, [{"x": np.full((2, 6), np.nan, np.float32)}], ["x"])
    with pytest.raises(DataError, match="no finite number"):
        activation_ranges(model, [], ["x"])
    with pytest.raises(UnsupportedError, match="no value"):
        activation_ranges(model, [batch(model)], ["nowhere"])
    with pytest.raises(UnsupportedError, match="cannot be watched"):
        activation_ranges(models.chain(), [], ["x"])
