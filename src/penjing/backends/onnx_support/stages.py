"""An ONNX graph cut right before every layer that has weights.

Nodes are ordered so that each layer comes as late as it can: what can be known without it is
known by then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from penjing.backends.onnx_support.moments import Goal
from penjing.backends.onnx_support.roles import RECURRENT, attributes, states_name
from penjing.backends.onnx_support.scopes import is_constant, reads
from penjing.core.model import MATRIX_KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx

    from penjing.backends.onnx_support.reading import Cut
    from penjing.backends.onnx_support.roles import Role, Use
    from penjing.core.runtime import Session
    from penjing.core.tensors import Array

    Constant = onnx.TensorProto | onnx.SparseTensorProto | onnx.NodeProto

ADDENDS = 2


@dataclass(slots=True, eq=False)
class Stage:
    """A layer, and the nodes up to the next one."""

    nodes: list[onnx.NodeProto]
    layer: list[tuple[str, Use]]
    """Weights that the first node multiplies; empty for the first stage."""
    reads: list[str] = field(default_factory=list)
    """Values of earlier stages, or inputs of the model."""
    constants: list[str] = field(default_factory=list)
    gives: list[str] = field(default_factory=list)
    """Values that later stages read."""
    watches: list[str] = field(default_factory=list)
    """Further values that statistics of the layer are made of."""
    session: Session | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """All stages, and what each weight aims at."""

    stages: list[Stage]
    goals: Mapping[str, Goal]
    constants: Mapping[str, Constant]
    """Values of the main graph that are written in the model."""
    arrays: Mapping[str, str]
    """Value -> array that was cut out of it."""
    last_read: Mapping[str, int]
    """Value -> last stage that reads it."""
    tied: frozenset[str]
    """Weights of several layers."""


def plan(cut: Cut, roles: Mapping[str, Role], floats: Iterable[str]) -> Plan:
    """Cut the main graph into stages.

    Args:
        cut: the model.
        roles: of all its arrays.
        floats: names of arrays of real numbers: the others are never observed.
    """
    constants = _constants(cut.graph.graph)
    arrays = {}
    for value, constant in constants.items():
        name = _array(cut, constant)
        if name is not None:
            arrays[value] = name
    given = {item.name for item in cut.graph.graph.input}
    watched = {
        name: [use for use in roles[name].uses if _watchable(use, constants)]
        for name in floats
        if roles[name].kind in MATRIX_KINDS
    }
    stages = _stages(cut.graph.graph, watched, set(constants) | given)
    goals = _Goals(stages, roles, constants, arrays, given).find()
    last_read = _connect(stages, goals, set(constants))
    tied = frozenset(name for name, uses in watched.items() if len(uses) > 1)
    return Plan(stages, goals, constants, arrays, last_read, tied)


def _constants(graph: onnx.GraphProto) -> dict[str, Constant]:
    found: dict[str, Constant] = {
        node.output[0]: node for node in graph.node if is_constant(node)
    }
    found |= {tensor.name: tensor for tensor in graph.initializer}
    found |= {sparse.values.name: sparse for sparse in graph.sparse_initializer}
    return found


def _array(cut: Cut, constant: Constant) -> str | None:
    kind = constant.DESCRIPTOR.name
    if kind == "TensorProto":
        return cut.held(constant)  # type: ignore[arg-type]
    if kind == "NodeProto":
        (attribute,) = constant.attribute  # type: ignore[union-attr]
        return cut.held(attribute.t) or cut.held_floats(attribute)
    return None


def _watchable(use: Use, constants: Mapping[str, Constant]) -> bool:
    return use.in_main and bool(use.output) and use.tap not in constants


def _stages(
    graph: onnx.GraphProto, watched: Mapping[str, Sequence[Use]], known: set[str]
) -> list[Stage]:
    """Order the nodes so that a layer comes as late as it can, and cut before each layer."""
    nodes = [node for node in graph.node if not is_constant(node)]
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    layers: dict[int, list[tuple[str, Use]]] = {}
    for name, uses in watched.items():
        for use in uses:
            shown = next(item for item in use.node.output if item)
            layers.setdefault(maker[shown], []).append((name, use))
    missing = [{maker[name] for name in reads(node) - known} for node in nodes]
    readers: dict[int, list[int]] = {}
    for index, makers in enumerate(missing):
        for made in makers:
            readers.setdefault(made, []).append(index)
    ready = [(index in layers, index) for index in range(len(nodes)) if not missing[index]]
    heapify(ready)
    stages = [Stage([], [])]
    while ready:
        is_layer, index = heappop(ready)
        if is_layer:
            stages.append(Stage([], layers[index]))
        stages[-1].nodes.append(nodes[index])
        for reader in readers.get(index, []):
            missing[reader].discard(index)
            if not missing[reader]:
                heappush(ready, (reader in layers, reader))
    assert sum(len(stage.nodes) for stage in stages) == len(nodes), "the graph has a cycle"
    return stages


def _connect(
    stages: Sequence[Stage], goals: Mapping[str, Goal], constants: set[str]
) -> dict[str, int]:
    """Find what each stage reads and gives; drop nodes that no layer depends on."""
    needed: set[str] = set()
    last_read: dict[str, int] = {}
    for index in reversed(range(len(stages))):
        stage = stages[index]
        made = {name for node in stage.nodes for name in node.output if name}
        watches, looks = _looks(stage, goals)
        kept: list[onnx.NodeProto] = []
        wanted = watches | (made & needed)
        for node in reversed(stage.nodes):
            if wanted & _shown(node):
                kept.append(node)
                wanted |= reads(node)
        stage.nodes = kept[::-1]
        made = {name for node in kept for name in _shown(node)}
        asked = {name for node in kept for name in reads(node)} - made
        stage.reads = sorted(asked - constants)
        stage.constants = sorted(asked & constants)
        stage.gives = sorted(made & needed)
        stage.watches = sorted(watches - needed)
        from_before = set(stage.reads) | (looks - made - constants)
        for name in from_before:
            last_read.setdefault(name, index)
        needed |= from_before
    return last_read


def _shown(node: onnx.NodeProto) -> set[str]:
    """Name what a node gives, or can be made to give."""
    hidden = {states_name(node)} if node.op_type in RECURRENT and not node.output[0] else set()
    return hidden | {name for name in node.output if name}


def _looks(stage: Stage, goals: Mapping[str, Goal]) -> tuple[set[str], set[str]]:
    """Give the results of a layer that its statistics need, and the values before it."""
    watches, looks = set(), set()
    for name, use in stage.layer:
        looks.add(use.tap)
        if use.how in {"states", "conv_transpose"}:
            watches.add(use.output)
        goal = goals.get(name)
        if goal is not None:
            watches |= {goal.value, goal.total} - {""}
            looks |= {goal.added} - {""}
    return watches, looks


class _Goals:
    """Aims each layer at its original output with its bias, or past the addition after it.

    Where the output is only added to a value that is known by then, the sum is the goal: the
    layer makes up for what the other operand has already lost.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        roles: Mapping[str, Role],
        constants: Mapping[str, Constant],
        arrays: Mapping[str, str],
        given: set[str],
    ) -> None:
        self.stages, self.constants, self.arrays = stages, constants, arrays
        self.biases = {role.layer: name for name, role in roles.items() if role.layer}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        self.made_in: dict[str, int] = dict.fromkeys(given - set(constants), -1)
        for index, stage in enumerate(stages):
            for node in stage.nodes:
                for name in reads(node):
                    self.readers.setdefault(name, []).append(node)
                self.made_in.update(dict.fromkeys(_shown(node), index))

    def find(self) -> dict[str, Goal]:
        """Give the goal of each weight that has one."""
        goals, seen = {}, set()
        for index, stage in enumerate(self.stages):
            for name, use in stage.layer:
                goal = self._goal(name, use, index) if use.has_goal else None
                if goal is not None and name not in seen:
                    goals[name] = goal
                elif name in seen:
                    goals.pop(name, None)  # a weight of several layers has no one goal
                seen.add(name)
        return goals

    def _goal(self, name: str, use: Use, index: int) -> Goal | None:
        inner = use.node.input[2] if len(use.node.input) > ADDENDS else ""
        bias = self.biases.get(name)
        value, offset = use.output, ""
        if inner and (bias is None or self.arrays.get(inner) != bias):
            scaled = attributes(use.node).get("beta", 1.0) != 1
            if inner not in self.constants or scaled or not self._is_vector(inner):
                return None
            offset = inner
        if bias is not None and self.arrays.get(inner) != bias:
            after = self._only_addition(value)
            if after is None or bias not in {self.arrays.get(item) for item in after.input}:
                return None
            value = after.output[0]
        after = self._only_addition(value)
        if after is not None:
            others = [item for item in after.input if item != value]
            if len(others) == 1 and self.made_in.get(others[0], index) < index:
                return Goal(value, after.output[0], others[0], offset)
        return Goal(value, offset=offset)

    def _only_addition(self, value: str) -> onnx.NodeProto | None:
        readers = self.readers.get(value, [])
        return readers[0] if len(readers) == 1 and readers[0].op_type == "Add" else None

    def _is_vector(self, value: str) -> bool:
        """Tell whether a constant has one axis: then it is clear what it is added to."""
        constant = self.constants[value]
        if constant.DESCRIPTOR.name == "NodeProto":
            (attribute,) = constant.attribute  # type: ignore[union-attr]
            return len(attribute.t.dims) == 1
        return len(constant.dims) == 1  # type: ignore[union-attr]


def constant_array(constant: Constant) -> Array:
    """Give the numbers of a small constant tensor."""
    from onnx import numpy_helper

    if constant.DESCRIPTOR.name == "NodeProto":
        (attribute,) = constant.attribute  # type: ignore[union-attr]
        return numpy_helper.to_array(attribute.t)
    return numpy_helper.to_array(constant)  # type: ignore[arg-type]
