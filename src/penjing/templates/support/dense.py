"""Networks of dense layers."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn

from penjing.core.architecture import Task
from penjing.templates.support.net import Net

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from penjing.core.architecture import InputKind, Problem

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


class DenseNet(Net):
    """Dense layers on the flattened input; the last one has no activation."""

    def __init__(  # noqa: PLR0913  # each is one choice of the architecture
        self,
        problem: Problem,
        kind: InputKind,
        widths: Sequence[int] = (),
        *,
        activation: str = "relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(problem, kind)
        self.shape = problem.shape
        rebuilt = problem.task is Task.RECONSTRUCTION
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise([problem.size, *widths]):
            layers.append(nn.Linear(inputs, outputs))
            if batch_norm:
                layers.append(nn.BatchNorm1d(outputs))
            layers.append(ACTIVATIONS[activation]())
            if dropout:
                layers.append(nn.Dropout(dropout))
        last = problem.size if rebuilt else problem.outputs
        layers.append(nn.Linear([problem.size, *widths][-1], last))
        self.layers = nn.Sequential(*layers)

    def compute(self, values: torch.Tensor) -> torch.Tensor:
        """Run the layers on (rows, numbers)."""
        found: torch.Tensor = self.layers(values.flatten(1))
        return found.reshape(-1, *self.shape) if self.task is Task.RECONSTRUCTION else found
