"""From a compressed model to the bytes of its file."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from penjing.artifact.artifact import Artifact
from penjing.artifact.graph import tensor_bytes
from penjing.core.errors import UnsupportedError
from penjing.core.model import MATRIX_KINDS, Exports
from penjing.core.registry import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.model import Model
    from penjing.core.runtime import Session

RUNTIME = "onnx_runtime"
FEW = 64
"""Elements up to which an array may be smaller as it is than in the encoding of a recipe."""


def pack(model: Model, header: Mapping[str, Any]) -> Artifact:
    """Put a model into a file in memory.

    Raises:
        UnsupportedError: its backend cannot export models.
    """
    if not isinstance(model.backend, Exports):
        raise UnsupportedError(model.backend.name, "models of this backend cannot be written")
    template = model.backend.template(model.native)
    tensors = {name: weight.tensor for name, weight in model.weights().items()}
    return Artifact(template, tensors, header)


def without_losses(original: Model, compressed: Model) -> Model:
    """Take back what a recipe has done to small arrays that it made no smaller.

    Weights of matrix kinds stay: a recipe may want their zeros, whatever they cost.
    """
    kept = dict(compressed.changed)
    weights = original.weights()
    for name, tensor in compressed.changed.items():
        if name not in weights:  # the technique has added it
            continue
        weight = weights[name]
        array = weight.tensor.dense()
        if weight.kind in MATRIX_KINDS or array.size > FEW:
            continue
        if tensor_bytes(tensor, name) >= tensor_bytes(weight.tensor, name):
            del kept[name]
    return replace(compressed, changed=MappingProxyType(kept))


def session_of(artifact: Artifact, threads: int = 1) -> Session:
    """Load the model of a file into the runtime that serves it."""
    loaded: Session = RUNTIMES.load(RUNTIME)().load(artifact.onnx_bytes(), threads=threads)
    return loaded
