"""Linear regression: each target is a weighted sum of the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from penjing.core.architecture import InputKind, Task
from penjing.templates.support.base import TorchTemplate

if TYPE_CHECKING:
    from penjing.core.architecture import Problem
    from penjing.templates.support.net import Net

__all__ = ["LinearRegression"]


@dataclass(frozen=True)
class LinearRegression(TorchTemplate):
    """Predict values by one dense layer, without choices.

    References:
        Legendre, "Nouvelles méthodes pour la détermination des orbites des comètes", 1805.
    """

    kinds = (InputKind.FEATURES, InputKind.IMAGES, InputKind.SEQUENCES)
    tasks = (Task.REGRESSION,)
    learning_rate = 1e-2

    def network(self, problem: Problem, kind: InputKind) -> Net:
        """Make one dense layer."""
        from penjing.templates.support.dense import DenseNet

        return DenseNet(problem, kind)
