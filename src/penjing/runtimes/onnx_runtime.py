"""ONNX Runtime on the CPU: the reference runtime."""

from __future__ import annotations

import re
import sys
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

OPSET = re.compile(r"Opset (\d+) is under development.* is till opset (\d+)", re.DOTALL)
INDEX = re.compile(r"idx=(-?\d+) must be within the inclusive range \[(-?\d+),(\d+)\]")


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
            raise _refusal(error, ort.__version__) from error
        return OnnxSession(session)


class OnnxSession:
    """A model loaded into ONNX Runtime."""

    def __init__(self, session: Any) -> None:
        """Describe the ports of ``session``, an ``onnxruntime.InferenceSession``."""
        self._session = session
        self.inputs, self.outputs = _ports(session.get_inputs(), session.get_outputs())

    def __repr__(self) -> str:
        """Show what goes in and what comes out."""
        sides = (", ".join(map(_described, ports)) for ports in (self.inputs, self.outputs))
        return f"<{type(self).__name__}: {' -> '.join(sides)}>"

    def run(self, inputs: Mapping[str, Array] | Array) -> dict[str, Array]:
        """Run one batch: arrays by input name, one array for a single input, or a DataFrame.

        Lists are turned into arrays, and numbers cast to the type that the model takes where
        they keep their meaning: to a float type, or to an integer type that holds them.

        Raises:
            DataError: the inputs do not fit the model.
        """
        named = self._named(inputs)
        feed = {port.name: _cast(port, named[port.name]) for port in self.inputs}
        names = [port.name for port in self.outputs]
        try:
            values = self._session.run(names, feed)
        except _failures() as error:
            raise _complaint(error, feed) from error
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}

    def _named(self, inputs: Any) -> Mapping[str, Any]:
        """Give what there is by name of the input; nothing is missing, nothing too much."""
        names = [port.name for port in self.inputs]
        if _is_frame(inputs):
            inputs = _columns(inputs, self.inputs)
        elif not isinstance(inputs, Mapping):
            if len(names) != 1:
                asked = ", ".join(names)
                raise DataError(
                    "inputs", f"need one array for each of {asked}", "give a dict of arrays"
                )
            return {names[0]: inputs}
        if set(inputs) != set(names):
            missing = [name for name in names if name not in inputs]
            odd = [name for name in inputs if name not in names]
            raise DataError(
                "inputs",
                " and ".join(
                    [f"lack {name!r}" for name in missing] + [f"hold {name!r}" for name in odd]
                ),
                f"the model takes {', '.join(map(_described, self.inputs))}",
            )
        found: Mapping[str, Any] = inputs
        return found


def _described(port: Port) -> str:
    sizes = [
        "rows" if axis == port.batch_axis else "any" if size is None else str(size)
        for axis, size in enumerate(port.shape)
    ]
    return f"{port.name} {port.dtype} ({', '.join(sizes)})"


def _is_frame(inputs: object) -> bool:
    pandas: Any = sys.modules.get("pandas")
    return pandas is not None and isinstance(inputs, pandas.DataFrame)


def _columns(frame: Any, ports: Sequence[Port]) -> dict[str, Array]:
    """Take the columns named as the inputs, or all of them for a single input."""
    if len(ports) == 1 and ports[0].name not in frame.columns:
        return {ports[0].name: frame.to_numpy()}
    return {
        port.name: frame[port.name].to_numpy().reshape(-1, *(1,) * (len(port.shape) - 1))
        for port in ports
        if port.name in frame.columns
    }


def _cast(port: Port, value: Any) -> Array:
    """Give an array of the type that the model takes.

    Raises:
        DataError: the numbers would not keep their meaning.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(
            f"input {port.name!r}", "is no array: its rows differ in shape", "pad or split them"
        ) from error
    wanted, kind = port.dtype, array.dtype.kind
    if array.dtype.name == wanted or wanted not in ELEMENT_TYPES.values():
        return array
    if wanted == "str" and kind in "OUS":
        return array
    if wanted.startswith("float") and kind in "biuf":
        with np.errstate(over="ignore"):
            real = array.astype(wanted)
        if not (np.isinf(real) & np.isfinite(array)).any():
            return real
    if "int" in wanted and kind in "iu":
        cast = array.astype(wanted)
        if (cast == array).all():
            return cast
    raise DataError(
        f"input {port.name!r}",
        f"holds {array.dtype}, but the model takes {port.dtype}",
        f"give an array of {port.dtype}, of values it can hold",
    )


def _refusal(error: Exception, version: str) -> ModelError:
    """Say why a model could not be loaded."""
    text = str(error)
    if found := OPSET.search(text):
        return ModelError(
            "model",
            f"uses opset {found[1]}; ONNX Runtime {version} supports opsets up to {found[2]}",
            f"export it with opset {found[2]} or an older one, or update onnxruntime",
        )
    return ModelError(
        "model",
        f"ONNX Runtime {version} cannot load it: {_first_line(error)}",
        "check that this runtime supports the model's opset and operators",
    )


def _complaint(error: Exception, feed: Mapping[str, Array]) -> DataError:
    """Say why a model does not run on these inputs."""
    if found := INDEX.search(str(error)):
        index, low, high = found.groups()
        return DataError(
            "inputs",
            f"the model looks up index {index} in a table of {int(high) + 1} entries",
            f"give indices from 0 to {high} (or {low} to -1, from the end): were the inputs "
            "encoded for another model?",
        )
    shapes = ", ".join(f"{k} {v.dtype}{list(v.shape)}" for k, v in feed.items())
    return DataError(
        "inputs",
        f"the model does not run on {shapes}: {_first_line(error)}",
        "give inputs of the shapes that the model was made for",
    )


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
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)


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
