"""ONNX Runtime on the CPU: the reference runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.core.errors import DataError, ModelError
from penjing.core.model import Port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from penjing.core.tensors import Array

__all__ = ["OnnxRuntime"]

ELEMENT_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(string)": "str",
    "tensor(bool)": "bool",
    **{f"tensor({kind})": kind for kind in ("int8", "int16", "int32", "int64")},
    **{f"tensor({kind})": kind for kind in ("uint8", "uint16", "uint32", "uint64")},
}


class OnnxRuntime:
    """Loads models into ONNX Runtime's CPU provider."""

    def load(
        self, model: bytes | Path, *, threads: int = 1, frugal: bool = False
    ) -> OnnxSession:
        """Prepare a serialized ONNX model.

        Args:
            model: bytes of a ``ModelProto``, or its file.
            threads: threads within an operator; results do not depend on how callers
                share batches among threads of their own.
            frugal: give memory back after every run.

        Raises:
            ModelError: ONNX Runtime refuses the model.
        """
        import onnxruntime as ort  # heavy; only when a model is run

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # An arena keeps its largest allocation for good; searches hold many sessions.
        options.enable_cpu_mem_arena = not frugal
        source = model if isinstance(model, bytes) else str(model)
        try:
            session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except _failures() as error:
            raise ModelError(
                "model",
                f"ONNX Runtime {ort.__version__} cannot load it: {_first_line(error)}",
                "check that this runtime supports the model's opset and operators",
            ) from error
        return OnnxSession(session)


class OnnxSession:
    """A model loaded into ONNX Runtime."""

    def __init__(self, session: Any) -> None:
        """Describe the ports of ``session``, an ``onnxruntime.InferenceSession``."""
        self._session = session
        self.inputs, self.outputs = _ports(session.get_inputs(), session.get_outputs())

    def run(self, inputs: Mapping[str, Array] | Array) -> dict[str, Array]:
        """Run one batch: arrays by input name, or one array where there is one input.

        Raises:
            DataError: the inputs do not fit the model.
        """
        if not isinstance(inputs, Mapping):
            if len(self.inputs) != 1:
                asked = ", ".join(port.name for port in self.inputs)
                raise DataError(
                    "inputs", f"need one array for each of {asked}", "give a dict of arrays"
                )
            inputs = {self.inputs[0].name: inputs}
        inputs = {name: np.asarray(value) for name, value in inputs.items()}
        names = [port.name for port in self.outputs]
        try:
            values = self._session.run(names, inputs)
        except _failures() as error:
            shapes = ", ".join(f"{k} {v.dtype}{list(v.shape)}" for k, v in inputs.items())
            raise DataError(
                "inputs", f"the model does not run on {shapes}: {_first_line(error)}"
            ) from error
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def _failures() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "ModelLoadCanceled",
        "NoModel",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
    return (ValueError, *(getattr(state, name) for name in names if hasattr(state, name)))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _ports(
    inputs: Sequence[Any], outputs: Sequence[Any]
) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Translate ONNX Runtime's descriptions, and find the axes that count samples.

    Samples are counted by one free size: that of a first axis of an input or, where those
    are all fixed, of another axis.  An input without it is the same for all samples.  Where
    nothing is free, the size of the first input's first axis is looked for in the others.
    """
    shapes = [list(node.shape or []) for node in (*inputs, *outputs)]
    known = shapes[: len(inputs)]
    first = [shape[0] for shape in known if shape and not isinstance(shape[0], int)]
    free = [size for shape in known for size in shape if not isinstance(size, int)]
    counted = next(iter(first or free), next((shape[0] for shape in known if shape), None))
    ports = [
        Port(
            node.name,
            ELEMENT_TYPES.get(node.type, node.type),
            tuple(size if isinstance(size, int) else None for size in shape),
            _batch_axis(shape, counted),
        )
        for node, shape in zip((*inputs, *outputs), shapes, strict=True)
    ]
    return tuple(ports[: len(inputs)]), tuple(ports[len(inputs) :])


def _batch_axis(shape: list[Any], counted: str | int | None) -> int | None:
    """Give the axis whose size is the one that counts samples.

    Free sizes often lack a name, or have another one behind operators that change shapes: a
    free first axis is taken for the one.
    """
    if counted is None:
        return 0 if shape and not isinstance(shape[0], int) else None
    if counted in shape:
        return shape.index(counted)
    return 0 if shape and isinstance(counted, str) and not isinstance(shape[0], int) else None
