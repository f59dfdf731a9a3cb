"""What all networks share: raw rows in, logits or values in their own units out."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import nn

from penjing.core.architecture import PLANE_RANK, InputKind, Task

if TYPE_CHECKING:
    from penjing.core.architecture import Problem
    from penjing.core.tensors import Array


EMBEDDING_STD = 0.1


class Net(nn.Module):
    """A network that scales what it takes and gives; write ``compute`` and nothing else."""

    def __init__(self, problem: Problem, kind: InputKind) -> None:
        super().__init__()
        self.task = problem.task
        self.is_plane = kind is InputKind.IMAGES and len(problem.shape) == PLANE_RANK
        self.most_token = problem.vocabulary if kind is InputKind.TOKENS else None
        if self.most_token is None:
            self.register_buffer("input_mean", _constant(problem.mean))
            self.register_buffer("input_std", _constant(problem.std))
        if self.task is not Task.CLASSIFICATION:
            mean, std = problem.output_scale
            self.register_buffer("output_mean", _constant(mean))
            self.register_buffer("output_std", _constant(std))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give logits (rows, classes), targets (rows, targets), or the input again."""
        outputs = self.compute(self.scaled(x))
        if self.task is Task.CLASSIFICATION:
            return outputs
        return outputs * self.get_buffer("output_std") + self.get_buffer("output_mean")

    def scaled(self, x: torch.Tensor) -> torch.Tensor:
        """Give rows as the layers see them: of mean 0 and spread 1, images with channels."""
        if self.most_token is not None:
            # Tokens that training never saw share the last row of the embedding.
            return x.clamp(max=self.most_token)
        values = (x.float() - self.get_buffer("input_mean")) / self.get_buffer("input_std")
        return values.unsqueeze(1) if self.is_plane else values

    @abstractmethod
    def compute(self, values: torch.Tensor) -> torch.Tensor:
        """Give scaled outputs for scaled inputs; images have channels, whatever came in."""


def channels(problem: Problem) -> int:
    """Count the channels of images, one where they have no axis for them."""
    return 1 if len(problem.shape) == PLANE_RANK else problem.shape[0]


class Entry(nn.Module):
    """Turns tokens or vectors into vectors of one width, step by step."""

    def __init__(self, problem: Problem, kind: InputKind, width: int) -> None:
        super().__init__()
        self.table: nn.Module
        if kind is InputKind.TOKENS:
            table = nn.Embedding(problem.vocabulary + 1, width)
            nn.init.normal_(table.weight, std=EMBEDDING_STD)
            nn.init.zeros_(table.weight[-1:].detach())  # of tokens that training never saw
            self.table = table
        else:
            self.table = nn.Linear(problem.shape[-1], width)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Give (rows, steps, width)."""
        found: torch.Tensor = self.table(values)
        return found


def _constant(array: Array) -> torch.Tensor:
    return torch.tensor(array.tolist(), dtype=torch.float32)
