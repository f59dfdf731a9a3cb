"""PyTorch modules: exported to ONNX, then treated as ONNX models."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penjing.core.errors import MissingExtraError, ModelError, UnsupportedError
from penjing.core.example import WithExample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penjing.core.model import Model

__all__ = ["Pytorch"]

STATES = (".pt", ".pth", ".safetensors", ".ckpt")
PROGRAM = ".pt2"


class Pytorch:
    """Reads modules (``torch.nn.Module``), exported programs, and their files (``.pt2``)."""

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
            ModelError: it does not run on its example, has no ONNX form, or is a file that
                holds more than a plain exported program.
            MissingExtraError: PyTorch is not installed.
        """
        is_file = isinstance(native, str | Path)
        if is_file and Path(native).suffix.lower() != PROGRAM:
            raise ModelError(
                str(native),
                "holds parameters, not what is computed with them",
                "give the module of a state dict in Python: "
                "penjing.from_state_dict(constructor, path); whole modules, pickled or in "
                "TorchScript, are never loaded: export them with torch.export.save, to .pt2",
            )
        if find_spec("torch") is None:
            raise MissingExtraError("torch", "PyTorch models")
        if is_file:
            return self._from_file(Path(native))
        if isinstance(native, WithExample):
            if _is_program(native.model):
                return self.open(native.model)
            return self._from_module(native.model, native.inputs)
        if _is_program(native):
            from penjing.backends.pytorch_support.exporting import convert, opened

            return opened(convert(native, "exported program"), None, "exported program")
        raise ModelError(
            type(native).__name__,
            "does not say which inputs it takes",
            "give example inputs: penjing.WithExample(module, inputs)",
        )

    def _from_file(self, path: Path) -> Model:
        from penjing.backends.pytorch_support.exporting import convert, opened
        from penjing.backends.pytorch_support.programs import load

        return opened(convert(load(path), str(path)), None, str(path))

    def _from_module(self, module: Any, inputs: Any) -> Model:
        from penjing.backends.pytorch_support.calling import arrange
        from penjing.backends.pytorch_support.exporting import (
            call,
            export,
            opened,
            unwrapped,
        )

        module = unwrapped(module)
        where = type(module).__name__
        called = call(module, *arrange(module, inputs))
        return opened(export(called, where), called, where)

    def exported(self, module: Any, inputs: Mapping[str, Any]) -> Model:
        """Export a module and open that, with inputs called as they are given.

        Args:
            module: whose ``forward()`` takes the inputs in order.
            inputs: an example of each, by the name it gets.

        Raises:
            ModelError: it does not run on its example, or has no ONNX form.
            MissingExtraError: onnxscript is not installed.
        """
        from penjing.backends.pytorch_support.exporting import call, export, opened
        from penjing.backends.pytorch_support.tidying import rename_inputs

        where = type(module).__name__
        called = call(module, tuple(inputs.values()), {})
        proto = export(called, where)
        new = rename_inputs(proto.graph, dict(zip(called.names, inputs, strict=True)))
        outputs = [new.get(name, name) for name in called.outputs]
        return opened(proto, replace(called, names=list(inputs), outputs=outputs), where)

    def with_weights_of(self, native: Any, packed: bytes) -> Any:
        """Give a copy of a module that computes what a compressed model does.

        Args:
            native: the module that the model was made of, or a ``WithExample`` of it.
            packed: the ONNX model with compressed weights.

        Raises:
            ModelError: the module cannot be exported.
            UnsupportedError: the weights have no place in this module.
        """
        from penjing.backends.pytorch_support.exporting import unwrapped
        from penjing.backends.pytorch_support.writing import written_back

        inputs = None
        if isinstance(native, WithExample):
            native, inputs = native.model, native.inputs
        if not _is_module(native):
            raise UnsupportedError(
                type(native).__name__,
                "is no PyTorch module, and cannot take compressed weights",
                "penjing.load() runs the compressed file as it is",
            )
        return written_back(unwrapped(native), inputs, packed)

    def from_state_dict(self, constructor: Callable[[], Any], path: Path) -> Any:
        """Build a module and load its parameters from a file; see ``penjing.modules``."""
        if find_spec("torch") is None:
            raise MissingExtraError("torch", "PyTorch models")
        from penjing.backends.pytorch_support.states import load_into

        return load_into(constructor, path)


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
