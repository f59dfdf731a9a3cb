"""LSTM over tokens or vectors, and a dense layer on its state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from penjing.core.architecture import InputKind
from penjing.core.fields import Range
from penjing.templates.support.base import TorchTemplate

if TYPE_CHECKING:
    from penjing.core.architecture import Problem
    from penjing.templates.support.net import Net

__all__ = ["LstmClassifier"]

State = Literal["last", "mean"]


@dataclass(frozen=True)
class LstmClassifier(TorchTemplate):
    """Classify sequences by long short-term memory; for values, predict from them.

    References:
        Hochreiter, Schmidhuber, "Long Short-Term Memory", Neural Computation, 1997.
        Zaremba et al., "Recurrent Neural Network Regularization", arXiv:1409.2329 (dropout).
        Jozefowicz et al., "An Empirical Exploration of Recurrent Network Architectures",
        ICML 2015 (forget gates start open).
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
            cell="lstm",
            embedding=self.embedding,
            hidden=self.hidden,
            layers=self.layers,
            state=self.state,
            dropout=self.dropout,
        )
