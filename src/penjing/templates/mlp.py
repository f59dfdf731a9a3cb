"""Multilayer perceptron: dense layers, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from penjing.core.architecture import InputKind
from penjing.core.fields import Range
from penjing.templates.support.base import TorchTemplate

if TYPE_CHECKING:
    from penjing.core.architecture import Problem
    from penjing.templates.support.net import Net

__all__ = ["Mlp"]

Activation = Literal["relu", "gelu", "tanh"]


@dataclass(frozen=True)
class Mlp(TorchTemplate):
    """Run dense layers of one width on the flattened input.

    References:
        Rumelhart, Hinton, Williams, "Learning Representations by Back-propagating Errors",
        Nature, 1986.
        Ioffe, Szegedy, "Batch Normalization", ICML 2015.
    """

    kinds = (InputKind.FEATURES, InputKind.IMAGES, InputKind.SEQUENCES)

    width: Annotated[int, Range(1, 65536)] = 128
    """Units of each hidden layer."""
    layers: Annotated[int, Range(1, 64)] = 2
    """Hidden layers."""
    activation: Activation = "relu"
    """What follows each hidden layer."""
    batch_norm: bool = False
    """Whether hidden layers are normalized over the batch."""
    dropout: Annotated[float, Range(0.0, 0.9)] = 0.0
    """Share of hidden units left out at random while training."""

    def network(self, problem: Problem, kind: InputKind) -> Net:
        """Make the dense layers."""
        from penjing.templates.support.dense import DenseNet

        return DenseNet(
            problem,
            kind,
            (self.width,) * self.layers,
            activation=self.activation,
            batch_norm=self.batch_norm,
            dropout=self.dropout,
        )
