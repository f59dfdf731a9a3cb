"""How small is the whole file at a given accuracy drop, beside the peers, in one run.

    export PENJING_DATA=/path/to/data
    .venv/bin/python benchmarks/size.py --peers-python PEERS/bin/python

Calibrated on training images (a different draw for each seed), searched on the even-numbered
test images, reported on the odd-numbered ones: the image numbers are the whole contract, and
nothing is chosen on the odd ones.  Medians over the seeds; ``--confidence none``.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import (
    MODELS,
    BenchModel,
    best_within,
    calibration_images,
    emit,
    even,
    load_test,
    odd,
    whole_bytes,
)

import penjing

Row = dict[str, Any]

CALIBRATION = {"mnist": 16384, "cifar10": 1024}
"""Images that calibrate; digits are small, and wide layers need many."""
NNCODEC_GOAL = 0.62


def measure(model: BenchModel, seed: int, keep: Path | None) -> Row:
    """Compress one model with one seed; give bytes, the odd half's drop and its interval."""
    test = load_test(model.dataset)
    search, proof = test.take(even(len(test))), test.take(odd(len(test)))
    calibration = calibration_images(model.dataset, seed, CALIBRATION[model.dataset])
    result = penjing.compress(
        str(model.path),
        {"x": search.x, "y": search.y},
        calibration=calibration.x,
        test={"x": proof.x, "y": proof.y},
        metric="accuracy",
        budget=penjing.Budget(max_drop=model.max_drop / 100, confidence=None),
        seed=seed,
        name=model.path.name,
    )
    report = result.report
    if keep is not None:
        result.artifact.save(keep / f"{model.name}-{seed}.penjing")
        report.save(keep / f"{model.name}-{seed}.html")
    return {
        "tool": "penjing",
        "model": model.name,
        "seed": seed,
        "bytes": report.after.size_bytes,
        "original_bytes": report.before.size_bytes,
        "ratio": report.ratio,
        "drop_odd": 100 * report.drop.value,
        "drop_low": 100 * report.drop.low,
        "drop_high": 100 * report.drop.high,
        "overhead_bytes": sum(report.overhead.values()),
        "seconds": report.seconds["total"],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        "sha256": report.sha256,
    }


def peers(python: str, model: BenchModel, threads: int) -> list[Row]:
    """Run every peer on one model, in the peers' own environment."""
    program = Path(__file__).parent / "peers" / "size_peers.py"
    command = [python, str(program), "--model", model.name, "--threads", str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def summarise(model: BenchModel, rows: list[Row], others: list[Row]) -> Row:
    """Give our medians, and each peer's best point."""
    drop = median(row["drop_odd"] for row in rows)
    size = median(row["bytes"] for row in rows)
    ratio = median(row["ratio"] for row in rows)
    found: Row = {
        "summary": model.name,
        "bytes": size,
        "ratio": ratio,
        "drop": drop,
        "drop_limit": model.max_drop,
        "drop_interval": [
            median(row["drop_low"] for row in rows),
            median(row["drop_high"] for row in rows),
        ],
        "ratio_at_least": model.ratio_at_least,
        "ratio_aim": model.ratio_aim,
        "seconds": median(row["seconds"] for row in rows),
        "met": ratio >= model.ratio_at_least and drop <= model.max_drop,
    }
    names = {row["peer"] for row in others}
    original = rows[0]["original_bytes"]
    for name in sorted(names):
        own = [row for row in others if row["peer"] == name]
        fair = best_within(own, model.max_drop)
        if fair is not None:
            found[name] = {
                "ratio": original / whole_bytes(fair),
                "drop": fair["drop_odd"],
                "setting": fair["setting"],
            }
    # "-ioq" is NNCodec with its own search of one QP per tensor, the strongest it offers.
    for key, wanted in (("nncodec", {"nncodec"}), ("nncodec-ioq", {"nncodec", "nncodec-ioq"})):
        codec = [row for row in others if row["peer"] in wanted]
        best = best_within(codec, max(drop, 0.0), half="odd")
        if best is not None:
            found[f"{key}_at_our_drop"] = {
                "bytes": whole_bytes(best),
                "drop": best["drop_odd"],
                "setting": best["setting"],
                "ours_over_its": size / whole_bytes(best),
            }
    return found


def table(summaries: list[Row]) -> str:
    """Lay the summaries out for people."""
    lines = [
        (
            "| model | ratio (median) | drop, points [interval] | limit | at least | aim | "
            "NNCodec at our drop | ours / its bytes | with IOQ | k-means | int8 | zstd |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in summaries:
        low, high = row["drop_interval"]
        codec = row.get("nncodec_at_our_drop", {})
        tuned = row.get("nncodec-ioq_at_our_drop", {})
        shares = [
            f"{row[name]['ratio']:.1f}x ({row[name]['drop']:+.2f})" if name in row else "-"
            for name in ("kmeans-huffman", "onnxruntime-int8", "zstd")
        ]
        cells = [
            row["summary"],
            f"**{row['ratio']:.1f}x**",
            f"{row['drop']:+.2f} [{low:+.2f}, {high:+.2f}]",
            f"{row['drop_limit']}",
            f"{row['ratio_at_least']}x",
            f"{row['ratio_aim']}x",
            f"{codec['bytes']} B ({codec['drop']:+.2f})" if codec else "-",
            f"{codec['ours_over_its']:.3f}" if codec else "-",
            f"{tuned['ours_over_its']:.3f}" if tuned else "-",
            *shares,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peers-python", default="", help="Python of the peers' environment")
    parser.add_argument("--keep", type=Path, help="folder to keep files and reports in")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    summaries = []
    for name in chosen.models:
        model = MODELS[name]
        rows = []
        for seed in range(chosen.seeds):
            rows.append(measure(model, seed, chosen.keep))
            emit(rows[-1])
        others = []
        if chosen.peers_python:
            others = peers(chosen.peers_python, model, chosen.threads)
            for row in others:
                emit(row)
        summaries.append(summarise(model, rows, others))
        emit(summaries[-1])
    print(table(summaries))
    shares = [
        row["nncodec_at_our_drop"]["ours_over_its"]
        for row in summaries
        if "nncodec_at_our_drop" in row
    ]
    if shares:
        mean = math.exp(float(np.mean(np.log(shares))))
        print(f"our bytes over NNCodec's, geometric mean: {mean:.3f} (goal {NNCODEC_GOAL})")
    sys.exit(0 if all(row["met"] for row in summaries) else 1)


if __name__ == "__main__":
    main()
