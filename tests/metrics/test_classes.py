"""Classification metrics equal scikit-learn's and refuse what means nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, roc_auc_score

from penjing.core.errors import DataError, PenjingWarning
from penjing.core.registry import METRICS

SCORES = np.array([[0.1, 2, -1], [3, 0, 0], [0, 0, 1]], np.float32)
LABELS = np.array([1, 0, 2])


def metric(name: str) -> Any:
    return METRICS.load(name)()


def value(name: str, outputs: Any, labels: Any, original: Any = None) -> float:
    judge = metric(name)
    before = outputs if original is None else original
    judge.check(before, labels)
    return float(judge.value(outputs, labels, before))


@st.composite
def classified(draw: Any, classes: int, *, ties: bool = True) -> Any:
    rows = draw(st.integers(classes, 40))
    labels = draw(arrays(np.int64, rows, elements=st.integers(0, classes - 1)))
    steps = st.integers(-8, 8) if ties else st.integers(-(2**20), 2**20)
    scores = draw(arrays(np.int64, (rows, classes), elements=steps)) / 4
    assume(len(np.unique(labels)) == classes)
    return scores, labels


@pytest.mark.filterwarnings("ignore::penjing.PenjingWarning")
@given(classified(3))
def test_macro_f1_is_scikit_learns(case: Any) -> None:
    scores, labels = case
    expected = f1_score(labels, scores.argmax(axis=1), average="macro", zero_division=0)
    assert value("f1", {"s": scores}, labels) == pytest.approx(expected)
    names = np.array(["ab", "c", "d"])
    named = {"label": names[scores.argmax(axis=1)]}
    assume(np.isin(names[labels], named["label"]).any())
    assume(len({*named["label"], *names[labels]}) > 2)
    assert value("f1", named, names[labels]) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore::penjing.PenjingWarning")
@given(classified(2))
def test_binary_f1_is_scikit_learns(case: Any) -> None:
    scores, labels = case
    predicted = scores.argmax(axis=1)
    expected = f1_score(labels, predicted, zero_division=0)
    assert value("f1", {"s": scores}, labels) == pytest.approx(expected)
    assert value("f1", {"label": predicted}, labels) == pytest.approx(expected)


@given(classified(2))
def test_binary_auc_is_scikit_learns(case: Any) -> None:
    scores, labels = case
    margin = scores[:, 1] - scores[:, 0]
    expected = roc_auc_score(labels, margin)
    chance = 1 / (1 + np.exp(-margin))
    for outputs in (
        {"logits": scores},
        {"p": np.stack([1 - chance, chance], 1)},
        {"p": chance},
    ):
        assert value("auc", outputs, labels) == pytest.approx(expected)
    if (margin < 0).any():
        assert value("auc", {"logit": margin[:, None]}, labels) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([3.75, -4.5, 4.25, 0.25], [3.75, 0.25, 4.25, -4.5]),
        ([3.5, 1.25, 0, -2.5], [5.75, 3.5, 2.25, -0.25]),
    ],
    ids=["in another order", "shifted"],
)
def test_classes_0_and_2_that_are_as_likely_tie(
    first: list[float], second: list[float]
) -> None:
    scores = np.array([first, second, [0, 1, 2, 3], [3, 2, 1, 0]])
    labels = np.array([0, 2, 1, 3])
    swapped = scores[[1, 0, 2, 3]]
    assert value("auc", {"s": scores}, labels) == value("auc", {"s": swapped}, labels)


@given(classified(4, ties=False))
def test_macro_auc_is_scikit_learns(case: Any) -> None:
    scores, labels = case
    scores = scores / 2**17  # moderate, so that scikit-learn's probabilities keep the order
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances = odds / np.sort(odds, axis=1).sum(axis=1, keepdims=True)  # equal ones must tie
    expected = roc_auc_score(labels, chances, multi_class="ovr", average="macro")
    assert value("auc", {"p": chances}, labels) == pytest.approx(expected)
    assume((scores < 0).any() or (scores > 1).any())
    assert value("auc", {"logits": scores}, labels) == pytest.approx(expected)


def test_auc_tells_apart_what_softmax_would_round_away() -> None:
    logits = np.array([[100.0, 0, 0], [200, 0, 0], [0, 50, 0], [0, 0, 50.0]])
    assert value("auc", {"s": logits}, np.array([1, 0, 1, 2])) < 1
    names = np.array(["x", "y", "z", "z"])
    outputs = {"label": np.array(["x", "y", "z", "z"]), "s": np.eye(3)[[0, 1, 2, 2]]}
    assert value("auc", outputs, names) == 1.0


@given(classified(3))
def test_accuracy_is_the_mean_of_zeros_and_ones(case: Any) -> None:
    scores, labels = case
    found = metric("accuracy").scores({"s": scores}, labels, {"s": scores})
    assert found.dtype == np.float64
    assert set(found.tolist()) <= {0.0, 1.0}
    assert found.mean() == (scores.argmax(axis=1) == labels).mean()


def test_accuracy_of_a_sequence_is_the_share_of_positions() -> None:
    outputs = {"s": np.stack([SCORES, SCORES])}
    labels = np.array([[1, 0, 2], [1, 1, 1]])
    assert metric("accuracy").scores(outputs, labels, outputs).tolist() == [1, 1 / 3]
    assert value("f1", outputs, labels) == pytest.approx(
        f1_score(labels.ravel(), [1, 0, 2] * 2, average="macro")
    )


def test_labels_may_be_whole_floats_and_predictions_names() -> None:
    assert value("accuracy", {"s": SCORES}, LABELS.astype(float)) == 1
    named = {"label": np.array([["lo"], ["hi"], ["lo"]], object), "p": SCORES[:, :2]}
    assert value("accuracy", named, np.array(["lo", "hi", "hi"])) == pytest.approx(2 / 3)


def test_nan_from_the_compressed_model_is_wrong() -> None:
    broken = {"s": np.full_like(SCORES, np.nan)}
    before = {"s": SCORES}
    assert value("accuracy", broken, LABELS, before) == 0
    assert value("agreement", broken, None, before) == 0
    assert value("f1", broken, LABELS, before) == 0
    assert value("auc", broken, LABELS, before) == 0
    one = {"p": np.array([[0.1], [0.9], [0.8]])}
    gone = {"p": np.full((3, 1), np.nan)}
    assert value("accuracy", gone, np.array([0, 1, 1]), one) == 0


def test_agreement_compares_with_the_original() -> None:
    other = {"s": SCORES[:, ::-1]}
    found = metric("agreement").scores(other, None, {"s": SCORES})
    assert found.tolist() == [1.0, 0.0, 0.0]
    assert value("agreement", {"s": SCORES}, None) == 1


@pytest.mark.parametrize("name", ["accuracy", "f1", "auc"])
@pytest.mark.parametrize(
    ("outputs", "labels", "message"),
    [
        ({"s": SCORES}, None, "the data have none.*agreement"),
        ({"s": SCORES}, np.array([1, 0, 3]), "largest is 3, but output 's' has 3 classes"),
        ({"s": SCORES}, np.array([1, 2, 3]), "subtract 1"),
        ({"s": SCORES}, np.array([-1, 0, 2]), "smallest is -1"),
        ({"s": SCORES}, np.array([0.5, 0, 2]), "wrong for the task.*0.5.*rmse"),
        ({"s": SCORES}, np.array(["a", "b", "c"]), "are strings .'a', 'b', 'c'.*from 0 to 2"),
        ({"s": SCORES}, np.eye(3, dtype=int), r"one-hot, shape \(3, 3\).*argmax"),
        ({"s": SCORES}, np.array([[1, 2], [0, 1], [1, 1]]), r"shape \(3, 2\).*\(3,\)"),
        ({"s": SCORES}, np.array([1, 1, 1]), "too few rows: all 3 are of one class, 1"),
        ({"s": SCORES[:1]}, np.array([1]), "too few rows: there is one"),
        (
            {"s": np.tile(SCORES, (4, 1))},
            np.ones(12, int),
            "all 12 are of one class, 1.*two classes; compress can do without labels",
        ),
        ({"p": SCORES[:, :1]}, np.array([5, 1, 0]), "largest is 5.*2 classes.*rmse"),
        ({"s": SCORES * np.nan}, LABELS, "original model gives NaN for 3 rows"),
        ({"i": np.zeros((3, 1, 2, 2))}, LABELS, r"decide for no class.*\(3, 1, 2, 2\).*rmse"),
        (
            {"label": np.array(["<=50K", ">50K", ">50K"])},
            np.array(["<=50K.", ">50K.", ">50K."]),
            "nothing in common.*'<=50K.', '>50K.'.*'label' '<=50K', '>50K'.*full stops",
        ),
        ({"label": np.array(["a", "b", "b"])}, np.array([0, 1, 1]), "differ in type"),
    ],
    ids=range(16),
)
def test_labels_that_do_not_fit_are_refused(
    name: str, outputs: Any, labels: Any, message: str
) -> None:
    with pytest.raises(DataError, match=rf"(?s){message}"):
        metric(name).check(outputs, labels)


def test_auc_needs_scores_for_the_classes_it_sees() -> None:
    with pytest.raises(DataError, match="metric auc: needs one score per class"):
        metric("auc").check({"label": np.array([0, 1, 1])}, np.array([0, 1, 1]))
    outputs = {"label": np.array(["a", "b", "b"]), "s": SCORES}
    with pytest.raises(DataError, match="hold 2 classes, but output 's' has scores of 3"):
        metric("auc").check(outputs, np.array(["a", "b", "b"]))


def test_agreement_is_refused_where_nothing_is_decided() -> None:
    with pytest.raises(DataError, match=r"(?s)decide for no class.*deviation"):
        metric("agreement").check({"price": np.array([[1.0], [250]])}, None)
    with pytest.raises(DataError, match="NaN for 1 decisions"):
        metric("agreement").check({"s": np.array([[0, 1], [np.nan, 2]])}, None)


def test_resamples_of_one_class_do_not_fail() -> None:
    outputs = {"p": np.array([[0.1], [0.9]])}
    assert metric("auc").value(outputs, np.array([1, 1]), outputs) == 0.5
    assert metric("f1").value(outputs, np.array([0, 0]), outputs) == 0.0


TWO = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], np.float32)


@pytest.mark.parametrize(
    ("labels", "outputs", "told"),
    [
        (
            ["yes", "no", "Yes", "n/a"],
            {"p": TWO},
            "'Yes', 'n/a' are unknown.*'no', 'yes'.*wrong",
        ),
        (["yes", "no", "Yes", "no"], {}, "'Yes' are never the decision of"),
        (["yes", "no", "Yes", "no"], {"p": TWO[:, :1]}, "'Yes' are unknown to"),
    ],
    ids=["two", "no scores", "one score"],
)
@pytest.mark.parametrize("name", ["accuracy", "f1"])
def test_labels_that_the_model_does_not_know_are_named(
    name: str, labels: list[str], outputs: Any, told: str
) -> None:
    decided = {"label": np.array(["yes", "no", "yes", "no"]), **outputs}
    with pytest.warns(PenjingWarning, match=told):
        metric(name).check(decided, np.array(labels))


def test_classes_that_the_model_may_well_know_go_without_a_warning() -> None:
    scores = np.eye(3, dtype=np.float32)[[0, 1, 1, 0]]
    decided = {"label": np.array(["a", "b", "b", "a"]), "p": scores}
    metric("accuracy").check(decided, np.array(["a", "b", "c", "a"]))
    with pytest.warns(PenjingWarning, match="'c', 'd' are never the decision of"):
        metric("accuracy").check(decided, np.array(["a", "b", "c", "d"]))
