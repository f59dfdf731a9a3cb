"""LSTM over tokens or vectors, and a dense layer on its state."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.templates.support.families import RecurrentClassifier

__all__ = ["LstmClassifier"]


@dataclass(frozen=True)
class LstmClassifier(RecurrentClassifier):
    """Classify sequences by long short-term memory; for values, predict from them.

    References:
        Hochreiter, Schmidhuber, "Long Short-Term Memory", Neural Computation, 1997.
        Zaremba et al., "Recurrent Neural Network Regularization", arXiv:1409.2329 (dropout).
        Jozefowicz et al., "An Empirical Exploration of Recurrent Network Architectures",
        ICML 2015 (forget gates start open).
    """

    cell = "lstm"
