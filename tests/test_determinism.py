"""The same input, settings and seed give the same file, byte for byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penjing
from penjing.testing.onnx_models import TOYS

if TYPE_CHECKING:
    from pathlib import Path

onnx = pytest.importorskip("onnx")

PROGRAM = """
import json, os, sys
cores = json.loads(sys.argv[1])
if cores and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, cores)
import penjing
from penjing.engine import latency
latency.MOST_RUNS = latency.FEWEST_RUNS
budget = penjing.Budget(max_drop=0.05)
result = penjing.compress("model.onnx", "rows.npz", budget=budget, seed=int(sys.argv[2]))
sizes = [row.size_bytes for row in result.report.candidates]
print(json.dumps([result.report.sha256, sizes, result.report.environment["threads"]]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("same")
    onnx.save(TOYS["conv"](), made / "model.onnx")
    x = np.random.default_rng(0).normal(size=(700, 4, 8, 8)).astype(np.float32)
    np.savez(made / "rows.npz", x=x)
    return made


def in_a_process(
    folder: Path, *, cores: list[int] | None = None, blas: int = 1, seed: int = 0
) -> list[Any]:
    """Compress in a process of its own; give hash, sizes of all candidates, and threads."""
    paths = os.pathsep.join(path for path in sys.path if path)
    threads = {"OMP_NUM_THREADS": str(blas), "OPENBLAS_NUM_THREADS": str(blas)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(cores), str(seed)],
        cwd=folder,
        env={**os.environ, **threads, "PYTHONPATH": paths, "PYTHONHASHSEED": str(blas)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


def test_one_and_two_threads_in_two_processes_give_one_file(folder: Path) -> None:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    one = in_a_process(folder, cores=cores[:1], blas=1)
    two = in_a_process(folder, cores=cores[:2], blas=2)
    assert one[:2] == two[:2]
    if len(cores) > 1:
        assert (one[2], two[2]) == ("1", "2")


@pytest.mark.parametrize("name", TOYS)
def test_two_runs_in_one_process_give_one_file(name: str) -> None:
    rng = np.random.default_rng(0)
    shapes = {"mlp": (12,), "conv": (4, 8, 8), "gru": (5, 6)}
    data = (
        {"ids": rng.integers(0, 20, (200, 5))}
        if name == "embedding"
        else {"x": rng.normal(size=(200, *shapes[name])).astype(np.float32)}
    )
    recipe = penjing.Recipe.from_dict(
        {"steps": [{"use": "rate_distortion", "trade_off": 1e-5, "probe_at": 1e-5}]}
    )
    budget = penjing.Budget(max_drop=0.5, confidence=None)
    files = {
        penjing.compress(TOYS[name](), data, budget=budget, recipe=recipe).report.sha256
        for _ in range(2)
    }
    assert len(files) == 1


def test_another_seed_is_another_split_and_still_keeps_the_limit(folder: Path) -> None:
    budget = penjing.Budget(max_drop=0.05)
    made = [
        penjing.compress(folder / "model.onnx", folder / "rows.npz", budget=budget, seed=seed)
        for seed in (0, 12345)
    ]
    assert made[0].report.sha256 != made[1].report.sha256
    for seed, result in zip((0, 12345), made, strict=True):
        assert result.report.met in {"met", "undecided"}
        assert result.artifact.header["seed"] == seed
