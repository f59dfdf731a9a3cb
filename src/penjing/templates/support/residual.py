"""Residual networks for small images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from penjing.templates.support.net import Net, channels

if TYPE_CHECKING:
    from penjing.core.architecture import InputKind, Problem

STAGES = 3


class PaddedShortcut(nn.Module):
    """Option A: every second pixel, and channels of zeros on both sides."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        before = (outputs - inputs) // 2
        self.padding = (0, 0, 0, 0, before, outputs - inputs - before)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Halve the plane and widen the channels."""
        return functional.pad(values[:, :, ::2, ::2], self.padding)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, *, options: str) -> None:
        super().__init__()
        halves = inputs != outputs
        bias = options == "B"
        stride = 2 if halves else 1
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=bias)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if halves and options == "A":
            self.shortcut = PaddedShortcut(inputs, outputs)
        elif halves:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Add what the convolutions give to the shortcut."""
        inner = torch.relu(self.bn1(self.conv1(values)))
        inner = self.bn2(self.conv2(inner))
        return torch.relu(inner + self.shortcut(values))


class ResNet(Net):
    """Three stages of basic blocks, each half as large and twice as wide as the one before.

    With option A shortcuts have no weights and convolutions no biases; with option B the
    shortcut between stages is a 1 x 1 convolution, and convolutions have biases.
    """

    def __init__(
        self, problem: Problem, kind: InputKind, *, width: int, blocks: int, options: str
    ) -> None:
        super().__init__(problem, kind)
        self.conv1 = nn.Conv2d(channels(problem), width, 3, padding=1, bias=options == "B")
        self.bn1 = nn.BatchNorm2d(width)
        widths = [width, *(width << stage for stage in range(STAGES))]
        for stage in range(STAGES):
            inputs, outputs = widths[stage : stage + 2]
            rest = (BasicBlock(outputs, outputs, options=options) for _ in range(blocks - 1))
            first = BasicBlock(inputs, outputs, options=options)
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *rest))
        self.linear = nn.Linear(widths[-1], problem.outputs)
        self.apply(_start)

    def compute(self, values: torch.Tensor) -> torch.Tensor:
        """Run the stages, and a mean over the plane."""
        values = torch.relu(self.bn1(self.conv1(values)))
        for stage in range(STAGES):
            values = self.get_submodule(f"layer{stage + 1}")(values)
        found: torch.Tensor = self.linear(values.mean((2, 3)))
        return found


def _start(module: nn.Module) -> None:
    """Start as He et al., "Delving Deep into Rectifiers", ICCV 2015, say."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
