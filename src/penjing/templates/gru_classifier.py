"""GRU over tokens or vectors, and a dense layer on its state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from penjing.core.architecture import InputKind
from penjing.core.fields import Range
from penjing.templates.support.base import TorchTemplate

if TYPE_CHECKING:
    from penjing.core.architecture import Problem
    from penjing.templates.support.net import Net

__all__ = ["GruClassifier"]

State = Literal["last", "mean"]


@dataclass(frozen=True)
class GruClassifier(TorchTemplate):
    """Classify sequences by gated recurrent units; for values, predict from them.

    References:
        Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for
        Statistical Machine Translation", EMNLP 2014.
        Zaremba et al., "Recurrent Neural Network Regularization", arXiv:1409.2329 (dropout).
    """

    kinds = (InputKind.TOKENS, InputKind.SEQUENCES)

    embedding: Annotated[int, Range(1, 8192)] = 64
    """Numbers that stand for a token; vectors are taken as they are."""
    hidden: Annotated[int, Range(1, 8192)] = 128
    """Units of each layer."""
    layers: Annotated[int, Range(1, 16)] = 1
    """Recurrent layers."""
    state: State = "last"
    """What decides: the ``last`` state, or the ``mean`` of all."""
    dropout: Annotated[float, Range(0.0, 0.9)] = 0.0
    """Share left out at random while training, between layers."""

    def network(self, problem: Problem, kind: InputKind) -> Net:
        """Make the recurrent layers."""
        from penjing.templates.support.recurrent import RecurrentNet

        return RecurrentNet(
            problem,
            kind,
            cell="gru",
            embedding=self.embedding,
            hidden=self.hidden,
            layers=self.layers,
            state=self.state,
            dropout=self.dropout,
        )
