"""A full disk, an interrupt, a closed pipe, a fault of ours: nothing is half-written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Run

SOURCE = Path(__file__).parents[2] / "src"
COMPRESS = ("compress", "model.onnx", "--data", "rows.npz", "--recipe", "recipe.yaml")


@pytest.fixture
def fail_writes(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int]], None]:
    """Give a function: the disk is full at writes of these numbers, counted from 0."""
    really = os.fsync

    def fail(numbers: set[int]) -> None:
        count = iter(range(1000))

        def full(descriptor: int) -> None:
            if next(count) in numbers:
                raise OSError(errno.ENOSPC, "No space left on device")
            really(descriptor)

        monkeypatch.setattr("os.fsync", full)

    return fail


def test_a_full_disk_leaves_the_old_file(
    here: Path, penjing: Run, fail_writes: Callable[[set[int]], None]
) -> None:
    (here / "o.penjing").write_bytes(b"old")
    names = sorted(here.iterdir())
    fail_writes(set(range(1000)))
    done = penjing(*COMPRESS, "-o", "o.penjing", "--json")
    assert done.code == 2
    assert "No space left on device" in done.json["error"]["problem"]
    assert (here / "o.penjing").read_bytes() == b"old"
    assert sorted(here.iterdir()) == names


def test_a_full_disk_does_not_lose_the_result(
    here: Path,
    penjing: Run,
    fail_writes: Callable[[set[int]], None],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    fail_writes({0})
    done = penjing(*COMPRESS, "-o", "o.penjing", "--json")
    assert done.code == 2
    assert not (here / "o.penjing").exists()
    (rescued,) = elsewhere.iterdir()
    assert str(rescued) in done.json["error"]["hint"]
    assert penjing("verify", rescued).code == 0


def test_a_report_that_fails_does_not_take_the_model_along(
    here: Path, penjing: Run, fail_writes: Callable[[set[int]], None]
) -> None:
    fail_writes({1})
    done = penjing(*COMPRESS, "-o", "o.penjing", "--report", "page.html", "--json")
    assert done.code == 2
    assert "o.penjing" in done.json["error"]["hint"]
    assert penjing("verify", "o.penjing").code == 0
    assert not (here / "page.html").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "small.penjing", "--data", "new.npz", "-o", "out.csv"],
        ["unpack", "small.penjing", "-o", "out.onnx"],
    ],
    ids=lambda command: command[0],
)
def test_no_part_of_an_output_is_left(
    here: Path, penjing: Run, fail_writes: Callable[[set[int]], None], command: list[str]
) -> None:
    names = sorted(here.iterdir())
    fail_writes({0})
    assert penjing(*command).code == 2
    assert sorted(here.iterdir()) == names


def started(*arguments: str) -> subprocess.Popen[str]:
    # A shell's background job ignores Ctrl-C, and so would the processes it starts.
    return subprocess.Popen(
        [sys.executable, "-m", "penjing", *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # no threads here
    )


def interrupted_after(process: subprocess.Popen[str], *words: str) -> Iterator[str]:
    """Send Ctrl-C each time the next word is seen; yield everything on standard error."""
    assert process.stderr is not None
    waiting = list(words)
    for line in process.stderr:
        yield line
        if waiting and waiting[0] in line:
            waiting.pop(0)
            process.send_signal(signal.SIGINT)


@pytest.fixture
def large(here: Path) -> Path:
    """Make a model whose search takes seconds."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(400, 400)).astype(np.float32) / 20 for _ in range(4)]
    nodes = [
        helper.make_node("MatMul", [f"h{i}" if i else "x", f"w{i}"], [f"h{i + 1}"])
        for i in range(4)
    ]
    nodes[-1].output[0] = "y"
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 400]) for name in "xy"
    ]
    graph = helper.make_graph(
        nodes,
        "large",
        ports[:1],
        ports[1:],
        [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, "large.onnx")
    np.savez("large.npz", x=rng.normal(size=(3000, 400)).astype(np.float32))
    return here


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise on Windows")
def test_ctrl_c_keeps_the_best_so_far(large: Path, penjing: Run) -> None:
    with started("compress", "large.onnx", "--data", "large.npz", "-o", "o.penjing") as process:
        told = "".join(interrupted_after(process, "probing"))
        out, _ = process.communicate(timeout=120)
    assert "Interrupted: keeping the best result so far" in told
    assert "Saved o.penjing" in out
    assert process.returncode in {0, 3}
    assert penjing("verify", large / "o.penjing").code == 0


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise on Windows")
def test_ctrl_c_twice_leaves_nothing(large: Path) -> None:
    before = sorted(large.iterdir())
    with started("compress", "large.onnx", "--data", "large.npz", "-o", "o.penjing") as process:
        told = "".join(interrupted_after(process, "probing", "Interrupted"))
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert out == ""
    assert told.count("stopped by Ctrl-C") == 1
    assert "Traceback" not in told
    assert sorted(large.iterdir()) == before


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise on Windows")
def test_ctrl_c_while_starting_is_one_clear_error() -> None:
    # The first thing a command imports is caught in the act.
    code = (
        "import os, signal, sys; sys.argv[1:] = ['compress', '--json']; "
        "import penjing.cli as cli; sys.modules['penjing.cli.running'] = None; "
        "find = type('F', (), {'find_spec': lambda *a: os.kill(os.getpid(), signal.SIGINT)}); "
        "sys.meta_path.insert(0, find); del sys.modules['penjing.cli.running']; cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "stopped by Ctrl-C" in done.stderr
    assert json.loads(done.stdout)["exit_code"] == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize(
    "command",
    [["inspect", "small.penjing", "--json"], ["inspect", "small.penjing"], ["--help"]],
    ids=["JSON", "text", "help"],
)
def test_output_that_cannot_be_written_is_one_error(made: Path, command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "penjing", *command],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            cwd=made,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: standard output: cannot be written to: No space")
    assert done.stderr.count("\n") == 2, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="needs a shell that closes streams")
def test_a_closed_output_is_no_fault(made: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"'{sys.executable}' -m penjing inspect small.penjing --json >&-"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        cwd=made,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_pipe_is_no_fault(made: Path) -> None:
    with started("inspect", str(made / "small.penjing")) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(timeout=120) == 141


@pytest.mark.usefixtures("here")
def test_a_fault_of_ours_is_owned_up_to(penjing: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("penjing.api.bench", stumble)
    monkeypatch.delenv("PENJING_DEBUG", raising=False)
    done = penjing("bench", "small.penjing", "--json")
    assert done.code == 1
    assert done.json["exit_code"] == 1
    assert "ZeroDivisionError: division by zero" in done.json["error"]["problem"]
    assert "PENJING_DEBUG=1" in done.json["error"]["hint"]
    assert "Traceback" not in done.err
    monkeypatch.setenv("PENJING_DEBUG", "1")
    assert "in stumble" in penjing("bench", "small.penjing").err


@pytest.mark.usefixtures("here")
def test_a_missing_extra_is_found_before_the_search(
    penjing: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penjing.cli.paths.find_spec", lambda _: None)
    done = penjing("compress", "model.onnx", "--data", "rows.npz", "--report", "page.html")
    assert done.code == 2
    assert "pip install 'penjing[report]'" in done.err
    assert "Split" not in done.err
