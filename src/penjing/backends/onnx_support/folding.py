"""Weights that a graph first rearranges, brought into the order in which layers take them.

Exporters leave ``Transpose``, ``Slice``, ``Concat`` and the like between a weight and its
layer (for example to reorder the gates of an LSTM).  Their results are stored instead where
that needs no more bytes; values are only moved, so the model computes the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from hashlib import sha256
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from penjing.backends.onnx_support.loading import numpy_dtype
from penjing.backends.onnx_support.scopes import (
    STANDARD_DOMAINS,
    Scope,
    is_constant,
    scopes,
    tensors_at,
)
from penjing.core.registry import RUNTIMES

if TYPE_CHECKING:
    import onnx

    from penjing.core.tensors import Array

MOVES = frozenset(
    ("Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Concat")
)
SMALLEST_BYTES = 64
Value = tuple[int, str]
"""A value: number of its scope, and its name there."""


def fold(model: onnx.ModelProto) -> None:
    """Store weights as their layers take them, in place, where that needs no more bytes."""
    moves = _Moves(model)
    for group in moves.groups():
        results = moves.results(group)
        if results is not None:
            moves.replace(group, results)
    moves.remove()


@dataclass(eq=False, slots=True)
class _Move:
    """A node that moves constants; ``sources`` are its inputs, one value each or None."""

    scope: int
    node: onnx.NodeProto
    sources: list[Value | None]

    @property
    def target(self) -> Value:
        return (self.scope, self.node.output[0])


@dataclass(eq=False, slots=True)
class _Group:
    """Moves that share weights."""

    moves: list[_Move] = field(default_factory=list)
    weights: set[Value] = field(default_factory=set)


class _Moves:
    """Finds the constants of a model and the nodes that only move them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.scopes = [scope for scope in scopes(model) if _in_main(scope)]
        self.constants: dict[Value, onnx.TensorProto] = {}
        self.moves: dict[Value, _Move] = {}
        self.readers: dict[Value, list[onnx.NodeProto]] = defaultdict(list)
        """Nodes that read a value and are no moves."""
        self.fixed: set[Value] = set()
        """Values that a graph gives as its outputs: they keep their names."""
        self.defined: Counter[str] = Counter()
        self.known: dict[Value, Array] = {}
        self.unread: set[Value] = set()
        self.removed: set[Value] = set()
        self.stored: set[str] = set()
        """Names of new initializers in the main graph."""
        tables: dict[Scope, dict[str, Value]] = {}
        for number, scope in enumerate(self.scopes):
            table = dict(tables[scope.outer]) if scope.outer else {}
            tables[scope] = table
            self._visit(number, scope, table)

    def _visit(self, number: int, scope: Scope, table: dict[str, Value]) -> None:
        graph = scope.graph
        assert graph is not None
        given = {item.name for item in graph.input}
        for tensor in graph.initializer:
            table[tensor.name] = (number, tensor.name)
            if tensor.name not in given and _movable(tensor):
                self.constants[number, tensor.name] = tensor
        given |= {item.values.name for item in graph.sparse_initializer}
        table.update({name: (number, name) for name in given})
        self.defined.update(given | {tensor.name for tensor in graph.initializer})
        for node in scope.nodes:
            self._node(number, node, table)
        self.fixed |= {table[item.name] for item in graph.output if item.name in table}

    def _node(self, number: int, node: onnx.NodeProto, table: dict[str, Value]) -> None:
        sources = [table.get(name) for name in node.input]
        for name in node.output:
            table[name] = (number, name)
        self.defined.update(name for name in node.output if name)
        if is_constant(node):
            held = [tensor for _, tensor in tensors_at(node)]
            if len(held) == 1 and node.attribute[0].name == "value" and _movable(held[0]):
                self.constants[number, node.output[0]] = held[0]
            return
        moves = node.op_type in MOVES and node.domain in STANDARD_DOMAINS
        named = [s for s, name in zip(sources, node.input, strict=True) if name]
        if moves and all(s in self.constants or s in self.moves for s in named):
            self.moves[number, node.output[0]] = _Move(number, node, sources)
            return
        for source in named:
            if source is not None:
                self.readers[source].append(node)

    def groups(self) -> list[_Group]:
        """Join moves that share weights; give the groups whose weights nobody else reads."""
        of: dict[Value, _Group] = {}
        for value, tensor in self.constants.items():
            if prod(tensor.dims) * _itemsize(tensor) >= SMALLEST_BYTES:
                of[value] = _Group(weights={value})
        for target, move in self.moves.items():
            joined = _Group()
            for group in {id(of[s]): of[s] for s in move.sources if s in of}.values():
                joined.moves += group.moves
                joined.weights |= group.weights
            if joined.weights:
                joined.moves.append(move)
                for value in (target, *joined.weights, *(m.target for m in joined.moves)):
                    of[value] = joined
        found = {id(group): group for group in of.values() if group.moves}
        return [group for group in found.values() if self._is_free(group)]

    def _is_free(self, group: _Group) -> bool:
        touched = group.weights | {move.target for move in group.moves}
        return not (touched & self.fixed) and not any(
            self.readers.get(weight) for weight in group.weights
        )

    def results(self, group: _Group) -> dict[Value, Array] | None:
        """Compute what layers read of a group; None if that takes more bytes."""
        read = [move.target for move in group.moves if self.readers.get(move.target)]
        made = {target: self._value(target) for target in read}
        distinct = {_content(array): array.nbytes for array in made.values()}
        stored = sum(self._value(weight).nbytes for weight in group.weights)
        return made if sum(distinct.values()) <= stored else None

    def _value(self, value: Value) -> Array:
        from onnx import numpy_helper

        if value not in self.known:
            if value in self.constants:
                self.known[value] = numpy_helper.to_array(self.constants[value])
            else:
                self.known[value] = self._moved(self.moves[value])
        return self.known[value]

    def _moved(self, move: _Move) -> Array:
        """Let the runtime compute one move."""
        from onnx import helper

        node = move.node
        feed = {
            name: self._value(source)
            for name, source in zip(node.input, move.sources, strict=True)
            if source is not None
        }
        ports = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in feed.items()
        ]
        result = helper.make_empty_tensor_value_info(node.output[0])
        graph = helper.make_graph([node], "move", ports, [result])
        model = helper.make_model(
            graph,
            opset_imports=[o for o in self.model.opset_import if o.domain in STANDARD_DOMAINS],
            ir_version=max(4, self.model.ir_version),
        )
        session = RUNTIMES.load("onnx_runtime")().load(model.SerializeToString())
        found: Array = session.run(feed)[node.output[0]]
        return found

    def replace(self, group: _Group, results: dict[Value, Array]) -> None:
        """Put results in place of a group's weights and moves."""
        from onnx import numpy_helper

        stored: dict[tuple[object, ...], str] = {}
        for value, array in results.items():
            content = _content(array)
            if content not in stored:
                stored[content] = self._free_name(value[1])
                made = numpy_helper.from_array(np.ascontiguousarray(array), stored[content])
                self.model.graph.initializer.append(made)
                self.stored.add(made.name)
            for node in self.readers[value]:
                renamed = [stored[content] if n == value[1] else n for n in node.input]
                del node.input[:]
                node.input.extend(renamed)
        self.unread |= {source for move in group.moves for source in move.sources if source}
        self.removed |= group.weights | {move.target for move in group.moves}

    def _free_name(self, name: str) -> str:
        """Keep a name that stands once in the model; number it otherwise."""
        made, count = name, 1
        while self.defined[made] > (1 if made == name else 0):
            count += 1
            made = f"{name}.{count}"
        self.defined[made] += 1
        return made

    def remove(self) -> None:
        """Remove what was replaced, and the small constants that only it has read."""
        left = [move for target, move in self.moves.items() if target not in self.removed]
        still = self.fixed | {source for move in left for source in move.sources if source}
        for value in self.unread - still:
            if value in self.constants and not self.readers.get(value):
                self.removed.add(value)
        for number, scope in enumerate(self.scopes):
            gone = {name for of, name in self.removed if of == number}
            if gone:
                assert scope.graph is not None
                for index in reversed(range(len(scope.graph.initializer))):
                    if scope.graph.initializer[index].name in gone - self.stored:
                        del scope.graph.initializer[index]
                for index in reversed(range(len(scope.graph.node))):
                    if not gone.isdisjoint(scope.graph.node[index].output):
                        del scope.graph.node[index]


def _in_main(scope: Scope) -> bool:
    """Tell whether a scope is the main graph or lies inside it: functions see no weights."""
    while scope.outer is not None:
        scope = scope.outer
    return scope.graph is not None


def _movable(tensor: onnx.TensorProto) -> bool:
    """Tell whether NumPy has the type of a tensor, and arrays of it can be moved."""
    from onnx import TensorProto

    kind = TensorProto.DataType.Name(tensor.data_type).lower()
    dtype = numpy_dtype(tensor)
    return dtype is not None and (dtype == kind or kind in {"float", "double", "bool"})


def _itemsize(tensor: onnx.TensorProto) -> int:
    return np.dtype(numpy_dtype(tensor) or "uint8").itemsize


def _content(array: Array) -> tuple[object, ...]:
    """Give what is the same for equal arrays only."""
    return array.dtype.str, array.shape, sha256(np.ascontiguousarray(array).data).digest()
