"""Intervals hold what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.core.errors import ConfigError, DataError
from penjing.core.measure import Measurement, Verdict, at_most


@given(st.integers(0, 500), st.integers(0, 500), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_a_proportion_lies_in_its_interval(hits: int, misses: int, confidence: float) -> None:
    if hits + misses == 0:
        return
    share = Measurement.proportion(hits, hits + misses, confidence)
    assert 0 <= share.low <= share.value <= share.high <= 1
    assert share.low < share.high


@pytest.mark.parametrize(("n", "confidence"), [(20, 0.95), (101, 0.9), (1500, 0.95)])
def test_the_median_is_covered_as_often_as_stated(n: int, confidence: float) -> None:
    rng = np.random.default_rng(0)
    truth, held = math.log(2), 0  # of the exponential distribution
    for _ in range(400):
        found = Measurement.median(rng.exponential(1.0, n), confidence=confidence)
        held += found.low <= truth <= found.high
    assert held / 400 >= confidence - 0.02
    assert held / 400 <= confidence + 0.05


def test_order_statistics_beyond_the_table_match_exact_binomials() -> None:
    n = 1201
    found = Measurement.median(np.arange(n))
    outside = round(found.low)
    missed = 2 * sum(math.comb(n, k) for k in range(outside + 1)) / 2**n
    assert 0.04 < missed <= 0.05


def test_too_few_values_say_what_their_range_is_worth() -> None:
    found = Measurement.median(np.array([3.0, 1.0, 2.0]))
    assert (found.low, found.value, found.high) == (1.0, 2.0, 3.0)
    assert found.confidence == 0.75
    assert Measurement.median(np.array([1.0])).confidence == 0.0


def test_speed_ups_ignore_what_slows_both_sides() -> None:
    rng = np.random.default_rng(0)
    load = np.repeat([1.0, 10.0], 50)  # the machine is busy half of the time
    before, after = 2 * load * rng.uniform(1, 1.05, 100), load * rng.uniform(1, 1.05, 100)
    found = Measurement.speed_up(before, after)
    assert found.unit == "x"
    assert 1.9 < found.low <= found.value <= found.high < 2.1


@pytest.mark.parametrize(
    ("high", "low", "verdict"),
    [(4.9, 4.0, Verdict.MET), (5.3, 4.5, Verdict.UNDECIDED), (6.0, 5.1, Verdict.MISSED)],
)
def test_limits_are_judged_by_the_whole_interval(
    high: float, low: float, verdict: Verdict
) -> None:
    assert at_most(5.0, Measurement((low + high) / 2, low, high, "ms")) is verdict


def test_meaningless_measurements_are_refused() -> None:
    with pytest.raises(DataError, match="no share"):
        Measurement.proportion(0, 0)
    with pytest.raises(DataError, match="one or more"):
        Measurement.median(np.zeros(0))
    with pytest.raises(DataError, match="NaN"):
        Measurement.median(np.array([1.0, np.nan]))
    with pytest.raises(DataError, match="pairs"):
        Measurement.speed_up(np.ones(2), np.ones(3))
    with pytest.raises(DataError, match="positive"):
        Measurement.speed_up(np.ones(2), np.zeros(2))
    with pytest.raises(ConfigError, match="confidence"):
        Measurement.proportion(1, 2, confidence=1.0)
