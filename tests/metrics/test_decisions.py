"""Outputs are read as decisions by fixed rules, and ``auto`` follows from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penjing.core.metric import choose_metric, decide, values
from penjing.core.registry import METRICS

SCORES = np.array([[0.1, 2, -1], [3, 0, 0], [0, 0, 1]], np.float32)
PROBABILITY = np.array([[0.2], [0.7], [0.5]], np.float32)
LOGIT = np.array([[-3.0], [4], [0.1]])
NAMED = np.array(["a", "b", "a"], object)
STATE = np.zeros((3, 2, 128), np.float32)


@pytest.mark.parametrize(
    ("outputs", "predicted", "classes"),
    [
        ({"label": NAMED, "scores": SCORES}, ["a", "b", "a"], None),
        ({"scores": SCORES, "label": np.array([[2], [0], [1]])}, [2, 0, 1], None),
        ({"scores": SCORES}, [1, 0, 2], 3),
        ({"probability": PROBABILITY, "state": STATE}, [0, 1, 0], 2),
        ({"probability": PROBABILITY[:, 0]}, [0, 1, 0], 2),
        ({"logit": LOGIT}, [0, 1, 1], 2),
        ({"scores": np.stack([SCORES, SCORES])}, [[1, 0, 2], [1, 0, 2]], 3),
        ({"tags": np.array([[1, 2], [3, 4]])}, [[1, 2], [3, 4]], None),
        ({"scores": np.where(SCORES == 3, np.nan, SCORES)}, [1, -1, 2], 3),
    ],
    ids=[
        "names",
        "numbers",
        "scores",
        "probability",
        "flat",
        "logit",
        "sequence",
        "tags",
        "nan",
    ],
)
def test_decision_is_read(outputs: Any, predicted: list[Any], classes: int | None) -> None:
    found = decide(outputs)
    assert found is not None
    assert found.predicted.tolist() == predicted
    assert found.classes == classes


def test_the_original_says_what_a_single_score_means() -> None:
    compressed = {"logit": np.array([[0.4], [0.9]])}
    found = decide(compressed, {"logit": np.array([[-1.0], [2]])})
    assert found is not None
    assert found.predicted.tolist() == [1, 1]


@pytest.mark.parametrize(
    "outputs",
    [{"image": np.zeros((2, 3, 4, 4))}, {"one": np.zeros((2, 5, 1))}, {}, {"price": LOGIT}],
    ids=["image", "one", "none", "value"],
)
def test_some_outputs_decide_nothing(outputs: Any) -> None:
    assert decide(outputs, logits=False) is None


def test_values_come_from_the_first_float_output() -> None:
    found = values({"n": np.array([1, 2, 3]), "price": LOGIT, "other": SCORES})
    assert found is not None
    assert found[0] == "price"
    assert found[1].tolist() == [-3, 4, 0.1]
    assert values({"n": np.array([1])}) is None


@pytest.mark.parametrize(
    ("outputs", "labels", "name"),
    [
        ({"s": SCORES}, None, "agreement"),
        ({"label": NAMED}, None, "agreement"),
        ({"p": PROBABILITY}, None, "agreement"),
        ({"price": LOGIT}, None, "deviation"),
        ({"image": np.zeros((3, 1, 8, 8))}, None, "deviation"),
        ({"s": SCORES}, np.array([1, 0, 2]), "accuracy"),
        ({"s": SCORES}, np.array([1.0, 0, 2]), "accuracy"),
        ({"label": NAMED}, np.array(["a", "b", "a"]), "accuracy"),
        ({"label": np.array([1, 0, 1])}, np.array([1.0, 0, 1]), "accuracy"),
        ({"p": PROBABILITY}, np.array([0, 1, 1]), "accuracy"),
        ({"p": PROBABILITY}, np.array([0.0, 1, 1]), "accuracy"),
        ({"logit": LOGIT}, np.array([0, 1, 1]), "accuracy"),
        ({"price": LOGIT}, np.array([0.0, 1, 1]), "rmse"),
        ({"price": LOGIT}, np.array([5, 1, 7]), "rmse"),
        ({"price": LOGIT}, np.array([0.5, 1, 1]), "rmse"),
        ({"s": SCORES}, np.array([0.5, 1, 1]), "rmse"),
        ({"s": SCORES}, np.eye(3, dtype=int), "accuracy"),
        ({"s": SCORES}, np.array([[5, 4, 3]] * 3), "rmse"),
        ({"image": np.zeros((3, 1, 8, 8))}, np.zeros((3, 1, 8, 8)), "rmse"),
    ],
    ids=range(19),
)
def test_auto_follows_from_labels_and_outputs(outputs: Any, labels: Any, name: str) -> None:
    assert choose_metric(outputs, labels) == name
    assert name in METRICS.names()


def test_every_metric_is_registered_and_sound() -> None:
    expected = {"accuracy", "agreement", "auc", "deviation", "f1", "mae", "mse", "r2", "rmse"}
    assert expected <= set(METRICS.names())
    for name in METRICS.names():
        metric = METRICS.load(name)()
        assert metric.absolute == (metric.bounded or name == "deviation")
        assert METRICS.name_of(type(metric)) == name
        if not metric.decomposes:
            with pytest.raises(NotImplementedError):
                metric.scores({"s": SCORES}, None, {"s": SCORES})


@pytest.mark.parametrize(
    ("name", "original", "compressed", "drop"),
    [
        ("accuracy", 0.9, 0.85, 0.05),
        ("accuracy", 0.9, 0.95, -0.05),
        ("rmse", 2.0, 2.1, 0.05),
        ("rmse", 0.0, 0.0, 0.0),
        ("rmse", 0.0, 0.1, np.inf),
        ("r2", 0.8, 0.76, 0.05),
        ("r2", -0.5, -0.6, 0.2),
        ("deviation", 0.0, 0.01, 0.01),
    ],
)
def test_drop_is_in_the_unit_of_limits(
    name: str, original: float, compressed: float, drop: float
) -> None:
    assert METRICS.load(name)().drop(original, compressed) == pytest.approx(drop)
