"""A wrapped model as something that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.model import Model, Port
    from penjing.core.tensors import Array


class Running:
    """Runs a model through its backend; weights are decoded once."""

    def __init__(self, model: Model) -> None:
        """Decode the weights of ``model``."""
        self._native = model.to_native() if model.changed else model.native
        self._backend = model.backend
        self.inputs: tuple[Port, ...] = self._backend.inputs(self._native)
        self.outputs: tuple[Port, ...] = self._backend.outputs(self._native)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch."""
        return self._backend.predict(self._native, inputs)
