"""``penjing train``, ``transfer`` and ``templates`` on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from penjing.core.errors import OutputError
from penjing.core.files import write_file
from penjing.core.registry import TEMPLATES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run

pytest.importorskip("torch")
X = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    np.savez(tmp_path / "train.npz", x=X, y=Y)
    np.savez(tmp_path / "rows.npz", x=X)
    (tmp_path / "table.csv").write_text(
        "a,b,sold\n" + "".join(f"{a},{b},{3 * a - b + 7}\n" for a, b in X[:60, :2])
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_a_model_is_trained_distilled_and_moved(penjing: Run) -> None:
    how = ("--epochs", 20, "--learning-rate", 0.01, "--set", "width=8", "--set", "layers=1")
    done = penjing("train", "mlp", "--train", "train.npz", "-o", "base.onnx", *how, "--json")
    assert done.code == 0, done.err
    found = done.json
    assert found["settings"] == {"width": 8, "layers": 1}
    assert (found["rows"], found["held_out"], found["split"]) == (108, 12, True)
    assert found["metric"] == "accuracy"
    assert found["value"]["value"] > 0.7
    student = penjing(
        *("train", "logistic_regression", "--train", "rows.npz", "-o", "small.onnx"),
        *("--teacher", "base.onnx", "--epochs", 2, "--quiet"),
        *("--l1", 0.001, "--clip-norm", 1, "--precision", "bfloat16", "--patience", 5),
    )
    assert (student.code, student.out, student.err) == (0, "", "")
    moved = penjing(
        *("transfer", "base.onnx", "--train", "train.npz", "-o", "new.onnx"),
        *("--epochs", 2, "--stages", 2, "--l1", 0.001, "--clip-norm", 1),
    )
    assert moved.code == 0, moved.err
    assert "on 12 rows: a tenth of --train, held out" in moved.out
    assert "trained on 108 rows: 2 epochs" in moved.out
    assert "Saved new.onnx" in moved.out
    measured = penjing("evaluate", "base.onnx", "--data", "train.npz", "--json")
    assert measured.json["value"]["value"] > 0.7


@pytest.mark.usefixtures("folder")
def test_a_table_is_enough(penjing: Run) -> None:
    done = penjing(
        *("train", "linear_regression", "--train", "table.csv", "--target", "sold"),
        *("--epochs", 2, "-o", "base.onnx", "--json"),
    )
    assert done.code == 0, done.err
    assert done.json["task"] == "regression"
    assert done.json["metric"] == "rmse"
    done = penjing(
        *("train", "linear_regression", "--train", "table.csv", "--target", "sold"),
        *("--epochs", 2, "-o", "base.onnx"),
    )
    assert "penjing compress base.onnx --data val.csv --target sold" in done.out


@pytest.mark.parametrize(
    ("arguments", "where", "hint"),
    [
        (("train", "mpl"), "template: no template is called 'mpl'", "did you mean 'mlp'"),
        (("train", "mlp", "--set", "width"), "--set: 'width' is no NAME=VALUE", "width=64"),
        (("train", "mlp", "--set", "width=x"), "mlp.width: must be int", ""),
        (("train", "mlp", "--set", "depth=3"), "mlp.depth: no such setting", "width"),
        (("train", "mlp", "--train", "no.npz"), "no.npz: no such file", "--train"),
        (("train", "mlp", "-o", "base.penjing"), "does not end in .onnx", "base.onnx"),
        (("train", "mlp", "-o", "base.pt"), "does not end in .onnx", "other formats"),
        (("train", "mlp", "-o", "gone/base.onnx"), "there is no folder 'gone'", "create it"),
        (("train", "mlp", "-o", "train.onnx", "--teacher", "no.onnx"), "no.onnx: no such", ""),
        (("train", "mlp", "--epochs", "0"), "--epochs: must be above 0", ""),
        (("train", "mlp", "--shift", "2"), "--shift: changes images", "leave it out"),
        (("train", "mlp", "--data", "train.npz"), "the same rows", "leave out --data"),
        (("transfer", "no.onnx"), "no.onnx: no such file", ""),
    ],
)
@pytest.mark.usefixtures("folder")
def test_bad_input_is_told_before_any_training(
    penjing: Run, folder: Path, arguments: tuple[str, ...], where: str, hint: str
) -> None:
    given = [*arguments]
    for option, value in (("--train", "train.npz"), ("-o", "base.onnx")):
        if option not in given:
            given += [option, value]
    before = {path.name for path in folder.iterdir()}
    done = penjing(*given)
    assert done.code == 2
    assert where in done.err
    assert hint in done.err
    assert {path.name for path in folder.iterdir()} == before


def test_templates_are_listed(penjing: Run) -> None:
    listed = penjing("templates")
    assert listed.code == 0
    assert all(name in listed.out for name in TEMPLATES.names())
    one = penjing("templates", "mlp")
    assert "width" in one.out
    assert "relu | gelu | tanh" in one.out
    assert "penjing train mlp" in one.out
    found = penjing("templates", "mlp", "--json").json["templates"][0]
    assert found["takes"] == ["rows of features", "images", "sequences"]
    assert {setting["name"] for setting in found["settings"]} >= {"width", "dropout"}
    for setting in found["settings"]:
        assert setting["help"]
    assert "It has no settings" in penjing("templates", "logistic_regression").out
    wrong = penjing("templates", "mpl")
    assert wrong.code == 2
    assert "did you mean 'mlp'" in wrong.err


@pytest.mark.usefixtures("folder")
def test_checkpoints_need_a_folder(penjing: Run) -> None:
    how = ("--train", "train.npz", "--checkpoints", "rows.npz", "-o", "base.onnx")
    done = penjing("train", "mlp", *how)
    assert done.code == 2
    assert "rows.npz: is no folder" in done.err


def test_a_full_disk_does_not_lose_what_was_trained(
    folder: Path,
    penjing: Run,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))

    def full(path: Path, content: bytes) -> None:
        if path.parent == folder or path.name == "base.onnx":
            raise OutputError(str(path), "cannot be written: the disk is full")
        write_file(path, content)

    monkeypatch.setattr("penjing.engine.learned.write_file", full)
    how = ("--train", "train.npz", "--epochs", 1, "--set", "width=8")
    done = penjing("train", "mlp", *how, "-o", "base.onnx", "--json")
    assert done.code == 2
    assert not (folder / "base.onnx").exists()
    (rescued,) = elsewhere.glob("penjing-*.onnx")
    assert str(rescued) in done.json["error"]["hint"]
    assert penjing("evaluate", rescued, "--data", "train.npz").code == 0
