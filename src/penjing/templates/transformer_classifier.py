"""A small transformer encoder over tokens or vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from penjing.core.architecture import InputKind
from penjing.core.errors import ConfigError
from penjing.core.fields import Range
from penjing.templates.support.base import TorchTemplate

if TYPE_CHECKING:
    from penjing.core.architecture import Problem
    from penjing.templates.support.net import Net

__all__ = ["TransformerClassifier"]


@dataclass(frozen=True)
class TransformerClassifier(TorchTemplate):
    """Classify sequences by attention among all steps; for values, predict from them.

    Positions are learned; layers normalize first.

    References:
        Vaswani et al., "Attention Is All You Need", NIPS 2017.
        Xiong et al., "On Layer Normalization in the Transformer Architecture", ICML 2020.
    """

    kinds = (InputKind.TOKENS, InputKind.SEQUENCES)

    width: Annotated[int, Range(1, 8192)] = 64
    """Numbers that stand for a step; a multiple of ``heads``."""
    heads: Annotated[int, Range(1, 64)] = 4
    """Ways of looking at other steps in each layer."""
    layers: Annotated[int, Range(1, 64)] = 2
    """Layers of the encoder."""
    expansion: Annotated[int, Range(1, 16)] = 4
    """Units of the dense layers inside, as a multiple of ``width``."""
    dropout: Annotated[float, Range(0.0, 0.9)] = 0.1
    """Share left out at random while training, in each layer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise ConfigError(
                "width",
                f"must be a multiple of heads={self.heads}, got {self.width}",
                f"for example {max(1, round(self.width / self.heads)) * self.heads}",
            )

    def network(self, problem: Problem, kind: InputKind) -> Net:
        """Make the encoder."""
        from penjing.templates.support.attention import TransformerNet

        return TransformerNet(
            problem,
            kind,
            width=self.width,
            heads=self.heads,
            layers=self.layers,
            expansion=self.expansion,
            dropout=self.dropout,
        )
