"""Which parameters of a module an array of its ONNX form is made of, found by its values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import nn

from penjing.core.training import to_numpy

Array = np.ndarray[Any, Any]
Held = Mapping[str, torch.Tensor]
"""Parameters and buffers of a module by name."""
GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
"""Where the gates of ONNX stand in the arrays of PyTorch."""
FEWEST_ELEMENTS = 2
"""Arrays of one number are found everywhere by chance."""
CLOSE = 1e-4
"""How far, relative to the largest value, rounding may move a folded array."""


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Parameters that an array is made of."""

    label: str
    """Name for the array."""
    read: Callable[[Held], Array]
    """Make the array."""
    write: Callable[[Held, Array], None]
    """Set the parameters, in place, so that they make this array."""


@dataclass(frozen=True, slots=True)
class Norm:
    """A BatchNorm that follows a layer and was multiplied into it."""

    layer: str
    norm: str
    scale: Array
    """Of each output of the layer."""
    shift: Array
    """What is added to it: the bias of the folded layer."""


class Origins:
    """Looks arrays up among everything that a module's parameters are made into."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.held = held(module)
        self._found: dict[bytes, list[Origin]] | None = None

    def knows(self, name: str) -> bool:
        """Tell whether a parameter is called so."""
        return name in self.held

    def label(self, array: Array) -> str:
        """Name an array after its parameters; empty where they are not found."""
        found = self.of(array)
        return found[0].label if found else ""

    def of(self, array: Array) -> list[Origin]:
        """Give all origins that make exactly this array."""
        if array.size < FEWEST_ELEMENTS:
            return []
        if self._found is None:
            self._found = {}
            for origin in candidates(self.module, self.held):
                made = origin.read(self.held)
                self._found.setdefault(digest(made), []).append(origin)
        return self._found.get(digest(array), [])

    def norm(self, name: str, array: Array, taken: Collection[str]) -> Norm | None:
        """Find the BatchNorm that was multiplied into the weight called ``name``.

        Before training they are all alike: those behind the layer, and not in ``taken``, are
        looked at first.
        """
        layer, _, last = name.rpartition(".")
        parts = dict(self.module.named_modules())
        if last != "weight" or layer not in parts:
            return None
        weight = to_numpy(self.held[name])
        axis, groups = _output_axis(parts[layer])
        paths = list(parts)
        behind = paths.index(layer)
        paths = [*paths[behind:], *paths[:behind]]
        for path in sorted(paths, key=lambda path: path in taken):
            part = parts[path]
            if not isinstance(part, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001
                continue
            if part.running_mean is None or part.running_var is None:
                continue
            made = _folded(parts[layer], part)
            if made is None:
                continue
            scale, shift = made
            wide = _along(scale, weight.ndim, axis, groups)
            if wide.shape[axis] == weight.shape[axis] and _close(weight * wide, array):
                return Norm(layer, path, scale, shift)
        return None


def held(module: nn.Module) -> dict[str, torch.Tensor]:
    """Give parameters and buffers under all their names."""
    found: dict[str, torch.Tensor] = {}
    found.update(module.named_parameters(remove_duplicate=False))
    found |= dict(module.named_buffers(remove_duplicate=False))
    return {plain(name): tensor for name, tensor in found.items()}


def plain(name: str) -> str:
    """Leave out what Keras puts before the names of its variables."""
    return name.removeprefix("_functional.").removeprefix("_torch_params.")


def digest(array: Array) -> bytes:
    """Give what is the same for equal arrays only."""
    plain = np.ascontiguousarray(array)
    head = f"{plain.dtype.str}{array.shape}".encode()
    return sha256(head + plain.tobytes()).digest()


def candidates(module: nn.Module, known: Held) -> Iterator[Origin]:
    """Give everything that exporters make of parameters by moving their values."""
    for name, tensor in known.items():
        if tensor.is_floating_point():
            yield from _plain(name, tensor)
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        if isinstance(part, nn.RNNBase):
            yield from _recurrent(prefix, part)
        elif isinstance(part, nn.MultiheadAttention) and part.in_proj_weight is not None:
            yield from _attention(prefix, part)


def _plain(name: str, tensor: torch.Tensor) -> Iterator[Origin]:
    yield _view(name, lambda whole: whole)
    if tensor.ndim == 2:  # noqa: PLR2004
        yield _view(name, lambda whole: whole.T)
    if name.endswith("kernel") and tensor.ndim > 2:  # noqa: PLR2004  # of Keras: outputs last
        order = (tensor.ndim - 1, tensor.ndim - 2, *range(tensor.ndim - 2))
        yield _view(name, lambda whole: whole.transpose(order))


def _view(name: str, view: Callable[[Any], Any], label: str = "") -> Origin:
    """Make an origin of a part of one parameter, seen in some way."""

    def write(known: Held, array: Array) -> None:
        place = view(known[name].detach())
        place.copy_(torch.from_numpy(np.array(array)).reshape(place.shape))

    return Origin(label or name, lambda known: view(to_numpy(known[name])), write)


def _attention(prefix: str, part: nn.MultiheadAttention) -> Iterator[Origin]:
    """Give queries, keys and values, or keys with values, of the weight they share."""
    size = part.embed_dim
    for label, first, last in (("q", 0, 1), ("k", 1, 2), ("v", 2, 3), ("kv", 1, 3)):
        rows = slice(first * size, last * size)
        for kind in ("weight", "bias"):
            name = f"{prefix}in_proj_{kind}"
            if getattr(part, f"in_proj_{kind}") is None:
                continue
            called = f"{prefix}{label}_proj_{kind}"
            yield _view(name, lambda whole, rows=rows: whole[rows], called)  # type: ignore[misc]
            if kind == "weight":
                yield _view(name, lambda whole, rows=rows: whole[rows].T, called)  # type: ignore[misc]


def _recurrent(prefix: str, part: nn.RNNBase) -> Iterator[Origin]:
    """Give the arrays of each layer as ONNX has them: directions stacked, gates reordered."""
    order = GATES.get(part.mode.split("_")[0], (0,))
    ends = ("", "_reverse") if part.bidirectional else ("",)
    for layer in range(part.num_layers):
        for kind in ("ih", "hh"):
            names = [f"{prefix}weight_{kind}_l{layer}{end}" for end in ends]
            yield _stacked(names[0], [[name] for name in names], order)
        if part.bias:
            pairs = [
                [f"{prefix}bias_{kind}_l{layer}{end}" for kind in ("ih", "hh")] for end in ends
            ]
            yield _stacked(f"{prefix}bias_l{layer}", pairs, order)


def _stacked(label: str, names: list[list[str]], order: tuple[int, ...]) -> Origin:
    """Make an origin of parameters by direction, the gates of each one reordered."""

    def reordered(array: Any) -> Any:
        gates = array.reshape(len(order), -1, *array.shape[1:])
        return gates[list(order)].reshape(array.shape)

    def read(known: Held) -> Array:
        rows = [
            np.concatenate([reordered(to_numpy(known[name])) for name in direction])
            for direction in names
        ]
        return np.stack(rows)

    def write(known: Held, array: Array) -> None:
        back = np.argsort(order)
        for direction, part in zip(names, array, strict=True):
            for name, piece in zip(direction, np.split(part, len(direction)), strict=True):
                gates = piece.reshape(len(order), -1, *piece.shape[1:])[back]
                known[name].detach().copy_(torch.from_numpy(gates.reshape(piece.shape)))

    return Origin(label, read, write)


def _output_axis(layer: nn.Module) -> tuple[int, int]:
    """Tell which axis of a weight counts outputs, and in how many groups."""
    turned = isinstance(layer, nn.modules.conv._ConvTransposeNd)  # noqa: SLF001
    return (1, int(layer.groups)) if turned else (0, 1)  # type: ignore[arg-type]


def _along(scale: Array, ndim: int, axis: int, groups: int) -> Array:
    """Lay factors of outputs along the axis that counts them."""
    if groups > 1:  # the same axis serves all groups: only equal factors fit
        scale = scale.reshape(groups, -1)[0]
    return scale.reshape([-1 if place == axis else 1 for place in range(ndim)])


def _folded(layer: nn.Module, norm: Any) -> tuple[Array, Array] | None:
    """Give what a BatchNorm multiplies a layer's outputs by, and what it adds to them."""
    scale = 1 / np.sqrt(to_numpy(norm.running_var) + norm.eps)
    bias = getattr(layer, "bias", None)
    before = to_numpy(bias) if isinstance(bias, torch.Tensor) else np.zeros_like(scale)
    if before.shape != scale.shape:
        return None
    if norm.affine:
        scale = scale * to_numpy(norm.weight)
    shift = (before - to_numpy(norm.running_mean)) * scale
    return scale, shift + (to_numpy(norm.bias) if norm.affine else 0)


def _close(one: Array, other: Array) -> bool:
    size = float(np.abs(other).max(initial=0))
    return one.shape == other.shape and bool(np.abs(one - other).max(initial=0) <= CLOSE * size)
