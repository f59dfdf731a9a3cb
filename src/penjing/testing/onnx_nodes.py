"""Models of one node, for tests of single operators."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.tensors import Array

IR_VERSION = 10


@dataclass(frozen=True)
class Case:
    """One node and what goes in; None for an input that is left out."""

    op: str
    """Behind ``ai.onnx.ml/`` if it is of that domain."""
    inputs: tuple[Array | None, ...]
    known: Mapping[str, Any] = field(default_factory=dict)
    """Attributes."""
    opset: int = 18
    outputs: int = 1

    def build(self, *, fixed: bool) -> tuple[Any, dict[str, Array]]:
        """Give a model and arrays for its inputs.

        Args:
            fixed: whether arrays of whole numbers behind the first input are constants of
                the model; otherwise all are inputs of it.
        """
        from onnx import helper, numpy_helper

        given, constants = {}, []
        for number, array in enumerate(self.inputs):
            if array is None:
                continue
            if fixed and number and array.dtype.kind in "iub":
                constants.append(numpy_helper.from_array(array, f"i{number}"))
            else:
                given[f"i{number}"] = array
        domain, _, op = self.op.rpartition("/")
        names = ["" if x is None else f"i{number}" for number, x in enumerate(self.inputs)]
        results = [f"o{number}" for number in range(self.outputs)]
        kinds = {n: helper.np_dtype_to_tensor_dtype(x.dtype) for n, x in given.items()}
        graph = helper.make_graph(
            [helper.make_node(op, names, results, domain=domain, **self.known)],
            "case",
            [helper.make_tensor_value_info(n, kinds[n], x.shape) for n, x in given.items()],
            [helper.make_empty_tensor_value_info(name) for name in results],
            constants,
        )
        imports = [helper.make_opsetid("", self.opset), helper.make_opsetid("ai.onnx.ml", 3)]
        return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION), given


def case(op: str, *inputs: Any, opset: int = 18, outputs: int = 1, **known: Any) -> Case:
    """Describe a node by its operator, arrays and attributes."""
    arrays = tuple(x if x is None else np.asarray(x) for x in inputs)
    return Case(op, arrays, known, opset, outputs)
