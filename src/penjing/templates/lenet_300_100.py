"""LeNet-300-100: two hidden layers of 300 and 100 units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from penjing.core.architecture import InputKind
from penjing.core.fields import Range
from penjing.templates.support.base import TorchTemplate

if TYPE_CHECKING:
    from penjing.core.architecture import Problem
    from penjing.templates.support.net import Net

__all__ = ["LeNet300100"]


@dataclass(frozen=True)
class LeNet300100(TorchTemplate):
    """Run three dense layers: 266,610 parameters on 28 x 28 images of 10 classes.

    References:
        LeCun et al., "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE,
        1998, section III.C; with the ReLU of Han et al., NIPS 2015.
    """

    kinds = (InputKind.IMAGES, InputKind.FEATURES, InputKind.SEQUENCES)

    dropout: Annotated[float, Range(0.0, 0.9)] = 0.0
    """Share of hidden units left out at random while training."""

    def network(self, problem: Problem, kind: InputKind) -> Net:
        """Make the dense layers."""
        from penjing.templates.support.dense import DenseNet

        return DenseNet(problem, kind, (300, 100), dropout=self.dropout)
