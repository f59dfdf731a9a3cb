"""Running models over data: in order, in bounded memory, and telling how far outputs moved."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest

from penjing.core.data import Batch, Part
from penjing.core.errors import DataError, ModelError
from penjing.core.model import Port
from penjing.engine import evaluate
from penjing.engine.evaluate import Batching, check_finite, divergence, run_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.tensors import Array


@dataclass
class Rows:
    """Rows that are their own numbers."""

    count: int
    axis: int = 0
    reads: list[float] = field(default_factory=list)
    source: str = "rows"
    labels: Array | None = None
    labels_where: str = "labels of rows"
    digest: str = "0"

    def __len__(self) -> int:
        return self.count

    def take(self, rows: Array) -> Batch:
        self.reads.append(time.monotonic())
        values = np.repeat(rows[:, None], 3, axis=1).astype(np.float32)
        return Batch({"x": np.moveaxis(values, 0, self.axis)}, None, len(rows))

    def part(self) -> Part:
        return Part(self, np.arange(self.count))


class Echo:
    """Gives its input back, in several ways."""

    def __init__(self, size: int | None = None, axis: int = 0) -> None:
        shape: list[int | None] = [3, 3]
        shape[axis] = size
        self.inputs: tuple[Port, ...] = (Port("x", "float32", tuple(shape), axis),)
        self.outputs: tuple[Port, ...] = (
            Port("same", "float32", (None, 3), axis),
            Port("constant", "float32", (2,), None),
            Port("odd", "float32", (None,), 0),
            Port("ragged", "float32", (None, None), 0),
        )
        self.axis, self.shapes, self.running, self.most = axis, set[tuple[int, ...]](), 0, 0
        self.lock = threading.Lock()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        x = inputs["x"]
        self.shapes.add(x.shape)
        time.sleep(0.001)
        with self.lock:
            self.running -= 1
        count = x.shape[self.axis]
        return {
            "same": x,
            "constant": np.zeros(2, np.float32),
            "odd": np.zeros(count + 1, np.float32),
            "ragged": np.zeros((count, 1 + int(x.max()) % 2), np.float32),
        }


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [None, 1, 7])
@pytest.mark.parametrize("count", [1, 6, 7, 300])
def test_rows_come_back_in_order_for_any_batch(count: int, size: int | None, axis: int) -> None:
    outputs = run_all(Echo(size, axis), Rows(count, axis).part())
    np.testing.assert_array_equal(outputs["same"], np.repeat(np.arange(count)[:, None], 3, 1))
    assert "constant" not in outputs
    assert "odd" not in outputs


def test_outputs_whose_shape_varies_are_left_out() -> None:
    assert set(run_all(Echo(1), Rows(8).part())) == {"same"}


def test_a_fixed_batch_is_always_full() -> None:
    model = Echo(7)
    run_all(model, Rows(10).part())
    assert model.shapes == {(7, 3)}


def test_batches_are_the_same_for_any_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shapes = []
    for count in (1, 4):
        monkeypatch.setattr(evaluate, "threads", lambda count=count: count)
        model = Echo()
        run_all(model, Rows(500).part())
        assert model.most <= count
        shapes.append(model.shapes)
    assert shapes[0] == shapes[1]


def test_data_are_read_no_further_ahead_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "threads", lambda: 2)
    rows, model = Rows(200), Echo(1)
    ahead: list[int] = []
    done = model.run

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        results = done(inputs)
        ahead.append(len(rows.reads) - len(ahead))
        return results

    model.run = run  # type: ignore[method-assign]
    run_all(model, rows.part())
    assert max(ahead) <= 8


def test_models_without_rows_are_refused() -> None:
    model = Echo()
    model.outputs = model.outputs[1:3]
    with pytest.raises(ModelError, match="one row per sample"):
        run_all(model, Rows(5).part())


def test_large_inputs_make_small_batches() -> None:
    numbers = evaluate.LARGEST_BATCH_BYTES // 8
    assert Batching.of([Port("x", "float32", (None, numbers), 0)]) == Batching(2, fixed=False)
    assert Batching.of([Port("x", "float32", (None, 10**9), 0)]).rows == 1
    assert Batching.of([Port("x", "str", (None, 5), 0)]).rows == evaluate.BATCH_ROWS


def test_outputs_that_are_no_numbers_are_named() -> None:
    with pytest.raises(DataError, match="in 'y' for 1 of 3 rows"):
        check_finite({"x": np.zeros(3, int), "y": np.array([[0.0], [1], [np.nan]])}, "d.npz")


SCORES = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)


def test_nothing_moved_is_zero_for_every_kind_of_output() -> None:
    kinds = {
        "scores": SCORES,
        "column": SCORES[:, :1],
        "values": SCORES[:, 0],
        "images": SCORES.reshape(50, 1, 2, 2),
        "classes": SCORES.argmax(axis=1),
        "names": SCORES.argmax(axis=1).astype(str),
        "constant": np.ones((50, 1), np.float32),
    }
    for name, array in kinds.items():
        for classes in (True, False):
            moved = divergence({name: array}, {name: array.copy()}, classes=classes)
            np.testing.assert_array_equal(moved, np.zeros(50), err_msg=name)


def test_scores_move_by_what_their_shares_move() -> None:
    shares = np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True)
    after = SCORES + np.array([0, 0, 0, 1], np.float32)
    new = np.exp(after) / np.exp(after).sum(axis=1, keepdims=True)
    expected = (shares * np.log(shares / new)).sum(axis=1)
    np.testing.assert_allclose(divergence({"y": SCORES}, {"y": after}), expected, rtol=1e-5)
    np.testing.assert_allclose(divergence({"y": shares}, {"y": new}), expected, rtol=1e-4)
    np.testing.assert_allclose(divergence({"y": SCORES}, {"y": SCORES + 3}), 0, atol=1e-6)


def test_values_move_by_their_squared_error_even_if_there_are_several() -> None:
    moved = divergence({"y": SCORES}, {"y": SCORES + 3}, classes=False)
    np.testing.assert_allclose(moved, 9 / SCORES.astype(np.float64).var(), rtol=1e-4)


def test_outputs_that_fell_apart_have_moved_farthest() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        for classes in (True, False):
            after = SCORES.copy()
            after[3, 1] = bad
            moved = divergence({"y": SCORES}, {"y": after}, classes=classes)
            assert np.isfinite(moved).all()
            assert moved.argmax() == 3
            assert moved[3] > 100 or bad == -np.inf


def test_classes_and_names_move_by_the_share_that_differs() -> None:
    before = np.array(["a", "b", "a"], dtype=object)
    np.testing.assert_array_equal(
        divergence({"y": before}, {"y": np.array(["a", "a", "a"], dtype=object)}), [0, 1, 0]
    )
