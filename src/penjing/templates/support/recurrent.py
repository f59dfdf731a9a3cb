"""Recurrent networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from penjing.core.architecture import InputKind
from penjing.templates.support.net import Entry, Net

if TYPE_CHECKING:
    from penjing.core.architecture import Problem

CELLS: dict[str, type[nn.LSTM | nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentNet(Net):
    """Layers of recurrent cells over the steps, and a dense layer on their state."""

    def __init__(  # noqa: PLR0913  # each is one choice of the architecture
        self,
        problem: Problem,
        kind: InputKind,
        *,
        cell: str,
        embedding: int,
        hidden: int,
        layers: int,
        state: str,
        dropout: float,
    ) -> None:
        super().__init__(problem, kind)
        self.state = state
        tokens = kind is InputKind.TOKENS
        width = embedding if tokens else problem.shape[-1]
        self.entry: nn.Module = Entry(problem, kind, width) if tokens else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.recurrent = _recurrent(cell, width, hidden, layers, dropout)
        self.fc = nn.Linear(hidden, problem.outputs)

    def compute(self, values: torch.Tensor) -> torch.Tensor:
        """Run over the steps, and decide by the last state or the mean of all."""
        values = self.entry(values)
        if isinstance(self.entry, Entry):
            values = self.dropout(values)
        states, _ = self.recurrent(values)
        summary = states[:, -1] if self.state == "last" else states.mean(1)
        found: torch.Tensor = self.fc(self.dropout(summary))
        return found


class RecurrentAutoencoder(Net):
    """One network reads the sequence into a state; another writes it from that, backwards."""

    def __init__(
        self, problem: Problem, kind: InputKind, *, hidden: int, layers: int, dropout: float
    ) -> None:
        super().__init__(problem, kind)
        self.steps, width = problem.shape
        self.encoder = _recurrent("lstm", width, hidden, layers, dropout)
        self.dropout = nn.Dropout(dropout)
        self.decoder = _recurrent("lstm", hidden, hidden, layers, dropout)
        self.fc = nn.Linear(hidden, width)

    def compute(self, values: torch.Tensor) -> torch.Tensor:
        """Give the sequence again, in its own order."""
        states, _ = self.encoder(values)
        code = self.dropout(states[:, -1:])
        states, _ = self.decoder(code.expand(-1, self.steps, -1))
        found: torch.Tensor = self.fc(states)
        return found.flip(1)


def _recurrent(
    cell: str, inputs: int, hidden: int, layers: int, dropout: float
) -> nn.LSTM | nn.GRU:
    between = dropout if layers > 1 else 0.0  # there is nothing between, and torch would warn
    made = CELLS[cell](inputs, hidden, layers, batch_first=True, dropout=between)
    if cell == "lstm":
        for name, parameter in made.named_parameters():
            if name.startswith("bias_ih"):
                nn.init.ones_(parameter[hidden : 2 * hidden].detach())  # of the forget gate
    return made
