"""ONNX graphs as differentiable functions: weights, gradients, refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.core.errors import MissingExtraError, UnsupportedError
from penjing.core.model import MATRIX_KINDS, Model
from penjing.core.registry import BACKENDS
from penjing.core.training import Trains, to_numpy
from penjing.testing.onnx_models import TOYS
from penjing.testing.onnx_oddities import ODDITIES, ROWS
from penjing.testing.onnx_zoo import LAYERS, Node, draw, graph

torch = pytest.importorskip("torch", reason="training needs PyTorch")
torch.set_num_threads(1)

from penjing.training.agreement import agrees  # noqa: E402  # imports PyTorch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from penjing.core.tensors import Array

GRAPHS = {**TOYS, **ODDITIES, **LAYERS}
REFUSED = {
    "lstm_lengths": "LSTM with sequence_lens",
    "branches": "If",
    "loop": "Loop",
    "quantized": "QLinearMatMul",
    "four_bits": "com.microsoft.MatMulNBits",
}


def opened(native: Any) -> Model:
    model: Model = BACKENDS.load("onnx")().open(native)
    return model


def function_of(model: Model) -> Any:
    assert isinstance(model.backend, Trains)
    return model.backend.function(model.native)


def drawn(model: Model, rows: int = 8) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    made = {}
    for port in model.backend.inputs(model.native):
        shape = [size or rows for size in port.shape]
        is_float = port.dtype.startswith("float")
        array = rng.normal(size=shape) if is_float else rng.integers(0, 2, shape)
        made[port.name] = np.asarray(array, port.dtype)
    return made


def tensors(arrays: dict[str, Array], device: str = "cpu") -> dict[str, Any]:
    return {name: torch.from_numpy(array.copy()).to(device) for name, array in arrays.items()}


def weights_of(model: Model) -> dict[str, Array]:
    return {
        name: weight.tensor.dense()
        for name, weight in model.weights().items()
        if weight.kind in MATRIX_KINDS and weight.is_float
    }


def trained(model: Model) -> dict[str, Any]:
    arrays = weights_of(model)
    return {name: torch.from_numpy(a.copy()).requires_grad_() for name, a in arrays.items()}


@pytest.mark.parametrize("name", [name for name in GRAPHS if name not in REFUSED])
def test_what_is_trained_is_what_runs(name: str) -> None:
    model = opened(GRAPHS[name]())
    agrees(model.backend, model.native, function_of(model), drawn(model))


@pytest.mark.parametrize("name", [name for name in GRAPHS if name not in REFUSED])
def test_given_weights_are_the_written_ones(name: str) -> None:
    model = opened(GRAPHS[name]())
    arrays = {n: (a * 0.8).astype(a.dtype) for n, a in weights_of(model).items()}
    weights = {n: torch.from_numpy(a).requires_grad_() for n, a in arrays.items()}
    given = drawn(model)
    written = model.backend.write_weights(model.native, arrays)
    expected = model.backend.predict(written, given)["y"]
    found = function_of(model)(weights, tensors(given))["y"]
    tolerance = 1e-2 if expected.dtype == np.float16 else 1e-4
    np.testing.assert_allclose(to_numpy(found), expected, rtol=tolerance, atol=tolerance / 10)
    found.square().sum().backward()
    for key, weight in weights.items():
        assert weight.grad is not None, key
        assert weight.grad.shape == weight.shape, key
        assert bool(weight.grad.any()), key


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_refused_by_name(name: str) -> None:
    model = opened(GRAPHS[name]())
    with pytest.raises(UnsupportedError, match=f"operator {REFUSED[name]} cannot be trained"):
        function_of(model)


@pytest.mark.parametrize(
    ("op", "inputs", "known", "named"),
    [
        ("RandomNormalLike", ["x"], {}, "RandomNormalLike"),
        ("RNN", ["x3", "r1", "r2"], {"hidden_size": 4, "activations": ["Elu"]}, "Elu"),
        ("LSTM", ["x3", "l1", "l2"], {"hidden_size": 4, "clip": 2.0}, "LSTM with clip"),
        ("Dropout", ["x", "half", "yes"], {}, "Dropout in training mode"),
        ("Resize", ["x", "", "two"], {"mode": "linear", "antialias": 1}, "antialias"),
    ],
    ids=["random", "activations", "clip", "dropout", "antialias"],
)
def test_options_that_cannot_be_trained_are_refused_by_name(
    op: str, inputs: list[str], known: dict[str, Any], named: str
) -> None:
    arrays = draw(r1=(1, 4, 6), r2=(1, 4, 4), l1=(1, 16, 6), l2=(1, 16, 4))
    arrays |= {"axis": np.array([0]), "two": np.array([1, 2], np.float32)}
    arrays |= {"half": np.array(0.5, np.float32), "yes": np.array(1, bool)}
    nodes: list[Node] = [("Unsqueeze", ["x", "axis"], "x3", {}), (op, inputs, "y", known)]
    rank = 4 if op in {"RNN", "LSTM"} else 2
    model = opened(graph(nodes, ROWS, arrays, rank=rank, opset=18))
    with pytest.raises(UnsupportedError, match=named):
        function_of(model)


def test_text_is_refused_where_numbers_depend_on_it() -> None:
    known: dict[str, Any] = {"cats_strings": ["a", "b"], "zeros": 1}
    from onnx import helper

    encoder = helper.make_node(
        "OneHotEncoder", ["x"], ["h"], domain="ai.onnx.ml", name="code", **known
    )
    made = graph([encoder, ("Identity", ["h"], "y", {})], {"x": ("str", ["n"])}, {}, rank=2)
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    with pytest.raises(UnsupportedError, match="OneHotEncoder on str"):
        function_of(opened(made))


def test_without_pytorch_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened(TOYS["mlp"]())
    monkeypatch.setattr("penjing.backends.onnx.find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"penjing\[torch\]"):
        function_of(model)


def test_a_difference_is_named_by_its_output() -> None:
    model = opened(TOYS["mlp"]())
    other = model.backend.write_weights(model.native, {"w3": weights_of(model)["w3"] * 1.01})
    with pytest.raises(UnsupportedError, match="output 'y'"):
        agrees(model.backend, other, function_of(model), drawn(model))


def test_unknown_names_are_refused() -> None:
    model = opened(TOYS["mlp"]())
    function, given = function_of(model), tensors(drawn(model))
    with pytest.raises(UnsupportedError, match="no such weight"):
        function({"nothing": torch.zeros(3)}, given)
    with pytest.raises(UnsupportedError, match="no such value"):
        function({}, given, watch=["nothing"])


@pytest.mark.parametrize("name", ["mlp", "conv", "gru", "gemm_left_10", "stacked", "function"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    model = opened(GRAPHS[name]())
    function, given = function_of(model), tensors(drawn(model, 3))
    weights = {n: torch.from_numpy(a.copy()) for n, a in weights_of(model).items()}

    def loss(weights: dict[str, Any]) -> Any:
        return function(weights, given)["y"].double().square().sum()

    for key, weight in weights.items():
        traced = weight.clone().requires_grad_()
        loss({**weights, key: traced}).backward()
        generator = torch.Generator().manual_seed(1)
        towards = torch.randn(weight.shape, generator=generator) * weight.std()
        step = 1e-3
        with torch.no_grad():
            ahead = loss({**weights, key: weight + step * towards})
            behind = loss({**weights, key: weight - step * towards})
        slope = float((ahead - behind) / (2 * step))
        assert float((traced.grad * towards).sum()) == pytest.approx(slope, rel=0.02, abs=1e-3)


def test_a_function_first_called_for_inference_can_train() -> None:
    model = opened(GRAPHS["moved"]())
    function, given = function_of(model), tensors(drawn(model))
    weight = torch.from_numpy(weights_of(model)["w"].copy())
    with torch.inference_mode():
        function({"w": weight}, given)
    function({"w": weight.requires_grad_()}, given)["y"].sum().backward()
    assert weight.grad is not None


def test_the_same_inputs_give_the_same_outputs() -> None:
    model = opened(TOYS["conv"]())
    function, given = function_of(model), tensors(drawn(model))
    assert torch.equal(function({}, given)["y"], function({}, given)["y"])


def test_gradients_reach_inputs_and_scales_of_quantization() -> None:
    nodes: list[Node] = [
        ("QuantizeLinear", ["x", "s", "z"], "q", {}),
        ("DequantizeLinear", ["q", "s", "z"], "d", {}),
        ("MatMul", ["d", "w"], "y", {}),
    ]
    scales = np.full(16, 0.25, np.float32)
    arrays: dict[str, Any] = {"s": scales, "z": np.zeros(16, np.int8), **draw(w=(16, 3))}
    model = opened(graph(nodes, {"x": ("float32", ["n", 16])}, arrays, rank=2))
    x = torch.linspace(-50, 50, 32).reshape(2, 16).requires_grad_()
    s = torch.from_numpy(scales.copy()).requires_grad_()
    found = function_of(model)({"s": s}, {"x": x}, watch=["d"])
    found["d"].sum().backward()
    inside = (x.detach() / 0.25).abs() < 127.5
    assert torch.equal(x.grad, inside.float())
    ratio = x.detach() / 0.25
    slope = torch.where(inside, ratio.round() - ratio, ratio.round().clamp(-128, 127)).sum(0)
    torch.testing.assert_close(s.grad, slope, rtol=1e-4, atol=1e-4)


def test_values_rounded_the_other_way_now_and_then_agree() -> None:
    nodes: list[Node] = []
    for layer, source in enumerate(["x", "h0", "h1", "h2"]):
        names = {k: f"{k}{layer}" for k in ("q", "d", "w", "qw", "dw", "h")}
        target = "y" if layer == 3 else names["h"]
        nodes += [
            ("QuantizeLinear", [source, "s", "z"], names["q"], {}),
            ("DequantizeLinear", [names["q"], "s", "z"], names["d"], {}),
            ("QuantizeLinear", [names["w"], "t", "z"], names["qw"], {}),
            ("DequantizeLinear", [names["qw"], "t", "z"], names["dw"], {}),
            ("Conv", [names["d"], names["dw"]], target, {"pads": [1, 1, 1, 1]}),
        ]
    shape = (16, 16, 3, 3)
    arrays: dict[str, Any] = draw(w0=shape, w1=shape, w2=shape, w3=shape)
    arrays |= {"s": np.float32(0.03), "t": np.float32(0.003), "z": np.int8(0)}
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    model = opened(graph(nodes, {"x": ("float32", ["n", 16, 8, 8])}, arrays, rank=4))
    agrees(model.backend, model.native, function_of(model), drawn(model))


@pytest.mark.parametrize("name", [name for name in GRAPHS if name not in REFUSED])
def test_data_and_shapes_meet_on_the_device_of_the_data(name: str) -> None:
    """``meta`` stands for any device: PyTorch refuses to mix it with the CPU."""
    model = opened(GRAPHS[name]())
    function, given = function_of(model), drawn(model)
    weights = {n: torch.from_numpy(a.copy()).to("meta") for n, a in weights_of(model).items()}
    expected = function({}, tensors(given))["y"]
    found = function(weights, tensors(given, "meta"), watch=function.milestones)["y"]
    assert found.device.type == "meta"
    assert found.shape == expected.shape


@pytest.mark.parametrize("precision", [torch.bfloat16], ids=["bfloat16"])
@pytest.mark.parametrize("name", [*TOYS, "lstm_forward", "rnn_bidirectional"])
def test_mixed_precision_trains(name: str, precision: Any) -> None:
    model = opened(GRAPHS[name]())
    function, given = function_of(model), tensors(drawn(model))
    weights = trained(model)
    exact = function({}, given)["y"]
    with torch.autocast("cpu", precision):
        found = function(weights, given)["y"]
    assert float((found.float() - exact).detach().norm() / exact.norm()) < 0.03
    found.float().square().sum().backward()
    assert all(bool(w.grad.isfinite().all()) for w in weights.values())


@pytest.mark.parametrize("labels", ["numbers", "text", "values"])
def test_scikit_learn_models_are_trained_as_onnx(labels: str) -> None:
    pytest.importorskip("skl2onnx", reason="converts scikit-learn models")
    network = pytest.importorskip("sklearn.neural_network")
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6)).astype(np.float32)
    y = x[:, :3].argmax(1)
    known = {"hidden_layer_sizes": (8,), "solver": "lbfgs", "tol": 0.1, "random_state": 0}
    made = {
        "numbers": [network.MLPClassifier(**known), linear.LogisticRegression()],
        "text": [network.MLPClassifier(**known), linear.LogisticRegression()],
        "values": [network.MLPRegressor(**known), linear.LinearRegression()],
    }
    target = np.array(["a", "b", "c"])[y] if labels == "text" else y
    for estimator in made[labels]:
        model = BACKENDS.load("scikit_learn")().open(estimator.fit(x, target))
        function = function_of(model)
        agrees(model.backend, model.native, function, {"x": x})
        weights = trained(model)
        found = function(weights, {"x": torch.from_numpy(x)})
        floats = [value for value in found.values() if value.is_floating_point()]
        floats[-1].square().sum().backward()
        assert weights
        assert all(bool(w.grad.any()) for w in weights.values())


MODELS = {
    "onnx/lenet-300-100.onnx": 2,
    "onnx/fashion-300-100.onnx": 2,
    "onnx/lenet-5.onnx": 3,
    "onnx/resnet20.onnx": 10,
    "onnx/resnet56.onnx": 28,
}


@pytest.mark.parametrize("name", MODELS)
def test_real_models_agree(name: str, data: Callable[[str], Path]) -> None:
    model = opened(data(name))
    function = function_of(model)
    rng = np.random.default_rng(0)
    (port,) = model.backend.inputs(model.native)
    shape = [2, *(size or 1 for size in port.shape[1:])]
    images = rng.integers(0, 255, shape).astype(port.dtype)
    agrees(model.backend, model.native, function, {port.name: images})
    assert len(function.milestones) == MODELS[name]


def test_a_model_with_branches_is_refused(data: Callable[[str], Path]) -> None:
    model = opened(data("silero-vad/silero_vad_16k_op15.onnx"))
    with pytest.raises(UnsupportedError, match="operator If cannot be trained"):
        function_of(model)
