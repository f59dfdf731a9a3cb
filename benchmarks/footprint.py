"""What penjing costs before it does anything: start-up, loading, installing.

    export PENJING_DATA=/path/to/data
    .venv/bin/python benchmarks/footprint.py [--install]

Each figure is the median of interleaved fresh processes, or of interleaved calls.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from common import MODELS, calibration_images, emit, even, load_test

import penjing

LOAD_PENJING = "import penjing, sys; penjing.load(sys.argv[1])"
LOAD_ONNX = """
import onnxruntime, sys
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""
HELP_SECONDS, LOAD_RATIO, INSTALL_MB, INSTALL_SECONDS = 0.7, 3.0, 350, 60


def seconds(command: list[str]) -> float:
    """Time one process as a whole."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return time.perf_counter() - started


def start_up(runs: int) -> None:
    """Time ``penjing --help``."""
    times = [seconds([sys.executable, "-m", "penjing", "--help"]) for _ in range(runs)]
    emit({"figure": "help", "seconds": median(times), "goal": HELP_SECONDS})


def loading(folder: Path, runs: int) -> None:
    """Time loading resnet56: our file against the original in ONNX Runtime, by turns."""
    import onnxruntime

    model = MODELS["resnet56"]
    small = folder / "resnet56.penjing"
    test = load_test(model.dataset)
    test = test.take(even(len(test))[:600])
    penjing.compress(
        str(model.path),
        {"x": test.x, "y": test.y},
        calibration=calibration_images(model.dataset, 0, 128).x,
        recipe=penjing.Recipe.from_dict(
            {"steps": [{"use": "rate_distortion", "trade_off": 2e-9, "sequential": False}]}
        ),
        budget=penjing.Budget(max_drop=0.5, confidence=None),
    ).artifact.save(small)
    fresh: dict[str, list[float]] = {"ours": [], "theirs": []}
    warm: dict[str, list[float]] = {"ours": [], "theirs": []}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    for _ in range(runs):
        fresh["ours"].append(seconds([sys.executable, "-c", LOAD_PENJING, str(small)]))
        fresh["theirs"].append(seconds([sys.executable, "-c", LOAD_ONNX, str(model.path)]))
        started = time.perf_counter()
        penjing.load(small)
        middle = time.perf_counter()
        onnxruntime.InferenceSession(
            str(model.path), options, providers=["CPUExecutionProvider"]
        )
        warm["ours"].append(middle - started)
        warm["theirs"].append(time.perf_counter() - middle)
    for name, times in (("load, fresh process", fresh), ("load, warm process", warm)):
        ours, theirs = median(times["ours"]), median(times["theirs"])
        ratio = median(a / b for a, b in zip(times["ours"], times["theirs"], strict=True))
        emit(
            {
                "figure": name,
                "bytes": small.stat().st_size,
                "ours_ms": 1000 * ours,
                "onnxruntime_ms": 1000 * theirs,
                "ratio": ratio,
                "goal": LOAD_RATIO,
            }
        )


def installing(folder: Path) -> None:
    """Install the core, without extras, into a fresh environment."""
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)  # noqa: S603
    python = str(folder / "venv" / "bin" / "python")
    site = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
    before = _size(site)
    taken = seconds(
        [python, "-m", "pip", "install", "-q", "-c", str(root / "constraints.txt"), str(root)]
    )
    listed = subprocess.run(  # noqa: S603
        [python, "-m", "pip", "list", "--format", "json"],
        check=True,
        capture_output=True,
        text=True,
    )
    emit(
        {
            "figure": "core install",
            "mb": (_size(site) - before) / 1e6,
            "seconds": taken,
            "packages": sorted(row["name"] for row in json.loads(listed.stdout)),
            "goal": [INSTALL_MB, INSTALL_SECONDS],
        }
    )


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--install", action="store_true", help="also time a core install")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start_up(chosen.runs)
        loading(Path(folder), chosen.runs)
        if chosen.install:
            installing(Path(folder))


if __name__ == "__main__":
    main()
