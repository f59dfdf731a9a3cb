"""Files and bytes that are no proper models: one clear error each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from penjing.core.errors import DataError, ModelError
from penjing.core.registry import BACKENDS
from penjing.testing.onnx_oddities import ROWS, linear
from penjing.testing.onnx_zoo import draw, graph

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from penjing.core.model import Model


def opened(source: object) -> Model:
    model: Model = BACKENDS.load("onnx")().open(source)
    return model


def with_data_beside(folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(
        linear(17), path, save_as_external_data=True, location="model.data", size_threshold=0
    )
    return path


def old_opset() -> Any:
    return graph([("Relu", ["x"], "y", {})], ROWS, {}, rank=2, opset=10)


def unknown_operator() -> Any:
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain="com.example")
    model = graph([node], ROWS, draw(w=(6, 20)), rank=2)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


def too_short() -> Any:
    model = linear(17)
    model.graph.initializer[0].raw_data = bytes(400)
    return model


def negative_shape() -> Any:
    model = linear(17)
    model.graph.initializer[0].dims[:] = [-6, -20]
    return model


BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "holds no graph"),
    "text": (lambda: b"import torch\n" * 99, "is not an ONNX model"),
    "zip": (lambda: b"PK\x03\x04" + bytes(500), "is not an ONNX model"),
    "cut": (lambda: linear(17).SerializeToString()[:-30], "is not an ONNX model"),
    "old opset": (lambda: old_opset().SerializeToString(), "opset 10; 11 is the oldest"),
    "operator": (lambda: unknown_operator().SerializeToString(), "Frobnicate"),
    "short": (lambda: too_short().SerializeToString(), "400 bytes instead of 480"),
    "negative": (lambda: negative_shape().SerializeToString(), "instead of"),
}


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("from_file", [False, True], ids=["bytes", "file"])
def test_broken_models_are_refused(
    data: Callable[[], bytes],
    message: str,
    from_file: bool,  # noqa: FBT001  # pytest passes it by name
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data())
    with pytest.raises(ModelError, match=message) as caught:
        opened(path if from_file else data())
    assert caught.value.where == (str(path) if from_file else "model")


def test_every_cut_is_refused_or_harmless(tmp_path: Path) -> None:
    whole = linear(17).SerializeToString()
    path = tmp_path / "model.onnx"
    for end in range(0, len(whole), 37):
        path.write_bytes(whole[:end])
        with pytest.raises(ModelError):
            opened(path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        opened(tmp_path / "none.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ModelError, match="cannot be read"):
        opened(tmp_path / "folder.onnx")


def test_data_beside_the_model_count(tmp_path: Path) -> None:
    path = with_data_beside(tmp_path)
    model = opened(path)
    size = path.stat().st_size + (tmp_path / "model.data").stat().st_size
    assert model.backend.original_bytes(model.native) == size  # type: ignore[attr-defined]
    inside = opened(linear(17)).weights()
    for name, weight in model.weights().items():
        np.testing.assert_array_equal(weight.tensor.dense(), inside[name].tensor.dense())


def test_missing_data_beside_the_model_are_named(tmp_path: Path) -> None:
    path = with_data_beside(tmp_path)
    (tmp_path / "model.data").unlink()
    with pytest.raises(ModelError, match=r"model\.data"):
        opened(path)


def test_short_data_beside_the_model_are_refused(tmp_path: Path) -> None:
    path = with_data_beside(tmp_path)
    os.truncate(tmp_path / "model.data", 100)
    with pytest.raises(ModelError):
        opened(path)


@pytest.mark.parametrize(
    "place", ["../model.data", "/etc/passwd", "a/../../b", "..\\c", "C:\\d"]
)
def test_data_outside_the_folder_are_refused(place: str, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    with_data_beside(tmp_path)
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = place
    (inner / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="outside its own folder"):
        opened(inner / "model.onnx")


def test_data_elsewhere_cannot_come_with_bytes(tmp_path: Path) -> None:
    data = with_data_beside(tmp_path).read_bytes()
    with pytest.raises(ModelError, match=r"give the path of the \.onnx file"):
        opened(data)


def test_arrays_that_look_like_tokens_do_no_harm() -> None:
    """Marks of cut-out arrays that stand in a model already are not mistaken for them."""
    from penjing.backends.onnx_support import wire

    hostile = b"".join(wire.token(0, salt) for salt in range(1, 4))
    small = numpy_helper.from_array(np.frombuffer(hostile, np.uint8), "small")
    model = linear(17)
    model.graph.initializer.append(small)
    node = model.graph.node.add(op_type="Constant", output=["floats"])
    marks = np.frombuffer(wire.token(1, 1), "<f4").tolist()
    node.attribute.append(helper.make_attribute("value_floats", marks))
    made = opened(model)
    template = made.backend.template(made.native)  # type: ignore[attr-defined]
    filled = template.fill({n: w.tensor.dense() for n, w in made.weights().items()})
    assert onnx.load_model_from_string(filled) == model


def test_a_run_that_fails_names_the_shapes() -> None:
    model = opened(linear(17))
    with pytest.raises(DataError, match=r"x float32\[3, 7\]"):
        model.predict({"x": np.zeros((3, 7), np.float32)})
