"""QDQ models: the integers of a file in place of float weights, and the same outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import penjing
from penjing.core.errors import ConfigError
from penjing.core.model import Exports, ExportsIntegers, IntegerModel, Model
from penjing.core.registry import BACKENDS, RUNTIMES
from penjing.core.technique import Context
from penjing.core.tensors import Affine, Dense
from penjing.engine.packing import pack
from penjing.techniques.round_to_nearest import RoundToNearest
from penjing.testing import models
from penjing.testing.onnx_models import TOYS
from penjing.testing.onnx_oddities import ODDITIES
from penjing.testing.onnx_zoo import LAYERS, draw, graph

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from penjing.core.tensors import Array, Tensor

SETTINGS: Mapping[str, dict[str, Any]] = {
    "channels": {},
    "one_step": {"granularity": "per_tensor"},
    "affine": {"granularity": "per_tensor", "grid": "affine"},
    "four_bits": {"bits": 4, "grid": "affine"},
}
BY_GROUPS = {"conv_turned_groups", "stacked", "stacked_left"}
"""Layouts in which outputs of several groups share an index: no axis counts channels."""
WITHOUT_WEIGHTS = {"quantized"}
"""Their weights are integers to begin with."""


def opened(proto: Any) -> Model:
    model: Model = BACKENDS.load("onnx")().open(proto)
    return model


def exported(model: Model, changes: Mapping[str, Tensor] | None = None) -> IntegerModel:
    """Write a model with integers, and compare what it computes with the plain one."""
    backend = model.backend
    assert isinstance(backend, Exports)
    assert isinstance(backend, ExportsIntegers)
    model = model.with_weights(changes or {})
    artifact = pack(model, {})
    plain = artifact.onnx_bytes()
    made = backend.with_integers(plain, artifact.template, artifact.tensors)
    onnx.checker.check_model(made.serialized)
    port = backend.inputs(model.native)[0]
    feed = models.inputs(model, rows=(port.batch_axis == 0 and port.shape[0]) or 8)
    one, other = (
        RUNTIMES.load("onnx_runtime")().load(m).run(feed) for m in (plain, made.serialized)
    )
    for name, array in one.items():
        np.testing.assert_allclose(other[name], array, rtol=1e-4, atol=1e-5)
    return made


def rounded(model: Model, **settings: Any) -> Model:
    return RoundToNearest(clipping="none", **settings).apply(model, Context())


def initializers(made: IntegerModel) -> dict[str, Array]:
    proto = onnx.load_model_from_string(made.serialized)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(("name", "build"), LAYERS.items(), ids=LAYERS)
def test_integers_compute_the_same_in_every_layout(
    name: str, build: Callable[[], Any], settings: dict[str, Any]
) -> None:
    made = exported(rounded(opened(build()), **settings))
    per_channel = settings.get("granularity") != "per_tensor"
    assert "first" in made.weights
    assert ("w" in made.weights) == (not per_channel or name not in BY_GROUPS)
    found = initializers(made)
    assert found["first/codes"].dtype == np.int8
    assert "first" not in found, "the floats are gone"
    assert made.activations == 0


@pytest.mark.parametrize("build", TOYS.values(), ids=TOYS)
def test_integers_compute_the_same_in_toy_models(build: Callable[[], Any]) -> None:
    model = opened(build())
    assert exported(rounded(model)).weights
    assert exported(model).weights == ()


@pytest.mark.parametrize(("name", "build"), ODDITIES.items(), ids=ODDITIES)
def test_integers_compute_the_same_in_odd_models(name: str, build: Callable[[], Any]) -> None:
    for settings in SETTINGS.values():
        model = opened(build())
        made = exported(rounded(model, **settings) if name not in WITHOUT_WEIGHTS else model)
        if name in {"constants", "tied", "shared", "moved", "names", "opset_13"}:
            assert made.weights, name
        if name in {"old", "half", "double"}:
            assert made.weights == (), name


def test_rows_of_a_table_are_looked_up_as_integers() -> None:
    for settings in SETTINGS.values():
        made = exported(rounded(opened(TOYS["embedding"]()), **settings))
        assert "table" in made.weights
        proto = onnx.load_model_from_string(made.serialized)
        assert not any(node.output[0] == "table" for node in proto.graph.node)


def test_a_shared_weight_is_stored_once() -> None:
    made = exported(rounded(opened(ODDITIES["shared"]())))
    assert [name for name in initializers(made) if name.endswith("/codes")] == ["w/codes"]


def test_what_no_integers_of_eight_bits_stand_for_stays_float() -> None:
    model = opened(LAYERS["gemm_01"]())
    shape = model.weights()["w"].tensor.shape
    rng = np.random.default_rng(0)
    bytes_of = rng.integers(-128, 128, shape)
    rows = np.arange(shape[0]).reshape(-1, 1)
    cases: dict[str, tuple[Tensor, bool]] = {
        "dense": (Dense(rng.normal(size=shape).astype(np.float32)), False),
        "nine bits": (Affine.encode(bytes_of * 2, 0.01), False),
        "nine bits that eight hold": (Affine.encode(bytes_of + 300, 0.01, 300), True),
        "a point for each row": (Affine.encode(bytes_of, 0.01, rows), False),
        "one point": (Affine.encode(bytes_of, 0.01, 100), True),
        "no step": (Affine.encode(bytes_of, 0.0), False),
        "no number": (Affine.encode(bytes_of, np.where(rows == 3, np.nan, 0.1)), False),
        "a step for each weight": (Affine.encode(bytes_of, rng.uniform(1, 2, shape)), False),
        "a step for each input": (Affine.encode(bytes_of, rng.uniform(1, 2, (1, 6))), True),
        "zeros": (Affine.encode(np.zeros(shape, np.int8), 1e-38), True),
    }
    for name, (tensor, is_integer) in cases.items():
        with np.errstate(invalid="ignore"):
            assert ("w" in exported(model, {"w": tensor}).weights) == is_integer, name


def test_the_step_of_zeros_is_as_large_as_the_others() -> None:
    codes = np.ones((20, 6), np.int8)
    codes[3] = 0
    scale = np.full((20, 1), 0.5, np.float32)
    scale[3] = np.finfo(np.float32).tiny
    made = exported(
        opened(LAYERS["gemm_01"]()), {"w": Affine(codes, scale, np.zeros((1, 1), np.int32))}
    )
    np.testing.assert_array_equal(initializers(made)["w/steps"], np.float32(0.5))


def test_names_already_in_use_are_left_alone() -> None:
    weights = draw(w=(6, 20)) | {"w/codes": draw(v=(20, 3))["v"]}
    nodes: list[Any] = [
        ("MatMul", ["x", "w"], "w/steps", {}),
        ("MatMul", ["w/steps", "w/codes"], "y", {}),
    ]
    made = exported(
        rounded(opened(graph(nodes, {"x": ("float32", ["n", 6])}, weights, rank=2)))
    )
    assert set(made.weights) == {"w", "w/codes"}


def test_unpacking_says_what_it_wrote(tmp_path: Path) -> None:
    pack(rounded(opened(TOYS["mlp"]())), {}).save(tmp_path / "small.penjing")
    plain = penjing.unpack(tmp_path / "small.penjing", tmp_path / "plain.onnx")
    made = penjing.unpack(tmp_path / "small.penjing", tmp_path / "qdq.onnx", form="qdq")
    assert plain.integers == ()
    assert made.integers == ("w1", "w2", "w3")
    assert made.size_bytes == (tmp_path / "qdq.onnx").stat().st_size
    with pytest.raises(ConfigError, match="float, qdq"):
        penjing.unpack(tmp_path / "small.penjing", tmp_path / "o.onnx", form="int4")  # type: ignore[arg-type]
