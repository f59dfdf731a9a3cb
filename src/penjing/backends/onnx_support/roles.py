"""Which arrays of an ONNX graph are weights, what they do, and where their inputs are."""

from __future__ import annotations

from collections import ChainMap, Counter
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from penjing.backends.onnx_support.scopes import STANDARD_DOMAINS, Scope, is_constant, scopes
from penjing.core.model import LayerKind

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    import onnx

    from penjing.backends.onnx_support.reading import Cut

RECURRENT = {"LSTM", "GRU", "RNN"}
LINEAR_MODELS = {"LinearClassifier", "LinearRegressor"}
DIVISORS = {"Div": 1, "BatchNormalization": 4, "Reciprocal": 0, "Sqrt": 0}
"""Operators that divide by an input, or whose result another will divide by, and which."""
STATES = "/states"
"""Ending of the name given to the states of a recurrent layer that leaves them out."""


@dataclass(frozen=True, slots=True)
class Use:
    """One place where a weight meets its input."""

    tap: str
    """Name of the value that the weight multiplies."""
    how: str
    """``rows`` and ``columns``: features are the last axis of input and output, or the last
    but one; ``rows_to_columns`` and ``columns_to_rows``: they differ.  ``conv``,
    ``conv_transpose``, ``gather``; ``inputs`` and ``states`` of a recurrent layer."""
    output: str
    """Name of the value the node gives."""
    node: onnx.NodeProto
    in_main: bool
    """Whether the node is in the main graph, where values can be watched."""
    scale: float = 1.0
    """Factor of the product (``alpha`` of Gemm)."""
    has_goal: bool = True
    """Whether the output is the product plus the bias, and nothing else."""


@dataclass(slots=True)
class Role:
    """What one array does in the graph."""

    kind: LayerKind = LayerKind.OTHER
    groups: int = 1
    swapped: int = 0
    """See ``Slot.swapped``: 0 where the graph already has the output axis first."""
    shape: tuple[int, ...] = ()
    """Shape as techniques see it."""
    layer: str = ""
    divides: bool = False
    """Whether something is divided by it, or by its square root."""
    uses: list[Use] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Seen:
    """An array behind a value, maybe turned."""

    name: str
    turned: bool = False


def find_roles(cut: Cut) -> dict[str, Role]:
    """Give each array its role; arrays that no known operator multiplies stay OTHER."""
    roles = {name: Role(shape=shape) for name, shape in cut.shapes.items()}
    finders: dict[Scope | None, _Finder] = {}
    for scope in list(scopes(cut.graph)):
        outer = finders.get(scope.outer)
        finder = _Finder(cut, roles, scope, outer)
        finders[scope] = finder
        for node in scope.nodes:
            finder.visit(node)
    taken: set[str] = set()
    for finder in finders.values():
        finder.name_biases(taken)
    return roles


class _Finder:
    """Visits the nodes of one scope in order."""

    def __init__(
        self, cut: Cut, roles: dict[str, Role], scope: Scope, outer: _Finder | None
    ) -> None:
        self.cut, self.roles, self.scope = cut, roles, scope
        self.in_main = scope.graph is cut.graph.graph
        self.names: MutableMapping[str, Seen] = (
            outer.names.new_child() if outer is not None else ChainMap()  # type: ignore[attr-defined]
        )
        self.made_by: MutableMapping[str, str] = (
            outer.made_by.new_child() if outer is not None else ChainMap()  # type: ignore[attr-defined]
        )
        """Value -> weight whose product it is."""
        self.readers: Counter[str] = outer.readers if outer is not None else Counter()
        """How many inputs of nodes an array is."""
        self.biases: list[tuple[str, str]] = []
        for tensor in scope.graph.initializer if scope.graph is not None else ():
            self._define(tensor.name, cut.held(tensor))

    def _define(self, value: str, array: str | None) -> None:
        if array is not None:
            self.names[value] = Seen(array)

    def visit(self, node: onnx.NodeProto) -> None:
        """Note what this node does with arrays."""
        for name in set(node.input):
            if name in self.names:
                self.readers[self.names[name].name] += 1
        if node.domain in STANDARD_DOMAINS:
            self._divisor(node)
            visit = getattr(self, f"_visit_{node.op_type.lower()}", None)
            if visit is not None:
                visit(node, attributes(node))
            elif node.op_type in RECURRENT:
                self._recurrent(node)
        elif node.domain == "ai.onnx.ml" and node.op_type in LINEAR_MODELS:
            self._linear_model(node)

    def name_biases(self, taken: set[str]) -> None:
        """Give biases their layers: one each, and none where something else reads it, too."""
        for name, layer in self.biases:
            role = self.roles[name]
            if role.kind is LayerKind.OTHER:
                role.kind = LayerKind.BIAS
                known = self.roles[layer].kind is not LayerKind.OTHER
                if self.readers[name] <= 1 and known and layer not in taken:
                    role.layer = layer
                    taken.add(layer)

    def _divisor(self, node: onnx.NodeProto) -> None:
        """Note an array that something is divided by."""
        if node.op_type in DIVISORS:
            seen = self._array(node, DIVISORS[node.op_type])
            if seen is not None:
                self.roles[seen.name].divides = True

    def _array(self, node: onnx.NodeProto, index: int) -> Seen | None:
        name = node.input[index] if len(node.input) > index else ""
        return self.names.get(name)

    def _matrix_at(self, node: onnx.NodeProto, index: int) -> Seen | None:
        """Give an array with two axes."""
        seen = self._array(node, index)
        return seen if seen is not None and len(self._shape(seen)) == 2 else None  # noqa: PLR2004

    def _shape(self, seen: Seen) -> tuple[int, ...]:
        return self.cut.shapes[seen.name]

    def _visit_constant(self, node: onnx.NodeProto, _: Mapping[str, Any]) -> None:
        if is_constant(node):
            attribute = node.attribute[0]
            if attribute.HasField("t"):
                self._define(node.output[0], self.cut.held(attribute.t))
            self._define(node.output[0], self.cut.held_floats(attribute))

    def _visit_identity(self, node: onnx.NodeProto, _: Mapping[str, Any]) -> None:
        seen = self._array(node, 0)
        if seen is not None:
            self.names[node.output[0]] = seen

    def _visit_cast(self, node: onnx.NodeProto, known: Mapping[str, Any]) -> None:
        self._visit_identity(node, known)

    def _visit_transpose(self, node: onnx.NodeProto, known: Mapping[str, Any]) -> None:
        seen = self._matrix_at(node, 0)
        if seen is not None and known.get("perm", [1, 0]) == [1, 0]:
            self.names[node.output[0]] = Seen(seen.name, not seen.turned)

    def _visit_gemm(self, node: onnx.NodeProto, known: Mapping[str, Any]) -> None:
        alpha, beta = float(known.get("alpha", 1.0)), float(known.get("beta", 1.0))
        turned = [bool(known.get("transA", 0)), bool(known.get("transB", 0))]
        left, right = self._matrix_at(node, 0), self._matrix_at(node, 1)
        if right is not None and left is None:
            how = "columns_to_rows" if turned[0] else "rows"
            self._matrix(right, node, 0, how, swapped=turned[1] == right.turned, scale=alpha)
        elif left is not None and right is None:
            how = "rows_to_columns" if turned[1] else "columns"
            self._matrix(left, node, 1, how, swapped=turned[0] != left.turned, scale=alpha)
        if beta == 1:
            self._bias(self._array(node, 2), node.output[0])

    def _visit_matmul(self, node: onnx.NodeProto, _: Mapping[str, Any]) -> None:
        right, left = self._array(node, 1), self._array(node, 0)
        if right is not None and left is None:
            if len(self._shape(right)) == 2:  # noqa: PLR2004
                self._matrix(right, node, 0, "rows", swapped=not right.turned)
            else:
                self._stack(right, node, 0, "rows")
        elif left is not None and right is None:
            if len(self._shape(left)) == 2:  # noqa: PLR2004
                self._matrix(left, node, 1, "columns", swapped=left.turned)
            else:
                self._stack(left, node, 1, "columns")

    def _matrix(  # noqa: PLR0913  # all that tells where a matrix stands
        self,
        seen: Seen,
        node: onnx.NodeProto,
        tap: int,
        how: str,
        *,
        swapped: bool,
        scale: float = 1.0,
    ) -> None:
        rows, columns = self._shape(seen)
        shape = (columns, rows) if swapped else (rows, columns)
        if self._claim(seen.name, LayerKind.LINEAR, 1, int(swapped), shape):
            self._use(seen.name, node, tap, how, scale=scale)

    def _stack(self, seen: Seen, node: onnx.NodeProto, tap: int, how: str) -> None:
        """Take a stack of matrices, each of which multiplies its own inputs."""
        shape = self._shape(seen)
        count = prod(shape[:-2])
        if len(shape) < 3 or count != shape[-3]:  # noqa: PLR2004
            return
        swapped = how == "rows"
        out, into = (shape[-1], shape[-2]) if swapped else (shape[-2], shape[-1])
        groups = int(swapped) * count
        if self._claim(seen.name, LayerKind.LINEAR, count, groups, (count * out, into)):
            self._use(seen.name, node, tap, f"stacked_{how}")

    def _visit_conv(self, node: onnx.NodeProto, known: Mapping[str, Any]) -> None:
        seen = self._array(node, 1)
        if seen is not None and not seen.turned:
            groups = int(known.get("group", 1))
            if self._claim(seen.name, LayerKind.CONV, groups, 0, self._shape(seen)):
                self._use(seen.name, node, 0, "conv")
        self._bias(self._array(node, 2), node.output[0])

    def _visit_convtranspose(self, node: onnx.NodeProto, known: Mapping[str, Any]) -> None:
        seen = self._array(node, 1)
        if seen is not None and not seen.turned:
            groups = int(known.get("group", 1))
            into, out, *kernel = self._shape(seen)
            shape = (out * groups, into // groups, *kernel)
            if self._claim(seen.name, LayerKind.CONV, groups, groups, shape):
                self._use(seen.name, node, 0, "conv_transpose")
        self._bias(self._array(node, 2), node.output[0])

    def _visit_gather(self, node: onnx.NodeProto, known: Mapping[str, Any]) -> None:
        seen = self._matrix_at(node, 0)
        if seen is not None and not seen.turned and known.get("axis", 0) == 0:
            shape = self._shape(seen)
            if self._claim(seen.name, LayerKind.EMBEDDING, 1, 0, shape):
                self._use(seen.name, node, 1, "gather", has_goal=False)

    def _visit_add(self, node: onnx.NodeProto, _: Mapping[str, Any]) -> None:
        for one, other in ((0, 1), (1, 0)):
            seen = self._array(node, one)
            if seen is not None and node.input[other] in self.made_by:
                self._bias(seen, node.input[other], one_axis=True)
                self.made_by[node.output[0]] = self.made_by[node.input[other]]

    def _recurrent(self, node: onnx.NodeProto) -> None:
        for index, how in ((1, "inputs"), (2, "states")):
            seen = self._array(node, index)
            if seen is not None and len(self._shape(seen)) == 3:  # noqa: PLR2004
                directions, gates, columns = self._shape(seen)
                shape = (directions * gates, columns)
                if self._claim(seen.name, LayerKind.RECURRENT, directions, 0, shape):
                    self._use(seen.name, node, 0, how, has_goal=False)
        bias, states = self._array(node, 3), self._array(node, 2)
        if bias is not None and states is not None:
            self.biases.append((bias.name, states.name))

    def _linear_model(self, node: onnx.NodeProto) -> None:
        """Take the coefficients of a linear model, which are attributes of its node."""
        held = {a.name: self.cut.held_floats(a) for a in node.attribute}
        sizes = {a.name: len(a.floats) for a in node.attribute}
        name, bias = held.get("coefficients"), held.get("intercepts")
        known = attributes(node)
        rows = int(known.get("targets", 1))
        if node.op_type == "LinearClassifier":
            rows = prod(self.cut.shapes[bias]) if bias else sizes.get("intercepts", 0)
        if name is None or not rows or prod(self.cut.shapes[name]) % rows:
            return
        shape = (rows, prod(self.cut.shapes[name]) // rows)
        if self._claim(name, LayerKind.LINEAR, 1, 0, shape):
            output = node.output[-1]
            use = Use(node.input[0], "rows", output, node, self.in_main, has_goal=False)
            self.roles[name].uses.append(use)
            if bias:
                self.biases.append((bias, name))

    def _claim(
        self, name: str, kind: LayerKind, groups: int, swapped: int, shape: tuple[int, ...]
    ) -> bool:
        """Give an array a role; tell whether it now has this layout, its first or again."""
        role = self.roles[name]
        if role.kind is LayerKind.OTHER:
            role.kind, role.groups, role.swapped, role.shape = kind, groups, swapped, shape
        return (role.groups, role.swapped, role.shape) == (groups, swapped, shape)

    def _use(  # noqa: PLR0913  # all that makes a use
        self,
        name: str,
        node: onnx.NodeProto,
        tap: int,
        how: str,
        *,
        scale: float = 1.0,
        has_goal: bool = True,
    ) -> None:
        output = node.output[0]
        if how in {"inputs", "states"} and not output:
            output = states_name(node)
        use = Use(node.input[tap], how, output, node, self.in_main, scale, has_goal)
        self.roles[name].uses.append(use)
        if how not in {"inputs", "states", "gather"}:
            self.made_by[output] = name

    def _bias(
        self,
        seen: Seen | None,
        product: str,
        *,
        one_axis: bool = False,
    ) -> None:
        """Note an array that is added to each output, one number a row of the weight."""
        layer = self.made_by.get(product, "")
        if seen is None or not layer:
            return
        role = self.roles[layer]
        shape = self._shape(seen)
        use = role.uses[-1]
        behind = 0
        if use.how in {"conv", "conv_transpose"}:
            behind = len(role.shape) - 2 if one_axis else 0
        elif use.how in {"columns", "rows_to_columns"}:
            behind = 1
        rows = role.shape[0]
        at = len(shape) - 1 - behind
        if not use.how.startswith("stacked") and at >= 0 and shape[at] == rows == prod(shape):
            self.biases.append((seen.name, layer))


def states_name(node: onnx.NodeProto) -> str:
    """Name the states of a recurrent layer whose first output is left out."""
    return next((name for name in node.output if name), node.input[0]) + STATES


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Give a node's attributes as Python values; names as bytes, lists as lists."""
    import onnx

    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {
        name: list(value) if not isinstance(value, bytes | int | float) else value
        for name, value in values.items()
        if isinstance(value, bytes | int | float) or hasattr(value, "__len__")
    }
