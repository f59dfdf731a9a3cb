"""PyTorch modules: exported as they are, named as they name things, and left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penjing
from penjing.core.errors import ModelError
from penjing.core.model import LayerKind
from penjing.core.registry import BACKENDS

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402

from penjing.testing.torch_models import conv_net, toy  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from penjing.core.model import Model


class Signals(nn.Module):
    """Convolutions of every rank, forwards and back, and recurrent layers without gates."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(3, 8, 3, padding=1)
        self.back = nn.ConvTranspose2d(1, 4, 3, padding=1, groups=1)
        self.cube = nn.Conv3d(1, 4, 3, padding=1)
        self.gated = nn.GRU(8, 6, batch_first=True)
        self.plain = nn.RNN(6, 5, 2, batch_first=True, nonlinearity="relu")
        self.norm = nn.BatchNorm1d(5)

    def forward(self, signal: Any, mask: Any) -> tuple[Any, Any]:
        found = self.back(self.line(signal)[:, None])
        found = self.cube(found[:, None]).amax((1, 2)) * mask[:, None]
        states, _ = self.gated(found.transpose(1, 2))
        states, last = self.plain(states)
        return self.norm(states[:, -1]), last.transpose(0, 1)


def opened(model: Any, data: Any = None) -> Model:
    return penjing.wrap(model, data)


@cache
def signals() -> tuple[Any, Model]:
    torch.manual_seed(0)
    module = Signals()
    return module, opened(module, {"mask": np.ones((4, 3)), "signal": np.ones((4, 3, 3))})


def net(function: Callable[[Any], Any]) -> Any:
    """Make a module that does something to four numbers."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            return function(self.linear(x))

    return Net()


ROWS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def test_outputs_are_the_modules() -> None:
    module, model = signals()
    signal, mask = torch.randn(5, 3, 3), torch.rand(5, 3)
    given = model.predict({"signal": signal.numpy(), "mask": mask.numpy()})
    with torch.no_grad():
        wanted = module.eval()(signal, mask)
    assert list(given) == ["output_0", "output_1"]
    for found, right in zip(given.values(), wanted, strict=True):
        np.testing.assert_allclose(found, right.numpy(), rtol=1e-4, atol=1e-5)


def test_inputs_are_called_as_the_parameters_of_forward() -> None:
    _, model = signals()
    ports = {port.name: port.shape for port in model.backend.inputs(model.native)}
    assert ports == {"signal": (None, 3, 3), "mask": (None, 3)}


def test_outputs_are_called_as_the_keys_they_have() -> None:
    model = toy("tagger")
    assert [port.name for port in model.backend.outputs(model.native)] == ["scores"]
    assert [port.name for port in model.backend.inputs(model.native)] == ["tokens"]


def test_weights_are_called_as_the_parameters() -> None:
    kinds = {name: weight.kind for name, weight in signals()[1].weights().items()}
    assert kinds["line.weight"] == kinds["cube.weight"] == kinds["back.weight"] == "conv"
    recurrent = {name for name, kind in kinds.items() if kind is LayerKind.RECURRENT}
    assert recurrent == {
        *("gated.weight_ih_l0", "gated.weight_hh_l0"),
        *("plain.weight_ih_l0", "plain.weight_hh_l0"),
        *("plain.weight_ih_l1", "plain.weight_hh_l1"),
    }
    tagged = set(toy("tagger").weights())
    assert {"lstm.weight_ih_l0", "mix.self_attn.in_proj_weight", "mix.linear1.weight"} <= tagged
    assert not [name for name in tagged | set(kinds) if name.startswith("val_")]


def test_the_size_before_is_that_of_the_graph_alone() -> None:
    module, model = signals()
    before = model.backend.original_bytes(model.native)  # type: ignore[attr-defined]
    after = model.backend.template(model.native).size_bytes  # type: ignore[attr-defined]
    numbers = sum(parameter.nbytes for parameter in module.parameters())
    assert numbers < after <= before < 1.1 * after


def test_tied_weights_are_stored_once() -> None:
    weights = toy("tagger").weights()
    shapes = [weight.tensor.shape for weight in weights.values()]
    assert shapes.count((8, 16)) == 1
    assert (16, 8) not in shapes


def test_batch_norms_are_folded_into_the_layers_before_them() -> None:
    weights = toy("conv").weights()
    assert set(weights) == {"first.weight", "second.weight", "scores.weight"}
    assert weights["first.weight"].kind is LayerKind.CONV
    assert weights["second.weight"].groups == 2


def test_the_module_is_left_as_it_was_and_gives_the_same_graph_again() -> None:
    given = conv_net()
    module = given.model.train()
    module.first_norm.eval()
    module.second.weight.requires_grad_(requires_grad=False)
    calls: list[Any] = []
    module.scores.register_forward_hook(lambda *_: calls.append(1))
    hooks = dict(module.scores._forward_hooks)  # noqa: SLF001
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    places = [tensor.data_ptr() for tensor in module.parameters()]
    assert opened(given).native.template == toy("conv").native.template
    modes = {name: part.training for name, part in module.named_modules()}
    assert [name for name, mode in modes.items() if not mode] == ["first_norm"]
    assert not module.second.weight.requires_grad
    assert module.first.weight.requires_grad
    assert dict(module.scores._forward_hooks) == hooks  # noqa: SLF001
    assert places == [tensor.data_ptr() for tensor in module.parameters()]
    assert all(p.grad is None and p.device.type == "cpu" for p in module.parameters())
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_nothing_is_said_while_exporting(capfd: pytest.CaptureFixture[str]) -> None:
    opened(net(torch.relu), ROWS)
    with pytest.raises(ModelError):
        opened(net(lambda x: x if x.sum() > 0 else -x), ROWS)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "data",
    [
        ROWS,
        ROWS.astype(np.float64),
        (ROWS * 8).astype(np.int32),
        torch.from_numpy(ROWS),
        (ROWS, np.zeros(6)),
        {"x": ROWS, "y": np.zeros(6)},
        {"features": ROWS},
        [(torch.from_numpy(ROWS), torch.zeros(6))],
    ],
    ids=["array", "double", "whole", "tensor", "pair", "dict", "other name", "batches"],
)
def test_the_first_rows_of_data_are_an_example(data: Any) -> None:
    from penjing.core.data import first_rows, gathered

    backend = BACKENDS.load("pytorch")()
    from penjing.backends.pytorch_support.calling import arrange
    from penjing.backends.pytorch_support.exporting import call

    module = nn.Linear(4, 3)
    assert backend.lacks_example(module)
    called = call(module, *arrange(module, first_rows(gathered(data), None)))
    assert called.names == ["input"]
    assert [tuple(tensor.shape) for tensor in called.inputs] == [(2, 4)]
    assert called.inputs[0].dtype == torch.float32


def test_files_of_data_are_an_example(tmp_path: Path) -> None:
    from penjing.core.data import first_rows

    np.savez(tmp_path / "data.npz", x=ROWS, y=np.zeros(6))
    np.save(tmp_path / "data.npy", ROWS)
    (tmp_path / "data.csv").write_text("a,b,label\n1,2,x\n3,4,y\n")
    found = first_rows(tmp_path / "data.npz", "y")
    assert isinstance(found, dict)
    assert found["x"].shape == (2, 4)
    assert "y" not in found
    plain, table = ("data.npy", None, ROWS[:2]), ("data.csv", "label", np.zeros((2, 2)))
    for name, target, wanted in (plain, table):
        given = first_rows(tmp_path / name, target)
        assert isinstance(given, tuple)
        np.testing.assert_array_equal(given[0], wanted)


class Two(nn.Module):
    def forward(self, pair: Any, scale: Any = 2.0, *, extra: Any = None) -> Any:
        first, second = (pair["a"], pair["b"]) if isinstance(pair, dict) else pair
        total = first + second * scale
        return total if extra is None else total + extra


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        (((ROWS, ROWS),), ["pair_0", "pair_1"]),
        ({"pair": {"a": ROWS, "b": ROWS}}, ["a", "b"]),
        ({"pair": {"a": ROWS, "b": ROWS}, "scale": ROWS}, ["pair_a", "pair_b", "scale"]),
        ({"a": ROWS, "b": ROWS}, ["a", "b"]),
        (((ROWS, ROWS), 3.0), ["pair_0", "pair_1"]),
    ],
    ids=["tuple", "dict", "two parameters", "dict as the input", "constant"],
)
def test_inputs_may_have_structure(inputs: Any, names: list[str]) -> None:
    from penjing.backends.pytorch_support.calling import arrange, run

    module = Two()
    called = run(module, *arrange(module, inputs))
    assert called.names == names
    with torch.no_grad():
        (given,) = called.call(*called.inputs)
    constants = [leaf for leaf in called.call.leaves if isinstance(leaf, float)]
    factor: Any = constants[0] if constants else ROWS[:2] if len(names) == 3 else 2.0
    np.testing.assert_allclose(given, ROWS[:2] + ROWS[:2] * factor, rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x if x.sum() > 0 else -x, "Net: decides by values of its inputs"),
        (lambda x: [x, "a"], "gives str among its outputs"),
        (lambda x: x.tolist(), "gives float among its outputs"),
        (lambda x: x.reshape(2, 4) * 1.5, "works for one number of samples only"),
        (lambda x: x + torch.randn_like(x), "draw random numbers"),
        (lambda x: torch.linalg.eigvals(x[:, :1] @ x[:, :1].T), "cannot be exported to ONNX"),
        (lambda x: x @ torch.ones(3, 3), "does not run on its example inputs: mat1 and mat2"),
    ],
    ids=["branch", "text", "numbers", "one batch", "random", "no operator", "broken"],
)
def test_modules_that_cannot_be_exported_say_why(function: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        opened(net(function), ROWS)
    assert caught.value.where == "Net"
    assert caught.value.hint


def test_unfinished_and_compiled_modules_are_refused() -> None:
    with pytest.raises(ModelError, match="has lazy layers"):
        opened(nn.LazyLinear(3), ROWS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, but still met with
        compiled = torch.jit.trace(nn.Linear(4, 4), torch.ones(2, 4))
    with pytest.raises(ModelError, match="compiled TorchScript"):
        opened(compiled, ROWS)


def test_modules_need_an_example() -> None:
    with pytest.raises(ModelError, match=r"penjing\.WithExample"):
        opened(nn.Linear(4, 4))
    with pytest.raises(ModelError, match=r"forward\(\) takes signal, mask; .* are a, b"):
        opened(Signals(), {"a": ROWS, "b": ROWS})


def test_files_are_refused_with_a_hint(tmp_path: Path) -> None:
    for name, message in (("a.pt", "from_state_dict"), ("a.pt2", "is no exported program")):
        (tmp_path / name).write_bytes(b"anything")
        with pytest.raises(ModelError, match=message):
            opened(tmp_path / name)


def test_parameters_may_be_called_as_inputs_are() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.arange(20.0))
            self.output = nn.Parameter(torch.arange(20.0) * 2)

        def forward(self, x: Any) -> Any:
            return x * self.x + self.output

    rows = np.ones((3, 20), np.float32)
    (given,) = opened(Scale(), rows).predict({"x": rows}).values()
    np.testing.assert_array_equal(given[0], np.arange(20) * 3)


def test_wrapped_modules_are_unwrapped() -> None:
    from penjing.backends.pytorch_support.exporting import unwrapped

    module = nn.Linear(4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch uses what it calls deprecated
        compiled = torch.compile(module)
    assert unwrapped(compiled) is module
    assert unwrapped(nn.DataParallel(module)) is module


def test_exported_programs_keep_their_shapes() -> None:
    module = nn.Sequential(nn.Linear(4, 30), nn.BatchNorm1d(30)).eval()
    rows = torch.export.Dim("rows")
    free = torch.export.export(
        module, (torch.from_numpy(ROWS),), dynamic_shapes=({0: rows},), strict=False
    )
    model = opened(free)
    assert model.backend.inputs(model.native)[0].shape == (None, 4)
    (given,) = model.predict({"input": ROWS}).values()
    with torch.no_grad():
        np.testing.assert_allclose(given, module(torch.from_numpy(ROWS)), atol=1e-5)
    for mode in (nn.BatchNorm1d(4), nn.Dropout()):
        training = torch.export.export(mode.train(), (torch.from_numpy(ROWS),), strict=False)
        with pytest.raises(ModelError, match="was exported for training"):
            opened(training)


def test_looking_imports_nothing() -> None:
    code = (
        "import sys; from penjing.core.registry import BACKENDS;"
        "assert not BACKENDS.load('pytorch')().recognises(3);"
        "assert not BACKENDS.load('keras')().recognises(3);"
        "assert BACKENDS.load('pytorch')().recognises('a.pt');"
        "assert not {'torch', 'keras', 'onnx', 'onnxscript'} & set(sys.modules)"
    )
    source = Path(__file__).resolve().parents[2] / "src"
    environment = os.environ | {"PYTHONPATH": str(source)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
