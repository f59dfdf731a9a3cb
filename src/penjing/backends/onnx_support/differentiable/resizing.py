"""Resize: every axis for itself, by places of neighbours or by a matrix of their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from penjing.backends.onnx_support.differentiable.node import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penjing.backends.onnx_support.differentiable.node import Maker, Operation, Site
    from penjing.core.tensors import Array

ONE, HALF = np.float32(1), np.float32(0.5)
LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}
"""PyTorch's names by number of axes."""


def _symmetric(i: Array, n: int, m: int, s: np.float32) -> Array:
    adjustment = np.float32(m) / (s * n)
    return np.float32(n / 2) * (1 - adjustment) + (i + HALF) / s - HALF


COORDINATES: Mapping[str, Callable[[Array, int, int, np.float32], Array]] = {
    "half_pixel": lambda i, _n, _m, s: (i + HALF) / s - HALF,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": lambda i, _n, m, s: (i + HALF) / s - HALF if m > 1 else 0 * i,
    "align_corners": lambda i, n, m, _s: i * np.float32(n - 1) / np.float32(max(m - 1, 1)),
    "asymmetric": lambda i, _n, _m, s: i / s,
    "tf_half_pixel_for_nn": lambda i, _n, _m, s: (i + HALF) / s,
}
"""Where each of ``m`` places lies among the ``n`` of the input, at scale ``s``."""
ROUNDINGS: Mapping[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - HALF),
    "round_prefer_ceil": lambda x: np.floor(x + HALF),
    "floor": np.floor,
    "ceil": np.ceil,
}


class _Axis:
    """How one axis is resized; remembers what it has made, by size and device."""

    def __init__(self, site: Site) -> None:
        self.mode = site.get("mode", "nearest")
        way = site.get("coordinate_transformation_mode", "half_pixel")
        if way not in COORDINATES or self.mode not in {"nearest", "linear", "cubic"}:
            raise site.refusal(f"with mode {self.mode} and coordinates {way}")
        if site.get("antialias", 0):
            raise site.refusal("with antialias")
        if site.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise site.refusal("with keep_aspect_ratio_policy")
        self.way = way
        self.rounding = ROUNDINGS[site.get("nearest_mode", "round_prefer_floor")]
        self.slope = site.get("cubic_coeff_a", -0.75)
        self.excludes = bool(site.get("exclude_outside", 0))
        self.made: dict[tuple[int, int, float, torch.device], Tensor] = {}

    def __call__(self, x: Tensor, axis: int, size: int, scale: float) -> Tensor:
        key = (x.shape[axis], size, scale, x.device)
        made = self.made.get(key)
        if made is None:
            with torch.inference_mode(mode=False):
                array = self._make(x.shape[axis], size, np.float32(scale))
                made = self.made[key] = torch.from_numpy(array).to(x.device)
        if self.mode == "nearest":
            return x.index_select(axis, made)
        return (x.movedim(axis, -1) @ made.to(x.dtype)).movedim(-1, axis)

    def _make(self, n: int, m: int, s: np.float32) -> Array:
        """Give places, or the (n, m) matrix of weights."""
        where = COORDINATES[self.way](np.arange(m, dtype=np.float32), n, m, s)
        if self.mode == "nearest":
            return np.clip(self.rounding(where), 0, n - 1).astype(np.int64)
        if self.mode == "linear":
            where = np.clip(where, 0, n - 1)
        first = np.floor(where)
        part = where - first
        taps = {0: 1 - part, 1: part} if self.mode == "linear" else self._cubic(part)
        matrix = np.zeros((n, m), np.float32)
        for offset, weights in taps.items():
            places = first.astype(np.int64) + offset
            inside = (places >= 0) & (places < n)
            kept = np.where(inside | (not self.excludes), weights, 0)
            np.add.at(matrix, (np.clip(places, 0, n - 1), np.arange(m)), kept)
        return matrix / matrix.sum(0) if self.excludes else matrix

    def _cubic(self, t: Array) -> dict[int, Array]:
        """Give the weights of four neighbours (Keys, 1981)."""
        a = np.float32(self.slope)

        def near(d: Array) -> Array:
            return ((a + 2) * d - (a + 3)) * d * d + 1

        def far(d: Array) -> Array:
            return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

        return {-1: far(1 + t), 0: near(t), 1: near(1 - t), 2: far(2 - t)}


def _resize(site: Site) -> Operation:
    axis, written = _Axis(site), site.get("axes")
    smooth = axis.mode == "linear" and axis.way in {"half_pixel", "align_corners"}

    def run(
        x: Tensor,
        _roi: list[float] | None = None,
        scales: list[float] | None = None,
        sizes: list[int] | None = None,
    ) -> Tensor:
        axes = [place % x.dim() for place in written] if written else range(x.dim())
        jobs: list[tuple[int, int, float]] = []
        for index, place in enumerate(axes):
            old = x.shape[place]
            if sizes:
                size, scale = sizes[index], sizes[index] / old
            else:
                assert scales is not None
                scale = scales[index]
                size = int(np.floor(np.float32(old) * np.float32(scale)))
            if size != old or scale != 1:
                jobs.append((place, size, scale))
        if smooth and x.dim() in LINEAR and _is_plain(x, jobs):
            goal = [x.shape[place] for place in range(2, x.dim())]
            for place, size, _ in jobs:
                goal[place - 2] = size
            corners = axis.way == "align_corners"
            return functional.interpolate(x, goal, mode=LINEAR[x.dim()], align_corners=corners)
        for place, size, scale in jobs:
            x = axis(x, place, size, scale)
        return x

    return listed(site, run)


def _is_plain(x: Tensor, jobs: list[tuple[int, int, float]]) -> bool:
    """Tell whether only spatial axes change, each by the ratio of its sizes."""
    return all(
        place > 1 and size > 1 and abs(scale * x.shape[place] - size) < 1e-6  # noqa: PLR2004
        for place, size, scale in jobs
    )


RESIZING: Mapping[str, Maker] = {"Resize": _resize}
