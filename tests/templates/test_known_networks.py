"""Templates are the networks that their names promise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from penjing.core.architecture import Problem, Task
from penjing.core.errors import ConfigError, MissingExtraError
from penjing.core.registry import TEMPLATES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from penjing.templates.support.net import Net

GREY = Problem((28, 28), "uint8", Task.CLASSIFICATION, 10)
COLOUR = Problem(
    (3, 32, 32),
    "uint8",
    Task.CLASSIFICATION,
    10,
    mean=255 * np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1),
    std=255 * np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1),
)
SPEECH = Problem((49, 10), "int8", Task.CLASSIFICATION, 12)


def build(name: str, problem: Problem, **settings: Any) -> Net:
    net: Net = TEMPLATES.load(name)(**settings).build(problem)
    return net.eval()


def trained(net: Net) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def stored(net: Net) -> int:
    """Count as Keras does, which has the statistics of batch norm among the weights."""
    kept = [v for k, v in net.state_dict().items() if not k.startswith(("input_", "output_"))]
    return sum(value.numel() for value in kept if value.ndim)


@pytest.mark.parametrize(
    ("name", "problem", "parameters"),
    [
        ("logistic_regression", GREY, 7_850),
        ("lenet_300_100", GREY, 266_610),
        ("lenet_5", GREY, 431_080),
        ("resnet_20", COLOUR, 269_722),
        ("resnet_56", COLOUR, 853_018),
    ],
)
def test_parameters_are_as_many_as_published(
    name: str, problem: Problem, parameters: int
) -> None:
    assert trained(build(name, problem)) == parameters


@pytest.mark.parametrize(
    ("name", "problem", "weights"),
    [
        ("resnet_8", COLOUR, 78_666),
        ("ds_cnn", SPEECH, 24_908),
        ("autoencoder", Problem((640,), "float32", Task.RECONSTRUCTION), 269_992),
    ],
)
def test_weights_are_those_of_mlperf_tiny(name: str, problem: Problem, weights: int) -> None:
    assert stored(build(name, problem)) == weights


def test_keyword_spotting_pads_as_tensorflow_does() -> None:
    net = build("ds_cnn", SPEECH)
    assert net.padding == (1, 1, 4, 5)
    seen: list[tuple[int, ...]] = []
    net.get_submodule("conv").register_forward_hook(
        lambda *passed: seen.append(tuple(passed[2].shape))
    )
    net(torch.zeros((2, 49, 10), dtype=torch.int8))
    assert seen == [(2, 64, 25, 5)]


@pytest.mark.parametrize(
    ("name", "file"), [("resnet_20", "resnet20-12fca82f"), ("resnet_56", "resnet56-4bfd9763")]
)
def test_published_weights_fit_and_work(
    name: str, file: str, data: Callable[[str], Path]
) -> None:
    net = build(name, COLOUR)
    file_path = data(f"cifar10-resnets/{file}.th")
    held = torch.load(file_path, map_location="cpu", weights_only=True)["state_dict"]
    missing, unexpected = net.load_state_dict(
        {key.removeprefix("module."): value for key, value in held.items()}, strict=False
    )
    assert set(missing) == {"input_mean", "input_std"}
    assert unexpected == []
    with np.load(data("cifar10/cifar10_test_a.npz"), allow_pickle=False) as archive:
        images, labels = archive["x"][:200].transpose(0, 3, 1, 2), archive["y"][:200]
    with torch.inference_mode():
        predicted = net(torch.from_numpy(np.ascontiguousarray(images))).argmax(1).numpy()
    assert (predicted == labels).mean() > 0.91


@pytest.mark.parametrize("size", [16, 28, 32, 61])
def test_lenet_5_adapts_to_the_size_of_images(size: int) -> None:
    net = build("lenet_5", Problem((3, size, size + 2), "uint8", Task.CLASSIFICATION, 7))
    assert net(torch.zeros((2, 3, size, size + 2), dtype=torch.uint8)).shape == (2, 7)


def test_raw_rows_are_scaled_inside() -> None:
    mean, std = np.array([10.0, -3.0]), np.array([2.0, 0.5])
    task = Task.REGRESSION
    scaled = Problem((2,), "float32", task, 1, mean=mean, std=std)
    plain = Problem((2,), "float32", task, 1)
    rows = torch.tensor([[12.0, -2.5], [8.0, -3.0]])
    by_hand = (rows - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(build("mlp", scaled)(rows), build("mlp", plain)(by_hand.float()))


def test_values_come_in_their_own_units() -> None:
    problem = Problem(
        (2,),
        "float32",
        Task.REGRESSION,
        1,
        target_mean=np.array([200_000.0]),
        target_std=np.array([100_000.0]),
    )
    plain = Problem((2,), "float32", Task.REGRESSION, 1)
    rows = torch.ones(3, 2)
    torch.testing.assert_close(
        build("mlp", problem)(rows), 100_000 * build("mlp", plain)(rows) + 200_000
    )


@pytest.mark.parametrize(
    "name", ["lstm_classifier", "gru_classifier", "transformer_classifier"]
)
def test_tokens_never_seen_share_one_row(name: str) -> None:
    net = build(name, Problem((4,), "int64", Task.CLASSIFICATION, 3, vocabulary=5))
    unseen = net(torch.tensor([[5, 1, 2, 3], [77, 1, 2, 3], [4, 1, 2, 3]]))
    assert torch.equal(unseen[0], unseen[1])
    assert not torch.equal(unseen[0], unseen[2])
    assert not net.get_parameter("entry.table.weight")[5].any()


def test_the_order_of_steps_matters_to_a_transformer() -> None:
    net = build(
        "transformer_classifier", Problem((4,), "int64", Task.CLASSIFICATION, 3, vocabulary=5)
    )
    one, two = net(torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]]))
    assert not torch.allclose(one, two)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(
        ConfigError, match=r"width: must be a multiple of heads=4, got 30\n.*32"
    ):
        TEMPLATES.load("transformer_classifier")(width=30)


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "message"),
    [
        (
            "lenet_5",
            (8,),
            "float32",
            r"^lenet_5: takes images, got rows of 8 features .*\n.*mlp",
        ),
        ("lenet_5", (3, 10, 10), "uint8", r"lenet_5: takes images of 16 x 16 pixels or more"),
        ("resnet_8", (32, 32, 3), "uint8", r"channels first(.|\n)*x\.transpose\(0, 3, 1, 2\)"),
        (
            "lstm_classifier",
            (8,),
            "float32",
            r"takes sequences of tokens or sequences, got rows",
        ),
        ("mlp", (), "float32", r"mlp: takes .*\n.*rows of features \(n,\)"),
        ("mlp", (2, 3, 4, 5), "float32", r"got samples of shape \(2, 3, 4, 5\)"),
        ("mlp", (4, 0), "float32", r"got samples of shape \(4, 0\)"),
        ("mlp", (3,), "str", r"got samples of shape \(3,\) \(str\)"),
    ],
)
def test_misfits_are_told_what_would_fit(
    name: str, shape: tuple[int, ...], dtype: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        TEMPLATES.load(name)().build(Problem(shape, dtype, Task.CLASSIFICATION, 3))


def test_a_missing_framework_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"template lenet_5: needs the 'torch' extra"):
        TEMPLATES.load("lenet_5")().build(GREY)
