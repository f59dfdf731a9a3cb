"""PyTorch modules: exported to ONNX, then treated as ONNX models."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.core.errors import MissingExtraError, ModelError
from penjing.core.example import WithExample
from penjing.core.registry import BACKENDS

if TYPE_CHECKING:
    from penjing.backends.pytorch_support.calling import Called
    from penjing.core.model import Model

__all__ = ["Pytorch"]

STATES = (".pt", ".pth", ".safetensors", ".ckpt")
PROGRAM = ".pt2"
TOLERANCE = 1e-3
"""How far, relative to the largest output, an ONNX model may be from its module."""


class Pytorch:
    """Reads modules (``torch.nn.Module``) and exported programs."""

    name = "pytorch"

    def recognises(self, native: object) -> bool:
        """Look PyTorch up among the modules already imported; know its files by their names.

        Models of Keras are modules, too, but have a backend of their own.
        """
        if isinstance(native, WithExample):
            return self.recognises(native.model)
        if isinstance(native, str | Path):
            return Path(native).suffix.lower() in {*STATES, PROGRAM}
        return _is_module(native) or _is_program(native)

    def lacks_example(self, native: object) -> bool:
        """Modules do not know what they take; exported programs do."""
        return _is_module(native)

    def open(self, native: Any) -> Model:
        """Export a module to ONNX and open that.

        Inputs are called as the parameters of ``forward()``, outputs as the keys of the dict
        it gives, or ``output``.  The number of samples, the first axis, is left free; all
        other sizes are those of the example.

        Raises:
            ModelError: it does not run on its example, or has no ONNX form.
            MissingExtraError: PyTorch is not installed.
        """
        if isinstance(native, str | Path):
            _refuse(Path(native))
        if find_spec("torch") is None:
            raise MissingExtraError("torch", "PyTorch models")
        if isinstance(native, WithExample):
            if _is_program(native.model):
                return self.open(native.model)
            return self._from_module(native.model, native.inputs)
        if _is_program(native):
            from penjing.backends.pytorch_support.exporting import convert

            return _opened(convert(native, "exported program"), "exported program")
        raise ModelError(
            type(native).__name__,
            "does not say which inputs it takes",
            "give example inputs: penjing.WithExample(module, inputs)",
        )

    def _from_module(self, module: Any, inputs: Any) -> Model:
        from penjing.backends.pytorch_support.calling import arrange
        from penjing.backends.pytorch_support.exporting import call, export, unwrapped

        module = unwrapped(module)
        where = type(module).__name__
        called = call(module, *arrange(module, inputs))
        model = _opened(export(called, where), where)
        _check(model, called, where)
        return model


def _is_module(native: object) -> bool:
    torch: Any = sys.modules.get("torch")
    nn = getattr(torch, "nn", None)
    if nn is None or not hasattr(nn, "Module") or not isinstance(native, nn.Module):
        return False
    keras: Any = sys.modules.get("keras")
    return keras is None or not isinstance(native, keras.Model)


def _is_program(native: object) -> bool:
    export: Any = sys.modules.get("torch.export")
    return export is not None and isinstance(native, export.ExportedProgram)


def _refuse(path: Path) -> None:
    if path.suffix.lower() == PROGRAM:
        raise ModelError(
            str(path),
            "is an exported program, which can run any code when loaded",
            "load it yourself if you trust it: penjing.compress(torch.export.load(path), ...)",
        )
    raise ModelError(
        str(path),
        "holds parameters, not what is computed with them",
        "give their module in Python: penjing.from_state_dict(constructor, path)",
    )


def _opened(proto: Any, where: str) -> Model:
    try:
        opened: Model = BACKENDS.load("onnx")().open(proto)
    except ModelError as error:
        raise ModelError(where, f"its ONNX form {error.problem}", error.hint) from error
    return opened


def _check(model: Model, called: Called, where: str) -> None:
    """Compare the ONNX model with the module, on one sample more than was exported."""
    import torch

    tensors = [
        tensor[torch.arange(len(tensor) + 1) % len(tensor)] if batched else tensor
        for tensor, batched in zip(called.inputs, called.batched, strict=True)
    ]
    with torch.no_grad():
        wanted = dict(zip(called.outputs, called.call(*tensors), strict=True))
    ports = {port.name for port in model.backend.inputs(model.native)}
    feed = dict(zip(called.names, tensors, strict=True))
    given = model.predict({name: t.numpy() for name, t in feed.items() if name in ports})
    for name, tensor in wanted.items():
        found, right = given[name], tensor.numpy()
        size = float(np.abs(right).max(initial=0)) if right.dtype.kind in "iuf" else 0
        alike = found.shape == right.shape and np.allclose(
            found, right, rtol=0, atol=TOLERANCE * size, equal_nan=True
        )
        if not alike:
            raise ModelError(
                where,
                f"its ONNX form gives other values for output {name!r}",
                "does forward() draw random numbers, or depend on the number of samples?",
            )
