"""What is minimised, for every kind of output; and labels that cannot be right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penjing.core.errors import DataError, UnsupportedError
from penjing.core.training import Distillation

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(6, 3)).astype(np.float32)
SHARES = np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True)
CLASSES = np.array([0, 2, 1, 1, 0, 2])


def objective(output: Any, labels: Any = None, source: str = "rows.npz") -> Any:
    """Choose the objective for an output."""
    from penjing.training.losses import Objective

    return Objective.of({"y": output}, labels, source)


def loss(output: Any, labels: Any) -> float:
    """Measure the loss of labels."""
    made = objective(output, labels)
    return float(made.labels_loss({"y": torch.tensor(output)}, torch.tensor(labels)))


def test_logits_are_held_against_classes() -> None:
    """Cross-entropy."""
    assert objective(SCORES, CLASSES).form == "logits"
    wanted = -np.log(SHARES[np.arange(6), CLASSES]).mean()
    assert loss(SCORES, CLASSES) == pytest.approx(wanted, rel=1e-5)


def test_probabilities_are_held_against_classes() -> None:
    """The same cross-entropy, without a second softmax."""
    assert objective(SHARES, CLASSES).form == "shares"
    assert loss(SHARES, CLASSES) == pytest.approx(loss(SCORES, CLASSES), rel=1e-5)


def test_one_hot_labels_are_classes() -> None:
    """In whole or real numbers."""
    one_hot = np.eye(3)[CLASSES]
    for labels in (one_hot, one_hot.astype(np.int64)):
        assert loss(SCORES, labels) == pytest.approx(loss(SCORES, CLASSES), rel=1e-5)


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_one_score_is_that_of_class_one(shape: tuple[int, ...]) -> None:
    """A logit or a probability per sample: binary cross-entropy."""
    labels = np.array([0, 1, 1, 0, 1, 0])
    logit = (4 * SCORES[:, :1]).reshape(shape)
    share = 1 / (1 + np.exp(-logit))
    assert objective(logit, labels).form == "logit"
    assert objective(share, labels).form == "share"
    flat = share.reshape(-1)
    wanted = -np.where(labels == 1, np.log(flat), np.log(1 - flat)).mean()
    assert loss(logit, labels) == pytest.approx(wanted, rel=1e-4)
    assert loss(share, labels) == pytest.approx(wanted, rel=1e-4)


def test_values_are_held_against_values() -> None:
    """The squared error relative to the variance of what is to be hit."""
    labels = RNG.normal(size=6) * 30
    output = SCORES[:, :1]
    assert objective(output, labels).form == "values"
    wanted = np.mean((output[:, 0] - labels) ** 2) / np.var(labels)
    assert loss(output, labels) == pytest.approx(wanted, rel=1e-5)


def test_every_position_of_a_sequence_counts() -> None:
    """The mean over samples and positions."""
    scores = RNG.normal(size=(2, 3, 3)).astype(np.float32)
    flat = scores.reshape(6, 3)
    assert loss(scores, CLASSES.reshape(2, 3)) == pytest.approx(loss(flat, CLASSES), rel=1e-5)


@pytest.mark.parametrize("output", [SCORES, SHARES, SCORES[:, :1], SHARES[:, :1]])
def test_without_labels_the_teacher_is_all(output: Any) -> None:
    """The loss is zero for the teacher's own outputs, and more for all others."""
    from penjing.training.losses import total_loss

    made = objective(output)
    mine, other = ({"y": torch.tensor(output)}, {"y": torch.tensor(output[::-1].copy())})

    def total(outputs: Any) -> float:
        settings = Distillation(weight=0.3)
        found = total_loss(made, settings, outputs, None, teacher=mine, features=())
        return float(found)

    assert total(mine) == pytest.approx(0, abs=1e-6)
    assert total(other) > 1e-3


def test_the_weight_divides_labels_and_teacher() -> None:
    """At 0 labels alone, at 1 the teacher alone, between a mixture of both."""
    from penjing.training.losses import total_loss

    made = objective(SCORES, CLASSES)
    outputs = {"y": torch.tensor(SCORES)}
    teacher = {"y": torch.tensor(SCORES[::-1].copy())}

    def total(weight: float) -> float:
        settings, labels = Distillation(weight=weight), torch.tensor(CLASSES)
        return float(total_loss(made, settings, outputs, labels, teacher=teacher, features=()))

    assert total(0.0) == pytest.approx(loss(SCORES, CLASSES), rel=1e-5)
    assert total(0.25) == pytest.approx(0.75 * total(0.0) + 0.25 * total(1.0), rel=1e-5)
    assert total(0.0) != pytest.approx(total(1.0), rel=1e-2)


def test_several_teachers_speak_as_their_mean() -> None:
    """Probabilities are averaged, not logits; values as they are."""
    from penjing.training.losses import mean_of

    other = SCORES[::-1].copy()
    given = [{"y": torch.tensor(each)} for each in (SCORES, other)]
    mean = torch.softmax(mean_of(objective(SCORES), given)["y"], dim=1).numpy()
    np.testing.assert_allclose(mean, (SHARES + SHARES[::-1]) / 2, rtol=1e-5)
    logits = [{"y": each["y"][:, :1]} for each in given]
    found = torch.sigmoid(mean_of(objective(4 * SCORES[:, :1]), logits)["y"])
    wanted = (torch.sigmoid(logits[0]["y"]) + torch.sigmoid(logits[1]["y"])) / 2
    assert torch.allclose(found, wanted, atol=1e-5)
    values = mean_of(objective(SCORES[:, :1], RNG.normal(size=6)), logits)["y"]
    assert torch.allclose(values, (logits[0]["y"] + logits[1]["y"]) / 2)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (np.array([0, 1, 2, 3, 0, 0]), "has labels from 0 to 3, but the model tells 3"),
        (np.array([0, -1, 2, 1, 0, 0]), "has labels from -1 to 2"),
        (np.array(["cat", "dog"] * 3), "has labels that are text"),
        (np.zeros((6, 2), np.int64), "has labels of shape"),
        (np.arange(18).reshape(6, 3) / 7.0, None),
        (np.arange(12).reshape(6, 2) / 7.0, "has labels of shape"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Any, problem: str | None) -> None:
    """Outside of the classes, of another shape, or text: the file is named."""
    if problem is None:
        assert objective(SCORES, labels).form == "values"
        return
    with pytest.raises(DataError, match=problem) as info:
        objective(SCORES, labels)
    assert info.value.where == "rows.npz"
    assert info.value.hint


def test_outputs_without_real_numbers_cannot_be_trained() -> None:
    """A model that gives labels alone has nothing to learn by."""
    with pytest.raises(UnsupportedError, match="gives no real numbers"):
        objective(CLASSES)
