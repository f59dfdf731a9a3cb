"""Small PyTorch modules for tests."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import nn

from penjing.core.example import WithExample
from penjing.core.registry import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from penjing.core.model import Model

VOCABULARY = 8
STEPS = 3


class ConvNet(nn.Module):
    """Convolutions with BatchNorms that have seen something, and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 12, 3, stride=2, groups=2)
        self.second_norm = nn.BatchNorm2d(12, affine=False)
        self.scores = nn.Linear(12, 4)
        for part in self.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
        nn.init.normal_(self.first_norm.weight, 1, 0.3)
        nn.init.normal_(self.first_norm.bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Score images of (2, 8, 8)."""
        hidden = torch.relu(self.first_norm(self.first(image)))
        hidden = torch.relu(self.second_norm(self.second(hidden)))
        scores: torch.Tensor = self.scores(hidden.mean((2, 3)))
        return scores


class Tagger(nn.Module):
    """An embedding, two directions of LSTM, a transformer layer, and the embedding again."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, 16)
        self.lstm = nn.LSTM(16, 8, batch_first=True, bidirectional=True)
        self.mix = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
        self.out = nn.Linear(16, VOCABULARY, bias=False)
        self.out.weight = self.words.weight

    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        """Score each of a few tokens."""
        states, _ = self.lstm(self.words(tokens))
        return {"scores": self.out(self.mix(states))}


def conv_net() -> WithExample:
    """Give a ``ConvNet``, the same each time, with an example."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return WithExample(ConvNet(), torch.randn(2, 2, 8, 8))


def tagger() -> WithExample:
    """Give a ``Tagger``, the same each time, with an example."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return WithExample(Tagger(), torch.randint(0, VOCABULARY, (2, STEPS)))


TOYS: dict[str, Callable[[], WithExample]] = {"conv": conv_net, "tagger": tagger}


@cache
def _exported(name: str) -> bytes:
    model = BACKENDS.load("pytorch")().open(TOYS[name]())
    arrays = {key: weight.tensor.dense() for key, weight in model.weights().items()}
    filled: bytes = model.backend.template(model.native).fill(arrays)
    return filled


def toy(name: str) -> Model:
    """Open a toy; it is exported once, which takes seconds."""
    opened: Model = BACKENDS.load("onnx")().open(_exported(name))
    return opened
