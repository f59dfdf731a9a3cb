"""LeNet-5 as Caffe has it: two convolutions, two dense layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from penjing.core.architecture import InputKind
from penjing.core.fields import Range
from penjing.templates.support.base import TorchTemplate

if TYPE_CHECKING:
    from penjing.core.architecture import Problem
    from penjing.templates.support.net import Net

__all__ = ["LeNet5"]


@dataclass(frozen=True)
class LeNet5(TorchTemplate):
    """Classify small images: 431,080 parameters on 28 x 28 grey images of 10 classes.

    References:
        LeCun et al., "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE,
        1998, section II.
        Jia et al., "Caffe: Convolutional Architecture for Fast Feature Embedding", 2014: the
        example ``lenet``, whose sizes these are.
    """

    kinds = (InputKind.IMAGES,)
    smallest = 16

    dropout: Annotated[float, Range(0.0, 0.9)] = 0.0
    """Share of the 500 hidden units left out at random while training."""

    def network(self, problem: Problem, kind: InputKind) -> Net:
        """Make the layers for images of this size."""
        from penjing.templates.support.convolutional import LeNet5 as Net5

        return Net5(problem, kind, self.dropout)
