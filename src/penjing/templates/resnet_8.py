"""ResNet-8 for small images, as in MLPerf Tiny."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from penjing.core.architecture import InputKind
from penjing.core.fields import Range
from penjing.templates.support.base import TorchTemplate

if TYPE_CHECKING:
    from penjing.core.architecture import Problem
    from penjing.templates.support.net import Net

__all__ = ["ResNet8"]


@dataclass(frozen=True)
class ResNet8(TorchTemplate):
    """Classify small images by 8 layers with shortcuts: 78,186 parameters for CIFAR-10.

    Shortcuts between stages are 1 x 1 convolutions.

    References:
        Banbury et al., "MLPerf Tiny Benchmark", NeurIPS 2021: image classification.
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
    """

    kinds = (InputKind.IMAGES,)
    smallest = 8

    width: Annotated[int, Range(1, 1024)] = 16
    """Channels of the first stage; the others have two and four times as many."""

    def network(self, problem: Problem, kind: InputKind) -> Net:
        """Make three stages."""
        from penjing.templates.support.residual import ResNet

        return ResNet(problem, kind, width=self.width, blocks=1, options="B")
