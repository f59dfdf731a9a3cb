"""Operators that look numbers up by their place."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from penjing.backends.onnx_support.differentiable.node import listed, numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.backends.onnx_support.differentiable.node import Maker, Operation, Site

MATRIX = 2


def _counted(index: Tensor, size: int) -> Tensor:
    """Count negative places from the end."""
    index = index.long()
    return torch.where(index < 0, index + size, index)


def _gather(site: Site) -> Operation:
    axis = site.get("axis", 0)
    place, index = site.number(1), site.constant(1)
    if place is not None and index is not None and index.dim() == 0:
        return lambda x, _: x.select(axis, place)

    def run(x: Tensor, index: Tensor) -> Tensor:
        places = _counted(index, x.shape[axis])
        if axis == 0 and x.dim() == MATRIX and x.is_floating_point():
            return functional.embedding(places, x)
        first = axis % x.dim()
        found = x.index_select(first, places.reshape(-1))
        return found.reshape(*x.shape[:first], *index.shape, *x.shape[first + 1 :])

    return run


def _gather_elements(site: Site) -> Operation:
    axis = site.get("axis", 0)
    return lambda x, index: x.gather(axis, _counted(index, x.shape[axis]))


def _gather_nd(site: Site) -> Operation:
    batch = site.get("batch_dims", 0)

    def run(x: Tensor, index: Tensor) -> Tensor:
        index = index.long()
        if not batch:
            return x[tuple(index.unbind(-1))]
        shape = x.shape[:batch]
        flat = x.reshape(-1, *x.shape[batch:])
        places = index.reshape(len(flat), -1, index.shape[-1])
        rows = torch.arange(len(flat), device=x.device)[:, None]
        found = flat[(rows, *places.unbind(-1))]
        return found.reshape(*shape, *index.shape[batch:-1], *found.shape[2:])

    return run


REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _scatter_elements(site: Site) -> Operation:
    axis, reduction = site.get("axis", 0), site.get("reduction", "none")

    def run(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        places, updates = _counted(index, x.shape[axis]), updates.to(x.dtype)
        if reduction == "none":
            return x.scatter(axis, places, updates)
        return x.scatter_reduce(axis, places, updates, REDUCTIONS[reduction])

    return run


def _scatter_nd(site: Site) -> Operation:
    reduction = site.get("reduction", "none")

    def run(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        depth = index.shape[-1]
        sizes, rest = x.shape[:depth], x.shape[depth:]
        places = torch.zeros(index.shape[:-1], dtype=torch.int64, device=x.device)
        for size, one in zip(sizes, index.unbind(-1), strict=True):
            places = places * size + _counted(one, size)
        rows = x.reshape(prod(sizes), prod(rest))
        new = updates.to(x.dtype).reshape(-1, prod(rest))
        where = places.reshape(-1, 1).expand(-1, prod(rest))
        if reduction == "none":
            changed = rows.scatter(0, where, new)
        else:
            changed = rows.scatter_reduce(0, where, new, REDUCTIONS[reduction])
        return changed.reshape(x.shape)

    return run


def _one_hot(site: Site) -> Operation:
    axis = site.get("axis", -1)

    def run(index: Tensor, depth: Tensor, values: Tensor) -> Tensor:
        (count,) = numbers(depth)
        classes = torch.arange(int(count), device=index.device)
        places = _counted(index, int(count)).unsqueeze(-1)
        found = torch.where(places == classes, values[1], values[0])
        return found.movedim(-1, axis)

    return run


def _top_k(site: Site) -> Operation:
    axis, largest = site.get("axis", -1), bool(site.get("largest", 1))

    def run(x: Tensor, counts: list[int]) -> Any:
        # Of equal values the first comes first, as in ONNX Runtime.
        found = x.sort(dim=axis, descending=largest, stable=True)
        return tuple(part.narrow(axis, 0, counts[0]) for part in found)

    return listed(site, run)


def _cumulative_sum(site: Site) -> Operation:
    exclusive, reverse = site.get("exclusive", 0), site.get("reverse", 0)

    def run(x: Tensor, axes: list[int]) -> Tensor:
        axis = axes[0]
        y = x.flip(axis) if reverse else x
        total = y.cumsum(axis, dtype=x.dtype)
        total = total - y if exclusive else total
        return total.flip(axis) if reverse else total

    return listed(site, run)


def _array_feature(x: Tensor, index: Tensor) -> Tensor:
    found = x.index_select(-1, index.reshape(-1).long())
    return found.reshape(1, -1) if x.dim() == 1 else found


INDEXING: Mapping[str, Maker] = {
    "CumSum": _cumulative_sum,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "NonZero": lambda _site: lambda x: torch.nonzero(x).t(),
    "OneHot": _one_hot,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TopK": _top_k,
    "ai.onnx.ml.ArrayFeatureExtractor": lambda _site: _array_feature,
}
