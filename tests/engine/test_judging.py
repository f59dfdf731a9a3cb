"""Judging a candidate: what it lost, how sure that is, and candidates that fell apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.core.data import Batch, Part
from penjing.core.model import Port
from penjing.core.registry import METRICS
from penjing.engine.evidence import Bounded, Resampled, ZeroOne
from penjing.engine.judging import Judge, variance
from penjing.engine.scores import mean_drop

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.tensors import Array

ROWS = 600
RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(ROWS, 3)).astype(np.float32) * 2
LABELS = (SCORES + RNG.gumbel(size=SCORES.shape)).argmax(axis=1)


@dataclass
class Table:
    """Rows that are numbers of rows."""

    labels: Array | None
    source: str = "table"
    labels_where: str = "labels of table"
    digest: str = "0"

    def __len__(self) -> int:
        return ROWS

    def take(self, rows: Array) -> Batch:
        return Batch({"row": rows}, None, len(rows))


@dataclass
class Lookup:
    """A model that looks its outputs up."""

    table: Array

    @property
    def inputs(self) -> tuple[Port, ...]:
        return (Port("row", "int64", (None,), 0),)

    @property
    def outputs(self) -> tuple[Port, ...]:
        return (Port("y", str(self.table.dtype), (None, *self.table.shape[1:]), 0),)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": self.table[inputs["row"]]}


def judge(metric: str, original: Array, labels: Array | None) -> Judge:
    part = Part(Table(labels), np.arange(ROWS))
    return Judge(Lookup(original), part, METRICS.load(metric)(), 0)


VALUES = RNG.normal(size=(ROWS, 1)).astype(np.float32)
TRUTH = (VALUES[:, 0] + 0.3 * RNG.normal(size=ROWS)).astype(np.float64)
CASES: dict[str, tuple[str, Array, Array | None, type]] = {
    "accuracy": ("accuracy", SCORES, LABELS, ZeroOne),
    "agreement": ("agreement", SCORES, None, ZeroOne),
    "agreement, labels or not": ("agreement", SCORES, LABELS, ZeroOne),
    "f1": ("f1", SCORES, LABELS, Resampled),
    "auc": ("auc", SCORES, LABELS, Resampled),
    "mse": ("mse", VALUES, TRUTH, Resampled),
    "mae": ("mae", VALUES, TRUTH, Resampled),
    "rmse": ("rmse", VALUES, TRUTH, Resampled),
    "r2": ("r2", VALUES, TRUTH, Resampled),
    "deviation": ("deviation", VALUES, None, Resampled),
    "sequences": (
        "accuracy",
        SCORES.reshape(ROWS, 1, 3).repeat(4, axis=1),
        np.repeat(LABELS[:, None], 4, axis=1),
        Bounded,
    ),
    "classes": ("accuracy", SCORES.argmax(axis=1), LABELS, ZeroOne),
}


def case(name: str) -> tuple[Judge, Array, type]:
    metric, original, labels, kind = CASES[name]
    return judge(metric, original, labels), original, kind


@pytest.mark.parametrize("name", CASES)
def test_the_original_itself_loses_nothing(name: str) -> None:
    made, original, kind = case(name)
    found = made.judge(Lookup(original))
    assert isinstance(found.evidence, kind)
    assert found.drop == found.divergence == found.variance == 0
    assert found.value == made.original_value()


@pytest.mark.parametrize("name", CASES)
def test_a_worse_model_has_a_positive_drop(name: str) -> None:
    made, original, _ = case(name)
    worse = np.roll(original, 1, axis=0)
    found = made.judge(Lookup(worse))
    assert found.drop > 0.1
    assert found.divergence > 0.01
    assert found.drop == pytest.approx(
        made.metric.drop(made.original_value(), found.value), abs=1e-12
    )


@pytest.mark.parametrize("name", CASES)
def test_a_candidate_that_fell_apart_is_judged_and_not_raised_about(name: str) -> None:
    made, original, _ = case(name)
    if original.dtype.kind != "f":
        pytest.skip("classes are always numbers")
    for bad in (np.nan, np.inf):
        broken = original.copy()
        broken[::3] = bad
        found = made.judge(Lookup(broken))
        assert np.isfinite(found.drop)
        assert found.drop > 0.05
        assert found.divergence > 1


def test_agreement_expects_nothing_of_labels() -> None:
    made, _, _ = case("agreement, labels or not")
    assert made.judge(Lookup(SCORES + 1)).expected is None
    assert case("accuracy")[0].judge(Lookup(SCORES + 1)).expected == 0


@pytest.mark.parametrize("name", ["accuracy", "mse", "rmse", "r2", "f1", "sequences"])
def test_the_allowance_is_about_how_far_bounds_lie_from_drops(name: str) -> None:
    made, original, _ = case(name)
    noise = np.asarray(np.random.default_rng(1).normal(size=original.shape), np.float32)
    found = made.judge(Lookup(original + np.float32(0.3) * noise))
    room = found.evidence.upper_bound(0.95) - found.drop
    assert 0.6 < found.allowance(ROWS, 0.95) / room < 1.7
    assert found.allowance(ROWS, 0.99) > found.allowance(ROWS, 0.95)
    assert found.allowance(4 * ROWS, 0.95) < 0.6 * found.allowance(ROWS, 0.95)


def test_variances_are_those_of_the_drop() -> None:
    rng = np.random.default_rng(2)

    def drawn() -> Any:
        before = rng.exponential(size=400) + 1
        return mean_drop(before, before + rng.normal(size=400) / 5, higher_is_better=False)

    evidence = [drawn() for _ in range(200)]
    spread = np.var([e.drop for e in evidence]) * 400
    assert 0.8 < np.mean([variance(e) for e in evidence]) / spread < 1.25
    assert variance(ZeroOne(6, 2, 100)) == 0.08
    assert variance(mean_drop(np.ones(1), np.ones(1) * 2, higher_is_better=True)) == 0


class Beside(Table):
    """The same rows in another view: numbers from ROWS on."""

    def take(self, rows: Array) -> Batch:
        return Batch({"row": rows + ROWS}, None, len(rows))


def test_other_views_of_the_rows_are_asked_for_what_is_pooled() -> None:
    """Where half of what is shown is decided as before, half as much is expected to be lost."""
    rows = np.arange(ROWS)
    noisy = (SCORES + RNG.normal(size=SCORES.shape)).astype(np.float32)
    original = Lookup(np.concatenate([SCORES, SCORES]))
    candidate = Lookup(np.concatenate([noisy, SCORES]))
    judge = Judge(original, Part(Table(LABELS), rows), METRICS.load("accuracy")(), 0)
    alone = judge.judge(candidate)
    judge.look_at(original, [Part(Beside(LABELS), rows)])
    viewed = judge.judge(candidate)
    assert alone.pooled is not None
    assert alone.pooled > 0.02
    assert viewed.pooled == pytest.approx(alone.pooled / 2, rel=0.3)
    assert (viewed.drop, viewed.expected) == (alone.drop, alone.expected)
