"""What every model template promises, whichever it is."""

from __future__ import annotations

import warnings
from dataclasses import FrozenInstanceError, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from penjing.cli.techniques import setting_helps
from penjing.core.architecture import InputKind, ModelTemplate, Problem, Task
from penjing.core.errors import ConfigError
from penjing.core.fields import bounds, choices
from penjing.core.registry import TEMPLATES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penjing.templates.support.net import Net

NAMES = TEMPLATES.names()
TOKENS = 11
SHAPES: dict[InputKind, tuple[tuple[int, ...], str]] = {
    InputKind.FEATURES: ((8,), "float32"),
    InputKind.IMAGES: ((3, 16, 16), "uint8"),
    InputKind.SEQUENCES: ((6, 3), "float32"),
    InputKind.TOKENS: ((6,), "int64"),
}
SMALL: dict[str, dict[str, Any]] = {
    "autoencoder": {"width": 6, "layers": 1},
    "ds_cnn": {"width": 6, "blocks": 2},
    "gru_classifier": {"hidden": 5, "layers": 2, "state": "mean", "dropout": 0.1},
    "lstm_autoencoder": {"hidden": 5},
    "lstm_classifier": {"hidden": 5, "dropout": 0.1},
    "mlp": {"width": 6, "batch_norm": True, "dropout": 0.1},
    "resnet_8": {"width": 4},
    "resnet_20": {"width": 4},
    "resnet_56": {"width": 2},
    "transformer_classifier": {"width": 8, "heads": 2, "layers": 1},
}
CASES = [
    (name, kind, task)
    for name in NAMES
    for kind in TEMPLATES.load(name).kinds
    for task in TEMPLATES.load(name).tasks
]
EXPORTED = [name for name in NAMES if name != "resnet_56"]
"""ResNet-56 is ResNet-20 with more of the same blocks, and takes four times as long."""
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they save on networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def problem(kind: InputKind, task: Task = Task.CLASSIFICATION, outputs: int = 4) -> Problem:
    shape, dtype = SHAPES[kind]
    scaled: tuple[int, ...] = () if kind is InputKind.TOKENS else (shape[-1],)
    if kind is InputKind.IMAGES:
        scaled = (shape[0], 1, 1)
    return Problem(
        shape,
        dtype,
        task,
        outputs,
        vocabulary=TOKENS if kind is InputKind.TOKENS else 0,
        mean=RNG.uniform(1, 3, scaled),
        std=RNG.uniform(2, 4, scaled),
        target_mean=np.full(outputs, 30.0),
        target_std=np.full(outputs, 5.0),
    )


def rows(kind: InputKind, count: int) -> torch.Tensor:
    shape, dtype = SHAPES[kind]
    if kind is InputKind.TOKENS:
        return torch.from_numpy(RNG.integers(0, TOKENS + 3, (count, *shape)))
    values = RNG.normal(100, 60, (count, *shape)).clip(0, 255)
    return torch.from_numpy(values.astype(dtype))


def make(name: str, **settings: Any) -> ModelTemplate:
    made: ModelTemplate = TEMPLATES.load(name)(**settings)
    return made


def built(name: str, kind: InputKind, task: Task, seed: int = 3) -> Net:
    net: Net = make(name, **SMALL.get(name, {})).build(problem(kind, task), seed)
    return net


def count(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(("name", "kind", "task"), CASES)
def test_it_gives_what_the_task_asks_for(name: str, kind: InputKind, task: Task) -> None:
    net = built(name, kind, task)
    wanted = SHAPES[kind][0] if task is Task.RECONSTRUCTION else (4,)
    for training in (True, False):
        net.train(training)
        outputs = net(rows(kind, 5))
        assert outputs.shape == (5, *wanted)
        assert outputs.dtype == torch.float32
        assert torch.isfinite(outputs).all()
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}


@pytest.mark.parametrize(("name", "kind", "task"), CASES)
def test_gradients_reach_every_parameter(name: str, kind: InputKind, task: Task) -> None:
    net = built(name, kind, task).train()
    outputs = net(rows(kind, 16))
    torch.autograd.backward(outputs, torch.from_numpy(RNG.normal(size=outputs.shape)).float())
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        if parameter.ndim > 1:  # batch norm takes biases before it away
            assert parameter.grad.any(), key


@pytest.mark.parametrize("name", NAMES)
def test_a_step_against_the_gradient_lowers_the_loss(name: str) -> None:
    template = TEMPLATES.load(name)
    kind, task = template.kinds[0], template.tasks[0]
    net = built(name, kind, task).eval()
    inputs, labels = rows(kind, 16), torch.arange(16) % 4
    start = {key: parameter.detach() for key, parameter in net.named_parameters()}

    def loss(held: dict[str, torch.Tensor]) -> torch.Tensor:
        outputs: torch.Tensor = torch.func.functional_call(net, held, (inputs,))
        if task is Task.CLASSIFICATION:
            return torch.nn.functional.cross_entropy(outputs, labels)
        target = inputs.float() if task is Task.RECONSTRUCTION else labels[:, None].float()
        return (outputs - target).square().mean()

    gradients, before = torch.func.grad_and_value(loss)(start)
    steepness = sum(float(gradient.square().sum()) for gradient in gradients.values())
    step = 0.01 * float(before) / steepness
    after = loss({key: start[key] - step * gradients[key] for key in start})
    assert float(after) < float(before)


@pytest.mark.parametrize("name", NAMES)
def test_weights_depend_on_the_seed_alone(name: str) -> None:
    template = TEMPLATES.load(name)
    kind, task = template.kinds[0], template.tasks[0]
    torch.manual_seed(1)
    first = built(name, kind, task).state_dict()
    torch.manual_seed(2)
    again = built(name, kind, task).state_dict()
    other = built(name, kind, task, seed=4).state_dict()
    for key, parameter in built(name, kind, task).named_parameters():
        assert torch.equal(first[key], again[key]), key
        if parameter.ndim > 1:
            assert not torch.equal(first[key], other[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_the_global_generator_is_left_alone(name: str) -> None:
    template = TEMPLATES.load(name)
    before = torch.get_rng_state()
    built(name, template.kinds[0], template.tasks[0])
    assert torch.equal(torch.get_rng_state(), before)


def exported(net: Net, example: torch.Tensor) -> ort.InferenceSession:
    with torch.no_grad(), warnings.catch_warnings():
        # The exporter's own business with the rest of PyTorch.
        warnings.filterwarnings("ignore", r".*LeafSpec", FutureWarning)
        warnings.filterwarnings("ignore", "_check_is_size", FutureWarning)
        warnings.filterwarnings("ignore", "The tensor attributes .*_flat_weights", UserWarning)
        program = torch.onnx.export(
            net,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("rows")},),
            input_names=["x"],
            output_names=["y"],
            verbose=False,
        )
    assert program is not None
    return ort.InferenceSession(program.model_proto.SerializeToString())


@pytest.mark.parametrize("name", EXPORTED)
def test_the_exported_model_takes_the_same_raw_rows(name: str) -> None:
    kind, task = TEMPLATES.load(name).kinds[0], TEMPLATES.load(name).tasks[-1]
    net = built(name, kind, task).train()
    net(rows(kind, 8))  # statistics of batch norm that differ from where they start
    session = exported(net.eval(), rows(kind, 2))
    assert session.get_inputs()[0].shape[1:] == list(SHAPES[kind][0])
    for size in (1, 8):
        inputs = rows(kind, size)
        wanted = net(inputs).detach().numpy()
        given = session.run(None, {"x": inputs.numpy()})[0]
        np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_few_and_explained(name: str) -> None:
    template = TEMPLATES.load(name)
    assert template.__doc__
    assert "References:" in template.__doc__
    assert len(fields(template)) <= 8
    explained = setting_helps(template).keys()
    assert {field.name for field in fields(template)} <= explained


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_bounded_and_frozen(name: str) -> None:
    template = TEMPLATES.load(name)
    assert template() == template()
    for field in fields(template):
        value = getattr(template(), field.name)
        with pytest.raises(FrozenInstanceError):
            setattr(template(), field.name, value)
        if isinstance(value, bool):
            continue
        if isinstance(value, str):
            wrong: tuple[Any, ...] = ("none of these",)
            assert value in choices(template)[field.name]
        else:
            number, allowed = bounds(template)[field.name]
            wrong = (number(allowed.low - 1), number(allowed.high + 1), "text", None)
        for each in wrong:
            with pytest.raises(ConfigError) as caught:
                template(**{field.name: each})
            assert caught.value.where == field.name


@pytest.mark.parametrize("name", NAMES)
def test_data_of_another_kind_are_refused(name: str) -> None:
    template = TEMPLATES.load(name)
    task = template.tasks[0]
    for kind, (shape, dtype) in SHAPES.items():
        if kind in template.kinds:
            continue
        if kind is InputKind.TOKENS and InputKind.FEATURES in template.kinds:
            continue  # whole numbers are features, too
        if kind is InputKind.SEQUENCES and InputKind.IMAGES in template.kinds:
            continue  # a plane of numbers is an image, too
        with pytest.raises(ConfigError, match=rf"^{name}: takes .*, got ") as caught:
            template().build(Problem(shape, dtype, task, 4))
        assert "try " in caught.value.hint or "templates take" in caught.value.hint


@pytest.mark.parametrize("name", NAMES)
def test_a_task_it_is_not_made_for_is_refused(name: str) -> None:
    template = TEMPLATES.load(name)
    for task in set(Task) - set(template.tasks):
        with pytest.raises(ConfigError, match=rf"^{name}: is for .*, not for {task}"):
            template().build(problem(template.kinds[0], task))
