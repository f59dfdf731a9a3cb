"""Where the values of an ONNX model live: its main graph, nested graphs and functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx

STANDARD_DOMAINS = {"", "ai.onnx"}


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """One list of nodes whose values share names; nested graphs also see those outside."""

    holder: onnx.GraphProto | onnx.FunctionProto
    outer: Scope | None

    @property
    def graph(self) -> onnx.GraphProto | None:
        """The graph, or None for the body of a function, which has no initializers."""
        is_function = self.holder.DESCRIPTOR.name == "FunctionProto"
        return None if is_function else self.holder  # type: ignore[return-value]

    @property
    def nodes(self) -> Sequence[onnx.NodeProto]:
        """Nodes in order."""
        return self.holder.node


def scopes(model: onnx.ModelProto) -> Iterator[Scope]:
    """Give the main graph, every nested graph and every function; outer ones come first."""
    waiting = [Scope(model.graph, None), *(Scope(body, None) for body in model.functions)]
    while waiting:
        scope = waiting.pop(0)
        yield scope
        for node in scope.nodes:
            waiting.extend(Scope(graph, scope) for graph in nested(node))


class Names:
    """All names of values in a model, to find new ones."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Collect names from every scope: inner ones must not hide outer ones."""
        self.taken: set[str] = set()
        for scope in scopes(model):
            if scope.graph is not None:
                self.taken |= {item.name for item in scope.graph.input}
                self.taken |= {tensor.name for tensor in scope.graph.initializer}
                self.taken |= {item.values.name for item in scope.graph.sparse_initializer}
            self.taken |= {name for node in scope.nodes for name in node.output}

    def free(self, name: str) -> str:
        """Take a name that is like this one and new."""
        made, count = name, 1
        while made in self.taken:
            count += 1
            made = f"{name}.{count}"
        self.taken.add(made)
        return made


def nested(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Give the graphs that a node holds as attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def tensors_of(scope: Scope) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Give every tensor that a scope itself holds, with a name for it.

    That is the name of its value where it has one.  Parts of sparse tensors are no values.
    """
    if scope.graph is not None:
        for tensor in scope.graph.initializer:
            yield tensor.name, tensor
        for sparse in scope.graph.sparse_initializer:
            yield f"{sparse.values.name}.values", sparse.values
            yield f"{sparse.values.name}.indices", sparse.indices
    for node in scope.nodes:
        yield from tensors_at(node)


def tensors_at(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Give the tensors in the attributes of a node, those of nested graphs left out."""
    for attribute in node.attribute:
        name = label(node, attribute)
        if attribute.HasField("t"):
            yield (node.output[0] if is_constant(node) else name), attribute.t
        for tensor in attribute.tensors:
            yield name, tensor
        one = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for sparse in (*one, *attribute.sparse_tensors):
            yield f"{name}.values", sparse.values
            yield f"{name}.indices", sparse.indices


def tensors(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Give every tensor of every scope; see ``tensors_of``."""
    for scope in scopes(model):
        yield from tensors_of(scope)


def is_constant(node: onnx.NodeProto) -> bool:
    """Tell whether a node only gives a value that is written in it."""
    return node.op_type == "Constant" and node.domain in STANDARD_DOMAINS and bool(node.output)


def label(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> str:
    """Name an attribute of a node."""
    maker = node.name or next((name for name in node.output if name), node.op_type)
    return f"{maker}.{attribute.name}"


def reads(node: onnx.NodeProto) -> set[str]:
    """Names a node reads, those that its nested graphs take from outside included."""
    names = {name for name in node.input if name}
    for graph in nested(node):
        made = {name for item in graph.node for name in item.output}
        made |= {item.name for item in graph.input}
        made |= {item.name for item in graph.initializer}
        made |= {item.values.name for item in graph.sparse_initializer}
        taken = {name for item in graph.node for name in reads(item)}
        taken |= {item.name for item in graph.output}
        names |= taken - made
    return names
