"""ResNet-20 for small images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from penjing.core.architecture import InputKind
from penjing.core.fields import Range
from penjing.templates.support.base import TorchTemplate

if TYPE_CHECKING:
    from penjing.core.architecture import Problem
    from penjing.templates.support.net import Net

__all__ = ["ResNet20"]


@dataclass(frozen=True)
class ResNet20(TorchTemplate):
    """Classify small images by 20 layers with shortcuts: 269,722 parameters for CIFAR-10.

    Shortcuts have no weights: they skip pixels and pad channels (option A).

    References:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
    """

    kinds = (InputKind.IMAGES,)
    smallest = 8

    width: Annotated[int, Range(1, 1024)] = 16
    """Channels of the first stage; the others have two and four times as many."""

    def network(self, problem: Problem, kind: InputKind) -> Net:
        """Make three stages."""
        from penjing.templates.support.residual import ResNet

        return ResNet(problem, kind, width=self.width, blocks=3, options="A")
