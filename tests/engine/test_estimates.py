"""What is expected of candidates that were trained, and of those that were not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import penjing
from penjing.engine.estimates import Estimates

POINT = 0.01


def candidate(*, trained: bool = True, **told: Any) -> Any:
    """Make a candidate judged on 1,000 samples, of which 4 in 100 are decided otherwise."""
    judged = {
        "drop": 0.0,
        "variance": 0.04,
        "expected": None,
        "pooled": None,
        "divergence": 0.1,
    }
    return SimpleNamespace(trained=trained, judgement=SimpleNamespace(**{**judged, **told}))


def estimates(*candidates: Any, max_drop: float = POINT, samples: int = 1000) -> Estimates:
    budget = penjing.Budget(max_drop=max_drop, confidence=None)
    return Estimates(candidates, budget, samples, 1000)


def test_what_was_trained_is_asked_for_its_own_opinion() -> None:
    made = candidate(drop=-0.3 * POINT, expected=2 * POINT, pooled=0.5 * POINT)
    assert 0.3 * POINT < estimates(made).drop(made) < 0.5 * POINT  # counting is noisy
    assert estimates(made, samples=10**9).drop(made) == pytest.approx(0.3 * 0.5 * POINT)


def test_what_was_not_trained_is_not() -> None:
    made = candidate(trained=False, drop=POINT, expected=POINT, pooled=0.1 * POINT)
    assert estimates(made).drop(made) == pytest.approx(POINT)


def test_trained_and_untrained_are_corrected_apart() -> None:
    trained = candidate(drop=0.5 * POINT, pooled=0.5 * POINT)
    quantized = candidate(trained=False, drop=4 * POINT, expected=2 * POINT)
    both = estimates(trained, quantized, samples=10**9)
    assert both.drop(trained) == pytest.approx(0.5 * POINT)
    assert both.drop(quantized) == pytest.approx(4 * POINT)


def test_a_gain_stays_a_gain() -> None:
    made = candidate(pooled=-0.2 * POINT)
    assert estimates(made).drop(made) == -0.2 * POINT


def test_without_an_opinion_or_a_limit_above_nothing_drops_are_counted() -> None:
    silent = candidate(drop=0.7 * POINT)
    assert estimates(silent).drop(silent) == 0.7 * POINT
    made = candidate(drop=0.0, pooled=0.1 * POINT)
    assert estimates(made, max_drop=0.0).drop(made) == 0.0
