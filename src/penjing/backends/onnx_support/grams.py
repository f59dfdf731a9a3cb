"""Second moments of what reaches a weight: the matrices that steer quantization.

For a weight that acts as ``y = W x`` at every position, the gram is the sum over positions of
``x xᵀ``, averaged over samples; then ``tr(E G Eᵀ)`` is the output error energy per sample
that an error ``E`` of the weight causes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.tensors import Array


def columns_of_rows(values: Array, *, first: bool) -> Array:
    """Give the inputs of a matrix product as (1, columns, count).

    ``first`` says that features lie on the last axis but one (``W x``), not on the last.
    """
    if first:
        values = values.swapaxes(-1, -2)
    return values.reshape(-1, values.shape[-1]).T[None]


def columns_of_stack(values: Array, groups: int, *, first: bool) -> Array:
    """Give the inputs of a stack of products as (groups, columns, count).

    Matrices are counted by the last axis but two; inputs without it serve all of them.
    """
    if first:
        values = values.swapaxes(-1, -2)
    if values.ndim < 3 or values.shape[-3] == 1:  # noqa: PLR2004
        flat = values.reshape(-1, values.shape[-1]).T
        return np.broadcast_to(flat, (groups, *flat.shape))
    parts = np.moveaxis(values, -3, 0)
    return parts.reshape(groups, -1, values.shape[-1]).swapaxes(1, 2)


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """Positions of a convolution's output, and the patches of its input they look at."""

    chosen: Array
    """Chosen positions of the output, numbered along its flattened space, (positions,)."""
    weight: float
    """Number of positions each chosen one stands for."""
    sources: Array
    """Where each tap of the kernel looks in the flattened input, (taps, positions)."""
    inside: Array
    """False where a tap looks beside the input, (taps, positions)."""

    @classmethod
    def draw(
        cls,
        shape: tuple[int, ...],
        kernel: tuple[int, ...],
        known: Mapping[str, Any],
        rng: np.random.Generator,
        most: int,
    ) -> Patches:
        """Choose at most ``most`` positions for an input (samples, channels, *space).

        ``known`` holds the attributes of the ``Conv``: strides, pads, dilations, auto_pad.
        """
        ones = [1] * len(kernel)
        strides = tuple(known.get("strides", ones))
        dilations = tuple(known.get("dilations", ones))
        space = shape[2:]
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        pads = _pads(known, space, reach, strides)
        out = [
            (size + before + after - r) // s + 1
            for size, (before, after), r, s in zip(space, pads, reach, strides, strict=True)
        ]
        chosen = choose(prod(out), most, rng)
        sources, inside = _sources(
            [
                at[None] * s + np.arange(k)[:, None] * d - before
                for at, k, s, d, (before, _) in zip(
                    np.unravel_index(chosen, out), kernel, strides, dilations, pads, strict=True
                )
            ],
            space,
        )
        return cls(chosen, prod(out) / max(len(chosen), 1), sources, inside)

    @classmethod
    def draw_transposed(
        cls,
        spaces: tuple[tuple[int, ...], tuple[int, ...]],
        kernel: tuple[int, ...],
        known: Mapping[str, Any],
        rng: np.random.Generator,
        most: int,
    ) -> Patches:
        """Choose at most ``most`` positions of a ``ConvTranspose``.

        Args:
            spaces: sizes of the input and of the output, spatial axes only.
            kernel: sizes of the kernel.
            known: attributes of the node.
            rng: draws the positions.
            most: number of positions.
        """
        space, out = spaces
        ones = [1] * len(kernel)
        strides = tuple(known.get("strides", ones))
        dilations = tuple(known.get("dilations", ones))
        chosen = choose(prod(out), most, rng)
        axes = []
        for axis, at in enumerate(np.unravel_index(chosen, out)):
            taps = np.arange(kernel[axis])[:, None] * dilations[axis]
            reached = at[None] + _cropped(known, spaces, kernel, axis) - taps
            # A position between two strides gets nothing through this tap.
            axes.append(np.where(reached % strides[axis], -1, reached // strides[axis]))
        sources, inside = _sources(axes, space)
        return cls(chosen, prod(out) / max(len(chosen), 1), sources, inside)

    def columns(self, values: Array, groups: int) -> Array:
        """Give the patches of ``values`` as (groups, columns, count)."""
        samples, channels = values.shape[:2]
        taps, positions = self.sources.shape
        flat = values.reshape(samples, channels, -1)
        taken = flat.take(self.sources.ravel(), axis=2)
        if not self.inside.all():
            taken *= self.inside.ravel().astype(values.dtype)
        split = taken.reshape(samples, groups, channels // groups, taps, positions)
        return split.transpose(1, 2, 3, 0, 4).reshape(groups, -1, samples * positions)

    def outputs(self, values: Array, groups: int) -> Array:
        """Give output values at the positions as (groups, rows / groups, count)."""
        samples, rows = values.shape[:2]
        taken = values.reshape(samples, rows, -1).take(self.chosen, axis=2)
        split = taken.reshape(samples, groups, rows // groups, -1)
        return split.transpose(1, 2, 0, 3).reshape(groups, rows // groups, -1)


def choose(total: int, most: int, rng: np.random.Generator) -> Array:
    """Draw at most ``most`` of ``total`` places, in order."""
    if total <= most:
        return np.arange(total)
    return np.sort(rng.choice(total, most, replace=False))


def _sources(axes: list[Array], space: tuple[int, ...]) -> tuple[Array, Array]:
    """Combine places along each axis, (kernel, positions), to taps of the whole kernel."""
    sources, inside = [], []
    for taps in product(*(range(len(axis)) for axis in axes)):
        places = [axis[tap] for axis, tap in zip(axes, taps, strict=True)]
        within = [(p >= 0) & (p < size) for p, size in zip(places, space, strict=True)]
        inside.append(np.logical_and.reduce(within))
        sources.append(np.ravel_multi_index(tuple(places), space, mode="clip"))
    return np.stack(sources), np.stack(inside)


def _pads(
    known: Mapping[str, Any],
    space: tuple[int, ...],
    reach: list[int],
    strides: tuple[int, ...],
) -> list[tuple[int, int]]:
    """Padding before and after each spatial axis (ONNX operator Conv)."""
    auto = known.get("auto_pad", b"NOTSET").decode()
    if auto.startswith("SAME"):
        needed = [
            max(0, (-(-size // s) - 1) * s + r - size)
            for size, s, r in zip(space, strides, reach, strict=True)
        ]
        small = [n // 2 for n in needed]
        if auto == "SAME_LOWER":
            return [(n - s, s) for n, s in zip(needed, small, strict=True)]
        return [(s, n - s) for n, s in zip(needed, small, strict=True)]
    if auto == "VALID" or "pads" not in known:
        return [(0, 0)] * len(space)
    pads = list(known["pads"])
    return list(zip(pads[: len(space)], pads[len(space) :], strict=True))


def _cropped(
    known: Mapping[str, Any],
    spaces: tuple[tuple[int, ...], tuple[int, ...]],
    kernel: tuple[int, ...],
    axis: int,
) -> int:
    """Places cut off before an axis of the full result (ONNX operator ConvTranspose)."""
    auto = known.get("auto_pad", b"NOTSET").decode()
    if auto in {"NOTSET", "VALID"} and "output_shape" not in known:
        return int(known["pads"][axis]) if auto == "NOTSET" and "pads" in known else 0
    ones = [1] * len(kernel)
    stride = known.get("strides", ones)[axis]
    reach = (kernel[axis] - 1) * known.get("dilations", ones)[axis] + 1
    more = known.get("output_padding", [0] * len(kernel))[axis]
    space, out = spaces
    total = max(0, stride * (space[axis] - 1) + more + reach - out[axis])
    return int(total // 2 if auto == "SAME_UPPER" else total - total // 2)


def gram(columns: Array) -> tuple[Array, Array]:
    """Sum ``x xᵀ`` and ``x`` over the count: (g, d, d) and (g, d), float64.

    Products are taken in float32: calibration is a sample, its noise is far above rounding.
    """
    single = np.ascontiguousarray(columns, np.float32)
    # One product a group: of a matrix with its own transpose, BLAS computes only one half.
    moment = np.stack([np.dot(part, part.T) for part in single]).astype(np.float64)
    return moment, single.sum(axis=2, dtype=np.float64)
