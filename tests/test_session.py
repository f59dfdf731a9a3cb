"""What a loaded model takes, and what it says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penjing
from penjing.core.errors import DataError, ModelError
from penjing.testing.onnx_models import mlp
from penjing.testing.onnx_zoo import draw, graph

if TYPE_CHECKING:
    from pathlib import Path

    from penjing.core.runtime import Session

onnx = pytest.importorskip("onnx")

X = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    onnx.save(mlp(), tmp_path / "m.onnx")
    return penjing.load(tmp_path / "m.onnx")


@pytest.fixture
def people(tmp_path: Path) -> Session:
    sizes: list[int | str] = ["n", 1]
    nodes: list[Any] = [
        ("Cast", ["age"], "years", {"to": 1}),
        ("Mul", ["years", "w"], "a", {}),
        ("Add", ["a", "height"], "y", {}),
    ]
    ports = {"age": ("int64", sizes), "height": ("float32", sizes)}
    onnx.save(graph(nodes, ports, draw(w=(1, 1)), rank=2), tmp_path / "people.onnx")
    return penjing.load(tmp_path / "people.onnx")


def test_a_session_shows_what_goes_in_and_out(session: Session) -> None:
    assert repr(session) == "<OnnxSession: x float32 (rows, 12) -> y float32 (rows, 3)>"


@pytest.mark.parametrize(
    "given",
    [X.astype(np.float64), X.tolist(), {"x": X.astype(np.float64)}],
    ids=["float64", "lists", "by name"],
)
def test_numbers_are_cast_where_they_keep_their_meaning(session: Session, given: Any) -> None:
    wanted = session.run(X)["y"]
    np.testing.assert_allclose(session.run(given)["y"], wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([["a"] * 12], "input 'x': holds <U1, but the model takes float32"),
        ([[1.0], [1.0, 2.0]], "input 'x': is no array: its rows differ in shape"),
        ({"z": X}, "lack 'x' and hold 'z'.*the model takes x float32"),
        (X[:, :5], "does not run on x float32.5, 5.: Got invalid dimensions.*Hint"),
    ],
    ids=["text", "ragged", "other names", "shape"],
)
def test_what_does_not_fit_is_one_clear_error(
    session: Session, given: Any, message: str
) -> None:
    with pytest.raises(DataError, match=f"(?s){message}"):
        session.run(given)


def test_whole_numbers_are_not_made_from_fractions(people: Session) -> None:
    half = {"age": np.full((2, 1), 0.5), "height": np.ones((2, 1))}
    with pytest.raises(DataError, match="'age': holds float64, but the model takes int64"):
        people.run(half)


def test_a_frame_feeds_inputs_by_their_names(people: Session) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"age": [36, 41], "height": [1.6, 1.8]})
    columns = {name: frame[name].to_numpy().reshape(-1, 1) for name in frame}
    np.testing.assert_array_equal(people.run(frame)["y"], people.run(columns)["y"])


@pytest.mark.parametrize("use", [penjing.load, penjing.open_artifact, penjing.bench])
def test_bytes_are_no_path(use: Any) -> None:
    with pytest.raises(ModelError, match="must be the path of a "):
        use(b"PJG1")
