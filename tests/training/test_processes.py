"""Several processes do what one does; the main one alone talks and writes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import penjing
from penjing.core.errors import ConfigError
from penjing.core.processes import is_main, processes

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")
pytest.importorskip("onnx")
if not torch.distributed.is_available():
    pytest.skip("PyTorch was built for one process", allow_module_level=True)

if TYPE_CHECKING:
    from collections.abc import Mapping

SCRIPT = """
import os, sys, warnings
import numpy as np

warnings.simplefilter("ignore")

from penjing.core.data import Part, open_data
from penjing.core.errors import ConfigError
from penjing.core.parametrizations import Encoded
from penjing.core.training import Optimization, Plan, TrainingSettings
from penjing.testing.models import onnx_model
from penjing.training.trainer import TorchTrainer


def train(batch_size, rows=50, **more):
    model = onnx_model("conv")
    rng = np.random.default_rng(3)
    x = rng.normal(size=(rows, 4, 8, 8)).astype(np.float32)
    y = rng.integers(0, 3, rows)
    data = open_data({"x": x, "y": y}, model.backend.inputs(model.native))
    settings = TrainingSettings(
        Optimization(batch_size=batch_size, shift=1, mirror=True, clip_norm=1.0, **more)
    )
    made = {n: Encoded(w.tensor) for n, w in model.weights().items() if w.is_float}
    trainer = TorchTrainer(Part(data, np.arange(rows)), (model,), settings)
    found = trainer.fit(model, Plan(made, 4, 0.01))
    return {f"{n} {k}": array for n, held in found.items() for k, array in held.items()}


if __name__ == "__main__":
    rank = os.environ["RANK"]
    np.savez(f"found-{rank}.npz", **train(8, patience=3))
    np.savez(f"few-{rank}.npz", **train(2, 3))
    try:
        train(9)
    except ConfigError as error:
        open(f"refused-{rank}.txt", "w").write(str(error))
    from penjing.cli import main

    sys.argv[1:] = [
        "compress", "model.onnx", "--data", "rows.npz", "--train", "train.npz", "--json",
        "--recipe", "recipe.yaml", "--max-drop", "90%", "--confidence", "none",
        "-o", "small.penjing",
    ]
    main()
"""
RECIPE = """
training: {batch_size: 16}
steps:
  - {use: fine_tuning, epochs: 3, learning_rate: 0.01}
  - {use: round_to_nearest, bits: 8}
"""


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the script in two processes, as torchrun would; give the folder, and the output."""
    import onnx

    from penjing.testing.onnx_models import mlp

    folder = tmp_path_factory.mktemp("together")
    onnx.save(mlp(), folder / "model.onnx")
    x = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
    y = x[:, :3].argmax(axis=1)
    np.savez(folder / "rows.npz", x=x[:200], y=y[:200])
    np.savez(folder / "train.npz", x=x[200:], y=y[200:])
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "script.py").write_text(SCRIPT)
    source, port = str(Path(penjing.__file__).parents[1]), str(free_port())
    common = {
        **os.environ,
        "PYTHONPATH": source,
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "CUDA_VISIBLE_DEVICES": "",
    }
    started = [
        subprocess.Popen(  # ourselves
            [sys.executable, "script.py"],
            cwd=folder,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert said[1] == ("", "")
    return folder, said[0][0]


def close(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], most: float) -> None:
    """Compare what was trained."""
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=most, err_msg=name)


def test_two_processes_find_what_one_finds(together: tuple[Path, str]) -> None:
    """Batches that do not halve, augmentation, early stopping: to rounding, the same."""
    folder, _ = together
    first, second = (dict(np.load(folder / f"found-{rank}.npz")) for rank in range(2))
    close(first, second, 0.0)
    scope: dict[str, object] = {"__name__": "script"}
    exec(SCRIPT, scope)  # noqa: S102  # the text above
    train = scope["train"]
    assert callable(train)
    alone = train(8, patience=3)
    close(first, alone, 2e-4)
    moved = max(float(np.abs(alone[name] - train(8)[name]).max()) for name in list(alone)[:1])
    assert moved > 2e-4, "the tolerance tells nothing apart"


def test_fewer_rows_than_processes_are_no_trouble(together: tuple[Path, str]) -> None:
    """A batch of one row is the work of one process, and counts once."""
    first, second = (dict(np.load(together[0] / f"few-{rank}.npz")) for rank in range(2))
    close(first, second, 0.0)
    scope: dict[str, object] = {"__name__": "script"}
    exec(SCRIPT, scope)  # noqa: S102  # the text above
    train = scope["train"]
    assert callable(train)
    close(first, train(2, 3), 2e-4)


def test_batches_that_cannot_be_shared_are_refused(together: tuple[Path, str]) -> None:
    """Every process says the same."""
    for rank in range(2):
        told = (together[0] / f"refused-{rank}.txt").read_text()
        assert "must be a multiple of the number of processes, 2, got 9" in told
        assert "8 would do" in told


def test_only_the_main_process_talks_and_writes(together: tuple[Path, str]) -> None:
    """One line of JSON; one file, of what one process finds, to rounding; no checkpoints."""
    folder, out = together
    assert out.count("\n") == 1
    assert json.loads(out)["exit_code"] == 0
    names = {path.name for path in folder.iterdir() if path.suffix in {"", ".penjing", ".part"}}
    assert names == {"small.penjing"}
    session = penjing.load(folder / "small.penjing")
    assert session is not None


def test_stray_variables_do_not_silence_a_single_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only all that torchrun sets makes a process one of several."""
    monkeypatch.setenv("RANK", "3")
    assert is_main()
    assert processes() == 1
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert not is_main()
    assert processes() == 4


def test_a_time_limit_is_refused_where_processes_train_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each would stop at a step of its own, and wait for the others for ever."""
    from penjing.testing.onnx_models import mlp

    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    x = np.random.default_rng(0).normal(size=(60, 12)).astype(np.float32)
    with pytest.raises(ConfigError, match="reach it at different steps"):
        penjing.compress(mlp(), x, time_limit_s=5.0)
