"""What training for compression buys: size at equal accuracy, students, transfer; one table.

    export PENJING_DATA=/path/to/data
    .venv/bin/python benchmarks/training.py         # all rows, three seeds: hours
    .venv/bin/python benchmarks/training.py --rows rate-lenet-300-100 --seeds 1

Trained on training images, searched on the even-numbered test images, reported on the
odd-numbered ones.  Sizes are those of whole files, against the float ONNX file.  ``--keep``
names a folder for rows (one JSON file a row and seed), from which ``make docs`` makes
``docs/results.md`` where they lie in ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import students
import torch
from common import (
    Images,
    Judge,
    calibration_images,
    data_folder,
    emit,
    even,
    load_test,
    load_train,
    odd,
)

import penjing

if TYPE_CHECKING:
    from collections.abc import Callable

    from penjing.engine.job import Result

Row = dict[str, Any]
RECIPES = Path(__file__).parents[1] / "recipes"
UNLABELLED = 1024
TINY = 1e-9
"""Points that rounding makes of none."""


@dataclass(frozen=True)
class Case:
    """One row of the table: what is run, and the figures it is held to."""

    run: Callable[[Case, int], Row]
    what: str
    model: str
    dataset: str
    at_least: float = 0.0
    aim: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    most: dict[str, float] = field(default_factory=dict)
    """Drop or error allowed, in points."""


def split_test(dataset: str) -> tuple[Images, Images]:
    """Give the even-numbered test images, for choices, and the odd ones, for figures."""
    test = load_test(dataset)
    return test.take(even(len(test))), test.take(odd(len(test)))


def as_data(images: Images) -> dict[str, Any]:
    """Lay images out as the tool reads them."""
    return {"x": images.x, "y": images.y}


def compress(case: Case, seed: int, **options: Any) -> tuple[Result, Row]:
    """Compress the model of a case; give the result and its figures on the odd images."""
    search, proof = split_test(case.dataset)
    started = time.monotonic()
    result = penjing.compress(
        str(data_folder() / "onnx" / f"{case.model}.onnx"),
        as_data(search),
        test=as_data(proof),
        calibration=calibration_images(case.dataset, seed, UNLABELLED).x,
        metric="accuracy",
        seed=seed,
        **options,
    )
    report = result.report
    row: Row = {
        "bytes": report.after.size_bytes,
        "ratio": report.ratio,
        "error_before": 100 * (1 - report.before.metric.value),
        "error": 100 * (1 - report.after.metric.value),
        "drop": 100 * report.drop.value,
        "seconds": time.monotonic() - started,
        "sha256": report.sha256,
        "curve": [
            (each.size_bytes, 100 * each.drop.value)
            for each in report.candidates
            if each.label.startswith(("trained", "reconstructed", "plain", "recipe"))
        ],
    }
    return result, row


def by_recipe(case: Case, seed: int) -> Row:
    """Apply a recipe that ships; nothing is chosen."""
    _, row = compress(
        case,
        seed,
        recipe=RECIPES / case.settings["recipe"],
        train=as_data(load_train(case.dataset)),
        budget=penjing.Budget(max_drop=0.5, confidence=None),
    )
    return row


def by_effort(case: Case, seed: int) -> Row:
    """Let the tool find the boldest trade-off within the limit."""
    effort = case.settings["effort"]
    train = as_data(load_train(case.dataset)) if effort == "train" else None
    budget = penjing.Budget(max_drop=case.settings["max_drop"], confidence=None)
    _, row = compress(case, seed, effort=effort, train=train, budget=budget)
    return row


def in_integers(case: Case, seed: int) -> Row:
    """Train for four-bit weights and eight-bit activations; run the result in integers."""
    result, row = compress(
        case,
        seed,
        recipe=RECIPES / "w4a8.yaml",
        train=as_data(load_train(case.dataset)),
        budget=penjing.Budget(max_drop=0.5, confidence=None),
    )
    original = (data_folder() / "onnx" / f"{case.model}.onnx").read_bytes()
    model, kernels = students.integer_form(result)
    judge = Judge(original, load_test(case.dataset), threads=2)
    found = judge.score(judge.predict(model))
    drop = found["drop_odd"]
    error = row["error_before"] + drop
    return {**row, "drop": drop, "error": error, "integer_kernels": kernels}


CASES = {
    "deep-compression-lenet-300-100": Case(
        by_recipe,
        "recipes/deep_compression.yaml, error no worse",
        "lenet-300-100",
        "mnist",
        40,
        settings={"recipe": "deep_compression.yaml"},
        most={"drop": 0.0},
    ),
    "deep-compression-lenet-5": Case(
        by_recipe,
        "recipes/deep_compression.yaml, error no worse",
        "lenet-5",
        "mnist",
        39,
        settings={"recipe": "deep_compression.yaml"},
        most={"drop": 0.0},
    ),
    "rate-lenet-300-100": Case(
        by_effort,
        "rate-penalised, error no worse",
        "lenet-300-100",
        "mnist",
        130,
        180,
        {"effort": "train", "max_drop": 0.0},
        {"drop": 0.0},
    ),
    "rate-lenet-5": Case(
        by_effort,
        "rate-penalised, error at most 1.0 %",
        "lenet-5",
        "mnist",
        400,
        800,
        {"effort": "train", "max_drop": 0.0004},
        {"error": 1.0},
    ),
    "train-resnet20": Case(
        by_effort,
        "train on 10,000 images, drop at most 0.5",
        "resnet20",
        "cifar10",
        20,
        30,
        {"effort": "train", "max_drop": 0.005},
        {"drop": 0.5},
    ),
    "reconstruct-resnet20": Case(
        by_effort,
        "reconstruct by 1,024 unlabelled images, drop at most 0.5",
        "resnet20",
        "cifar10",
        16,
        20,
        {"effort": "reconstruct", "max_drop": 0.005},
        {"drop": 0.5},
    ),
    "w4a8-resnet20": Case(
        in_integers,
        "recipes/w4a8.yaml, in integers, drop at most 0.5",
        "resnet20",
        "cifar10",
        most={"drop": 0.5},
    ),
    "ensemble-fashion": Case(
        students.ensemble,
        "five teachers, one student of their size",
        "lenet_300_100",
        "fashion",
    ),
    "transfer-resnet20": Case(
        students.transfer, "from CIFAR-10 to 200 images of a new task", "resnet20", "cifar10"
    ),
}


def summary(name: str, rows: list[Row]) -> Row:
    """Give the medians of a case over its seeds."""
    case = CASES[name]
    numbers = {
        key: median(row[key] for row in rows)
        for key, value in rows[0].items()
        if isinstance(value, int | float) and key != "seed"
    }
    return {
        "summary": name,
        "what": case.what,
        "model": case.model,
        "seeds": len(rows),
        "at_least": case.at_least,
        "aim": case.aim,
        **numbers,
        "all": [row.get("ratio", row.get("gain")) for row in rows],
        "holds": holds(case, numbers, rows),
    }


def holds(case: Case, medians: Row, rows: list[Row]) -> bool:
    """Tell whether a case keeps what it is held to: by its medians, gains by every seed."""
    if "gain" in medians:
        return all(row["gain"] > 0 for row in rows)
    runs = medians.get("integer_kernels", 1) > 0
    within = all(medians[key] <= limit + TINY for key, limit in case.most.items())
    return runs and within and medians["ratio"] >= case.at_least


def table(summaries: list[Row]) -> str:
    """Lay the summaries out for people."""
    lines = [
        "| what | model | median | drop, points | error, % | at least | aim | holds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in summaries:
        gains = "gain" in row
        cells = [
            row["what"],
            row["model"],
            f"**{row['gain']:+.2f} points**" if gains else f"**{row['ratio']:.1f}x**",
            "-" if gains else f"{row['drop']:+.2f}",
            "-" if gains else f"{row['error']:.2f}",
            "every seed" if gains else f"{row['at_least']:g}x" if row["at_least"] else "-",
            f"{row['aim']:g}x" if row["aim"] else "-",
            "yes" if row["holds"] else "**no**",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder to keep the rows in")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    summaries = []
    for name in chosen.rows:
        rows = []
        for seed in chosen.seeds:
            started = time.monotonic()
            made = CASES[name].run(CASES[name], seed)
            told = {"what": CASES[name].what, "model": CASES[name].model}
            row = {"case": name, "seed": seed, **told, **made}
            row.setdefault("seconds", time.monotonic() - started)
            rows.append(row)
            emit(row)
            if chosen.keep is not None:
                chosen.keep.mkdir(parents=True, exist_ok=True)
                path = chosen.keep / f"{name}-{seed}.json"
                path.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
        summaries.append(summary(name, rows))
        emit(summaries[-1])
    print("\n" + table(summaries))


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
