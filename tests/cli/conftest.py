"""A small model with data, the command line in this process, and one compressed file."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.cli.running import run
from penjing.testing.onnx_models import mlp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., "Outcome"]

ROWS = 900


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Read standard output, which must be exactly one JSON object on one line."""
        assert self.out.endswith("}\n"), self.out + self.err
        assert self.out.count("\n") == 1, self.out
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


def in_process(*arguments: object) -> Outcome:
    """Run one command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([str(argument) for argument in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def penjing() -> Run:
    """Give the function that runs one command in this process."""
    return in_process


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a model, labelled rows, new rows, and the compressed file."""
    import onnx
    import onnxruntime

    folder = tmp_path_factory.mktemp("made")
    onnx.save(mlp(), folder / "model.onnx")
    x = np.random.default_rng(0).normal(size=(ROWS, 12)).astype(np.float32)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    y = session.run(None, {"x": x})[0].argmax(axis=1)
    np.savez(folder / "rows.npz", x=x, y=y)
    np.savez(folder / "new.npz", x=x[:7])
    (folder / "recipe.yaml").write_text("steps:\n  - use: round_to_nearest\n    bits: 8\n")
    done = in_process(
        *("compress", folder / "model.onnx", "--data", folder / "rows.npz"),
        *("--recipe", folder / "recipe.yaml", "--max-drop", "10%"),
        *("-o", folder / "small.penjing", "--json"),
    )
    assert done.code == 0, done.err
    (folder / "summary.json").write_text(done.out)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder of one's own; inputs are links to the shared ones."""
    for name in ("model.onnx", "rows.npz", "new.npz", "recipe.yaml", "small.penjing"):
        (tmp_path / name).symlink_to(made / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path
