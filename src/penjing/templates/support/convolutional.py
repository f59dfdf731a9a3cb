"""Small convolutional networks without shortcuts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from penjing.templates.support.net import Net, channels

if TYPE_CHECKING:
    from penjing.core.architecture import InputKind, Problem

KERNEL = 5
POOL = 2


class LeNet5(Net):
    """LeNet-5 as Caffe has it: no activation behind convolutions."""

    def __init__(self, problem: Problem, kind: InputKind, dropout: float) -> None:
        super().__init__(problem, kind)
        self.conv1 = nn.Conv2d(channels(problem), 20, KERNEL)
        self.conv2 = nn.Conv2d(20, 50, KERNEL)
        height, width = (_shrunk(_shrunk(size)) for size in problem.shape[-2:])
        self.fc1 = nn.Linear(50 * height * width, 500)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(500, problem.outputs)

    def compute(self, values: torch.Tensor) -> torch.Tensor:
        """Run two convolutions and two dense layers."""
        values = functional.max_pool2d(self.conv1(values), POOL)
        values = functional.max_pool2d(self.conv2(values), POOL)
        found: torch.Tensor = self.fc2(self.dropout(torch.relu(self.fc1(values.flatten(1)))))
        return found


def _shrunk(size: int) -> int:
    return (size - KERNEL + 1) // POOL


class DsCnn(Net):
    """Depthwise separable convolutions on a plane of time by coefficients."""

    kernel = (10, 4)
    stride = 2

    def __init__(  # noqa: PLR0913  # each is one choice of the architecture
        self,
        problem: Problem,
        kind: InputKind,
        *,
        width: int,
        blocks: int,
        input_dropout: float,
        dropout: float,
    ) -> None:
        super().__init__(problem, kind)
        self.padding = _same_padding(problem.shape[-2:], self.kernel, self.stride)
        self.conv = nn.Conv2d(channels(problem), width, self.kernel, self.stride)
        self.bn = nn.BatchNorm2d(width)
        self.input_dropout = nn.Dropout(input_dropout)
        self.blocks = nn.Sequential(*(_separable(width) for _ in range(blocks)))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, problem.outputs)

    def compute(self, values: torch.Tensor) -> torch.Tensor:
        """Run the first convolution, the blocks, and a mean over the plane."""
        values = self.conv(functional.pad(values, self.padding))
        values = self.blocks(self.input_dropout(torch.relu(self.bn(values))))
        found: torch.Tensor = self.fc(self.dropout(values).mean((2, 3)))
        return found


def _separable(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, groups=width),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


def _same_padding(
    sizes: tuple[int, ...], kernel: tuple[int, int], stride: int
) -> tuple[int, ...]:
    """Pad as TensorFlow's "same" does, the odd one behind; last axis first."""
    found: list[int] = []
    for size, taps in zip(reversed(sizes), reversed(kernel), strict=True):
        total = max((-(-size // stride) - 1) * stride + taps - size, 0)
        found += [total // 2, total - total // 2]
    return tuple(found)
