"""GRU over tokens or vectors, and a dense layer on its state."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.templates.support.families import RecurrentClassifier

__all__ = ["GruClassifier"]


@dataclass(frozen=True)
class GruClassifier(RecurrentClassifier):
    """Classify sequences by gated recurrent units; for values, predict from them.

    References:
        Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for
        Statistical Machine Translation", EMNLP 2014.
        Zaremba et al., "Recurrent Neural Network Regularization", arXiv:1409.2329 (dropout).
    """

    cell = "gru"
