"""Compressed weights on their way back into a module."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from penjing.backends.pytorch_support.calling import ROWS, Call, arrange
from penjing.backends.pytorch_support.exporting import call, copied, difference, export, opened
from penjing.backends.pytorch_support.origins import Norm, Origins, held
from penjing.core.errors import UnsupportedError
from penjing.core.registry import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx

    from penjing.core.model import Model, Port
    from penjing.core.tensors import Array

SMALLEST_VOCABULARY = 2
"""Whole numbers are drawn below this where no embedding says more."""


def written_back(module: nn.Module, inputs: Any, packed: bytes) -> nn.Module:
    """Give a copy of a module that computes what a compressed model does.

    The module is exported again: each array of the ONNX form is then found in the parameters
    by its values, and those parameters get what the array has become.

    Args:
        module: that was compressed.
        inputs: examples; None to draw some.
        packed: the compressed model.

    Raises:
        ModelError: the module cannot be exported.
        UnsupportedError: an array has no place in the module, or it is another module.
    """
    import onnx

    where = type(module).__name__
    compressed: Model = BACKENDS.load("onnx")().open(packed)
    if inputs is None:
        inputs = _drawn(module, compressed.backend.inputs(compressed.native))
    called = call(module, *arrange(module, inputs))
    original = opened(export(called, where), called, where)
    old = _arrays(onnx.load_model_from_string(_filled(original)))
    new = _arrays(onnx.load_model_from_string(packed))
    if {n: a.shape for n, a in old.items()} != {n: a.shape for n, a in new.items()}:
        raise UnsupportedError(
            where,
            "is not built as the model in this file",
            "give the module that was compressed, and the same version of PyTorch",
        )
    made = copied(module)
    with torch.no_grad():
        _Writer(Origins(called.call.module), held(made), old, new, where).write(made)
    modes = [part.training for part in made.modules()]
    inner = Call(made.eval(), called.call.leaves, called.call.spec)
    output = difference(compressed, replace(called, call=inner))
    if output:
        raise UnsupportedError(
            where,
            f"gives other values for output {output!r} than the file, with its weights",
            "does it use a parameter in two ways? penjing.load() runs the file as it is",
        )
    for part, mode in zip(made.modules(), modes, strict=True):
        part.training = mode
    devices = {tensor.device for tensor in held(module).values()}
    return made.to(devices.pop()) if len(devices) == 1 else made


def _filled(model: Model) -> bytes:
    arrays = {name: weight.tensor.dense() for name, weight in model.weights().items()}
    filled: bytes = model.backend.template(model.native).fill(arrays)  # type: ignore[attr-defined]
    return filled


def _arrays(proto: onnx.ModelProto) -> dict[str, Array]:
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def _drawn(module: nn.Module, ports: tuple[Port, ...]) -> dict[str, torch.Tensor]:
    """Draw inputs: normal numbers, or whole numbers that every embedding knows."""
    rng = np.random.default_rng(0)
    tables = [
        part.num_embeddings for part in module.modules() if isinstance(part, nn.Embedding)
    ]
    made = {}
    for port in ports:
        shape = [ROWS if size is None else size for size in port.shape]
        dtype = np.dtype(port.dtype)
        if dtype.kind == "f":
            array = rng.normal(size=shape).astype(dtype)
        else:
            array = rng.integers(0, min(tables, default=SMALLEST_VOCABULARY), shape)
        made[port.name] = torch.from_numpy(array.astype(dtype))
    return made


class _Writer:
    """Sets parameters so that they make the new arrays."""

    def __init__(
        self,
        origins: Origins,
        known: dict[str, torch.Tensor],
        old: dict[str, Array],
        new: dict[str, Array],
        where: str,
    ) -> None:
        self.origins, self.known, self.old, self.new = origins, known, old, new
        self.where = where

    def write(self, made: nn.Module) -> None:
        """Write every array that has changed."""
        norms: dict[str, str] = {}
        for name, array in self.new.items():
            if np.array_equal(self.old[name], array, equal_nan=array.dtype.kind == "f"):
                continue
            layer = name.rpartition(".")[0]
            if layer in norms:
                continue
            norm = self._norm(layer, norms.values())
            if norm is None:
                self._plain(name, array)
            else:
                norms[layer] = norm.norm
                self._folded(made, norm)

    def _plain(self, name: str, array: Array) -> None:
        found = self.origins.of(self.old[name])
        # Equal arrays have each other's parameters: leave those named as another array.
        mine = [o for o in found if o.label == name or o.label not in self.new]
        for origin in mine:
            origin.write(self.known, array)
        if not mine:
            raise UnsupportedError(
                self.where,
                f"array {name!r} of the file is made of its parameters in some way that is not "
                "known here, such as weight_norm or a mask",
                "remove parametrizations before compressing; penjing.load() runs the file",
            )

    def _norm(self, layer: str, taken: Collection[str]) -> Norm | None:
        """Find the BatchNorm that was multiplied into a layer."""
        weight = f"{layer}.weight"
        if weight not in self.old or not self.origins.knows(weight):
            return None
        if any(origin.label == weight for origin in self.origins.of(self.old[weight])):
            return None
        return self.origins.norm(weight, self.old[weight], taken)

    def _folded(self, made: nn.Module, norm: Norm) -> None:
        """Set the layer to the product, and its BatchNorm so that it only adds a bias."""
        layer, part = made.get_submodule(norm.layer), made.get_submodule(norm.norm)
        assert isinstance(part, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001
        assert part.running_mean is not None
        assert part.running_var is not None
        weight = self.known[f"{norm.layer}.weight"]
        weight.copy_(torch.from_numpy(np.array(self.new[f"{norm.layer}.weight"])))
        shift = self.new.get(f"{norm.layer}.bias", np.zeros_like(norm.shift))
        bias = getattr(layer, "bias", None)
        if isinstance(bias, torch.Tensor):
            bias.zero_()
        part.running_var.fill_(1)
        part.running_mean.zero_()
        if part.affine:
            part.weight.fill_((1 + part.eps) ** 0.5)
            part.bias.copy_(torch.from_numpy(np.array(shift)))
        else:
            part.running_var.fill_(1 - part.eps)
            part.running_mean.copy_(torch.from_numpy(-np.array(shift)))
