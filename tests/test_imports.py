"""What importing penjing brings along, seen from a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "torch",
    "accelerate",
    "keras",
    "onnx",
    "onnxruntime",
    "sklearn",
    "skl2onnx",
    "scipy",
    "pandas",
    "pyarrow",
)


SOURCE = Path(__file__).parents[1] / "src"


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def loaded_after(statement: str) -> list[str]:
    code = f"import sys; {statement}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    "statement",
    [
        "import penjing; penjing.compress; penjing.load; penjing.Recipe",
        "import penjing.cli.app",
        "from penjing.cli.running import run; run(['--help'])",
        "from penjing.core.registry import TECHNIQUES; TECHNIQUES.names()",
        "from penjing.core.registry import TEMPLATES as T; [*map(T.load, T.names())]",
        "import penjing.engine.templating",
    ],
    ids=["package", "command line", "help", "names of techniques", "templates", "templating"],
)
def test_importing_loads_no_framework(statement: str) -> None:
    assert [name for name in loaded_after(statement) if name in HEAVY] == []


def test_the_check_above_sees_a_framework() -> None:
    assert loaded_after("import onnx") == ["onnx"]


def test_help_works_in_a_fresh_process() -> None:
    done = python("-m", "penjing", "--help")
    assert done.returncode == 0
    assert "compress" in done.stdout
    assert done.stderr == ""
