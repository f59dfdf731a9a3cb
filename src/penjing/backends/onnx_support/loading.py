"""ONNX models from paths, bytes and objects, with all their arrays inside.

Loading changes nothing that a model computes: external data are embedded, typed data fields
become raw bytes, and what no runtime uses (documentation strings, exporter metadata of nodes,
shapes of intermediate values) is dropped.
"""

from __future__ import annotations

from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.backends.onnx_support.scopes import STANDARD_DOMAINS, scopes, tensors
from penjing.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx

OLDEST_OPSET = 11
STORED_AS = {
    "float": "float32",
    "double": "float64",
    "bool": "uint8",
    "bfloat16": "uint16",
    "complex64": "uint64",
}
"""NumPy element types by ONNX name; those without a NumPy float are kept as bit patterns."""
SAME_NAME = {"float16", *(f"{s}int{bits}" for s in ("", "u") for bits in (8, 16, 32, 64))}


def load_model(source: Any) -> tuple[onnx.ModelProto, int]:
    """Read a path, bytes or ``ModelProto``; give it with its size in bytes as it came.

    Raises:
        ModelError: it is missing, not an ONNX model, too old, or its arrays are damaged.
    """
    import onnx
    from google.protobuf.message import DecodeError

    where = str(source) if isinstance(source, str | Path) else "model"
    try:
        if isinstance(source, str | Path):
            model, size = _from_path(Path(source))
        elif isinstance(source, bytes):
            model, size = onnx.load_model_from_string(source), len(source)
        else:
            model, size = onnx.ModelProto(), source.ByteSize()
            model.CopyFrom(source)
        _check(where, model)
        _normalise(where, model)
    except FileNotFoundError as error:
        missing = error.filename or str(error)
        raise ModelError(where, f"no such file: {missing}") from None
    except (DecodeError, UnicodeDecodeError) as error:
        raise ModelError(
            where, "is not an ONNX model", "give a .onnx file; is this one damaged?"
        ) from error
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(where, f"cannot be read: {error}") from error
    return model, size


def _from_path(path: Path) -> tuple[onnx.ModelProto, int]:
    import onnx

    model = onnx.load(path, load_external_data=False)
    beside = _external_files(path, (tensor for _, tensor in tensors(model)))
    size = sum(file.stat().st_size for file in (path, *beside))
    onnx.load_external_data_for_model(model, str(path.parent))
    return model, size


def _external_files(path: Path, held: Iterable[onnx.TensorProto]) -> list[Path]:
    """Find the files that hold arrays of a model; refuse any outside its folder."""
    names = {
        entry.value
        for tensor in held
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in names:
        pure = PurePosixPath(name.replace("\\", "/"))
        if pure.is_absolute() or PureWindowsPath(name).drive or ".." in pure.parts:
            raise ModelError(
                str(path),
                f"keeps arrays in {name!r}, outside its own folder",
                "save the model again with its data beside it",
            )
    return [path.parent / name for name in sorted(names)]


def _check(where: str, model: onnx.ModelProto) -> None:
    if not model.graph.node and not model.graph.output:
        raise ModelError(
            where, "is not an ONNX model", "it holds no graph; was it cut off while copied?"
        )
    opset = next((o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS), None)
    if opset is not None and opset < OLDEST_OPSET:
        raise ModelError(
            where,
            f"uses opset {opset}; {OLDEST_OPSET} is the oldest supported",
            "convert it first: onnx.version_converter.convert_version(model, 17)",
        )


def _normalise(where: str, model: onnx.ModelProto) -> None:
    """Drop what no runtime uses and store every array as raw bytes, in place."""
    from onnx import TensorProto

    model.ClearField("doc_string")
    model.ClearField("training_info")
    for scope in scopes(model):
        scope.holder.ClearField("doc_string")
        scope.holder.ClearField("value_info")
        if scope.graph is not None:
            scope.graph.ClearField("quantization_annotation")
            del scope.graph.metadata_props[:]
            for value in (*scope.graph.input, *scope.graph.output):
                value.ClearField("doc_string")
                del value.metadata_props[:]
        for node in scope.nodes:
            node.ClearField("doc_string")
            del node.metadata_props[:]
            for attribute in node.attribute:
                attribute.ClearField("doc_string")
    for name, tensor in tensors(model):
        tensor.ClearField("doc_string")
        del tensor.metadata_props[:]
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ModelError(
                where,
                f"keeps array {name!r} in another file",
                "give the path of the .onnx file, so that the other file is found",
            )
        _make_raw(where, name, tensor)


def _make_raw(where: str, name: str, tensor: onnx.TensorProto) -> None:
    """Store an array as raw bytes, and check that it has as many as its shape needs."""
    from onnx import numpy_helper

    dtype = numpy_dtype(tensor)
    if dtype is None:
        return
    if not tensor.HasField("raw_data"):
        own_name = tensor.name
        array = np.ascontiguousarray(numpy_helper.to_array(tensor))
        dims = list(tensor.dims)
        tensor.CopyFrom(numpy_helper.from_array(array.reshape(dims), own_name))
    needed = prod(tensor.dims) * np.dtype(dtype).itemsize
    if min(tensor.dims, default=0) < 0 or len(tensor.raw_data) != needed:
        raise ModelError(
            where,
            f"array {name!r} of shape {list(tensor.dims)} holds {len(tensor.raw_data)} bytes "
            f"instead of {needed}",
            "is a file damaged, or cut off?",
        )


def numpy_dtype(tensor: onnx.TensorProto) -> str | None:
    """NumPy name of the type an array is cut out as; None for those left inside.

    Types that NumPy lacks are cut out as unsigned integers: their bits are kept exactly.
    """
    from onnx import TensorProto

    kind = TensorProto.DataType.Name(tensor.data_type).lower()
    if kind in SAME_NAME:
        return kind
    return "uint8" if kind.startswith("float8") else STORED_AS.get(kind)
