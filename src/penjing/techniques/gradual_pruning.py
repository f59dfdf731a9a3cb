"""Gradual magnitude pruning: sparsity grows while the model learns to do without."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.techniques.support.masks import GrowingPruning

__all__ = ["GradualPruning"]


@dataclass(frozen=True)
class GradualPruning(GrowingPruning):
    """Prune the weights of smallest magnitude, few at first, and train what is left.

    The share of zeros follows ``sparsity * (1 - (1 - t)³)`` and is reached at ``ends_at`` of
    the run; the rest of the run is retraining.  Encodings that weights are in stay; factors of
    low-rank weights are trained, not pruned.

    References:
        Zhu & Gupta, "To prune, or not to prune", arXiv:1710.01878, 2017.
        Han et al., "Learning both Weights and Connections", NeurIPS 2015.
    """
