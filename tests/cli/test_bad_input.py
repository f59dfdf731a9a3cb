"""Every mistake: one clear message, exit code 2, and nothing is left behind or lost."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.testing.onnx_models import mlp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Run

MODEL = ("compress", "model.onnx", "--data", "rows.npz")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def refused(penjing: Run, here: Path, *arguments: object) -> str:
    """Check a refusal, as text and as JSON; give its message."""
    before = snapshot(here)
    shown = penjing(*arguments)
    assert (shown.code, shown.out) == (2, "")
    assert shown.err.count("Error: ") == 1
    assert "Traceback" not in shown.err
    told = penjing(*arguments, "--json")
    assert told.code == 2
    assert told.json["exit_code"] == 2
    error = told.json["error"]
    assert set(error) == {"where", "problem", "hint"}
    assert error["where"]
    assert error["problem"] in shown.err
    assert snapshot(here) == before
    return f"{error['where']}: {error['problem']} ({error['hint']})"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compress"], "Missing"),
        (["compress", "model.onnx"], "--data"),
        (["polish", "model.onnx"], "No such command"),
        ([*MODEL, "--max-drops", "1%"], "--max-drops"),
        ([*MODEL, "--max-drop", "half"], "--max-drop: is not a share"),
        ([*MODEL, "--max-drop", "100%"], "--max-drop: must be in [0, 1), got '100%'"),
        ([*MODEL, "--max-drop", "-1%"], "--max-drop: must not be negative"),
        ([*MODEL, "--max-drop", "-x"], "--max-drop: is not a share"),
        ([*MODEL, "--max-size", "big"], "--max-size: is not a size"),
        ([*MODEL, "--max-size", "0"], "--max-size: must be at least one byte, got '0' (write"),
        ([*MODEL, "--confidence", "40%"], "--confidence: must be at least 50%"),
        ([*MODEL, "--confidence", "95"], "below 100%, got '95'"),
        ([*MODEL, "--confidence", "sure"], "--confidence: is not a share"),
        ([*MODEL, "--time-limit", "soon"], "--time-limit: is not a duration"),
        ([*MODEL, "--time-limit", "h"], "--time-limit: is not a duration"),
        ([*MODEL, "--seed", "-1"], "--seed"),
        ([*MODEL, "--seed", "x"], "--seed"),
        ([*MODEL, "--metric", "accurate"], "did you mean 'accuracy'?"),
        ([*MODEL, "--metric", "acc"], "did you mean 'accuracy'?"),
        ([*MODEL, "--metric", "rmse"], "--metric rmse: wrong for the task"),
        (["compress", "nope.onnx", "--data", "rows.npz"], "nope.onnx: no such file"),
        (["compress", ".", "--data", "rows.npz"], "is a folder (give the file inside it"),
        (["compress", "model.onnx", "--data", "."], "is a folder (give --data the name"),
        (["inspect", "."], "is a folder (give the file inside it"),
        (["compress", "small.penjing", "--data", "rows.npz"], "is compressed already"),
        (["compress", "model.onnx", "--data", "nope.npz"], "nope.npz: no such file"),
        ([*MODEL, "--test", "nope.npz"], "given with --test"),
        ([*MODEL, "--calibration", "nope.npz"], "given with --calibration"),
        ([*MODEL, "--test", "rows.npz"], "same rows"),
        ([*MODEL, "--recipe", "nope.yaml"], "nope.yaml: cannot be read"),
        ([*MODEL, "-o", "."], "is a folder"),
        ([*MODEL, "-o", "nowhere/o.penjing"], "there is no folder 'nowhere'"),
        ([*MODEL, "-o", "model.onnx"], "is one of the inputs"),
        ([*MODEL, "-o", "rows.npz"], "is one of the inputs"),
        ([*MODEL, "--report", "nowhere/page.html"], "there is no folder 'nowhere'"),
        ([*MODEL, "-o", "both", "--report", "both"], "given for --output, too"),
        ([*MODEL, "-o", "o.onnx"], "ends in .onnx, but a .penjing file would be written"),
        (["evaluate", "nope.penjing", "--data", "rows.npz"], "no such file"),
        (["evaluate", "small.penjing", "--data", "new.npz"], "has no labels"),
        (
            ["evaluate", "small.penjing", "--data", "rows.npz", "--metric", "r3"],
            "--metric: no metric is called 'r3'",
        ),
        (
            ["evaluate", "small.penjing", "--data", "rows.npz", "--metric", "agreement"],
            "--metric: agreement compares a model with its original",
        ),
        (["predict", "small.penjing", "--data", "new.npz", "-o", "o.xlsx"], "'.xlsx'"),
        (["predict", "small.penjing", "--data", "new.npz", "-o", "new.npz"], "the inputs"),
        (["bench", "nope.penjing"], "no such file"),
        (["bench", "small.penjing", "--batch", "0"], "--batch"),
        (["inspect", "model.onnx"], "not a .penjing file"),
        (["verify", "nope.penjing"], "no such file"),
        (["unpack", "model.onnx", "-o", "o.onnx"], "not a .penjing file"),
        (["unpack", "small.penjing", "-o", "nowhere/o.onnx"], "no folder"),
        (["unpack", "small.penjing", "-o", "o.txt"], "but an .onnx file would be written"),
        (["unpack", "small.penjing", "-o", "small.penjing"], "the inputs"),
        (["unpack", "small.penjing", "-o", "o.onnx", "--form", "int4"], "known: float, qdq"),
        (["techniques", "gptk"], "did you mean 'gptq'?"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_wrong_arguments(here: Path, penjing: Run, arguments: list[str], message: str) -> None:
    assert message in refused(penjing, here, *arguments)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.onnx", b"", "is not an ONNX model"),
        ("model.onnx", b"<!doctype html>", "is not an ONNX model"),
        ("model.pkl", b"\x80\x04.", "is a pickle"),
        ("model.h5", b"\x89HDF", "no kind of model file"),
    ],
    ids=["empty", "web page", "pickle", "other framework"],
)
def test_what_is_no_model(
    here: Path, penjing: Run, name: str, content: bytes, message: str
) -> None:
    (here / name).unlink(missing_ok=True)
    (here / name).write_bytes(content)
    assert message in refused(penjing, here, "compress", name, "--data", "rows.npz")


def with_weight(change: Callable[[Any], Any]) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        from onnx import numpy_helper

        first = model.graph.initializer[0]
        array = change(numpy_helper.to_array(first).copy())
        first.CopyFrom(numpy_helper.from_array(array, first.name))

    return edit


def spoilt(array: Any) -> Any:
    array[0, 0] = np.nan
    return array


def newest(model: Any) -> None:
    model.opset_import[0].version = 9999


def without_weights(model: Any) -> None:
    from onnx import helper

    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.append(helper.make_node("Relu", ["x"], ["y"]))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (with_weight(spoilt), "odd.onnx, weight 'w1': holds 1 values that are NaN"),
        (newest, "odd.onnx: uses opset 9999; ONNX Runtime"),
        (without_weights, "odd.onnx: has no weights to compress"),
    ],
    ids=["NaN in a weight", "opset of the future", "no weights"],
)
def test_models_that_cannot_be_compressed(
    here: Path, penjing: Run, edit: Callable[[Any], None], message: str
) -> None:
    import onnx

    model = mlp()
    edit(model)
    onnx.save(model, "odd.onnx")
    told = refused(penjing, here, "compress", "odd.onnx", "--data", "rows.npz")
    assert message in told


ROWS = np.random.default_rng(1).normal(size=(60, 12)).astype(np.float32)
LABELS = np.arange(60) % 3


def broken(rows: Any) -> Any:
    rows = rows.copy()
    rows[3, 4] = np.nan
    return rows


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": ROWS[:, :5], "y": LABELS}, "array 'x': has shape (60, 5)"),
        (
            {"x": broken(ROWS), "y": LABELS},
            "NaN or infinite: 1 of the values, the first in row 3",
        ),
        ({"x": ROWS.astype(str), "y": LABELS}, "array 'x': holds strings"),
        ({"x": ROWS[:0], "y": LABELS[:0]}, "has no rows"),
        ({"x": ROWS[:1], "y": LABELS[:1]}, "too few to divide"),
        ({"x": ROWS, "y": LABELS[:9]}, "differ in their number of rows: 60"),
        ({"x": ROWS, "y": LABELS + 7}, "has 3 classes"),
        ({"unknown": ROWS, "y": LABELS, "more": ROWS}, "has no array 'x'"),
    ],
    ids=[
        *(
            "shape",
            "NaN",
            "text",
            "no rows",
            "one row",
            "labels too few",
            "labels out of range",
        ),
        "wrong names",
    ],
)
def test_data_that_do_not_fit(
    here: Path, penjing: Run, arrays: dict[str, Any], message: str
) -> None:
    np.savez("odd.npz", **arrays)
    told = refused(penjing, here, "compress", "model.onnx", "--data", "odd.npz")
    assert message in told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [", "odd.yaml, line 1, column 9: not valid YAML"),
        ("- not a table", "odd.yaml: must be a table"),
        ("- use: gptq", "(write 'steps:' above the list)"),
        ("", "odd.yaml: is empty (a recipe holds 'steps:'"),
        ("steps:\n  - use: gptk\n", "did you mean 'gptq'?"),
        (
            "steps:\n  - use: gptq\n    bits: 99\n",
            "odd.yaml, steps[0].bits: must be int in [2, 8], got 99 ('penjing techniques gptq'",
        ),
        (
            "steps:\n  - use: gptq\n    only: nothing*\n",
            "odd.yaml, steps[0]: gptq found no weights to work on",
        ),
        ("\x00\x01", "odd.yaml: not valid YAML"),
    ],
    ids=[
        "no YAML",
        "a list",
        "no steps",
        "empty",
        "unknown technique",
        "out of range",
        "no weight",
        "binary",
    ],
)
def test_recipes_that_cannot_be_followed(
    here: Path, penjing: Run, text: str, message: str
) -> None:
    (here / "odd.yaml").write_text(text)
    assert message in refused(penjing, here, *MODEL, "--recipe", "odd.yaml")


def test_a_recipe_that_is_no_text(here: Path, penjing: Run) -> None:
    (here / "odd.yaml").write_bytes(b"\xff\xfe\x00")
    told = refused(penjing, here, *MODEL, "--recipe", "odd.yaml")
    assert "is not a text file" in told


@pytest.mark.parametrize("at", [0, 9, 60, 200, -1], ids=lambda at: f"byte {at}")
@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "odd.penjing"],
        ["unpack", "odd.penjing", "-o", "o.onnx"],
        ["predict", "odd.penjing", "--data", "new.npz", "-o", "o.csv"],
        ["evaluate", "odd.penjing", "--data", "rows.npz"],
        ["bench", "odd.penjing"],
    ],
    ids=lambda command: command[0],
)
def test_damaged_files(here: Path, penjing: Run, command: list[str], at: int) -> None:
    data = bytearray((here / "small.penjing").read_bytes())
    data[at] ^= 0x40
    (here / "odd.penjing").write_bytes(data)
    refused(penjing, here, *command)


def test_names_in_messages_cannot_steer_the_terminal(penjing: Run) -> None:
    done = penjing("verify", "\x1b[31mred\x1b]0;title\x07")
    assert done.code == 2
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", done.err)


@pytest.mark.skipif(os.name == "nt", reason="folders have no such permissions on Windows")
@pytest.mark.parametrize("option", ["-o", "--report"])
def test_folders_that_cannot_be_written_to(
    here: Path, penjing: Run, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = here / "locked"
    locked.mkdir()
    if os.access(locked, os.W_OK) and os.geteuid() == 0:
        # Nothing is locked for root: let the probe fail the way it does for others.
        def deny(**_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("tempfile.TemporaryFile", deny)
    locked.chmod(0o500)
    told = refused(penjing, here, *MODEL, option, "locked/file")
    assert "cannot be written to: Permission denied" in told


@pytest.mark.parametrize("option", ["-o", "--report"])
def test_read_only_files_stay_as_they_are(
    here: Path, penjing: Run, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "kept").write_bytes(b"precious")
    really = os.access
    monkeypatch.setattr(
        "os.access",
        lambda path, mode: (str(path), mode) != ("kept", os.W_OK) and really(path, mode),
    )
    assert "read-only" in refused(penjing, here, *MODEL, option, "kept")
