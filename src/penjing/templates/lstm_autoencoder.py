"""LSTM autoencoder: a sequence in, the same sequence out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from penjing.core.architecture import InputKind, Task
from penjing.core.fields import Range
from penjing.templates.support.base import TorchTemplate

if TYPE_CHECKING:
    from penjing.core.architecture import Problem
    from penjing.templates.support.net import Net

__all__ = ["LstmAutoencoder"]


@dataclass(frozen=True)
class LstmAutoencoder(TorchTemplate):
    """Read a sequence of vectors into one state and rebuild it; large errors tell anomalies.

    References:
        Srivastava et al., "Unsupervised Learning of Video Representations using LSTMs",
        ICML 2015 (backwards, without feeding outputs back).
        Malhotra et al., "LSTM-based Encoder-Decoder for Multi-sensor Anomaly Detection",
        arXiv:1607.00148.
    """

    kinds = (InputKind.SEQUENCES,)
    tasks = (Task.RECONSTRUCTION,)

    hidden: Annotated[int, Range(1, 8192)] = 64
    """Units of each layer; the state that stands for the sequence has as many."""
    layers: Annotated[int, Range(1, 16)] = 1
    """Recurrent layers on either side."""
    dropout: Annotated[float, Range(0.0, 0.9)] = 0.0
    """Share left out at random while training, between layers."""

    def network(self, problem: Problem, kind: InputKind) -> Net:
        """Make reader and writer."""
        from penjing.templates.support.recurrent import RecurrentAutoencoder

        return RecurrentAutoencoder(
            problem, kind, hidden=self.hidden, layers=self.layers, dropout=self.dropout
        )
