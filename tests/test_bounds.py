"""Bounds hold for every truth, and each of these checks catches one that does not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.core import betting, exact
from penjing.core.bootstrap import Bootstrap
from penjing.core.errors import DataError
from penjing.core.measure import Verdict
from penjing.engine import certify
from penjing.engine.evidence import Bounded, ZeroOne
from penjing.engine.scores import mean_drop, metric_drop

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Test = Callable[[int, int, int, float], bool]


def exact_test(lost: int, gained: int, n: int, limit: float) -> bool:
    return exact.p_value(lost, gained, n, limit) <= 0.05


def normal_test(lost: int, gained: int, n: int, limit: float) -> bool:
    drop = (lost - gained) / n
    return drop + 1.645 * math.sqrt(((lost + gained) / n - drop**2) / n) <= limit


# --- the exact test ---------------------------------------------------------------------------


def largest_error(n: int, limit: float, test: Test) -> float:
    """Enumerate all outcomes; maximise the chance to pass over many drops >= limit."""
    passing = [
        (lost, gained)
        for lost in range(n + 1)
        for gained in range(n + 1 - lost)
        if test(lost, gained, n, limit)
    ]
    if not passing:
        return 0.0
    lost, gained = np.array(passing).T
    factorials = np.array([math.lgamma(k + 1) for k in range(n + 1)])
    ways = factorials[n] - factorials[lost] - factorials[gained] - factorials[n - lost - gained]
    drop, share = np.meshgrid(np.linspace(limit, 1, 40, endpoint=False), np.linspace(0, 1, 400))
    rate = np.abs(drop) + share * (1 - np.abs(drop))
    logs = [
        np.log(np.maximum(p, 1e-300)) for p in ((rate + drop) / 2, (rate - drop) / 2, 1 - rate)
    ]
    lost_log, gained_log, same_log = (log.reshape(-1, 1) for log in logs)
    chances = np.exp(
        ways + lost * lost_log + gained * gained_log + (n - lost - gained) * same_log
    )
    return float(chances.sum(axis=1).max())


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(
    ("n", "limit"), [(1, 0.5), (8, 0.2), (30, 0.1), (30, -0.05), (30, 0.0)]
)
def test_no_truth_makes_the_exact_test_err_more_often(
    n: int, limit: float, confidence: float
) -> None:
    def passes(lost: int, gained: int, n: int, limit: float) -> bool:
        return exact.p_value(lost, gained, n, limit, confidence) <= 1 - confidence

    assert largest_error(n, limit, passes) <= 1 - confidence


def test_enumeration_catches_a_test_that_errs_too_often() -> None:
    assert largest_error(30, 0.1, normal_test) > 0.06


def test_the_exact_test_wastes_little_of_its_error() -> None:
    assert largest_error(40, 0.1, exact_test) > 0.04


@pytest.mark.parametrize(("n", "limit"), [(20, 0.1), (500, 0.004), (20_000, 0.00015)])
def test_p_values_without_disagreements_are_the_chance_of_that(n: int, limit: float) -> None:
    truth = (1 - limit) ** n
    assert truth <= exact.p_value(0, 0, n, limit) <= 1.02 * truth + 0.001


def test_outcomes_are_ordered_consistently() -> None:
    """The proof needs nested sets: scores that fall with losses and rise with the limit."""
    for n in (1, 2, 7, 20):
        lost, gained = (axis.ravel() for axis in np.mgrid[: n + 1, : n + 1])
        inside = lost + gained < n
        lost, gained = lost[inside], gained[inside]
        previous = np.full(len(lost), -np.inf)
        for limit in np.linspace(-0.98, 0.98, 99):
            here = exact.score(lost, gained, n, limit)
            good = n * limit > lost - gained
            assert (exact.score(lost + 1, gained, n, limit) <= here + 1e-9)[good].all()
            assert (exact.score(lost, gained + 1, n, limit) >= here - 1e-9)[good].all()
            assert (here >= previous - 1e-9)[good].all()
            previous = here


@pytest.mark.parametrize("n", [100, 1000, 10_000, 100_000])
def test_without_disagreements_the_bound_is_the_rule_of_three(n: int) -> None:
    ideal = 1 - 0.05 ** (1 / n)
    assert ideal <= exact.upper_bound(0, 0, n) <= 1.02 * ideal


def test_bounds_fall_with_more_data() -> None:
    bounds = [exact.upper_bound(6 * k, 4 * k, 1000 * k) for k in (1, 3, 10, 100)]
    assert bounds == sorted(bounds, reverse=True)
    assert 0.002 < bounds[-1] < 0.0027


def test_one_sample_proves_next_to_nothing() -> None:
    assert exact.upper_bound(1, 0, 1) == 1.0
    assert exact.upper_bound(0, 0, 1) > 0.95
    assert exact.p_value(0, 0, 1, 0.5) > 0.05


def counts(largest: int) -> st.SearchStrategy[tuple[int, int, int]]:
    return st.integers(1, largest).flatmap(
        lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n)).map(
            lambda c: (c[0], min(c[1], n - c[0]), n)
        )
    )


@settings(max_examples=60, deadline=None)
@given(counts(300), st.floats(-0.99, 0.99), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_exact_bound_and_test_agree(
    outcome: tuple[int, int, int], limit: float, confidence: float
) -> None:
    evidence = ZeroOne(*outcome)
    bound = evidence.upper_bound(confidence, limit)
    assert (bound <= limit) == (evidence.p_value(limit, confidence) <= 1 - confidence)
    assert evidence.lower_bound(confidence) <= evidence.drop <= bound <= 1
    free = evidence.upper_bound(confidence)
    scale = max(free - evidence.drop, 0.1 / evidence.n)
    assert abs(free - bound) <= 0.01 * scale


def test_equal_counts_give_equal_certificates_whatever_the_order() -> None:
    differences = np.repeat(np.array([1, -1, 0]), [5, 3, 92])
    shuffled = np.random.default_rng(0).permutation(differences)
    assert certify.upper_bound(differences) == certify.upper_bound(shuffled, seed=5)


# --- betting ----------------------------------------------------------------------------------


def graded(n: int, mean: float, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(mean, 0.1, n), -1, 1)


def test_betting_errs_at_most_5_percent_of_the_time() -> None:
    losses = [betting.p_value(graded(200, 0.02, seed), 0.02) <= 0.05 for seed in range(600)]
    assert 0 < sum(losses) <= 30


def test_betting_wins_where_there_is_something_to_win() -> None:
    wins = [betting.p_value(graded(1000, 0.0, seed), 0.01) <= 0.05 for seed in range(100)]
    assert sum(wins) >= 80


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=200),
    st.floats(-0.9, 0.9),
    st.sampled_from([0.8, 0.95]),
)
def test_betting_bound_and_test_agree(
    values: list[float], limit: float, confidence: float
) -> None:
    evidence = Bounded(np.array(values))
    bound = evidence.upper_bound(confidence, limit)
    assert (bound <= limit) == (evidence.p_value(limit, confidence) <= 1 - confidence)
    assert evidence.drop < bound <= 1 or bound == 1


def test_betting_without_differences_is_near_the_rule_of_three() -> None:
    assert -math.log(0.05) / 1000 < betting.upper_bound(np.zeros(1000)) < 3.4 / 1000


# --- the bootstrap ----------------------------------------------------------------------------


def errors(n: int, worse: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(1)
    before = rng.chisquare(3, n)
    return before, before * (1 + worse) + rng.normal(0, 0.1, n)


def test_a_larger_error_is_a_relative_drop() -> None:
    evidence = mean_drop(*errors(2000, 0.01), higher_is_better=False)
    assert evidence.approximate
    assert evidence.drop == pytest.approx(0.01, abs=0.005)
    assert evidence.lower_bound() < evidence.drop < evidence.upper_bound()


def test_the_bootstrap_agrees_with_theory_where_there_is_one() -> None:
    values = np.random.default_rng(0).normal(0.0, 1.0, 3000)
    bootstrap = Bootstrap.of(lambda rows: values[rows].mean(axis=1), len(values))
    ideal = values.mean() + 1.645 * values.std() / math.sqrt(3000)
    assert bootstrap.upper_bound(0.95) == pytest.approx(ideal, abs=0.002)
    assert bootstrap.p_value(ideal) == pytest.approx(0.05, abs=0.01)
    assert bootstrap.p_value(bootstrap.upper_bound(0.9)) == pytest.approx(0.1, abs=0.002)


def test_bca_corrects_for_skew() -> None:
    values = np.random.default_rng(0).exponential(1.0, 60)
    bootstrap = Bootstrap.of(lambda rows: values[rows].mean(axis=1), 60)
    plain = float(np.quantile(bootstrap.values, 0.95))
    assert bootstrap.acceleration > 0
    assert bootstrap.upper_bound(0.95) > plain


def test_any_metric_can_be_resampled() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 400)
    before, after = labels.copy(), np.where(rng.random(400) < 0.05, 1 - labels, labels)

    def f1(predicted: NDArray[np.int64], rows: NDArray[np.int64]) -> float:
        hits = (predicted[rows] & labels[rows]).sum()
        return float(2 * hits / (predicted[rows].sum() + labels[rows].sum()))

    evidence = metric_drop(lambda rows: f1(before, rows) - f1(after, rows), 400)
    certificate = certify.fixed_sequence([("f1", evidence)], 0.1)
    assert certificate.approximate
    assert certificate.chosen == 0


def test_resamples_without_a_value_count_as_bad() -> None:
    positives = np.arange(40) < 2

    def drop(rows: NDArray[np.int64]) -> float:
        found = positives[rows].sum()
        return 0.01 * float(found) if found else math.nan

    def statistic(indices: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.array([drop(rows) for rows in indices])

    values = Bootstrap.of(statistic, 40).values
    assert np.isfinite(values).all()
    assert (values == values[-1]).mean() > 0.1


def test_the_bootstrap_decides_nothing_on_a_handful_of_samples() -> None:
    evidence = mean_drop(*errors(20, 0.0), higher_is_better=False)
    certificate = certify.fixed_sequence([("tiny", evidence)], 0.5)
    assert certificate.chosen is None
    assert certificate.tested[0].verdict is Verdict.UNDECIDED
    assert certificate.to_dict()["tested"][0]["upper"] is None


def test_the_same_seed_gives_the_same_bound() -> None:
    bounds = [
        mean_drop(*errors(300, 0.0), higher_is_better=False, seed=seed).upper_bound()
        for seed in (3, 3, 4)
    ]
    assert bounds[0] == bounds[1] != bounds[2]


def test_a_relative_drop_from_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="certification samples is inf"):
        mean_drop(np.zeros(50), np.ones(50), higher_is_better=False)
    assert mean_drop(np.zeros(50), np.zeros(50), higher_is_better=False).drop == 0.0
