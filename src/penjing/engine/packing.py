"""From a compressed model to the bytes of its file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penjing.artifact.artifact import Artifact
from penjing.core.errors import UnsupportedError
from penjing.core.model import Exports
from penjing.core.registry import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.model import Model
    from penjing.core.runtime import Session

RUNTIME = "onnx_runtime"


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


def session_of(artifact: Artifact, threads: int = 1) -> Session:
    """Load the model of a file into the runtime that serves it."""
    loaded: Session = RUNTIMES.load(RUNTIME)().load(artifact.onnx_bytes(), threads=threads)
    return loaded
