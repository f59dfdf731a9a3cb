"""An error names the file, the array, the row and the option, wherever it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penjing
from penjing.core.errors import DataError, PenjingError
from penjing.testing.onnx_models import mlp
from penjing.testing.onnx_zoo import draw, graph

if TYPE_CHECKING:
    from pathlib import Path

onnx = pytest.importorskip("onnx")

X = np.random.default_rng(0).normal(size=(60, 12)).astype(np.float32)
Y = np.arange(60) % 3


def refused(tmp_path: Path, model: Any, arrays: dict[str, Any], **options: Any) -> str:
    onnx.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(PenjingError) as raised:
        penjing.compress(str(tmp_path / "m.onnx"), str(tmp_path / "d.npz"), **options)
    return str(raised.value).replace(f"{tmp_path}/", "")


def test_labels_are_named_with_their_file(tmp_path: Path) -> None:
    told = refused(tmp_path, mlp(), {"x": X, "y": Y + 7})
    assert told.startswith("d.npz, array 'y': the largest is 9")


def test_missing_values_let_through_are_given_as_the_cause(tmp_path: Path) -> None:
    x = X.copy()
    x[41, 2] = np.nan
    told = refused(tmp_path, mlp(), {"x": x, "y": Y}, allow_missing=True)
    assert told.startswith("d.npz, input 'x', row 41 (counting from 0): the original model")
    assert "values are missing" in told
    assert "--allow-missing is for models that do it" in told


def test_a_metric_chosen_automatically_is_named(tmp_path: Path) -> None:
    told = refused(tmp_path, mlp(), {"x": X, "y": Y + 0.5})
    assert told.startswith("the metric rmse, chosen automatically: wrong for the task")


def test_an_index_beyond_a_table_is_found_in_the_data(tmp_path: Path) -> None:
    sizes: list[int | str] = ["n", 3]
    nodes: list[Any] = [("Gather", ["table", "x"], "y", {})]
    model = graph(nodes, {"x": ("int64", sizes)}, draw(table=(9, 4)), rank=3)
    x = np.ones((60, 3), np.int64)
    x[17, 1] = 12
    told = refused(tmp_path, model, {"x": x})
    assert told.startswith(
        "d.npz, input 'x', row 17 (counting from 0): the model looks up index 12"
    )
    assert "indices from 0 to 8" in told


def test_evaluate_does_not_offer_what_it_cannot_do(tmp_path: Path) -> None:
    onnx.save(mlp(), tmp_path / "m.onnx")
    with pytest.raises(DataError, match="give data with at least two classes; compress can"):
        penjing.evaluate(tmp_path / "m.onnx", {"x": X, "y": Y * 0})
    with pytest.raises(PenjingError, match="metric: agreement compares a model with its"):
        penjing.evaluate(tmp_path / "m.onnx", {"x": X, "y": Y}, metric="agreement")
    with pytest.raises(DataError, match="data in memory: has no labels to measure by"):
        penjing.evaluate(tmp_path / "m.onnx", X)
