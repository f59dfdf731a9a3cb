"""Files of torch.export: read like the programs they hold, and nothing in them is ever run."""

from __future__ import annotations

import pickle
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penjing
from attacks.exported import CODE, MARK, Payload, Program
from attacks.programs import PROGRAMS, UNUSED
from penjing.core.errors import ModelError
from penjing.engine import latency

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402
from torch.utils._pytree import tree_leaves as leaves  # noqa: E402

from penjing.backends.pytorch_support import grammar, programs  # noqa: E402
from penjing.cli.running import run  # noqa: E402
from penjing.testing.torch_models import conv_net  # noqa: E402

if TYPE_CHECKING:
    from penjing.core.tensors import Array

RNG = np.random.default_rng(0)
ONE_STEP = "steps:\n- use: round_to_nearest\n"


class Reader(nn.Module):
    """An LSTM that sorts sequences of words into three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.lstm = nn.LSTM(8, 12, batch_first=True)
        self.scores = nn.Linear(12, 3)

    def forward(self, tokens: Any) -> dict[str, Any]:
        states, _ = self.lstm(self.words(tokens))
        return {"logits": self.scores(states[:, -1]) * 4}


@cache
def module_and_rows(name: str) -> tuple[Any, Array]:
    torch.set_num_threads(1)
    if name == "conv":
        return conv_net().model.eval(), RNG.normal(size=(300, 2, 8, 8)).astype(np.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Reader().eval(), RNG.integers(0, 20, (300, 7))


def saved(name: str, folder: Path) -> Path:
    module, rows = module_and_rows(name)
    path = folder / f"{name}.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about how LSTMs hold their weights
        program = torch.export.export(
            module,
            (torch.from_numpy(rows[:2]),),
            dynamic_shapes=({0: torch.export.Dim("rows")},),
            strict=False,
        )
        torch.export.save(program, path)
    return path


def scores(name: str) -> Array:
    module, rows = module_and_rows(name)
    with torch.no_grad():
        (found,) = leaves(module(torch.from_numpy(rows)))
    return np.asarray(found.numpy())


@pytest.fixture(autouse=True)
def _no_time_for_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "MOST_RUNS", latency.FEWEST_RUNS)


def test_a_file_is_compressed_from_python(tmp_path: Path) -> None:
    _, rows = module_and_rows("lstm")
    path = saved("lstm", tmp_path)
    model = penjing.wrap(path)
    (given,) = model.predict({"tokens": rows}).values()
    np.testing.assert_allclose(given, scores("lstm"), atol=1e-4)
    (tmp_path / "one.yaml").write_text(ONE_STEP)
    found = penjing.compress(
        path,
        {"tokens": rows, "y": scores("lstm").argmax(1)},
        budget=penjing.Budget(max_drop=0.2, confidence=None),
        recipe=tmp_path / "one.yaml",
    )
    found.artifact.save(tmp_path / "small.penjing")
    small = penjing.load(tmp_path / "small.penjing").run({"tokens": rows})["logits"]
    assert np.mean(small.argmax(1) == scores("lstm").argmax(1)) > 0.9
    assert not np.array_equal(small, given)


def test_a_file_is_compressed_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, rows = module_and_rows("conv")
    np.savez(tmp_path / "val.npz", image=rows)
    (tmp_path / "one.yaml").write_text(ONE_STEP)
    command = ["compress", str(saved("conv", tmp_path)), "--data", str(tmp_path / "val.npz")]
    command += ["--recipe", str(tmp_path / "one.yaml"), "-o", str(tmp_path / "small.penjing")]
    code = run([*command, "--max-drop", "20%"])
    assert code in {0, 1}, capsys.readouterr().err
    small = penjing.load(tmp_path / "small.penjing").run({"image": rows})
    (given,) = small.values()
    error = np.abs(given - scores("conv")).max()
    assert 0 < error < 0.1 * np.ptp(scores("conv"))


def test_the_program_that_the_attacks_change_is_read(tmp_path: Path) -> None:
    (tmp_path / "plain.pt2").write_bytes(Program().build())
    program = programs.load(tmp_path / "plain.pt2")
    np.testing.assert_array_equal(program.module()(torch.ones(3, 4))[2], [1, 2, 3, 4])


def test_the_payloads_of_the_attacks_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sympy = pytest.importorskip("sympy")
    pickle.loads(pickle.dumps(Payload()))  # noqa: S301  # our own
    assert Path(MARK).exists()
    Path(MARK).unlink()
    sympy.sympify(CODE)
    assert Path(MARK).exists()


@pytest.mark.parametrize("name", PROGRAMS)
def test_hostile_files_are_refused_and_nothing_is_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hostile.pt2").write_bytes(PROGRAMS[name].build())
    with pytest.raises(ModelError, match=PROGRAMS[name].met_by) as caught:
        penjing.wrap("hostile.pt2")
    assert "give the module in Python" in caught.value.hint
    assert not Path(MARK).exists()
    assert not (tmp_path.parent / MARK).exists()


@pytest.mark.parametrize("name", UNUSED)
def test_code_where_nothing_is_read_is_not_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("odd.pt2").write_bytes(UNUSED[name].build())
    program = programs.load(Path("odd.pt2"))
    np.testing.assert_array_equal(program.module()(torch.ones(3, 4))[2], [1, 2, 3, 4])
    assert not Path(MARK).exists()


def test_nothing_is_unpickled_or_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("this is not to be called")

    path = saved("conv", tmp_path)
    for holder, name in (
        (torch, "load"),
        (torch.export, "load"),
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch.ops, "load_library"),
    ):
        monkeypatch.setattr(holder, name, refuse)
    assert programs.load(path).module()(torch.ones(2, 2, 8, 8)).shape == (2, 4)


@pytest.mark.parametrize(
    "text",
    [
        "Mul(Integer(4), Max(Integer(1), FloorDiv(Symbol('s0', integer=True), Integer(2))))",
        "LessThan(Symbol('u0', integer=True), Integer(600))",
        "Pow(Add(Symbol('s77', positive=True, integer=True), Integer(-1)), Integer(2))",
        "Mul(Float('0.5', precision=53), Pow(Symbol('s1'), Integer(-1)))",
        "2 * s0 + u1 // 3 - Mod(s0, 2)",
        "(s0 + 1) ** 2",
    ],
)
def test_arithmetic_of_sizes_is_accepted_as_it_is(text: str) -> None:
    assert grammar.expression(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "torch.ops.aten.conv2d.default",
        "torch.ops.aten.__and__.Tensor",
        "torch.ops.aten.gelu.default",
        "torch.ops.aten._assert_scalar.default",
        "torch.ops.prims.convert_element_type.default",
        "torch.ops.higher_order.cond",
        "_operator.floordiv",
        "torch.sym_max",
    ],
)
def test_operators_of_pytorch_are_accepted(text: str) -> None:
    assert grammar.target(text) == text


def test_choices_and_conditions_are_read(tmp_path: Path) -> None:
    class Chooses(nn.Module):
        def forward(self, x: Any) -> Any:
            rows, columns = x.shape
            shaped = nn.functional.gelu(x.reshape(columns * rows), approximate="tanh")
            lookup = torch.tensor([1.0, 2.0])
            whole = torch.div(shaped.reshape(rows, columns), 0.5, rounding_mode="floor")
            both = (x > 0) & (x < 1)
            chosen = torch.cond(x.sum() > 0, lambda t: t + 1, lambda t: t - 1, (x,))
            return {"whole": whole * both * lookup.sum(), "chosen": chosen}

    x = torch.linspace(-2, 3, 12).reshape(4, 3)
    rows = torch.export.Dim("rows", min=2, max=64)
    program = torch.export.export(Chooses(), (x,), dynamic_shapes=({0: rows},), strict=False)
    torch.export.save(program, tmp_path / "chooses.pt2", extra_files={"notes.txt": "not read"})
    found = programs.load(tmp_path / "chooses.pt2").module()(x[:3])
    wanted = Chooses()(x[:3])
    for name in ("whole", "chosen"):
        np.testing.assert_array_equal(found[name], wanted[name])
