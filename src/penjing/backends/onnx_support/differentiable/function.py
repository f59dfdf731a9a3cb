"""ONNX models as differentiable functions of their weights and inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from penjing.backends.onnx_support.differentiable.graph import read_graph, to_tensor
from penjing.backends.onnx_support.differentiable.milestones import find_milestones
from penjing.backends.onnx_support.differentiable.node import HINT, TORCH_TYPES
from penjing.backends.onnx_support.differentiable.operators import OPERATORS
from penjing.backends.onnx_support.differentiable.program import Program, execute
from penjing.core.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from penjing.backends.onnx import OnnxModel
    from penjing.backends.onnx_support.differentiable.graph import Graph, Stored
    from penjing.core.model import Port

EXACT = 1e-3
ROUNDED = 0.05
"""ONNX Runtime may compute with the codes themselves: some are rounded the other way then."""
WIDER = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}
"""Types of inputs that PyTorch can do little with."""


class OnnxFunction:
    """Implements ``Function`` for ONNX graphs.

    Operations are prepared once for each set of given weights on each device; after that a
    call only runs them.
    """

    def __init__(self, native: OnnxModel, outputs: Sequence[Port]) -> None:
        """Read the graph of a model with these outputs.

        Raises:
            UnsupportedError: it has an operator that cannot be trained; the error names it.
        """
        self.native = native
        self.graph = read_graph(native, outputs)
        _check(self.graph)
        self._values: dict[str, tuple[str, ...]] = {}
        for value, stored in self.graph.stored.items():
            if stored.name:
                self._values[stored.name] = (*self._values.get(stored.name, ()), value)
        self._programs: dict[tuple[frozenset[str], torch.device], Program] = {}
        floats = {name for name, weight in native.weights.items() if weight.is_float}
        # Operators refuse what they cannot do now, not after an hour of something else.
        self._program(frozenset(floats & self._values.keys()), torch.device("cpu")).schedule(
            (), ()
        )
        self._milestones = find_milestones(self.graph)

    @property
    def milestones(self) -> tuple[str, ...]:
        """See ``Function.milestones``."""
        return self._milestones

    @property
    def tolerance(self) -> float:
        """How far outputs may be off, as a share: more where values are rounded on the way."""
        rounds = any(node.op == "QuantizeLinear" for node in self.graph.nodes)
        return ROUNDED if rounds else EXACT

    def __call__(
        self,
        weights: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
        *,
        watch: Collection[str] = (),
        detach: Collection[str] = (),
    ) -> dict[str, Tensor]:
        """Run the graph; see ``Function``.

        Raises:
            UnsupportedError: there is no such weight, or no such value to watch.
        """
        device = next((tensor.device for tensor in inputs.values()), torch.device("cpu"))
        schedule = self._program(frozenset(weights), device).schedule(watch, detach)
        values: list[Any] = list(schedule.values)
        for index, name in enumerate(self.graph.inputs):
            tensor = inputs[name]
            values[index] = tensor.to(WIDER.get(tensor.dtype, tensor.dtype))
        for name, index in schedule.given:
            values[index] = self.graph.stored[name].place(weights[self.graph.stored[name].name])
        return execute(schedule, values)

    def _program(self, names: frozenset[str], device: torch.device) -> Program:
        key = (names, device)
        if key not in self._programs:
            for name in names - self._values.keys():
                known = ", ".join(sorted(self._values))
                raise UnsupportedError(name, "no such weight", f"this model has: {known}")
            given = frozenset(value for name in names for value in self._values[name])
            self._programs[key] = Program(self.graph, self._load, given, device)
        return self._programs[key]

    def _load(self, value: str) -> Tensor:
        """Read an array of the model."""
        if value in self.graph.sparse:
            values, indices, shape = self.graph.sparse[value]
            whole = torch.zeros(shape, dtype=self._tensor(values).dtype)
            places = self._tensor(indices)
            if places.dim() == 1:
                whole.view(-1)[places] = self._tensor(values)
            else:
                whole[tuple(places.T)] = self._tensor(values)
            return whole
        return self._tensor(self.graph.stored[value])

    def _tensor(self, stored: Stored) -> Tensor:
        if stored.array is not None:
            return to_tensor(stored.array, stored)
        array = self.native.weights[stored.name].tensor.dense()
        return stored.place(to_tensor(array, stored))


def _check(graph: Graph) -> None:
    """Refuse what cannot be trained."""
    if not graph.outputs:
        raise UnsupportedError("outputs", "are all text, which cannot be trained", HINT)
    for node in graph.needed(set(graph.outputs)):
        if node.op not in OPERATORS:
            raise node.refusal()
        for name in node.inputs:
            kind = graph.kinds.get(name, "float")
            if kind not in TORCH_TYPES:
                raise node.refusal(f"on {kind or 'sequence'} ({name!r})")
