"""Operators that multiply by weights, and those that normalise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penjing.backends.onnx_support.differentiable.node import Maker, Operation, Site

CONVOLUTIONS = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}
TURNED = {
    3: functional.conv_transpose1d,
    4: functional.conv_transpose2d,
    5: functional.conv_transpose3d,
}
"""By number of axes of the input."""


def widths(begins: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Give pads as PyTorch wants them: the last axis first, begin and end side by side."""
    return [
        width
        for begin, end in zip(reversed(begins), reversed(ends), strict=True)
        for width in (begin, end)
    ]


def same_pads(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    *,
    is_upper: bool,
) -> tuple[list[int], list[int]]:
    """Give the pads with which outputs are as large as inputs, over the stride."""
    begins, ends = [], []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = dilation * (width - 1) + 1
        total = max(0, (-(-size // stride) - 1) * stride + reach - size)
        small = total // 2
        begins.append(small if is_upper else total - small)
        ends.append(total - begins[-1])
    return begins, ends


def _conv(site: Site) -> Operation:
    groups = site.get("group", 1)
    strides, dilations = site.get("strides", 1), site.get("dilations", 1)
    auto = site.get("auto_pad", "NOTSET")
    pads = site.get("pads", []) if auto == "NOTSET" else []
    begins, ends = pads[: len(pads) // 2], pads[len(pads) // 2 :]

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Any:
        return CONVOLUTIONS[x.dim()](x, w, b, strides, begins or 0, dilations, groups)

    def run_padded(x: Tensor, w: Tensor, b: Tensor | None = None) -> Any:
        x = functional.pad(x, around)
        return CONVOLUTIONS[x.dim()](x, w, b, strides, 0, dilations, groups)

    def run_same(x: Tensor, w: Tensor, b: Tensor | None = None) -> Any:
        ones = [1] * (x.dim() - 2)
        steps, gaps = strides if strides != 1 else ones, dilations if dilations != 1 else ones
        before, after = same_pads(
            x.shape[2:], w.shape[2:], steps, gaps, is_upper=auto == "SAME_UPPER"
        )
        if before == after:
            return CONVOLUTIONS[x.dim()](x, w, b, strides, before, dilations, groups)
        x = functional.pad(x, widths(before, after))
        return CONVOLUTIONS[x.dim()](x, w, b, strides, 0, dilations, groups)

    if auto in {"SAME_UPPER", "SAME_LOWER"}:
        return run_same
    if begins == ends:
        return run
    around = widths(begins, ends)
    return run_padded


def _conv_transpose(site: Site) -> Operation:
    groups = site.get("group", 1)
    auto = site.get("auto_pad", "NOTSET")
    pads = site.get("pads", []) if auto == "NOTSET" else []
    begins, ends = pads[: len(pads) // 2], pads[len(pads) // 2 :]
    strides, dilations = site.get("strides", 1), site.get("dilations", 1)
    more, shape = site.get("output_padding", 0), site.get("output_shape")

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Any:
        return TURNED[x.dim()](x, w, b, strides, begins or 0, more, groups, dilations)

    def run_cropped(x: Tensor, w: Tensor, b: Tensor | None = None) -> Any:
        whole = TURNED[x.dim()](x, w, b, strides, 0, more, groups, dilations)
        before, after = begins, ends
        if shape or not pads:
            steps = [strides] * (x.dim() - 2) if isinstance(strides, int) else strides
            goal = shape or [n * s for n, s in zip(x.shape[2:], steps, strict=True)]
            # Spatial sizes may follow those of the batch and the channels.
            goal = goal[-(x.dim() - 2) :]
            total = [n - wanted for n, wanted in zip(whole.shape[2:], goal, strict=True)]
            small = [n // 2 for n in total]
            large = [n - half for n, half in zip(total, small, strict=True)]
            before, after = (small, large) if auto == "SAME_UPPER" else (large, small)
        return functional.pad(whole, [-width for width in widths(before, after)])

    by_size = shape is not None or auto in {"SAME_UPPER", "SAME_LOWER"}
    return run if not by_size and begins == ends else run_cropped


def _gemm(site: Site) -> Operation:
    alpha, beta = site.get("alpha", 1.0), site.get("beta", 1.0)
    turn_a, turn_b = site.get("transA", 0), site.get("transB", 0)

    def run_linear(a: Tensor, b: Tensor, c: Tensor | None = None) -> Any:
        b = b if turn_b else b.t()
        if c is None or c.dim() == 1:
            return functional.linear(a, b, c)
        return functional.linear(a, b) + c

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Any:
        product = alpha * ((a.t() if turn_a else a) @ (b.t() if turn_b else b))
        return product if c is None else product + beta * c

    return run_linear if alpha == beta == 1 and not turn_a else run


def _einsum(site: Site) -> Operation:
    equation = site.get("equation")
    return lambda *inputs: torch.einsum(equation, *inputs)


def _batch_norm(site: Site) -> Operation:
    epsilon = site.get("epsilon", 1e-5)
    if site.get("training_mode", 0) or site.gives(1):
        raise site.refusal("in training mode")

    def run(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return functional.batch_norm(
            x, mean, variance, scale, bias, training=False, eps=epsilon
        )

    return run if len(site.node.outputs) == 1 else lambda *inputs: (run(*inputs),)


def _instance_norm(site: Site) -> Operation:
    epsilon = site.get("epsilon", 1e-5)
    return lambda x, scale, bias: functional.instance_norm(
        x, weight=scale, bias=bias, eps=epsilon
    )


def _layer_norm(site: Site) -> Operation:
    axis, epsilon = site.get("axis", -1), site.get("epsilon", 1e-5)
    many = len(site.node.outputs) > 1

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Any:
        shape = x.shape[axis:]
        if not many and scale.shape == shape and (bias is None or bias.shape == shape):
            return functional.layer_norm(x, shape, scale, bias, epsilon)
        axes = tuple(range(axis % x.dim(), x.dim()))
        centre = x.mean(axes, keepdim=True)
        inverse = torch.rsqrt((x - centre).square().mean(axes, keepdim=True) + epsilon)
        y = (x - centre) * inverse * scale
        y = y if bias is None else y + bias
        return (y, centre, inverse) if many else y

    return run


def _rms_norm(site: Site) -> Operation:
    axis, epsilon = site.get("axis", -1), site.get("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor) -> Tensor:
        axes = tuple(range(axis % x.dim(), x.dim()))
        return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + epsilon) * scale

    return run


def _group_norm(site: Site) -> Operation:
    groups, epsilon = site.get("num_groups"), site.get("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        channels = x.shape[1]
        if len(scale) != channels:  # opset 18 has one number a group
            scale = scale.repeat_interleave(channels // groups)
            bias = bias.repeat_interleave(channels // groups)
        return functional.group_norm(x, groups, scale, bias, epsilon)

    return run


def _lp_norm(site: Site) -> Operation:
    axis, order = site.get("axis", -1), site.get("p", 2)

    def run(x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, order, axis, keepdim=True)
        return x / torch.where(size == 0, 1.0, size)

    return run


def _local_response(site: Site) -> Operation:
    size, alpha = site.get("size"), site.get("alpha", 1e-4)
    beta, bias = site.get("beta", 0.75), site.get("bias", 1.0)
    around = [0, 0, (size - 1) // 2, size // 2]

    def run(x: Tensor) -> Any:
        squares = functional.pad(x.square().flatten(2).unsqueeze(1), around)
        mean = functional.avg_pool2d(squares, (size, 1), 1).reshape(x.shape)
        return x / (bias + alpha * mean) ** beta

    return run


def _mean_variance(site: Site) -> Operation:
    axes = tuple(site.get("axes", [0, 2, 3]))

    def run(x: Tensor) -> Tensor:
        centred = x - x.mean(axes, keepdim=True)
        return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)

    return run


LAYERS: Mapping[str, Maker] = {
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _local_response,
    "LayerNormalization": _layer_norm,
    "LpNormalization": _lp_norm,
    "MeanVarianceNormalization": _mean_variance,
    "RMSNormalization": _rms_norm,
}
