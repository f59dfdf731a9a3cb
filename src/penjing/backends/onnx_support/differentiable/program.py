"""A graph made ready to run: operations in order, on numbered values.

Values that depend on neither inputs nor given weights are computed once, on the CPU.  Shapes
are computed on the CPU, too: what comes from ``Shape`` stays there, and goes to the device of
the data only where data meet it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from penjing.backends.onnx_support.differentiable.node import Constants, Operation, Site
from penjing.backends.onnx_support.differentiable.operators import HOST_FROM, OPERATORS
from penjing.core.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from penjing.backends.onnx_support.differentiable.graph import Graph
    from penjing.backends.onnx_support.differentiable.node import Node

WHOLE_TYPES = {
    f"{sign}int{bits}": getattr(torch, f"{sign}int{bits}")
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}
"""Types of outputs, by NumPy name."""
MEASURES = frozenset({"Shape", "Size"})
"""What looks at the shape of data only."""

Place = tuple[str, bool]
"""A value, and whether it is wanted on the CPU whatever the device of the data."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, with the numbers of the values it reads and gives."""

    operation: Operation
    reads: tuple[int, ...]
    gives: tuple[int, ...]
    is_single: bool = True
    forgets: tuple[int, ...] = ()
    """Values that no later step reads."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps for one choice of what to watch and to detach."""

    steps: tuple[Step, ...]
    results: tuple[tuple[str, int], ...]
    values: tuple[Tensor | None, ...]
    """What is known at the start, by number; inputs of the graph come first."""
    given: tuple[tuple[str, int], ...]
    """Values that are given weights, with their numbers."""


class Program:
    """Operations for one set of given weights on one device."""

    def __init__(
        self,
        graph: Graph,
        load: Callable[[str], Tensor],
        given: frozenset[str],
        device: torch.device,
    ) -> None:
        """Remember the parts.

        Args:
            graph: what to run.
            load: reads an array of the model.
            given: values that are weights given anew at each call.
            device: where the data are.
        """
        self.graph, self.given, self.device = graph, given, device
        self.constants = Constants((graph.stored.keys() | graph.sparse.keys()) - given, load)
        self.schedules: dict[tuple[frozenset[str], frozenset[str]], Schedule] = {}

    def schedule(self, watch: Iterable[str], detach: Iterable[str]) -> Schedule:
        """Give the steps that watch and detach these values.

        Raises:
            UnsupportedError: the graph has no such value, or an operator is not supported.
        """
        key = (frozenset(watch), frozenset(detach))
        found = self.schedules.get(key)
        if found is None:
            # What is made here is used in training later, whoever asks first.
            with torch.inference_mode(mode=False), torch.no_grad():
                found = _Scheduler(self, *key).schedule()
            self.schedules[key] = found
        return found


def execute(schedule: Schedule, values: list[Any]) -> dict[str, Tensor]:
    """Run the steps on ``values``, which is used up."""
    for step in schedule.steps:
        found = step.operation(*[values[index] for index in step.reads])
        if step.is_single:
            values[step.gives[0]] = found
        else:
            for index, value in zip(step.gives, found, strict=False):
                values[index] = value
        for index in step.forgets:
            values[index] = None
    return {name: values[index] for name, index in schedule.results}


class _Scheduler:
    """Makes one schedule."""

    def __init__(self, program: Program, watch: frozenset[str], detach: frozenset[str]) -> None:
        self.graph, self.given, self.device = program.graph, program.given, program.device
        self.constants = program.constants
        self.is_cpu = self.device.type == "cpu"
        self.watch, self.detach = watch, detach
        self.numbers: dict[Place, int] = {}
        self.values: list[Tensor | None] = []
        self.steps: list[Step] = []
        self.on_host: set[str] = set()
        self.results: dict[str, int] = {}
        self.wanted = {*self.graph.outputs, *watch}
        self.made = {"", *self.graph.inputs, *self.given}

    def schedule(self) -> Schedule:
        sources = (*self.graph.inputs, *sorted(self.given))
        numbers = [(name, self._number((name, False))) for name in sources]
        for name in sources:
            self._mark(name)
        for node in self.graph.needed(self.wanted | self.detach):
            self._node(node)
        for name in self.wanted | self.detach:
            if name not in self.made and not self.constants.knows(name):
                raise UnsupportedError(name, "no such value in the graph")
        order = (*self.graph.outputs, *sorted(self.watch - set(self.graph.outputs)))
        for name in order:
            if name not in self.results:
                self.results[name] = self._read(name, on_host=False)
            self._make_whole(name)
        results = tuple((name, self.results[name]) for name in order)
        given = tuple(numbers[len(self.graph.inputs) :])
        return Schedule(self._forgetting(), results, tuple(self.values), given)

    def _number(self, place: Place) -> int:
        if self.is_cpu:
            place = (place[0], False)
        if place not in self.numbers:
            self.numbers[place] = len(self.values)
            self.values.append(None)
        return self.numbers[place]

    def _node(self, node: Node) -> None:
        site = Site(node, self.constants, self.graph.kinds)
        operation = OPERATORS[node.op](site)
        sources = [name for name in node.inputs if name]
        changing = [name for name in sources if not self.constants.knows(name)]
        single = len(node.outputs) == 1
        if not changing:
            found = operation(*[self.constants.get(name) for name in node.inputs])
            found = (found,) if single else found
            for name, value in zip(node.outputs, found, strict=False):
                self.constants.add(name, value)
            return
        is_host = all(name in self.on_host for name in changing)
        first = 0 if is_host else HOST_FROM.get(node.op, len(node.inputs))
        measures = node.op in MEASURES
        reads = tuple(
            self._read(name, on_host=name in self.on_host if measures else index >= first)
            for index, name in enumerate(node.inputs)
        )
        if is_host or measures:
            self.on_host.update(node.outputs)
        gives = tuple(
            self._number((name or f"{node.label}#{index}", name in self.on_host))
            for index, name in enumerate(node.outputs)
        )
        self.steps.append(Step(operation, reads, gives, single))
        self.made.update(node.outputs)
        for name in node.outputs:
            self._mark(name)

    def _read(self, name: str, *, on_host: bool) -> int:
        """Give the number of a value where it is wanted; bring it there if need be."""
        if not name:
            return self._number(("", False))
        place = (name, on_host and not self.is_cpu)
        if place in self.numbers:
            return self.numbers[place]
        number = self._number(place)
        target = torch.device("cpu") if on_host else self.device
        known = self.constants.get(name)
        if known is not None:
            self.values[number] = known.to(target)
        else:
            source = self.numbers[name, not on_host]
            self.steps.append(Step(lambda x: x.to(target), (source,), (number,)))
        return number

    def _make_whole(self, name: str) -> None:
        """Turn an output that is whole numbers in the graph into them."""
        kind = self.graph.output_types.get(name, "float")
        if kind in WHOLE_TYPES:
            number = self._number((f"{name}#whole", False))
            dtype = WHOLE_TYPES[kind]
            self.steps.append(Step(lambda x: x.to(dtype), (self.results[name],), (number,)))
            self.results[name] = number

    def _mark(self, name: str) -> None:
        """Keep a value that is watched, and detach it for later nodes."""
        if name not in self.detach:
            return
        number = self._number((name, name in self.on_host))
        if name in self.wanted:
            self.results[name] = self._number((f"{name}#kept", False))
            self.steps.append(Step(lambda x: x, (number,), (self.results[name],)))
        self.steps.append(Step(torch.Tensor.detach, (number,), (number,)))

    def _forgetting(self) -> tuple[Step, ...]:
        """Let each step forget the values that it reads last."""
        kept = {*self.results.values()}
        kept |= {index for index, value in enumerate(self.values) if value is not None}
        made = []
        for step in reversed(self.steps):
            touched = {*step.reads, *step.gives}
            made.append(
                Step(
                    step.operation,
                    step.reads,
                    step.gives,
                    step.is_single,
                    tuple(sorted(touched - kept)),
                )
            )
            kept |= touched
        return tuple(made[::-1])
