"""Stages as models of their own: built once, then fed with values and weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penjing.backends.onnx_support.roles import RECURRENT, states_name
from penjing.backends.onnx_support.scopes import Scope, nested, tensors_at, tensors_of
from penjing.core.model import MATRIX_KINDS, LayerKind
from penjing.core.template import swap

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx

    from penjing.backends.onnx_support.reading import Cut
    from penjing.backends.onnx_support.roles import Role
    from penjing.backends.onnx_support.stages import Plan, Stage
    from penjing.core.model import Weight
    from penjing.core.runtime import Runtime, Session
    from penjing.core.tensors import Array

    Values = dict[str, Array]

STRING = 8
"""``TensorProto.STRING``."""


class Feeding:
    """Builds the models of stages and runs them."""

    def __init__(
        self,
        cut: Cut,
        roles: Mapping[str, Role],
        weights: Mapping[str, Weight],
        plan: Plan,
        runtime: Runtime,
    ) -> None:
        """Remember the parts; nothing is built before it is run."""
        self.cut, self.roles, self.weights = cut, roles, weights
        self.plan, self.runtime = plan, runtime
        self.fed = {
            value: name
            for value, name in plan.arrays.items()
            if weights[name].is_float and _may_change(roles[name])
        }
        """Values that are inputs of stages, because their arrays may change."""

    def stored(self, name: str, changed: Mapping[str, Array]) -> Array:
        """Give an array in the layout and type of the graph."""
        role, weight = self.roles[name], self.weights[name]
        array = changed.get(name)
        if array is None:
            array = weight.tensor.dense()
        array = array.astype(weight.tensor.dtype, copy=False)
        if role.swapped:
            array = swap(array, role.swapped)
        return np.ascontiguousarray(array).reshape(self.cut.shapes[name])

    def can_run(self, stage: Stage, values: Mapping[str, Array]) -> bool:
        """Build a stage; tell whether all it gives are arrays, not sequences or maps."""
        if not (stage.gives or stage.watches):
            return True
        stage.session = self._session(stage, values, {})
        return all("(" not in port.dtype for port in stage.session.outputs)

    def run(
        self, stage: Stage, values: Mapping[str, Array], changed: Mapping[str, Array]
    ) -> Values:
        """Run a stage with some weights changed; give its results by name."""
        if not stage.gives and (changed or not stage.watches):
            return {}
        session = stage.session
        assert session is not None
        if changed.keys() & self._written(stage):
            session = self._session(stage, values, changed)
        feed = {name: values[name] for name in stage.reads}
        feed |= {
            value: self.stored(self.fed[value], changed)
            for value in stage.constants
            if value in self.fed
        }
        return session.run(feed)

    def _written(self, stage: Stage) -> set[str]:
        """Name arrays that stand inside nodes: changing them takes a new model."""
        bodies = [node for function in self.cut.graph.functions for node in function.node]
        held = {self.plan.arrays.get(v) for v in stage.constants if v not in self.fed}
        for node in (*stage.nodes, *bodies):
            held |= {self.cut.held(tensor) for tensor in _all_tensors(node)}
            held |= {self.cut.held_floats(attribute) for attribute in _all_attributes(node)}
        return {name for name in held if name is not None}

    def _session(
        self, stage: Stage, values: Mapping[str, Array], changed: Mapping[str, Array]
    ) -> Session:
        """Make a model of a stage; types of its inputs are read off actual values."""
        from onnx import SparseTensorProto, TensorProto, helper

        inputs = [_described(name, values[name]) for name in stage.reads]
        fixed: list[onnx.TensorProto] = []
        sparse: list[onnx.SparseTensorProto] = []
        nodes: list[onnx.NodeProto] = []
        for value in stage.constants:
            constant = self.plan.constants[value]
            kind = constant.DESCRIPTOR.name
            if value in self.fed:
                inputs.append(_described(value, self.weights[self.fed[value]].tensor.dense()))
            elif kind == "NodeProto":
                nodes.append(self._restored(constant, changed))  # type: ignore[arg-type]
            elif kind == "TensorProto":
                tensor = TensorProto()
                tensor.CopyFrom(constant)  # type: ignore[arg-type]
                self._fill(tensor, changed)
                fixed.append(tensor)
            else:
                whole = SparseTensorProto()
                whole.CopyFrom(constant)  # type: ignore[arg-type]
                self._fill(whole.values, changed)
                self._fill(whole.indices, changed)
                sparse.append(whole)
        nodes += [self._restored(node, changed) for node in stage.nodes]
        outputs = [
            helper.make_empty_tensor_value_info(name) for name in (*stage.gives, *stage.watches)
        ]
        graph = helper.make_graph(
            nodes, "stage", inputs, outputs, fixed, sparse_initializer=sparse
        )
        model = helper.make_model(
            graph,
            opset_imports=self.cut.graph.opset_import,
            ir_version=max(4, self.cut.graph.ir_version),
            functions=[self._restored_function(f, changed) for f in self.cut.graph.functions],
        )
        return self.runtime.load(model.SerializeToString(), frugal=True)

    def _restored_function(
        self, function: onnx.FunctionProto, changed: Mapping[str, Array]
    ) -> onnx.FunctionProto:
        from onnx import FunctionProto

        made = FunctionProto()
        made.CopyFrom(function)
        del made.node[:]
        made.node.extend(self._restored(node, changed) for node in function.node)
        return made

    def _restored(self, node: onnx.NodeProto, changed: Mapping[str, Array]) -> onnx.NodeProto:
        """Copy a node with its arrays back in place, and all results that are watched."""
        from onnx import NodeProto

        made = NodeProto()
        made.CopyFrom(node)
        for tensor in _all_tensors(made):
            self._fill(tensor, changed)
        for attribute in _all_attributes(made):
            name = self.cut.held_floats(attribute)
            if name is not None:
                attribute.floats[:] = self.stored(name, changed).ravel().tolist()
        if made.op_type in RECURRENT and not made.output[0]:
            made.output[0] = states_name(node)
        return made

    def _fill(self, tensor: onnx.TensorProto, changed: Mapping[str, Array]) -> None:
        name = self.cut.held(tensor)
        if name is not None:
            array = self.stored(name, changed)
            tensor.raw_data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _may_change(role: Role) -> bool:
    return role.kind in MATRIX_KINDS or role.kind is LayerKind.BIAS


def _described(name: str, array: Array) -> onnx.ValueInfoProto:
    from onnx import helper

    is_text = array.dtype.kind in "OU"
    kind = STRING if is_text else helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, None)


def _all_nodes(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Give a node and those of all graphs nested in it."""
    yield node
    for graph in nested(node):
        for inner in graph.node:
            yield from _all_nodes(inner)


def _all_attributes(node: onnx.NodeProto) -> Iterator[onnx.AttributeProto]:
    for inner in _all_nodes(node):
        yield from inner.attribute


def _all_tensors(node: onnx.NodeProto) -> Sequence[onnx.TensorProto]:
    found = [tensor for inner in _all_nodes(node) for _, tensor in tensors_at(inner)]
    for inner in _all_nodes(node):
        for graph in nested(inner):
            found += [tensor for _, tensor in tensors_of(Scope(graph, None))]
    return found
