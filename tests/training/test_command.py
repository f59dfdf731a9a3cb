"""Training from the command line: killed, interrupted, failing; and what is left then."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penjing as package
from penjing.cli.running import run

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")
onnx = pytest.importorskip("onnx")

RECIPE = """
training: {batch_size: 16}
steps:
  - {use: round_to_nearest, bits: 4}
  - {use: fine_tuning, epochs: %s, learning_rate: %s}
"""
DRIVER = """
import sys
from penjing.cli import main
from penjing.training import loop
loop.SAVE_EVERY_S = 0.0
main()
"""
"""Saves whenever it can."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a model, rows, rows to train on, and a recipe that trains."""
    from penjing.testing.onnx_models import mlp

    onnx.save(mlp(), tmp_path / "model.onnx")
    x = np.random.default_rng(0).normal(size=(500, 12)).astype(np.float32)
    y = x[:, :3].argmax(axis=1)
    np.savez(tmp_path / "rows.npz", x=x[:400], y=y[:400])
    np.savez(tmp_path / "train.npz", x=x[400:], y=y[400:])
    (tmp_path / "recipe.yaml").write_text(RECIPE % (60, 0.001))
    (tmp_path / "driver.py").write_text(DRIVER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(*more: str) -> list[str]:
    """Give the command that trains."""
    return [
        *("compress", "model.onnx", "--data", "rows.npz", "--train", "train.npz"),
        *("--recipe", "recipe.yaml", "--max-drop", "90%", "--confidence", "none"),
        *("-o", "small.penjing", *more),
    ]


def penjing(*more: str) -> tuple[int, str, str]:
    """Run the command in this process; give the exit code, and what it said."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(arguments(*more))
    return code, out.getvalue(), err.getvalue()


def digest(folder: Path) -> str:
    """Digest the result, and take it away."""
    path = folder / "small.penjing"
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    path.unlink()
    return found


def test_a_killed_command_goes_on_to_the_same_file(here: Path) -> None:
    """SIGKILL in the middle of training; the same command then ends with the same bytes."""
    started = subprocess.Popen(  # ourselves
        [sys.executable, "driver.py", *arguments()],
        env={**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    kept = here / "small.penjing.checkpoints"
    while started.poll() is None and not list(kept.glob("*.checkpoint")):
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL, "it was done before it could be killed"
    assert not (here / "small.penjing").exists()
    assert list(kept.glob("*.checkpoint"))
    code, _, err = penjing()
    assert code == 0, err
    assert not kept.exists()
    resumed = digest(here)
    code, _, err = penjing()
    assert code == 0, err
    assert digest(here) == resumed


def test_a_killed_training_from_data_goes_on_to_the_same_file(here: Path) -> None:
    """``penjing train`` keeps its state beside the output, and takes it away at the end."""
    command = [
        *("train", "mlp", "--train", "train.npz", "--epochs", "300", "--set", "width=8"),
        *("-o", "base.onnx", "--quiet"),
    ]
    kept = here / "base.onnx.checkpoints"
    started = subprocess.Popen(  # ourselves
        [sys.executable, "driver.py", *command],
        env={**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])},
        stderr=subprocess.DEVNULL,
    )
    while started.poll() is None and not list(kept.glob("*.checkpoint")):
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL, "it was done before it could be killed"
    assert not (here / "base.onnx").exists()
    files = []
    for _ in range(2):
        assert run(command) == 0
        assert not kept.exists()
        files.append((here / "base.onnx").read_bytes())
    assert files[0] == files[1]


def test_an_interrupted_command_keeps_what_it_has_and_goes_on(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C before a recipe has given its result keeps the state: the same command goes on."""
    from penjing.training import stepping

    code, _, err = penjing("--max-size", "1800")
    assert code == 0, err
    whole = digest(here)
    pressed: list[int] = []
    usual = stepping.mixed

    def press(seed: int, step: int) -> int:
        if step == 100 and not pressed:
            pressed.append(step)
            signal.raise_signal(signal.SIGINT)
        return usual(seed, step)

    monkeypatch.setattr(stepping, "mixed", press)
    code, out, err = penjing("--max-size", "1800", "--json")
    assert code == 2, err
    assert "stopped by Ctrl-C" in json.loads(out)["error"]["problem"]
    assert not (here / "small.penjing").exists()
    assert list((here / "small.penjing.checkpoints").glob("*.checkpoint"))
    code, _, err = penjing("--max-size", "1800")
    assert code == 0, err
    assert digest(here) == whole
    assert not (here / "small.penjing.checkpoints").exists()


def test_a_recipe_that_is_cut_short_has_no_result_and_goes_on(here: Path) -> None:
    """Time that is up ends a recipe as Ctrl-C does: with its state kept, and no file."""
    code, _, err = penjing()
    assert code == 0, err
    whole = digest(here)
    code, out, err = penjing("--time-limit", "0.001", "--json")
    assert code == 2, err
    told = json.loads(out)["error"]
    assert told["where"] == "--time-limit"
    assert "before the recipe was done: it has no result" in told["problem"]
    assert not (here / "small.penjing").exists()
    code, _, err = penjing()
    assert code == 0, err
    assert digest(here) == whole


def test_a_changed_recipe_does_not_take_old_checkpoints_up(here: Path) -> None:
    """It is told that the folder holds those of something else; and they stay."""
    kept = here / "small.penjing.checkpoints"
    kept.mkdir()
    (kept / f"{'0' * 32}.checkpoint").write_bytes(b"of another model")
    code, _, err = penjing()
    assert code == 0
    assert "holds checkpoints of another model, or of other data or settings" in err
    assert [path.name for path in kept.iterdir()] == [f"{'0' * 32}.checkpoint"]


def test_a_loss_that_stays_nan_is_an_error_and_nothing_is_written(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, with what to change."""
    from penjing.training import losses, trainer

    def broken(*given: Any, **more: Any) -> Any:
        return losses.total_loss(*given, **more) * float("nan")

    monkeypatch.setattr(trainer, "total_loss", broken)
    code, out, err = penjing()
    assert code == 2
    assert "the loss is no number" in err
    assert "Hint: set a learning_rate below" in err
    assert not out
    left = {path.name for path in here.iterdir()}
    assert left == {"model.onnx", "rows.npz", "train.npz", "recipe.yaml", "driver.py"}


def test_a_loss_that_is_nan_at_high_rates_ends_well(here: Path) -> None:
    """The loop takes smaller rates until it is a number."""
    recipe = "training: {optimizer: sgd, batch_size: 16}\n" + RECIPE.partition("}\n")[2]
    (here / "recipe.yaml").write_text(recipe % (4, 10))
    code, _, err = penjing()
    assert code == 0, err
    assert "Note: the loss is no number: back to step" in err


def test_rows_that_are_trained_on_and_judged_by_are_counted(here: Path) -> None:
    """The warning says how many of how many, and where."""
    (here / "recipe.yaml").write_text(RECIPE % (1, 0.001))
    rows, train, rng = np.load("rows.npz"), np.load("train.npz"), np.random.default_rng(1)
    test = rng.normal(size=(50, 12)).astype(np.float32)
    test[:7] = train["x"][:7]
    with pytest.warns(package.PenjingWarning) as caught:
        package.compress(
            "model.onnx",
            {"x": rows["x"], "y": rows["y"]},
            test={"x": test, "y": np.arange(50) % 3},
            train="train.npz",
            recipe="recipe.yaml",
            budget=package.Budget(max_drop=0.9, confidence=None),
        )
    (told,) = [str(each.message) for each in caught if "trained on" in str(each.message)]
    assert told.startswith("7 of 50 rows that certify")
    assert "train.npz" in told


def test_several_teachers_make_one_student_by_a_recipe(here: Path) -> None:
    """Others speak with the original: the student is not the one that it alone would make."""
    other = onnx.load("model.onnx")
    for tensor in other.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array[..., ::-1].copy(), tensor.name))
    onnx.save(other, "other.onnx")
    (here / "recipe.yaml").write_text("distillation: {weight: 1.0}\n" + RECIPE % (2, 0.01))
    made = []
    for more in ((), ("--teacher", "other.onnx")):
        code, _, err = penjing(*more, "--quiet")
        assert code == 0, err
        made.append(digest(here))
    assert made[0] != made[1]


def test_teachers_that_do_not_fit_are_refused(here: Path) -> None:
    """By their inputs, by their outputs, and where nothing would listen to them."""
    named = onnx.load("model.onnx")
    named.graph.output[0].name = "z"
    named.graph.node[-1].output[0] = "z"
    onnx.save(named, "outputs.onnx")
    named = onnx.load("model.onnx")
    named.graph.input[0].name = "u"
    named.graph.node[0].input[0] = "u"
    onnx.save(named, "inputs.onnx")
    code, _, err = penjing("--teacher", "outputs.onnx")
    assert (code, "does not give 'y'" in err) == (2, True), err
    code, _, err = penjing("--teacher", "inputs.onnx")
    assert (code, "--teacher" in err) == (2, True), err
    (here / "recipe.yaml").write_text("steps: [{use: round_to_nearest}]")
    code, _, err = penjing("--teacher", "model.onnx")
    assert (code, "--teacher: is of no use" in err) == (2, True), err
