"""Keras models on PyTorch: exported as they are, files without running code in them."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penjing
from penjing.core.errors import ModelError, UnsupportedError
from penjing.core.registry import BACKENDS

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
if "keras" not in sys.modules:
    os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "torch":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)

if TYPE_CHECKING:
    from penjing.core.model import Model

ROWS = np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype(np.float32)


@cache
def images() -> tuple[Any, Model]:
    """Give a small convolutional network, and what it is opened as."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            layers.Conv2D(8, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.GlobalAveragePooling2D(),
            layers.Dense(6, activation="softmax"),
        ]
    )
    return model, penjing.wrap(model)


def saved(model: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras uses what NumPy calls deprecated
        model.save(path)
    return path


def predicted(model: Any, *inputs: Any) -> Any:
    return model(*inputs, training=False).detach().numpy()


def test_outputs_are_the_models_and_inputs_keep_their_names() -> None:
    model, opened = images()
    (port,) = opened.backend.inputs(opened.native)
    assert (port.name, port.shape) == ("image", (None, 8, 8, 3))
    given = opened.predict({"image": ROWS})["output"]
    np.testing.assert_allclose(given, predicted(model, ROWS), atol=1e-5)


def test_weights_are_called_as_the_variables() -> None:
    _, opened = images()
    kinds = {name: str(weight.kind) for name, weight in opened.weights().items()}
    assert [kind for name, kind in kinds.items() if name.endswith("kernel")]
    assert not [name for name in kinds if "_torch_params" in name]
    assert set(kinds.values()) >= {"conv", "linear"}


def test_several_inputs_and_outputs_keep_their_names() -> None:
    tokens = keras.Input((4,), dtype="int64", name="tokens")
    extra = keras.Input((3,), name="extra")
    hidden = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(9, 6)(tokens))
    joined = keras.layers.Concatenate()([hidden, extra])
    model = keras.Model(
        {"tokens": tokens, "extra": extra}, {"scores": keras.layers.Dense(3)(joined)}
    )
    opened = penjing.wrap(model)
    assert {port.name for port in opened.backend.inputs(opened.native)} == {"tokens", "extra"}
    rng = np.random.default_rng(0)
    feed = {
        "tokens": rng.integers(0, 9, (5, 4)),
        "extra": rng.normal(size=(5, 3)).astype("f4"),
    }
    wanted = model(feed, training=False)["scores"].detach().numpy()
    np.testing.assert_allclose(opened.predict(feed)["scores"], wanted, atol=1e-5)


def test_models_without_layers_in_view_learn_their_inputs_from_data() -> None:
    class Own(keras.Model):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(30)

        def call(self, values: Any) -> Any:
            return self.dense(values)

    model = Own()
    with pytest.raises(ModelError, match="does not say which inputs it takes"):
        penjing.wrap(model)
    opened = penjing.wrap(model, (ROWS[:, 0, 0], np.zeros(5)))
    (given,) = opened.predict(
        {opened.backend.inputs(opened.native)[0].name: ROWS[:, 0, 0]}
    ).values()
    np.testing.assert_allclose(given, predicted(model, ROWS[:, 0, 0]), atol=1e-5)


def test_files_are_opened(tmp_path: Path) -> None:
    path = saved(images()[0], tmp_path / "model.keras")
    given = penjing.wrap(path).predict({"image": ROWS})["output"]
    np.testing.assert_allclose(given, predicted(images()[0], ROWS), atol=1e-5)


def test_code_in_files_is_refused(tmp_path: Path) -> None:
    layer = keras.layers.Lambda(lambda values: values * 2)
    path = saved(keras.Sequential([keras.Input((3,)), layer]), tmp_path / "model.keras")
    with pytest.raises(ModelError, match="holds Python code"):
        penjing.wrap(path)
    path.write_bytes(b"no archive")
    with pytest.raises(ModelError, match="cannot be loaded by Keras"):
        penjing.wrap(path)


def test_the_model_is_left_as_it_was() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(20)]).train()
    model.layers[0].eval()
    weights = [tensor.detach().clone() for tensor in model.parameters()]
    modes = [part.training for part in model.modules()]
    penjing.wrap(model)
    assert [part.training for part in model.modules()] == modes
    for before, after in zip(weights, model.parameters(), strict=True):
        np.testing.assert_array_equal(before, after.detach())


def test_models_are_taken_from_pytorch_only(monkeypatch: Any) -> None:
    model, _ = images()
    assert not BACKENDS.load("pytorch")().recognises(model)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UnsupportedError, match="runs on jax here"):
        penjing.wrap(model)
    with pytest.raises(UnsupportedError, match="is no PyTorch module"):
        BACKENDS.load("pytorch")().with_weights_of(model, b"unread")


def test_a_file_alone_brings_keras_up_on_pytorch(tmp_path: Path) -> None:
    (tmp_path / "bad.keras").write_bytes(b"no archive")
    code = (
        "import penjing, os, sys\n"
        "try: penjing.wrap(sys.argv[1])\n"
        "except penjing.PenjingError as error: assert 'cannot be loaded' in str(error), error\n"
        "assert 'KERAS_BACKEND' not in os.environ\n"
        "import keras; assert keras.backend.backend() == 'torch'\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2] / "src")
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "bad.keras")], check=True, env=environment
    )


def test_another_backend_by_name_is_refused_by_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.keras").write_bytes(b"unread")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    with pytest.raises(UnsupportedError, match="is told to run on jax"):
        penjing.wrap(tmp_path / "model.keras")
