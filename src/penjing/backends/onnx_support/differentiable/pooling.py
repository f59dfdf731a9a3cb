"""Operators that pool neighbours, and those that reduce whole axes."""

from __future__ import annotations

from functools import reduce
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from penjing.backends.onnx_support.differentiable.layers import same_pads, widths
from penjing.backends.onnx_support.differentiable.node import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penjing.backends.onnx_support.differentiable.node import Maker, Operation, Site

MAX_POOLS = {3: functional.max_pool1d, 4: functional.max_pool2d, 5: functional.max_pool3d}
MEAN_POOLS = {3: functional.avg_pool1d, 4: functional.avg_pool2d, 5: functional.avg_pool3d}
"""By number of axes of the input."""


class _Window:
    """Where a pooling window goes."""

    def __init__(self, site: Site) -> None:
        self.kernel = list(site.get("kernel_shape"))
        ones = [1] * len(self.kernel)
        self.strides = list(site.get("strides", ones))
        self.dilations = list(site.get("dilations", ones))
        self.auto = site.get("auto_pad", "NOTSET")
        pads = site.get("pads", []) if self.auto == "NOTSET" else []
        half = len(pads) // 2
        self.begins, self.ends = pads[:half] or [0] * len(ones), pads[half:] or [0] * len(ones)
        self.ceil = bool(site.get("ceil_mode", 0)) and self.auto == "NOTSET"
        self.is_even = self.auto in {"NOTSET", "VALID"} and self.begins == self.ends

    def pads(self, x: Tensor) -> tuple[list[int], list[int], list[int]]:
        """Give what is padded before and behind, and what windows reach beyond that."""
        begins, ends = self.begins, self.ends
        if self.auto in {"SAME_UPPER", "SAME_LOWER"}:
            begins, ends = same_pads(
                x.shape[2:],
                self.kernel,
                self.strides,
                self.dilations,
                is_upper=self.auto == "SAME_UPPER",
            )
        beyond = [0] * len(self.kernel)
        for axis, stride in enumerate(self.strides if self.ceil else ()):
            reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1
            start = x.shape[2 + axis] + begins[axis]
            over = start + ends[axis] - reach
            last = -(-over // stride) * stride
            # The last window may not start behind the data.
            last -= stride if last >= start else 0
            beyond[axis] = max(0, last - over)
        return begins, ends, beyond


def _max_pool(site: Site) -> Operation:
    window = _Window(site)
    if site.gives(1):
        raise site.refusal("with indices")
    narrow = all(
        2 * pad <= width for pad, width in zip(window.begins, window.kernel, strict=True)
    )

    def run(x: Tensor) -> Any:
        return MAX_POOLS[x.dim()](
            x, window.kernel, window.strides, window.begins, window.dilations
        )

    def run_padded(x: Tensor) -> Any:
        begins, ends, beyond = window.pads(x)
        ends = [end + more for end, more in zip(ends, beyond, strict=True)]
        lowest = -torch.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
        x = functional.pad(x, widths(begins, ends), value=lowest)
        return MAX_POOLS[x.dim()](x, window.kernel, window.strides, 0, window.dilations)

    chosen = run if window.is_even and not window.ceil and narrow else run_padded
    return chosen if len(site.node.outputs) == 1 else lambda x: (chosen(x),)


def _mean_pool(site: Site) -> Operation:
    window = _Window(site)
    if any(dilation != 1 for dilation in window.dilations):
        raise site.refusal("with dilations")
    counts_pads = bool(site.get("count_include_pad", 0))
    narrow = all(
        2 * pad <= width for pad, width in zip(window.begins, window.kernel, strict=True)
    )

    def run(x: Tensor) -> Any:
        pool = MEAN_POOLS[x.dim()]
        return pool(x, window.kernel, window.strides, window.begins, False, counts_pads)  # noqa: FBT003  # positional in PyTorch

    def run_padded(x: Tensor) -> Any:
        begins, ends, beyond = window.pads(x)
        pool = MEAN_POOLS[x.dim()]
        counted = x.new_ones((1, 1, *x.shape[2:]))
        counted = functional.pad(counted, widths(begins, ends), value=float(counts_pads))
        counted = functional.pad(counted, widths([0] * len(beyond), beyond))
        ends = [end + more for end, more in zip(ends, beyond, strict=True)]
        sums = pool(functional.pad(x, widths(begins, ends)), window.kernel, window.strides)
        return sums / pool(counted, window.kernel, window.strides)

    return run if window.is_even and not window.ceil and narrow else run_padded


def _lp_pool(site: Site) -> Operation:
    window, order = _Window(site), site.get("p", 2)
    if any(dilation != 1 for dilation in window.dilations):
        raise site.refusal("with dilations")

    def run(x: Tensor) -> Any:
        begins, ends, beyond = window.pads(x)
        ends = [end + more for end, more in zip(ends, beyond, strict=True)]
        powers = functional.pad(x.abs() ** order, widths(begins, ends))
        means = MEAN_POOLS[x.dim()](powers, window.kernel, window.strides)
        return (means * prod(window.kernel)) ** (1 / order)

    return run


def _spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


def _global_lp_pool(site: Site) -> Operation:
    order = site.get("p", 2)
    return lambda x: torch.linalg.vector_norm(x, order, _spatial(x), keepdim=True)


def _product(x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:  # noqa: FBT001
    order = sorted((axis % x.dim() for axis in axes), reverse=True)
    return reduce(lambda made, axis: made.prod(axis, keepdim), order, x)


def _norm(order: int) -> Callable[..., Tensor]:
    def norm(x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:  # noqa: FBT001
        if not x.is_floating_point():
            total: Tensor = x.abs().sum(axes, keepdim)
            return total
        size: Tensor = torch.linalg.vector_norm(x, order, axes, keepdim)
        return size

    return norm


def _reduction(function: Callable[..., Tensor]) -> Maker:
    """Make a reducing operator; its axes are an attribute or the second input."""

    def make(site: Site) -> Operation:
        keep = bool(site.get("keepdims", 1))
        does_nothing = bool(site.get("noop_with_empty_axes", 0))
        written = site.get("axes")

        def run(x: Tensor, axes: list[int] | None = None) -> Tensor:
            axes = axes or written
            if not axes and does_nothing:
                return x
            return function(x, tuple(axes) if axes else tuple(range(x.dim())), keep)

        return listed(site, run)

    return make


def _arg(function: Callable[..., Tensor]) -> Maker:
    def make(site: Site) -> Operation:
        axis, keep = site.get("axis", 0), bool(site.get("keepdims", 1))
        if not site.get("select_last_index", 0):
            return lambda x: function(x, axis, keep)
        return lambda x: x.shape[axis] - 1 - function(x.flip(axis), axis, keep)

    return make


POOLING: Mapping[str, Maker] = {
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "AveragePool": _mean_pool,
    "GlobalAveragePool": lambda _site: lambda x: x.mean(_spatial(x), keepdim=True),
    "GlobalLpPool": _global_lp_pool,
    "GlobalMaxPool": lambda _site: lambda x: x.amax(_spatial(x), keepdim=True),
    "LpPool": _lp_pool,
    "MaxPool": _max_pool,
    "ReduceL1": _reduction(_norm(1)),
    "ReduceL2": _reduction(_norm(2)),
    "ReduceLogSum": _reduction(lambda x, axes, keep: x.sum(axes, keep).log()),
    "ReduceLogSumExp": _reduction(torch.logsumexp),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceMin": _reduction(torch.amin),
    "ReduceProd": _reduction(_product),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keep)),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: x.square().sum(axes, keep)),
}
