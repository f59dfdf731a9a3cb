"""All operators that can be trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penjing.backends.onnx_support.differentiable.elementwise import ELEMENTWISE
from penjing.backends.onnx_support.differentiable.indexing import INDEXING
from penjing.backends.onnx_support.differentiable.layers import LAYERS
from penjing.backends.onnx_support.differentiable.learning import LEARNING
from penjing.backends.onnx_support.differentiable.pooling import POOLING
from penjing.backends.onnx_support.differentiable.quantizing import QUANTIZING
from penjing.backends.onnx_support.differentiable.recurrent import RECURRENT
from penjing.backends.onnx_support.differentiable.resizing import RESIZING
from penjing.backends.onnx_support.differentiable.shapes import SHAPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.backends.onnx_support.differentiable.node import Maker

OPERATORS: Mapping[str, Maker] = {
    **ELEMENTWISE,
    **INDEXING,
    **LAYERS,
    **POOLING,
    **SHAPES,
    **RESIZING,
    **RECURRENT,
    **QUANTIZING,
    **LEARNING,
}
"""What makes the operation of a node, by operator."""

HOST_FROM: Mapping[str, int] = {
    "ConstantOfShape": 0,
    "Range": 0,
    **dict.fromkeys(
        (
            "CumSum",
            "Expand",
            "Pad",
            "Reshape",
            "Resize",
            "Slice",
            "Split",
            "Squeeze",
            "Tile",
            "TopK",
            "Trilu",
            "Unsqueeze",
            *(name for name in POOLING if name.startswith("Reduce")),
        ),
        1,
    ),
}
"""Inputs from this one on are lists of numbers for the operator, read on the CPU."""
