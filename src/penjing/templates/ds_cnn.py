"""DS-CNN: depthwise separable convolutions, for keyword spotting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from penjing.core.architecture import InputKind
from penjing.core.fields import Range
from penjing.templates.support.base import TorchTemplate

if TYPE_CHECKING:
    from penjing.core.architecture import Problem
    from penjing.templates.support.net import Net

__all__ = ["DsCnn"]


@dataclass(frozen=True)
class DsCnn(TorchTemplate):
    """Classify planes such as 49 x 10 cepstral coefficients of speech, as in MLPerf Tiny.

    References:
        Zhang et al., "Hello Edge: Keyword Spotting on Microcontrollers", arXiv:1711.07128.
        Banbury et al., "MLPerf Tiny Benchmark", NeurIPS 2021: keyword spotting.
    """

    kinds = (InputKind.IMAGES,)

    width: Annotated[int, Range(1, 4096)] = 64
    """Channels of every layer."""
    blocks: Annotated[int, Range(1, 32)] = 4
    """Separable convolutions behind the first one."""
    input_dropout: Annotated[float, Range(0.0, 0.9)] = 0.2
    """Share left out at random while training, behind the first convolution."""
    dropout: Annotated[float, Range(0.0, 0.9)] = 0.4
    """Share left out at random while training, before the mean over the plane."""

    def network(self, problem: Problem, kind: InputKind) -> Net:
        """Make the convolutions."""
        from penjing.templates.support.convolutional import DsCnn as Network

        return Network(
            problem,
            kind,
            width=self.width,
            blocks=self.blocks,
            input_dropout=self.input_dropout,
            dropout=self.dropout,
        )
