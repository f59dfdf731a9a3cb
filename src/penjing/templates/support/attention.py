"""A small transformer encoder, of plain matrix products that every runtime has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from penjing.templates.support.net import Entry, Net

if TYPE_CHECKING:
    from penjing.core.architecture import InputKind, Problem

START_STD = 0.02
"""Of positions, as in BERT and GPT-2."""


class Attention(nn.Module):
    """Every step looks at every step, head by head."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, width)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Give (rows, steps, width)."""
        parts = self.qkv(values).unflatten(-1, (3, self.heads, -1))
        queries, keys, contents = parts.permute(2, 0, 3, 1, 4).unbind(0)
        shares = (queries * self.scale @ keys.transpose(-2, -1)).softmax(-1)
        seen = (self.dropout(shares) @ contents).transpose(1, 2).flatten(2)
        found: torch.Tensor = self.out(seen)
        return found


class Layer(nn.Module):
    """Attention, then two dense layers; each on what is normalized, beside a shortcut."""

    def __init__(self, width: int, heads: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.dense = nn.Sequential(
            nn.Linear(width, expansion * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(expansion * width, width),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Give (rows, steps, width)."""
        values = values + self.dropout(self.attention(self.norm1(values)))
        found: torch.Tensor = values + self.dropout(self.dense(self.norm2(values)))
        return found


class TransformerNet(Net):
    """An encoder with learned positions, and a dense layer on the mean over the steps."""

    def __init__(  # noqa: PLR0913  # each is one choice of the architecture
        self,
        problem: Problem,
        kind: InputKind,
        *,
        width: int,
        heads: int,
        layers: int,
        expansion: int,
        dropout: float,
    ) -> None:
        super().__init__(problem, kind)
        self.entry = Entry(problem, kind, width)
        self.positions = nn.Parameter(START_STD * torch.randn(problem.shape[0], width))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(
            *(Layer(width, heads, expansion, dropout) for _ in range(layers))
        )
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, problem.outputs)

    def compute(self, values: torch.Tensor) -> torch.Tensor:
        """Run the layers over all steps at once."""
        values = self.dropout(self.entry(values) + self.positions)
        found: torch.Tensor = self.fc(self.norm(self.layers(values)).mean(1))
        return found
