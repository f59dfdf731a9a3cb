"""What ``penjing compress`` promises to scripts and to people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from penjing.cli.compress import shares_of
from penjing.cli.progress import SearchProgress
from penjing.cli.screen import Screen
from penjing.core.budget import Budget

if TYPE_CHECKING:
    from pathlib import Path

    from penjing.engine.job import Effort
    from tests.cli.conftest import Run

KEYS = (
    *("bytes", "original_bytes", "ratio", "metric", "original_metric", "drop", "drop_upper"),
    *("confidence", "latency_ms", "original_latency_ms", "met", "reason", "seconds"),
)
QUICK = ("compress", "model.onnx", "--data", "rows.npz", "--recipe", "recipe.yaml")


def test_a_met_budget_gives_0_and_every_promised_figure(made: Path) -> None:
    summary = json.loads((made / "summary.json").read_text())
    assert [key for key in KEYS if key not in summary] == []
    assert summary["met"] is True
    assert summary["exit_code"] == 0
    assert summary["bytes"] == (made / "small.penjing").stat().st_size
    assert summary["original_bytes"] == (made / "model.onnx").stat().st_size
    assert summary["drop_upper"] <= 0.1


def test_an_undecided_limit_gives_3_and_saves_the_best(here: Path, penjing: Run) -> None:
    done = penjing(*QUICK, "--max-drop", "0.01%", "-o", "o.penjing", "--json")
    assert done.code == 3
    assert done.json["verdict"] == "undecided"
    assert done.json["met"] is False
    assert (here / "o.penjing").stat().st_size == done.json["bytes"]


def test_a_missed_limit_gives_3_and_saves_the_best(here: Path, penjing: Run) -> None:
    done = penjing(*QUICK, "--max-size", "100B", "-o", "o.penjing", "--json")
    assert done.code == 3
    assert done.json["verdict"] == "missed"
    assert (here / "o.penjing").exists()


def test_without_confidence_point_estimates_are_judged(here: Path, penjing: Run) -> None:
    done = penjing(*QUICK, "--max-drop", "9%", "--confidence", "none", "--json")
    assert done.code == 0
    assert done.json["confidence"] is None
    assert (here / "model.penjing").exists(), "the default name, in the current folder"


def test_people_see_the_split_the_table_and_what_to_do_next(here: Path, penjing: Run) -> None:
    done = penjing(*QUICK, "--max-drop", "10%", "--seed", 7, "-o", "o.penjing")
    assert done.code == 0
    assert "Split (seed 7): 180 rows calibrate, 288 search, 432 certify" in done.err
    for word in ("before", "after", "Met", "Saved o.penjing", "penjing unpack o.penjing"):
        assert word in done.out
    assert (here / "o.penjing").exists()


@pytest.mark.usefixtures("here")
def test_quiet_says_nothing(penjing: Run) -> None:
    done = penjing(*QUICK, "--max-drop", "10%", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("given", "warned"),
    [
        (["0.5"], "--max-drop 0.5 allows a drop of 50 points; write 0.5% for half a point"),
        (["0.1", "--json"], "allows a drop of 10 points; write 0.1% for 0.1 points"),
        (["50%"], ""),
        (["0.09"], ""),
        (["0.5", "--quiet"], ""),
    ],
    ids=" ".join,
)
def test_a_large_drop_without_percent_is_pointed_out(
    penjing: Run, given: list[str], warned: str
) -> None:
    done = penjing(*QUICK, "--max-drop", *given)
    assert done.err.count("Warning") == bool(warned)
    assert warned in done.err
    assert "Warning: --max-drop" not in done.out


def test_every_phase_is_told_once_where_nobody_watches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with SearchProgress(Screen(), 0) as progress:
        for share in (0.2, 0.6, 1.0):
            progress("probing layers", share)
            progress("comparing settings", share, "900 bytes")
        progress("certifying", 1.0, "the result")
    assert capsys.readouterr().err.splitlines() == [
        "probing layers ... (2% done)",
        "comparing settings ... (45% done, 900 bytes)",
        "certifying ... (100% done)",
    ]


def test_separate_files_override_the_split(here: Path, penjing: Run) -> None:
    with np.load("rows.npz") as rows:
        x, y = rows["x"], rows["y"]
    np.savez("calibration.npz", x=x[:100])
    np.savez("test.npz", x=x[100:500], y=y[100:500])
    np.savez("search.npz", x=x[500:], y=y[500:])
    done = penjing(
        *("compress", "model.onnx", "--data", "search.npz", "--recipe", "recipe.yaml"),
        *("--calibration", "calibration.npz", "--test", "test.npz", "--max-drop", "10%"),
        *("-o", here / "o.penjing"),
    )
    assert done.code == 0
    assert "100 rows calibrate, 400 search, 400 certify" in done.err


def test_the_same_seed_gives_the_same_file(here: Path, penjing: Run) -> None:
    first = penjing(*QUICK, "--seed", 3, "-o", "a.penjing", "--json").json
    again = penjing(*QUICK, "--seed", 3, "-o", "b.penjing", "--json").json
    other = penjing(*QUICK, "--seed", 4, "-o", "c.penjing", "--json").json
    assert first["sha256"] == again["sha256"] != other["sha256"]
    assert (here / "a.penjing").read_bytes() == (here / "b.penjing").read_bytes()


def test_the_seed_of_a_recipe_is_used_unless_one_is_given(here: Path, penjing: Run) -> None:
    (here / "seeded.yaml").write_text("seed: 5\n" + (here / "recipe.yaml").read_text())
    seeded = ("compress", "model.onnx", "--data", "rows.npz", "--recipe", "seeded.yaml")
    assert "(seed 5)" in penjing(*seeded).err
    assert "(seed 6)" in penjing(*seeded, "--seed", 6).err


def test_the_report_is_one_page(here: Path, penjing: Run) -> None:
    done = penjing(*QUICK, "-o", "o.penjing", "--report", "page.html", "--json")
    assert done.json["report"] == "page.html"
    assert (here / "page.html").read_text("utf-8").lower().startswith("<!doctype html>")


@pytest.mark.usefixtures("here")
def test_without_a_recipe_the_best_is_searched(penjing: Run) -> None:
    done = penjing(
        *("compress", "model.onnx", "--data", "rows.npz", "--max-drop", "20%"),
        *("-o", "o.penjing", "--json"),
    )
    assert done.code == 0
    assert done.json["ratio"] > 3


@pytest.mark.usefixtures("here")
def test_a_time_limit_ends_the_search_with_a_result(penjing: Run) -> None:
    done = penjing(
        *("compress", "model.onnx", "--data", "rows.npz", "--max-drop", "10%"),
        *("--time-limit", "0.001s", "-o", "o.penjing", "--json"),
    )
    assert done.code in {0, 3}
    assert penjing("verify", "o.penjing").code == 0


def test_an_existing_output_is_replaced_whole(here: Path, penjing: Run) -> None:
    (here / "o.penjing").write_bytes(b"old")
    assert penjing(*QUICK, "-o", "o.penjing", "--quiet").code in {0, 3}
    assert penjing("verify", "o.penjing").code == 0


def test_help_says_what_limits_and_exit_codes_mean(penjing: Run) -> None:
    told = " ".join(penjing("compress", "--help").out.replace("│", " ").split())
    assert "0.5% means 0.5 points for metrics in [0, 1]" in told
    assert "relative to the original's value" in told
    assert "3 the best result is saved, but a limit is missed or undecided" in told
    for option in (
        *("--data", "--calibration", "--test", "--target", "--allow-missing", "--metric"),
        *("--max-drop", "--max-size", "--confidence", "--recipe", "--seed", "--time-limit"),
        *("--strict", "--output", "--report", "--quiet", "--json"),
    ):
        assert option in told


@pytest.mark.parametrize(
    ("effort", "budget", "trains"),
    [
        ("auto", Budget(max_size=1000), True),
        ("auto", Budget(max_drop=0.01), False),
        ("post-training", Budget(max_size=1000), False),
        ("reconstruct", Budget(max_drop=0.01), True),
    ],
)
def test_training_has_a_share_of_the_bar_wherever_there_may_be_some(
    monkeypatch: pytest.MonkeyPatch, effort: Effort, budget: Budget, *, trains: bool
) -> None:
    monkeypatch.setattr("penjing.engine.training.is_installed", lambda: True)
    assert ("training" in shares_of(effort, None, budget)) is trains
    monkeypatch.setattr("penjing.engine.training.is_installed", lambda: False)
    assert "training" not in shares_of("auto", None, budget)
