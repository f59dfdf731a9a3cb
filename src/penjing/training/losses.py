"""What is minimised: the labels' loss, the teacher's word, and the distance of features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from penjing.core.errors import DataError, UnsupportedError
from penjing.core.metric import are_probabilities, is_one_hot

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from penjing.core.tensors import Array
    from penjing.core.training import Distillation

SMALLEST_SHARE = 1e-7
SUM_TOLERANCE = 1e-3
SCORES_AXES = 2
"""Samples and classes; sequences have positions between."""


class Form(StrEnum):
    """What the numbers of an output are."""

    LOGITS = "logits"
    SHARES = "shares"
    """Probabilities of classes, summing to one."""
    LOGIT = "logit"
    SHARE = "share"
    """One logit, or one probability, per sample: of class 1."""
    VALUES = "values"


@dataclass(frozen=True, slots=True)
class Objective:
    """The output that is trained, and how it is read."""

    output: str
    form: Form
    classes: int
    """Classes there are scores for; 0 for values."""
    spread: float = 1.0
    """Variance of the values to hit: squared errors are relative to it."""
    others: tuple[str, ...] = ()
    """Further outputs of real numbers: the teacher says what they should be."""

    @classmethod
    def of(
        cls, outputs: Mapping[str, Array], labels: Array | None, source: str = "training data"
    ) -> Objective:
        """Choose by the outputs of some rows and their labels, as metrics do.

        Raises:
            UnsupportedError: no output is a real number.
            DataError: the labels do not fit the outputs.
        """
        floats = {name: out for name, out in outputs.items() if out.dtype.kind == "f"}
        if not floats:
            raise UnsupportedError("model", "gives no real numbers: nothing can be trained")
        name, scores = next(iter(floats.items()))
        if labels is not None and labels.dtype.kind not in "iufb":
            raise DataError(source, "has labels that are text", "number the classes from 0")
        whole = labels is None or labels.dtype.kind != "f" or _are_classes(labels, scores)
        if scores.ndim >= SCORES_AXES and scores.shape[-1] > 1 and whole:
            shares = are_shares(scores)
            made = cls(name, Form.SHARES if shares else Form.LOGITS, scores.shape[-1])
        elif whole and scores[:1].size == 1 and _are_two(labels):
            probable = are_probabilities(scores)
            made = cls(name, Form.SHARE if probable else Form.LOGIT, 2)
        else:
            aim = scores if labels is None else labels
            made = cls(name, Form.VALUES, 0, max(float(np.var(aim)), 1e-12))
        if labels is not None:
            made.check(scores, labels, source)
        return replace(made, others=tuple(floats)[1:])

    def check(self, scores: Array, labels: Array, source: str) -> None:
        """Refuse labels that do not fit the outputs.

        Raises:
            DataError: which labels, and what the model takes.
        """
        if self.form is Form.VALUES:
            if labels[:1].size != scores[:1].size:
                raise DataError(
                    source,
                    f"has labels of shape {labels.shape[1:]} for outputs of {scores.shape[1:]}",
                    "give one label per output value",
                )
            return
        places = scores.shape[1:-1] if self.form in {Form.LOGITS, Form.SHARES} else (1,)
        if labels[:1].size != prod(places):
            if is_one_hot(labels) and labels.shape[1:] == scores.shape[1:]:
                return
            raise DataError(
                source,
                f"has labels of shape {list(labels.shape[1:])} for outputs of "
                f"{list(scores.shape[1:])}",
                "give one label per sample, or per position of a sequence, or one-hot labels",
            )
        if not labels.size:
            return
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.classes:
            raise DataError(
                source,
                f"has labels from {low} to {high}, but the model tells {self.classes} classes "
                f"apart (0 to {self.classes - 1})",
                "number the classes from 0, or give a model with as many outputs as classes",
            )

    def labels_loss(
        self, outputs: Mapping[str, torch.Tensor], labels: torch.Tensor
    ) -> torch.Tensor:
        """Cross-entropy for classes, mean squared error over the variance for values."""
        scores = outputs[self.output].float()
        if self.form is Form.VALUES:
            wanted = labels.reshape(scores.shape).float()
            return functional.mse_loss(scores, wanted) / self.spread
        if self.form in {Form.LOGIT, Form.SHARE}:
            wanted = labels.reshape(-1).float()
            flat = scores.reshape(-1)
            if self.form is Form.LOGIT:
                return functional.binary_cross_entropy_with_logits(flat, wanted)
            return functional.binary_cross_entropy(flat.clamp(0, 1), wanted)
        logs = self._logs(scores, 1.0).reshape(-1, self.classes)
        if labels.ndim == scores.ndim and labels.shape[-1] == self.classes:  # one-hot
            return -(logs * labels.reshape(-1, self.classes)).sum(dim=1).mean()
        return functional.nll_loss(logs, labels.reshape(-1).long())

    def teacher_loss(
        self,
        outputs: Mapping[str, torch.Tensor],
        teacher: Mapping[str, torch.Tensor],
        temperature: float,
    ) -> torch.Tensor:
        """Kullback-Leibler divergence from the teacher's softened shares, times T squared.

        For values: the squared distance over the variance.
        """
        after, before = outputs[self.output].float(), teacher[self.output].float()
        if self.form is Form.VALUES:
            return functional.mse_loss(after, before) / self.spread
        if self.form in {Form.LOGIT, Form.SHARE}:
            after, before = self._as_two(after), self._as_two(before)
        student = self._logs(after, temperature).reshape(-1, self.classes)
        wanted = self._logs(before, temperature).reshape(-1, self.classes)
        found = functional.kl_div(student, wanted, reduction="batchmean", log_target=True)
        return found * temperature**2

    def _as_two(self, scores: torch.Tensor) -> torch.Tensor:
        """Turn one score into those of two classes."""
        flat = scores.reshape(-1)
        if self.form is Form.SHARE:
            flat = torch.logit(flat, eps=SMALLEST_SHARE)
        return torch.stack([torch.zeros_like(flat), flat], dim=1)

    def _logs(self, scores: torch.Tensor, temperature: float) -> torch.Tensor:
        if self.form is Form.SHARES:
            scores = scores.clamp_min(SMALLEST_SHARE).log()
        return functional.log_softmax(scores / temperature, dim=-1)


def mean_of(
    objective: Objective, given: list[dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """Let several teachers speak as one: the mean of their probabilities, or of their values.

    References:
        Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.
    """
    if len(given) == 1:
        return given[0]
    scores = torch.stack([outputs[objective.output].float() for outputs in given])
    if objective.form is Form.LOGITS:
        mean = torch.logsumexp(functional.log_softmax(scores, dim=-1), dim=0) - np.log(
            len(given)
        )
    elif objective.form is Form.LOGIT:
        mean = torch.logit(torch.sigmoid(scores).mean(dim=0), eps=SMALLEST_SHARE)
    else:
        mean = scores.mean(dim=0)
    return {**given[0], objective.output: mean}


def features_loss(
    outputs: Mapping[str, torch.Tensor],
    teacher: Mapping[str, torch.Tensor],
    names: Collection[str],
) -> torch.Tensor:
    """Mean over blocks of the squared distance to the teacher's features over their energy."""
    found = []
    for name in names:
        after, before = outputs[name].float(), teacher[name].float()
        energy = before.square().mean().clamp_min(1e-12)
        found.append((after - before).square().mean() / energy)
    return torch.stack(found).mean()


def total_loss(  # noqa: PLR0913  # all that a loss is made of
    objective: Objective,
    settings: Distillation,
    outputs: Mapping[str, torch.Tensor],
    labels: torch.Tensor | None,
    *,
    teacher: Mapping[str, torch.Tensor] | None,
    features: Collection[str],
) -> torch.Tensor:
    """Weigh labels, teacher and features, as the settings say."""
    share = 0.0 if teacher is None else 1.0 if labels is None else settings.weight
    parts = []
    if labels is not None and share < 1:
        parts.append((1 - share) * objective.labels_loss(outputs, labels))
    if teacher is not None and share > 0:
        parts.append(share * objective.teacher_loss(outputs, teacher, settings.temperature))
    if teacher is not None and settings.features > 0 and features:
        parts.append(settings.features * features_loss(outputs, teacher, features))
    if teacher is not None and objective.others:
        parts.append(features_loss(outputs, teacher, objective.others))
    assert parts
    return torch.stack(parts).sum()


def are_shares(scores: Array) -> bool:
    """Tell whether the last axis holds probabilities that sum to one."""
    sums = scores.astype(np.float64).sum(axis=-1)
    return are_probabilities(scores) and bool(np.allclose(sums, 1, atol=SUM_TOLERANCE))


def _are_classes(labels: Array, scores: Array) -> bool:
    """Tell whether labels stored as floats are class numbers: whole, one for several scores."""
    if is_one_hot(labels):
        return True
    several = scores.ndim >= SCORES_AXES and scores.shape[-1] > 1
    fits = labels.reshape(len(labels), -1).shape[1] == prod(scores.shape[1:-1])
    return several and fits and bool((labels == np.trunc(labels)).all())


def _are_two(labels: Array | None) -> bool:
    return labels is None or bool(((labels == 0) | (labels == 1)).all())
