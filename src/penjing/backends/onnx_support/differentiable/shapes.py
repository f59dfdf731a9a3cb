"""Operators that move numbers without changing them, and those that make shapes."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from penjing.backends.onnx_support.differentiable.elementwise import cast_type
from penjing.backends.onnx_support.differentiable.layers import widths
from penjing.backends.onnx_support.differentiable.node import listed, numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.backends.onnx_support.differentiable.node import Maker, Operation, Site


def _reshape(site: Site) -> Operation:
    takes_zeros = bool(site.get("allowzero", 0))

    def run(x: Tensor, shape: list[int]) -> Tensor:
        if not takes_zeros and 0 in shape:
            shape = [size or x.shape[axis] for axis, size in enumerate(shape)]
        return x.reshape(shape)

    return listed(site, run)


def _flatten(site: Site) -> Operation:
    axis = site.get("axis", 1)
    if axis == 1:
        return lambda x: x.reshape(x.shape[0], prod(x.shape[1:]))

    def run(x: Tensor) -> Tensor:
        first = axis if axis >= 0 else axis + x.dim()
        return x.reshape(prod(x.shape[:first]), prod(x.shape[first:]))

    return run


def _transpose(site: Site) -> Operation:
    order = site.get("perm")
    if order is not None:
        return lambda x: x.permute(order)
    return lambda x: x.permute(tuple(reversed(range(x.dim()))))


def _squeeze(site: Site) -> Operation:
    written = site.get("axes")

    def run(x: Tensor, axes: list[int] | None = None) -> Tensor:
        axes = axes or written
        return x.squeeze(tuple(axes)) if axes else x.squeeze()

    return listed(site, run)


def _unsqueeze(site: Site) -> Operation:
    written = site.get("axes")

    def run(x: Tensor, axes: list[int] | None = None) -> Tensor:
        places = axes or written or []
        rank = x.dim() + len(places)
        for axis in sorted(place % rank for place in places):
            x = x.unsqueeze(axis)
        return x

    return listed(site, run)


def _concat(site: Site) -> Operation:
    axis = site.get("axis", 0)
    return lambda *inputs: torch.cat(inputs, axis)


def _split(site: Site) -> Operation:
    axis, written = site.get("axis", 0), site.get("split")
    count = site.get("num_outputs", len(site.node.outputs))
    single = len(site.node.outputs) == 1

    def run(x: Tensor, sizes: list[int] | None = None) -> Any:
        parts = torch.split(x, sizes or written or -(-x.shape[axis] // count), axis)
        return parts[0] if single else parts

    return listed(site, run)


def _slice(site: Site) -> Operation:
    def run(
        x: Tensor,
        starts: list[int],
        ends: list[int],
        axes: list[int] | None = None,
        steps: list[int] | None = None,
    ) -> Tensor:
        index = [slice(None)] * x.dim()
        turned = []
        for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
            axis = axes[place] % x.dim() if axes else place
            step = steps[place] if steps else 1
            size = x.shape[axis]
            if step < 0:
                start, end, step = _turned(start, end, step, size)  # noqa: PLW2901
                turned.append(axis)
            # Ends such as the largest integer stand for all that is left.
            low, high = (min(max(bound, -size), size) for bound in (start, end))
            index[axis] = slice(low, high, step)
        return (x.flip(turned) if turned else x)[tuple(index)]

    return listed(site, run)


def _turned(start: int, end: int, step: int, size: int) -> tuple[int, int, int]:
    """Give the bounds of a slice that goes backwards on the reversed axis."""
    start = min(max(start + size if start < 0 else start, -1), size - 1)
    end = min(max(end + size if end < 0 else end, -1), size - 1)
    return size - 1 - start, size - 1 - end, -step


def _expand(site: Site) -> Operation:
    def run(x: Tensor, shape: list[int]) -> Tensor:
        goal = torch.broadcast_shapes(x.shape, tuple(shape))  # type: ignore[no-untyped-call]
        return x.broadcast_to(goal)

    return listed(site, run)


def _tile(site: Site) -> Operation:
    return listed(site, lambda x, counts: x.repeat(counts) if counts else x)


PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def _pad(site: Site) -> Operation:
    mode = site.get("mode", "constant")
    if mode not in PAD_MODES:
        raise site.refusal(f"with mode {mode}")

    def run(
        x: Tensor,
        pads: list[int],
        value: list[float] | None = None,
        axes: list[int] | None = None,
    ) -> Tensor:
        places = [axis % x.dim() for axis in axes] if axes else list(range(x.dim()))
        half = len(pads) // 2
        pairs = dict(zip(places, zip(pads[:half], pads[half:], strict=True), strict=True))
        if mode == "constant":
            begins, ends = zip(
                *(pairs.get(axis, (0, 0)) for axis in range(x.dim())), strict=True
            )
            return functional.pad(x, widths(begins, ends), value=value[0] if value else 0)
        for axis, (begin, end) in pairs.items():
            if begin or end:
                x = x.index_select(axis, _places(x.shape[axis], begin, end, mode).to(x.device))
        return x

    return listed(site, run)


def _places(size: int, begin: int, end: int, mode: str) -> Tensor:
    """Give the place that each place of a padded axis takes its numbers from."""
    around = np.pad(np.arange(size), (max(begin, 0), max(end, 0)), mode)  # type: ignore[call-overload]
    kept = around[max(-begin, 0) : len(around) - max(-end, 0)]
    return torch.from_numpy(kept.copy())


def _depth_to_space(site: Site) -> Operation:
    block, crd = site.get("blocksize"), site.get("mode", "DCR") == "CRD"

    def run(x: Tensor) -> Tensor:
        if crd:
            return functional.pixel_shuffle(x, block)
        n, c, h, w = x.shape
        parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return parts.reshape(n, c // block**2, h * block, w * block)

    return run


def _space_to_depth(site: Site) -> Operation:
    block = site.get("blocksize")

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        parts = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
        return parts.reshape(n, c * block**2, h // block, w // block)

    return run


def _shape(site: Site) -> Operation:
    start, end = site.get("start", 0), site.get("end")
    return lambda x: torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


def _constant_of_shape(site: Site) -> Operation:
    value = site.get("value", np.zeros(1, np.float32))
    filled = torch.from_numpy(np.array(value)).reshape(-1)
    number, dtype = filled.item(), filled.dtype
    return listed(site, lambda shape: torch.full(shape, number, dtype=dtype), 0)


def _range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    (first,), (last,), (step,) = numbers(start), numbers(limit), numbers(delta)
    return torch.arange(first, last, step, dtype=start.dtype, device=start.device)


def _eye_like(site: Site) -> Operation:
    diagonal = site.get("k", 0)
    dtype = cast_type(site, "dtype") if site.get("dtype") else None

    def run(x: Tensor) -> Tensor:
        ones = torch.ones(x.shape, dtype=dtype or x.dtype, device=x.device)
        return ones.triu(diagonal).tril(diagonal)

    return run


def _trilu(site: Site) -> Operation:
    function = torch.triu if site.get("upper", 1) else torch.tril
    return listed(site, lambda x, k=None: function(x, k[0] if k else 0))


def _size(x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64)


SHAPES: Mapping[str, Maker] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "EyeLike": _eye_like,
    "Flatten": _flatten,
    "Pad": _pad,
    "Range": lambda _site: _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": lambda _site: _size,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
