"""What is asked of a runtime: it loads a serialized model and runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from penjing.core.model import Port
    from penjing.core.tensors import Array


class Session(Protocol):
    """A loaded model, ready to run.  Safe to call from several threads."""

    @property
    def inputs(self) -> tuple[Port, ...]:
        """Describe the inputs."""

    @property
    def outputs(self) -> tuple[Port, ...]:
        """Describe the outputs."""

    def run(self, inputs: Mapping[str, Array] | Array) -> dict[str, Array]:
        """Run one batch, by name or one array for one input; raise DataError if it fails."""


class Runtime(Protocol):
    """Loads serialized ONNX models.  One file in runtimes/ each."""

    def load(self, model: bytes | Path, *, threads: int = 1, frugal: bool = False) -> Session:
        """Prepare a model; raise ModelError if this runtime cannot run it.

        ``frugal`` gives memory back after every run, at some cost in speed.
        """
