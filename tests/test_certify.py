"""The certificate keeps its promise, and each of these checks catches a test that does not."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.core.errors import ConfigError, DataError
from penjing.core.measure import Verdict
from penjing.engine import certify
from penjing.engine.evidence import Bounded, Evidence, Resampled, ZeroOne
from penjing.engine.scores import from_differences, mean_drop, paired

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Test = Callable[[int, int, int, float], bool]

SEARCHES = 2000


def _load_simulation() -> Any:
    """Import the benchmark, so that tests and figures simulate the same searches."""
    path = Path(__file__).parents[1] / "benchmarks" / "certificate.py"
    spec = importlib.util.spec_from_file_location("certificate_simulation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


simulation = _load_simulation()


def wrong_certificates(n: int, test: Test, *, peek: bool = False) -> int:
    world = simulation.on_the_limit()
    plan = simulation.Plan(n, times=SEARCHES)
    returned = simulation.search(world, plan, test, peek=peek)
    return int(simulation.wrong(world, returned))


# --- the promised figures --------------------------------------------------------------------


@pytest.mark.parametrize("n", [1000, 2500])
def test_at_most_5_percent_of_searches_certify_on_the_limit(n: int) -> None:
    assert wrong_certificates(n, simulation.exact_test) <= 0.05 * SEARCHES


def test_a_drop_well_inside_the_limit_is_certified_95_percent_of_the_time() -> None:
    passed = simulation.certified_splits(
        lost=0.0055, gained=0.0045, plan=simulation.Plan(10_000), test=simulation.exact_test
    )
    assert passed >= 0.95 * SEARCHES


def test_the_normal_approximation_would_break_the_promise() -> None:
    assert wrong_certificates(1000, simulation.normal_test) > 0.05 * SEARCHES


def test_choosing_on_certification_data_would_break_the_promise() -> None:
    assert wrong_certificates(1000, simulation.exact_test, peek=True) > 0.5 * SEARCHES


def test_sequences_that_climb_through_the_limit_rarely_return_a_candidate_beyond_it() -> None:
    world = simulation.through_the_limit()
    returned = simulation.search(world, simulation.Plan(2500), simulation.exact_test)
    assert simulation.wrong(world, returned) <= 0.05 * SEARCHES
    assert (returned >= 0).mean() > 0.9


# --- sequences --------------------------------------------------------------------------------


SAFE, RISKY, BAD = ZeroOne(2, 1, 5000), ZeroOne(24, 4, 5000), ZeroOne(400, 10, 5000)


def test_the_last_candidate_before_the_first_failure_is_chosen() -> None:
    certificate = certify.fixed_sequence([("a", SAFE), ("b", SAFE), ("c", RISKY)], 0.005)
    assert certificate.chosen == 1
    assert [outcome.label for outcome in certificate.tested] == ["a", "b", "c"]
    assert certificate.tested[2].verdict is Verdict.UNDECIDED


def test_candidates_after_a_failure_are_not_even_evaluated() -> None:
    asked = []

    def get(name: str, evidence: Evidence) -> Callable[[], Evidence]:
        def run() -> Evidence:
            asked.append(name)
            return evidence

        return run

    order = [("a", SAFE), ("b", BAD), ("c", SAFE)]
    certificate = certify.fixed_sequence([(name, get(name, e)) for name, e in order], 0.005)
    assert asked == ["a", "b"]
    assert certificate.chosen == 0
    assert certificate.tested[1].verdict is Verdict.MISSED


def test_nothing_is_chosen_where_the_safest_fails() -> None:
    certificate = certify.fixed_sequence([("a", RISKY), ("b", SAFE)], 0.005)
    assert certificate.chosen is None
    assert len(certificate.tested) == 1
    needed = certificate.tested[0].samples_needed
    assert needed is not None
    assert needed > 5000


def test_what_passes_is_bounded_by_the_limit_and_needs_no_more_samples() -> None:
    outcome = certify.judge("a", SAFE, 0.005)
    assert outcome.verdict is Verdict.MET
    assert outcome.p_value <= 0.05
    assert outcome.drop.low < outcome.drop.value < outcome.upper < outcome.drop.high
    assert outcome.upper <= 0.005
    assert outcome.samples_needed is None


def test_certificates_are_plain_json() -> None:
    record = certify.fixed_sequence([("a", SAFE), ("b", BAD)], 0.005, seed=3).to_dict()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["chosen"] == 0
    assert record["method"] == "exact paired test"
    assert record["tested"][0]["drop"]["value"] == pytest.approx(0.0002)
    assert (record["limit"], record["confidence"], record["seed"]) == (0.005, 0.95, 3)


def test_an_empty_sequence_is_refused() -> None:
    with pytest.raises(ConfigError, match="none to certify"):
        certify.fixed_sequence([], 0.005)


def graded(n: int, mean: float, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(mean, 0.1, n), -1, 1)


def errors(n: int, worse: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(1)
    before = rng.chisquare(3, n)
    return before, before * (1 + worse) + rng.normal(0, 0.1, n)


# --- how many samples -------------------------------------------------------------------------


@pytest.mark.parametrize(("lost", "gained"), [(0.0055, 0.0045), (0.001, 0.0)])
def test_the_samples_asked_for_are_enough_and_half_are_not(lost: float, gained: float) -> None:
    n = certify.samples_for_rates(lost, gained, limit=0.005)
    assert n is not None

    def power(n: int) -> float:
        plan = simulation.Plan(n, times=400)
        return float(
            simulation.certified_splits(lost, gained, plan, simulation.exact_test) / 400
        )

    assert power(n) >= 0.75
    assert power(n // 2) < 0.7


def test_seeing_no_loss_takes_the_rule_of_three() -> None:
    assert certify.samples_needed(np.zeros(50, int), 0.01) == pytest.approx(300, rel=0.02)


def test_betting_and_the_bootstrap_say_how_many_samples_too() -> None:
    needed = certify.samples_needed(graded(400, 0.0, 0), 0.02)
    assert needed is not None
    assert 200 < needed < 2000
    resampled = mean_drop(*errors(400, 0.0), higher_is_better=False)
    assert (resampled.samples_needed(0.02) or 0) >= 30


@pytest.mark.parametrize(
    "evidence",
    [
        ZeroOne(9, 4, 100),
        Bounded(np.full(9, 0.05)),
        mean_drop(*errors(50, 1), higher_is_better=False),
    ],
    ids=["zero-one", "bounded", "resampled"],
)
def test_no_number_of_samples_certifies_a_drop_beyond_the_limit(evidence: Evidence) -> None:
    assert evidence.samples_needed(0.05) is None


# --- what goes in -----------------------------------------------------------------------------


def test_the_kind_of_scores_decides_the_test() -> None:
    right, wrong = np.array([True, True]), np.array([True, False])
    assert paired(right, wrong) == ZeroOne(1, 0, 2)
    assert paired(right, wrong, higher_is_better=False) == ZeroOne(0, 1, 2)
    assert paired(right.astype(float), wrong.astype(float), zero_one=True) == ZeroOne(1, 0, 2)
    assert isinstance(paired(right.astype(float), wrong.astype(float)), Bounded)


def test_intervals_hold_the_estimate() -> None:
    drop = certify.interval(np.repeat(np.array([1, -1, 0]), [55, 45, 9900]))
    assert drop.low < 0 < drop.value < drop.high
    assert certify.p_value(np.repeat(np.array([1, -1, 0]), [55, 45, 9900]), drop.high) < 0.05


@pytest.mark.parametrize(
    ("original", "compressed", "problem"),
    [
        (np.zeros(0), np.zeros(0), "no samples"),
        (np.zeros(3), np.zeros(4), "same samples"),
        (np.array([0.0, np.nan]), np.zeros(2), "sample 1 scores nan"),
        (np.zeros(2), np.array([0.0, 1.5]), r"must lie in \[0, 1\]"),
        (np.zeros((2, 2)), np.zeros((2, 2)), "one number per sample"),
        (np.array(["a"]), np.zeros(1), "one number per sample"),
    ],
    ids=["empty", "lengths", "nan", "range", "axes", "text"],
)
def test_unusable_scores_are_refused(
    original: NDArray[Any], compressed: NDArray[Any], problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        paired(original, compressed)


def test_graded_scores_are_no_right_or_wrong() -> None:
    with pytest.raises(DataError, match="other than 0 and 1"):
        from_differences(np.array([0.5, 0.0]), zero_one=True)


def test_a_metric_without_samples_is_refused() -> None:
    with pytest.raises(DataError, match="no samples"):
        Resampled(lambda rows: rows.mean(axis=1), 0)


@pytest.mark.parametrize(
    ("limit", "confidence", "where"),
    [
        (1.0, 0.95, "limit"),
        (math.nan, 0.95, "limit"),
        (0.1, 1.0, "confidence"),
        (0.1, 0.3, "conf"),
    ],
)
def test_settings_out_of_range_are_refused(limit: float, confidence: float, where: str) -> None:
    for evidence in (SAFE, Bounded(np.zeros(5))):
        with pytest.raises(ConfigError, match=where):
            evidence.p_value(limit, confidence)
    with pytest.raises(ConfigError, match="share"):
        certify.samples_for_rates(0.9, 0.9, 0.1)
