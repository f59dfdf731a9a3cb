"""Keras models on the PyTorch backend: exported to ONNX as the modules that they are."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.core.errors import MissingExtraError, ModelError, UnsupportedError
from penjing.core.example import WithExample

if TYPE_CHECKING:
    from penjing.core.model import Model

__all__ = ["Keras"]

SUFFIX = ".keras"
BACKEND = "torch"
VARIABLE = "KERAS_BACKEND"
ROWS = 2
LONGEST_MESSAGE = 300


class Keras:
    """Reads Keras 3 models on the PyTorch backend, and ``.keras`` files."""

    name = "keras"

    def recognises(self, native: object) -> bool:
        """Look Keras up among the modules already imported; know its files by their names."""
        if isinstance(native, WithExample):
            return self.recognises(native.model)
        if isinstance(native, str | Path):
            return Path(native).suffix.lower() == SUFFIX
        return _is_model(native)

    def lacks_example(self, native: object) -> bool:
        """Models of layers know what they take; subclasses of ``keras.Model`` may not."""
        return _is_model(native) and _shapes(native) is None

    def open(self, native: Any) -> Model:
        """Export a model to ONNX and open that; its inputs keep their names.

        Raises:
            ModelError: the file cannot be read safely, or the model has no ONNX form.
            UnsupportedError: Keras runs on another backend than PyTorch.
            MissingExtraError: Keras is not installed.
        """
        keras = _keras()
        example = None
        if isinstance(native, WithExample):
            native, example = native.model, native.inputs
        model = _loaded(keras, Path(native)) if isinstance(native, str | Path) else native
        where = str(native) if isinstance(native, str | Path) else type(native).__name__
        names, inputs = _inputs(model, where, example)
        from penjing.backends.pytorch_support.calling import run
        from penjing.backends.pytorch_support.exporting import evaluating, export, opened

        with evaluating(model):
            called = run(model, (inputs,), {"training": False})
            if names is not None:
                called = replace(called, names=names)
            return opened(export(called, where), called, where)


def _is_model(native: object) -> bool:
    keras: Any = sys.modules.get("keras")
    return keras is not None and isinstance(native, keras.Model)


def _keras() -> Any:
    """Import Keras, on PyTorch if nothing else has been chosen."""
    if "keras" in sys.modules:
        import keras
    else:
        chosen = os.environ.get(VARIABLE)
        if chosen not in {None, BACKEND}:
            raise _wrong_backend(f"is told to run on {chosen}")
        os.environ.setdefault(VARIABLE, BACKEND)
        try:
            import keras
        except ImportError as error:
            raise MissingExtraError("keras", "Keras models") from error
        finally:
            if chosen is None:
                os.environ.pop(VARIABLE, None)
    if keras.backend.backend() != BACKEND:
        raise _wrong_backend(f"runs on {keras.backend.backend()} here")
    return keras


def _wrong_backend(how: str) -> UnsupportedError:
    return UnsupportedError(
        "Keras",
        f"{how}; models are exported from {BACKEND}",
        f"save the model as a .keras file, set {VARIABLE}={BACKEND}, and give the file",
    )


def _loaded(keras: Any, path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how Keras calls NumPy and PyTorch
            return keras.models.load_model(path, compile=False, safe_mode=True)
    except (AttributeError, ImportError, LookupError, OSError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:LONGEST_MESSAGE]
        if "ambda" in said and "safe" in said:
            raise ModelError(
                str(path),
                "holds Python code (a Lambda layer), which is never run from a file",
                "load it yourself if you trust it, and pass the model to penjing.compress()",
            ) from error
        raise ModelError(
            str(path),
            f"cannot be loaded by Keras: {said}",
            "classes of your own: load it yourself, and pass it to penjing.compress()",
        ) from error


def _shapes(model: Any) -> list[tuple[int, ...]] | None:
    """Give the shapes of all inputs without their first axis; None where one is open."""
    known = getattr(model, "inputs", None)
    if not known:
        return None
    shapes = [tuple(tensor.shape[1:]) for tensor in known]
    return None if any(size is None for shape in shapes for size in shape) else shapes


def _inputs(model: Any, where: str, example: Any) -> tuple[list[str] | None, Any]:
    """Give names of the inputs, if they have any, and example inputs in the model's structure.

    Raises:
        ModelError: they are not known.
    """
    from torch.utils import _pytree as pytree

    known = getattr(model, "inputs", None)
    if not known:
        if example is None:
            raise ModelError(
                where,
                "does not say which inputs it takes",
                "give example inputs: penjing.WithExample(model, inputs)",
            )
        single = isinstance(example, tuple) and len(example) == 1
        return None, example[0] if single else example
    functional = getattr(model, "_functional", model)
    given: list[Any]
    tensors, spec = pytree.tree_flatten(getattr(functional, "_inputs_struct", known[0]))
    names = [str(tensor.name) for tensor in tensors]
    if example is None:
        if _shapes(model) is None:
            raise ModelError(
                where,
                "leaves sizes of its inputs open, which an exported graph fixes",
                "give example inputs: penjing.WithExample(model, inputs)",
            )
        given = [_drawn(tensor) for tensor in tensors]
    elif isinstance(example, Mapping):
        arrays = {**example, names[0]: example.get(names[0], example.get("x"))}
        given = [arrays.get(name) for name in names]
    else:
        given = pytree.tree_leaves(example)
    if len(given) != len(names) or any(array is None for array in given):
        raise ModelError(
            where,
            f"takes {', '.join(names)}; the example inputs do not fit",
            "name the arrays as the inputs are named",
        )
    return names, pytree.tree_unflatten(given, spec)


def _drawn(tensor: Any) -> np.ndarray[Any, Any]:
    """Draw an input: normal numbers, or zeros where they stand for something."""
    shape = (ROWS, *tensor.shape[1:])
    if not str(tensor.dtype).startswith("float"):
        return np.zeros(shape, np.int64 if str(tensor.dtype) != "bool" else bool)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)
