"""Quantization as float arithmetic: whole numbers are floats, and rounding lets gradients by.

Gradients reach inputs and scales as in LSQ (Esser et al., arXiv:1902.08153).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from penjing.core.training import straight_through

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.backends.onnx_support.differentiable.node import Maker, Operation, Site

LIMITS: Mapping[str, tuple[int, int]] = {
    f"{sign}int{bits}": (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for bits in (4, 8, 16)
    for sign in ("", "u")
}


def _spread(site: Site) -> Any:
    """Give a function that lays scales or zero points out for the values they belong to."""
    axis, block = site.get("axis", 1), site.get("block_size", 0)

    def spread(part: Tensor, x: Tensor) -> Tensor:
        if part.numel() == 1:
            return part.reshape(())
        if block:
            return part.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
        shape = [1] * x.dim()
        shape[axis] = len(part)
        return part.reshape(shape)

    return spread


def _quantize(site: Site) -> Operation:
    from onnx import TensorProto

    kind = site.kind(2)
    if not kind:
        code = site.get("output_dtype", 0)
        kind = TensorProto.DataType.Name(code).lower() if code else "uint8"
    if kind not in LIMITS:
        raise site.refusal(f"to {kind}")
    low, high = LIMITS[kind]
    spread = _spread(site)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        scaled = x / spread(scale, x).to(x.dtype)
        whole: Tensor = straight_through(torch.round(scaled), scaled)
        if zero is not None:
            whole = whole + spread(zero, x).to(x.dtype)
        return whole.clamp(low, high)

    return run


def _dequantize(site: Site) -> Operation:
    spread = _spread(site)

    def run(q: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        x = q.to(scale.dtype)
        if zero is not None:
            x = x - spread(zero, x).to(scale.dtype)
        scaled: Tensor = x * spread(scale, x)
        return scaled

    return run


QUANTIZING: Mapping[str, Maker] = {
    "DequantizeLinear": _dequantize,
    "QuantizeLinear": _quantize,
}
