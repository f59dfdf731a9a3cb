"""Regression metrics equal scikit-learn's; deviation needs no labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.metrics import (
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    root_mean_squared_error,
)

from penjing.core.errors import DataError
from penjing.core.registry import METRICS

NUMBERS = st.floats(-1000, 1000, allow_subnormal=False)


def metric(name: str) -> Any:
    return METRICS.load(name)()


def value(name: str, outputs: Any, labels: Any) -> float:
    metric(name).check(outputs, labels)
    return float(metric(name).value(outputs, labels, outputs))


@st.composite
def predicted(draw: Any) -> Any:
    shape = draw(array_shapes(min_dims=1, max_dims=2, min_side=2, max_side=12))
    elements = st.integers(-2000, 2000)
    pair = [draw(arrays(np.int64, shape, elements=elements)) / 8 for _ in range(2)]
    assume((pair[1].reshape(len(pair[1]), -1).std(axis=0) > 0).all())
    return pair


@given(predicted())
def test_errors_are_scikit_learns(case: Any) -> None:
    outputs, labels = {"y": case[0]}, case[1]
    flat = case[1].ravel(), case[0].ravel()
    assert value("mse", outputs, labels) == pytest.approx(mean_squared_error(*flat))
    assert value("mae", outputs, labels) == pytest.approx(mean_absolute_error(*flat))
    assert value("rmse", outputs, labels) == pytest.approx(root_mean_squared_error(*flat))
    assert value("r2", outputs, labels) == pytest.approx(r2_score(case[1], case[0]))


def test_a_column_of_predictions_is_one_value_each() -> None:
    outputs = {"variable": np.array([[1.0], [2], [4]], np.float32)}
    labels = np.array([1, 2, 3])
    assert metric("mse").scores(outputs, labels, outputs).tolist() == [0, 0, 1]
    assert metric("mae").scores(outputs, labels, outputs).tolist() == [0, 0, 1]
    assert value("r2", outputs, labels) == pytest.approx(0.5)


def test_nan_from_the_compressed_model_is_infinitely_wrong() -> None:
    before, broken = {"y": np.ones(3)}, {"y": np.array([1, np.nan, 1])}
    labels = np.array([1.0, 2, 3])
    for name in ("mse", "mae", "rmse"):
        assert metric(name).value(broken, labels, before) == np.inf
    assert metric("r2").value(broken, labels, before) == -np.inf
    assert metric("deviation").value(broken, None, before) == np.inf


@pytest.mark.parametrize("name", ["mse", "mae", "rmse", "r2"])
@pytest.mark.parametrize(
    ("outputs", "labels", "message"),
    [
        ({"y": np.ones(3)}, None, "the data have none.*deviation"),
        ({"y": np.ones(3)}, np.array(["a", "b", "c"]), "'a' are classes.*accuracy"),
        ({"y": np.ones((3, 4))}, np.ones(3), r"\(3, 4\), the labels have \(3,\).*accuracy"),
        ({"label": np.array([1, 2, 3])}, np.ones(3), "no output holds real numbers"),
        ({"y": np.array([1, np.inf, np.nan])}, np.ones(3), "for 2 rows, first for row 1"),
    ],
    ids=range(5),
)
def test_labels_that_do_not_fit_are_refused(
    name: str, outputs: Any, labels: Any, message: str
) -> None:
    with pytest.raises(DataError, match=rf"(?s){message}"):
        metric(name).check(outputs, labels)


def test_r2_needs_labels_that_vary() -> None:
    labels = np.full(7, 0.1)
    with pytest.raises(DataError, match="no variance to explain"):
        metric("r2").check({"y": np.arange(7.0)}, labels)
    assert metric("r2").value({"y": np.arange(7.0)}, labels, {}) == 0


@given(arrays(np.float64, (9, 3), elements=NUMBERS), st.floats(0.001, 1), NUMBERS)
def test_deviation_has_no_unit_and_no_origin(y: Any, noise: float, origin: float) -> None:
    assume((y.std(axis=0) > 1).all())
    moved = y + noise * np.arange(27).reshape(9, 3)
    judge = metric("deviation")
    found = judge.value({"y": moved}, None, {"y": y})
    shifted = judge.value({"y": 2 * moved + origin}, None, {"y": 2 * y + origin})
    assert found == pytest.approx(shifted, rel=1e-6)
    assert found > 0
    assert judge.value({"y": y}, None, {"y": y}) == 0


def test_deviation_is_a_share_of_the_spread() -> None:
    y = np.array([[1.0, -1], [-1, 1]]) + 100
    assert metric("deviation").value({"y": y + 0.1}, None, {"y": y}) == pytest.approx(0.1)
    both = {"y": y, "other": np.zeros(2), "kind": np.array(["a", "b"])}
    one_moved = {**both, "y": y + 0.1}
    expected = pytest.approx(0.1 / np.sqrt(2))
    assert metric("deviation").value(one_moved, None, both) == expected


def test_deviation_of_constant_outputs_is_measured_from_zero() -> None:
    judge = metric("deviation")
    single = np.array([[3.0, 4.0]])
    assert judge.value({"y": single * 1.01}, None, {"y": single}) == pytest.approx(0.01)
    assert judge.value({"y": np.ones(2)}, None, {"y": np.zeros(2)}) == np.inf


def test_deviation_needs_real_numbers() -> None:
    with pytest.raises(DataError, match=r"(?s)no output holds real numbers.*agreement"):
        metric("deviation").check({"label": np.array([1, 2])}, None)
    with pytest.raises(DataError, match="gives 1 values that are NaN"):
        metric("deviation").check({"y": np.array([1, np.nan])}, None)
