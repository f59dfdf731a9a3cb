"""What is asked of a metric, and how outputs are read as decisions or values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.tensors import Array

    Outputs = Mapping[str, Array]
    """All outputs of a model by name; samples are on axis 0 of each."""


class Metric(ABC):
    """Judges a model's outputs.  One file in metrics/ each.

    A metric *decomposes* when it is the mean of one score per sample; then ``scores`` gives
    them.  It is *bounded* when it, and those scores if it has any, lie in [0, 1]; its limits
    are then meant in absolute points.  The drop of a metric that is bounded and decomposes
    can be certified exactly; that of others by bootstrap.
    """

    higher_is_better: ClassVar[bool] = True
    bounded: ClassVar[bool] = True
    decomposes: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    relative_already: ClassVar[bool] = False
    """The value is a share already, so that limits on it are absolute though unbounded."""

    @abstractmethod
    def check(self, outputs: Outputs, labels: Array | None) -> None:
        """Raise DataError, with what to do, where outputs or labels do not fit this metric.

        ``outputs`` are those of the original model.
        """

    @abstractmethod
    def scores(self, outputs: Outputs, labels: Array | None, original: Outputs) -> Array:
        """Give one score per sample, (n,) float64; unused where it does not decompose.

        ``original`` holds the uncompressed model's outputs on the same samples.
        """

    def value(self, outputs: Outputs, labels: Array | None, original: Outputs) -> float:
        """Give the metric over all samples; the mean of the scores unless overridden."""
        return float(self.scores(outputs, labels, original).mean())

    @property
    def absolute(self) -> bool:
        """Whether limits are in the metric's own units; else a share of the original value."""
        return self.bounded or self.relative_already

    def drop(self, original: float, compressed: float) -> float:
        """Say how much worse ``compressed`` is, in the unit of limits; negative if better."""
        lost = original - compressed if self.higher_is_better else compressed - original
        if self.absolute or lost == 0:
            return lost
        return lost / abs(original) if original else float(np.copysign(np.inf, lost))


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """Classes a model decides for."""

    output: str
    """Name of the output they are read from."""
    predicted: Array
    """(n,) or (n, positions): class numbers, or strings; -1 where the scores are NaN."""
    classes: int | None
    """How many classes there are scores for; None where the output is the class itself."""


HALF = 0.5
"""Two classes and one probability: above it, class 1."""
MOST_AXES = 3
"""Samples, positions, classes."""


def decide(
    outputs: Outputs, like: Outputs | None = None, *, logits: bool = True
) -> Decision | None:
    """Read a classifier's decision; None where the outputs are no decision.

    The first that applies: an integer or string output of one value per sample; the largest
    of two or more scores on the last axis of the first float output; one score per sample,
    a probability above 0.5 or a logit above 0; an integer or string output (n, positions).

    Args:
        outputs: to read.
        like: outputs that tell probabilities from logits: those of the original model.
        logits: whether a single score outside [0, 1] is a logit rather than a value.
    """
    labels = {name: out for name, out in outputs.items() if out.dtype.kind != "f"}
    for name, output in labels.items():
        if _is_column(output):
            return Decision(name, _plain(output.reshape(-1)), None)
    name, scores = _first_float(outputs)
    if scores is not None:
        return _decide_by_scores(name, scores, scores if like is None else like[name], logits)
    for name, output in labels.items():
        if output.ndim == MOST_AXES - 1:
            return Decision(name, _plain(output), None)
    return None


def _decide_by_scores(name: str, scores: Array, like: Array, logits: bool) -> Decision | None:  # noqa: FBT001  # private
    if _is_column(scores):
        column = scores.reshape(-1)
        probable = are_probabilities(like)
        if not (probable or logits):
            return None
        chosen = np.where(np.isnan(column), -1, column > (HALF if probable else 0))
        return Decision(name, chosen.astype(np.int64), 2)
    if scores.ndim not in {2, MOST_AXES} or scores.shape[-1] < 2:  # noqa: PLR2004  # classes
        return None
    chosen = np.where(np.isnan(scores).any(axis=-1), -1, scores.argmax(axis=-1))
    return Decision(name, chosen, scores.shape[-1])


def are_probabilities(scores: Array) -> bool:
    """Tell whether all scores lie in [0, 1]; NaN does not."""
    return bool(((scores >= 0) & (scores <= 1)).all())


def values(outputs: Outputs) -> tuple[str, Array] | None:
    """Give name and values, float64, of the first float output; (n, 1) becomes (n,)."""
    name, found = _first_float(outputs)
    if found is None:
        return None
    return name, (found.reshape(-1) if _is_column(found) else found).astype(np.float64)


def choose_metric(outputs: Outputs, labels: Array | None) -> str:
    """Choose a metric for outputs of the original model and labels, or no labels.

    Without labels: agreement where the outputs decide for classes, else deviation.  With
    labels: accuracy for class numbers or strings, rmse for values.  A single score per sample
    counts as a class only if it is a probability or the labels are 0 and 1.
    """
    if labels is None:
        return "deviation" if decide(outputs, logits=False) is None else "agreement"
    if labels.dtype.kind not in "iubf":
        return "accuracy"
    found = decide(outputs)
    whole = labels.dtype.kind != "f" or bool((labels == np.trunc(labels)).all())
    if found is None or not whole:
        return "rmse"
    two = bool(((labels == 0) | (labels == 1)).all())
    if found.classes is None:
        return "accuracy"
    if _is_column(outputs[found.output]):
        probable = are_probabilities(outputs[found.output])
        return "accuracy" if two and (probable or labels.dtype.kind != "f") else "rmse"
    fits = found.predicted.shape == labels.shape or is_one_hot(labels)
    return "accuracy" if fits else "rmse"


def is_one_hot(labels: Array) -> bool:
    """Tell whether each row of (n, classes) is all 0 but for one 1."""
    return (
        labels.ndim == MOST_AXES - 1
        and labels.shape[1] > 1
        and labels.dtype.kind in "iubf"
        and bool(((labels == 0) | (labels == 1)).all())
        and bool((labels.sum(axis=1) == 1).all())
    )


def _is_column(output: Array) -> bool:
    """Tell whether there is one value per sample."""
    return output.ndim >= 1 and output.shape[1:] in {(), (1,)}


def _first_float(outputs: Outputs) -> tuple[str, Array | None]:
    for name, output in outputs.items():
        if output.dtype.kind == "f":
            return name, output
    return "", None


def _plain(output: Array) -> Array:
    return output.astype(np.int64) if output.dtype.kind in "iub" else output.astype(str)
