"""Arrays fit the model exactly, are repaired where that is safe, or are refused clearly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from penjing.core.data import open_data
from penjing.core.errors import DataError
from penjing.core.model import Port
from penjing.readers.support import fit

PIXELS = Port("image", "uint8", (None, 1, 4, 4))
FLOATS = Port("x", "float32", (None, 3))
COLOURS = Port("image", "float32", (None, 3, 8, 8))


def taken(source: object, port: Port, **options: Any) -> Any:
    data = open_data(source, [port], **options)
    return data.take(np.arange(len(data))).inputs[port.name]


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64", "bool"])
def test_whole_numbers_reach_an_integer_input(dtype: str) -> None:
    x = np.ones((2, 1, 4, 4), dtype)
    found = taken(x, PIXELS)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, x)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "float64", "bool"])
def test_numbers_reach_a_float_input(dtype: str) -> None:
    assert taken(np.ones((2, 3), dtype), FLOATS).dtype == np.float32


def test_a_missing_axis_of_size_one_is_added() -> None:
    x = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    np.testing.assert_array_equal(taken(x, PIXELS), x[:, None])
    column = Port("age", "float32", (None, 1))
    assert taken(np.zeros(5), column).shape == (5, 1)


def test_samples_may_be_on_another_axis() -> None:
    state = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    ports = [Port("state", "float32", (2, None, 4), 1), Port("sr", "int64", (), None)]
    data = open_data({"state": state, "sr": 16000, "y": [0, 1, 0]}, ports)
    batch = data.take(np.array([0, 2]))
    np.testing.assert_array_equal(batch.inputs["state"], state[:, [0, 2]])
    assert batch.inputs["sr"] == 16000
    assert batch.inputs["sr"].shape == ()
    assert len(data) == 3
    flat = open_data({"state": state[0]}, [Port("state", "float32", (1, None, 4), 1)])
    np.testing.assert_array_equal(flat.take(np.array([1])).inputs["state"], state[:1, 1:2])


@pytest.mark.parametrize(
    ("x", "port", "message"),
    [
        (
            np.zeros((2, 8, 8, 3)),
            COLOURS,
            r"channels come last here: .*transpose\(0, 3, 1, 2\)",
        ),
        (
            np.zeros((2, 3, 8, 8)),
            Port("image", "float32", (None, 8, 8, 3)),
            r"channels come first here: .*transpose\(0, 2, 3, 1\)",
        ),
        (
            np.zeros((5, 2, 8)),
            Port("state", "float32", (2, None, 8), 1),
            r"rows come first here: use x.transpose\(1, 0, 2\)",
        ),
        (
            np.zeros((5, 7)),
            Port("x", "float32", (None, 9)),
            r"an array of shape \(rows, 9\)",
        ),
        (np.zeros((2, 192)), COLOURS, r"reshape\(-1, 3, 8, 8\)"),
        (np.zeros((2, 4, 4)), COLOURS, r"\(2, 4, 4\).*\(rows, 3, 8, 8\)"),
        (np.zeros((3, 8, 8)), COLOURS, "without a sample axis"),
        (np.zeros((0, 3)), FLOATS, "has no rows"),
        (np.zeros((2, 0)), Port("x", "float32", (None, None)), "is empty"),
        (np.full((2, 1, 4, 4), 0.5), PIXELS, r"32 of the values.*row 0.*\n.*x \* 255"),
        (np.full((2, 1, 4, 4), 256), PIXELS, "uint8, which cannot hold"),
        (np.full((2, 1, 4, 4), -1), PIXELS, "uint8, which cannot hold"),
        (np.full((2, 3), 1e300), FLOATS, "float32, which cannot hold"),
        (np.full((2, 3), 2.5), Port("x", "int64", (None, 3)), r"np\.round\(x \* 255\)"),
        (np.full((2, 3), 2), Port("x", "bool", (None, 3)), "bool, which cannot hold"),
        (
            np.full((2, 3), "a"),
            FLOATS,
            "holds strings, but input 'x' of the model takes float32",
        ),
        (np.zeros((2, 3)), Port("x", "str", (None, 3)), r"holds numbers \(float64\).* str"),
        (np.full((2, 3), 1j), FLOATS, "neither numbers nor strings"),
        (np.full((2, 3), None), FLOATS, "Python objects such as None"),
        (np.zeros((2, 3)), Port("x", "bfloat16", (None, 3)), "no array holds bfloat16"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_hint(x: Any, port: Port, message: str) -> None:
    with pytest.raises(DataError, match=rf"(?s)array 'x'.*{message}"):
        open_data(x, [port])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_counted(bad: float, monkeypatch: Any) -> None:
    monkeypatch.setattr(fit, "CHUNK_BYTES", 64)
    x = np.zeros((100, 3))
    x[[41, 41, 70], [0, 2, 1]] = bad
    with pytest.raises(DataError, match=r"array 'x'.*: 3 of the values, the first in row 41"):
        open_data(x, [FLOATS])


def test_nan_passes_where_missing_values_are_allowed() -> None:
    x = np.array([[np.nan, 1, 2]])
    np.testing.assert_array_equal(taken(x, FLOATS, allow_missing=True), x.astype(np.float32))
    with pytest.raises(DataError):
        taken(np.array([[np.inf, 1, 2]]), FLOATS, allow_missing=True)


@given(arrays(np.int64, (6, 3), elements=st.integers(-300, 300)))
def test_a_cast_to_integers_is_exact_or_refused(x: Any) -> None:
    port = Port("x", "int8", (None, 3))
    try:
        found = taken(x, port)
    except DataError:
        assert x.min() < -128 or x.max() > 127
    else:
        np.testing.assert_array_equal(found, x)


def test_rows_must_be_as_many_everywhere() -> None:
    x = np.zeros((4, 3))
    with pytest.raises(DataError, match="4 in array 'x', 3 in the labels"):
        open_data((x, [1, 2, 3]), [FLOATS])
    ports = [Port("a", "float32", (None, 3)), Port("b", "float32", (None, 3))]
    with pytest.raises(DataError, match="4 in array 'a', 3 in array 'b'"):
        open_data({"a": x, "b": x[:3]}, ports)
    with pytest.raises(DataError, match="no input that holds samples"):
        open_data({"a": 1}, [Port("a", "int64", (), None)])


def test_one_row_is_enough() -> None:
    assert len(open_data(np.zeros((1, 3)), [FLOATS])) == 1
