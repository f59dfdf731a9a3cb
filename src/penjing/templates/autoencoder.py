"""Autoencoder of dense layers: what is usual comes out as it went in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from penjing.core.architecture import InputKind, Task
from penjing.core.fields import Range
from penjing.templates.support.base import TorchTemplate

if TYPE_CHECKING:
    from penjing.core.architecture import Problem
    from penjing.templates.support.net import Net

__all__ = ["Autoencoder"]


@dataclass(frozen=True)
class Autoencoder(TorchTemplate):
    """Squeeze a row through a narrow layer and rebuild it; large errors tell anomalies.

    The defaults are those of MLPerf Tiny: 269,992 numbers for rows of 640.

    References:
        Hinton, Salakhutdinov, "Reducing the Dimensionality of Data with Neural Networks",
        Science, 2006.
        Banbury et al., "MLPerf Tiny Benchmark", NeurIPS 2021: anomaly detection.
    """

    kinds = (InputKind.FEATURES, InputKind.IMAGES, InputKind.SEQUENCES)
    tasks = (Task.RECONSTRUCTION,)

    width: Annotated[int, Range(1, 65536)] = 128
    """Units of each hidden layer."""
    layers: Annotated[int, Range(1, 32)] = 4
    """Hidden layers on either side."""
    code: Annotated[int, Range(1, 65536)] = 8
    """Units of the narrow layer."""
    batch_norm: bool = True
    """Whether layers are normalized over the batch."""
    dropout: Annotated[float, Range(0.0, 0.9)] = 0.0
    """Share of hidden units left out at random while training."""

    def network(self, problem: Problem, kind: InputKind) -> Net:
        """Make the dense layers."""
        from penjing.templates.support.dense import DenseNet

        side = (self.width,) * self.layers
        return DenseNet(
            problem,
            kind,
            (*side, self.code, *side),
            batch_norm=self.batch_norm,
            dropout=self.dropout,
        )
