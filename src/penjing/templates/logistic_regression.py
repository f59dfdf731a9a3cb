"""Logistic regression: each class is scored by a weighted sum of the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from penjing.core.architecture import InputKind, Task
from penjing.templates.support.base import TorchTemplate

if TYPE_CHECKING:
    from penjing.core.architecture import Problem
    from penjing.templates.support.net import Net

__all__ = ["LogisticRegression"]


@dataclass(frozen=True)
class LogisticRegression(TorchTemplate):
    """Choose among classes by one dense layer (softmax regression), without choices.

    References:
        Cox, "The Regression Analysis of Binary Sequences", J. R. Stat. Soc. B, 1958.
    """

    kinds = (InputKind.FEATURES, InputKind.IMAGES, InputKind.SEQUENCES)
    tasks = (Task.CLASSIFICATION,)
    learning_rate = 1e-2

    def network(self, problem: Problem, kind: InputKind) -> Net:
        """Make one dense layer."""
        from penjing.templates.support.dense import DenseNet

        return DenseNet(problem, kind)
