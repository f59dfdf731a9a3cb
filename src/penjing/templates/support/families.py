"""Settings that templates of one family share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from penjing.core.architecture import InputKind
from penjing.core.fields import Range
from penjing.templates.support.base import TorchTemplate

if TYPE_CHECKING:
    from penjing.core.architecture import Problem
    from penjing.templates.support.net import Net

State = Literal["last", "mean"]


@dataclass(frozen=True)
class RecurrentClassifier(TorchTemplate):
    """Recurrent layers over tokens or vectors, and a dense layer on their state."""

    kinds = (InputKind.TOKENS, InputKind.SEQUENCES)
    cell: ClassVar[str]
    """``lstm`` or ``gru``."""

    embedding: Annotated[int, Range(1, 8192)] = 64
    """Numbers that stand for a token; vectors are taken as they are."""
    hidden: Annotated[int, Range(1, 8192)] = 128
    """Units of each layer."""
    layers: Annotated[int, Range(1, 16)] = 1
    """Recurrent layers."""
    state: State = "last"
    """What decides: the ``last`` state, or the ``mean`` of all."""
    dropout: Annotated[float, Range(0.0, 0.9)] = 0.0
    """Share left out at random while training, between layers."""

    def network(self, problem: Problem, kind: InputKind) -> Net:
        """Make the recurrent layers."""
        from penjing.templates.support.recurrent import RecurrentNet

        return RecurrentNet(
            problem,
            kind,
            cell=self.cell,
            embedding=self.embedding,
            hidden=self.hidden,
            layers=self.layers,
            state=self.state,
            dropout=self.dropout,
        )


@dataclass(frozen=True)
class SmallImageResNet(TorchTemplate):
    """Three stages of residual blocks whose shortcuts have no weights."""

    kinds = (InputKind.IMAGES,)
    smallest = 8
    blocks: ClassVar[int]
    """Blocks of each stage."""

    width: Annotated[int, Range(1, 1024)] = 16
    """Channels of the first stage; the others have two and four times as many."""

    def network(self, problem: Problem, kind: InputKind) -> Net:
        """Make three stages."""
        from penjing.templates.support.residual import ResNet

        return ResNet(problem, kind, width=self.width, blocks=self.blocks, options="A")
