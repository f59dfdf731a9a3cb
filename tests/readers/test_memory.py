"""Arrays in memory are taken in every customary form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from penjing.core.data import open_data
from penjing.core.errors import DataError
from penjing.core.model import Port

X = Port("input", "float32", (None, 2))
TABLE = [Port("age", "float32", (None, 1)), Port("job", "str", (None, 1))]
ROWS, LABELS = np.array([[1.0, 2], [3, 4], [5, 6]]), np.array([0, 1, 0])


def frame(**changes: Any) -> Any:
    columns = {"age": [30.0, 40, 50], "job": ["a", "b", "c"], "income": ["lo", "hi", "lo"]}
    return pd.DataFrame({**columns, **changes})


def test_equal_content_has_the_same_digest_in_every_form() -> None:
    forms: list[Any] = [
        (ROWS, LABELS),
        {"x": ROWS, "y": LABELS},
        {"input": ROWS.tolist(), "y": LABELS.tolist()},
        ({"input": ROWS.astype(np.int16)}, LABELS.astype(np.uint8)),
        (pd.DataFrame(ROWS, columns=["a", "b"]), LABELS[:, None]),
    ]
    digests = {open_data(form, [X]).digest for form in forms}
    assert len(digests) == 1
    others: list[Any] = [
        ROWS,
        (ROWS, None),
        (ROWS, LABELS[::-1].copy() * 2),
        (ROWS[:2], LABELS[:2]),
    ]
    assert all(open_data(other, [X]).digest not in digests for other in others)
    assert open_data((ROWS, LABELS.astype(float)), [X]).digest not in digests


def test_digest_depends_neither_on_pieces_nor_on_the_moment(monkeypatch: Any) -> None:
    data = open_data((ROWS, np.array(["a", "bc", "d"])), [X])
    before = data.digest
    monkeypatch.setattr("penjing.readers.support.fit.CHUNK_BYTES", 1)
    again = open_data((ROWS, np.array(["a", "bc", "d"], object)), [X])
    assert data.digest == before == again.digest
    shifted = open_data((ROWS, np.array(["ab", "c", "d"])), [X])
    assert shifted.digest != before


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        (np.array([1, 0, 2], np.uint8), "i", [1, 0, 2]),
        (np.array([True, False, True]), "i", [1, 0, 1]),
        (np.array([[1.5], [2], [3]], np.float32), "f", [1.5, 2, 3]),
        (np.array(["a", "b", "a"]), "U", ["a", "b", "a"]),
        (np.array([b"a", b"b", b"a"]), "U", ["a", "b", "a"]),
        (np.array(["a", "bb", "a"], object), "U", ["a", "bb", "a"]),
    ],
    ids=["uint8", "bool", "column", "str", "bytes", "object"],
)
def test_labels_take_one_of_three_forms(given: Any, kind: str, expected: list[Any]) -> None:
    labels = open_data((ROWS, given), [X]).labels
    assert labels is not None
    assert labels.dtype.kind == kind
    assert labels.tolist() == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0, np.nan, 2], "missing, NaN or infinite in 1 places, first in row 1"),
        (["a", "b", ""], "an empty label in 1 places, first in row 2"),
        (np.array([0, 1, 2**63], np.uint64), "too large for int64"),
        (3, "not one label per row"),
        ([[1], [2, 3], [4]], "rows differ in shape"),
        ([1, None, "a"], "Python objects"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data((ROWS, given), [X])


def test_a_frame_feeds_one_input_per_column() -> None:
    data = open_data(frame(), TABLE, "income")
    batch = data.take(np.array([1]))
    assert batch.inputs["age"].tolist() == [[40.0]]
    assert batch.inputs["job"].tolist() == [["b"]]
    assert batch.labels is not None
    assert batch.labels.tolist() == ["hi"]


@pytest.mark.parametrize(
    "ages",
    [pd.array([1, 2, 3], "Int64"), pd.Categorical([1, 2, 3]), pd.array([1, 2, 3], "Float32")],
    ids=["Int64", "categories", "Float32"],
)
def test_columns_of_pandas_types_are_read_or_refused(ages: Any) -> None:
    table = frame(age=ages, job=pd.Categorical(["a", None, "c"]))
    if isinstance(ages, pd.Categorical):
        with pytest.raises(DataError, match="column 'age': holds category"):
            open_data(table, TABLE, "income")
        return
    batch = open_data(table, TABLE, "income").take(np.arange(3))
    assert batch.inputs["age"].tolist() == [[1.0], [2.0], [3.0]]
    assert batch.inputs["job"].tolist() == [["a"], [""], ["c"]]


def test_missing_numbers_are_refused_by_column() -> None:
    table = frame(age=pd.array([1, None, 3], "Int64"))
    with pytest.raises(DataError, match="1 in column 'age', the first in row 1"):
        open_data(table, TABLE, "income")
    data = open_data(table, TABLE, "income", allow_missing=True)
    assert np.isnan(data.take(np.array([1])).inputs["age"]).all()
    with pytest.raises(DataError, match="first in row 2"):
        open_data(frame(income=[1, 0, None]), TABLE, "income")


def test_a_frame_that_does_not_match_says_how() -> None:
    with pytest.raises(DataError, match=r"has no column 'job' for the model's inputs\n"):
        open_data(frame()[["age", "income"]], TABLE, "income")
    twice = frame().set_axis(["age", "age", "income"], axis=1)
    with pytest.raises(DataError, match="more than one column named 'age'"):
        open_data(twice, TABLE, "income")


def test_labels_come_from_one_place() -> None:
    with pytest.raises(DataError, match="labels beside the inputs"):
        open_data((frame(), LABELS), TABLE, "income")


def test_an_input_called_y_is_no_label() -> None:
    assert open_data({"y": ROWS}, [Port("y", "float32", (None, 2))]).labels is None


@pytest.mark.parametrize("source", [5, [1, 2], None, (1, 2, 3), ("a", "b")])
def test_what_is_no_data_is_refused(source: Any) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        open_data(source, [X])
