"""Expecting a drop: far less noise than counting, and labels where chance is no excuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from penjing.engine.expectation import Expectation, correction

if TYPE_CHECKING:
    from penjing.core.tensors import Array

CLASSES = 5


def softmax(scores: Array) -> Array:
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def draw(shares: Array, rng: np.random.Generator) -> Array:
    return np.asarray((shares.cumsum(axis=1) > rng.random((len(shares), 1))).argmax(axis=1))


def simulated(seed: int, samples: int = 1000, temperature: float = 2.0) -> dict[str, float]:
    """Judge one candidate on one draw of samples and labels; give three views of its drop."""
    rng = np.random.default_rng(seed)
    scores = 6 * rng.normal(size=(samples, CLASSES))
    true = softmax(scores / temperature)
    after = scores + 0.7 * rng.normal(size=scores.shape)
    labels = draw(true, rng)
    made = Expectation.of({"y": scores}, labels)
    assert made is not None
    rows = np.arange(samples)
    own, new = scores.argmax(axis=1), after.argmax(axis=1)
    return {
        "true": float((true[rows, own] - true[rows, new]).mean()),
        "expected": made.drop({"y": after}),
        "counted": float((own == labels).mean() - (new == labels).mean()),
    }


def test_expected_drops_are_right_and_vary_far_less_than_counted_ones() -> None:
    found = [simulated(seed) for seed in range(60)]
    truth = np.mean([f["true"] for f in found])
    expected, counted = (np.array([f[name] for f in found]) for name in ("expected", "counted"))
    assert abs(expected.mean() / truth - 1) < 0.1
    assert expected.var() < 0.1 * counted.var()


def two_opinions(seed: int, spread: float, samples: int = 1000) -> tuple[float, float, float]:
    """Let original and candidate see the truth through noises of their own.

    Gives the drop by the pool, by the original alone, and as counted.
    """
    rng = np.random.default_rng(seed)
    truth = 3 * rng.normal(size=(samples, CLASSES))
    labels = draw(softmax(truth), rng)
    before = 2 * (truth + rng.normal(size=truth.shape))
    after = 0.7 * (truth + spread * rng.normal(size=truth.shape))
    made = Expectation.of({"y": before}, labels)
    assert made is not None
    pooled = made.pooled_drop({"y": after})
    assert pooled is not None
    before_right, after_right = (
        (scores.argmax(axis=1) == labels).mean() for scores in (before, after)
    )
    return pooled, made.drop({"y": after}), float(before_right - after_right)


@pytest.mark.parametrize("spread", [0.7, 1.0, 1.4], ids=["better", "as good", "worse"])
def test_a_candidate_of_its_own_mind_is_asked_as_well(spread: float) -> None:
    found = np.array([two_opinions(seed, spread) for seed in range(60)])
    pooled, alone, counted = found.T
    assert abs(pooled.mean() - counted.mean()) < 3 * counted.std() / np.sqrt(len(counted))
    assert pooled.var() < 0.65 * counted.var()
    assert alone.mean() > pooled.mean() + 0.03  # the original never thinks that it is wrong


def test_the_pool_takes_whatever_it_is_given() -> None:
    rng = np.random.default_rng(0)
    scores = 3 * rng.normal(size=(300, 4))
    made = Expectation.of({"y": scores}, draw(softmax(scores), rng))
    assert made is not None
    assert made.pooled_drop({"y": scores}) == 0
    assert made.pooled_drop({"y": np.zeros_like(scores)}) is not None
    assert made.pooled_drop({"y": 1e4 * scores}) == 0
    assert made.pooled_drop({"y": np.where(scores > 2, np.nan, scores)}) is None


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_overconfident_scores_are_calibrated(temperature: float) -> None:
    found = [simulated(seed, 4000, temperature) for seed in range(5)]
    truth = np.mean([f["true"] for f in found])
    assert abs(np.mean([f["expected"] for f in found]) / truth - 1) < 0.15


def test_probabilities_serve_as_well_as_logits() -> None:
    scores = np.random.default_rng(0).normal(size=(500, 3)) * 3
    labels = draw(softmax(scores), np.random.default_rng(1))
    after = scores + np.random.default_rng(2).normal(size=scores.shape)
    logits, shares = (
        Expectation.of({"y": scores}, labels),
        Expectation.of({"y": softmax(scores)}, labels),
    )
    assert logits is not None
    assert shares is not None
    np.testing.assert_allclose(
        logits.drop({"y": after}), shares.drop({"y": softmax(after)}), rtol=1e-9
    )


def test_nothing_changed_is_no_drop_and_no_change_is_a_gain() -> None:
    scores = np.random.default_rng(0).normal(size=(200, 4))
    made = Expectation.of({"y": scores}, scores.argmin(axis=1))
    assert made is not None
    assert made.drop({"y": scores}) == 0
    assert made.drop({"y": -scores}) > 0


@pytest.mark.parametrize(
    ("output", "labels"),
    [
        (np.zeros((9, 3)), None),
        (np.zeros((9, 3)), np.zeros(9)),
        (np.zeros((9, 3)), np.array(["a"] * 9)),
        (np.zeros((9, 3)), np.full(9, 3)),
        (np.zeros((9, 3)), np.full(9, -1)),
        (np.zeros((9, 1)), np.zeros(9, int)),
        (np.zeros(9), np.zeros(9, int)),
        (np.zeros((9, 4, 3)), np.zeros((9, 4), int)),
        (np.zeros(9, int), np.zeros(9, int)),
        (np.zeros((9, 2, 2, 2)), np.zeros(9, int)),
    ],
    ids=[
        "no labels",
        "values",
        "names",
        "too many classes",
        "negative classes",
        "one score",
        "one number",
        "sequences",
        "classes themselves",
        "images",
    ],
)
def test_there_are_no_expectations_without_class_scores(
    output: Array, labels: Array | None
) -> None:
    assert Expectation.of({"y": output}, labels) is None


def test_nothing_counted_leaves_expectations_as_they_are() -> None:
    assert correction([], [], []) == 1
    assert correction([0.0], [0.01], [0.01]) == 1


def test_noise_hardly_moves_expectations() -> None:
    assert 0.85 < correction([0.004], [0.006], [0.006]) < 1.15
    assert 0.85 < correction([0.004], [-0.002], [0.006]) < 1.15


def test_many_counts_prevail_over_expectations() -> None:
    assert correction([0.004], [0.006], [1e-5]) == pytest.approx(1.5, abs=0.01)
    assert correction([0.004], [0.002], [1e-5]) == pytest.approx(0.5, abs=0.01)


def test_what_chance_does_not_explain_prevails() -> None:
    # Expected 0.9 points, counted 4 with a standard error of 0.8: the scores are no guide.
    assert 3.5 < correction([0.009], [0.04], [0.008]) < 40 / 9


def test_corrections_have_limits() -> None:
    assert correction([0.001], [1.0], [1e-6]) == 10
    assert correction([0.01], [-0.1], [1e-6]) == pytest.approx(0.3)
