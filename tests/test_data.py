"""Rows are divided at random, with a seed, and no row serves two purposes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.core.data import MOST_CALIBRATION, Part, open_data, split
from penjing.core.errors import DataError
from penjing.core.model import Port

if TYPE_CHECKING:
    from pathlib import Path

X = [Port("x", "float32", (None, 2))]


def rows(count: int, first: int = 0) -> Any:
    x = np.arange(first, first + 2 * count, dtype=np.float32).reshape(count, 2)
    return open_data((x, np.arange(count)), X)


@given(st.integers(3, 400), st.integers(0, 5))
def test_the_three_parts_are_all_rows_once(count: int, seed: int) -> None:
    found = split(rows(count), None, None, seed)
    parts = (found.calibration, found.search, found.certification)
    together = np.concatenate([part.rows for part in parts])
    np.testing.assert_array_equal(np.sort(together), np.arange(count))
    assert all(len(part) for part in parts)
    assert all((np.diff(part.rows) > 0).all() for part in parts)
    again = split(rows(count), None, None, seed)
    np.testing.assert_array_equal(again.search.rows, found.search.rows)


def test_the_seed_decides() -> None:
    first, second = (split(rows(100), None, None, seed).search.rows for seed in (0, 1))
    assert first.tolist() != second.tolist()


def test_calibration_is_bounded() -> None:
    found = split(rows(20_000), None, None, 0)
    assert len(found.calibration) == MOST_CALIBRATION
    assert found.describe() == "1024 rows calibrate, 7590 search, 11386 certify"


def test_given_sets_serve_their_purpose_whole() -> None:
    data, calibration, test = rows(10), rows(4, 100), rows(5, 200)
    found = split(data, calibration, test, 0)
    assert (len(found.calibration), len(found.search), len(found.certification)) == (4, 10, 5)
    assert found.certification.dataset is test
    only_test = split(data, None, test, 0)
    assert len(only_test.calibration) + len(only_test.search) == 10


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_rows_are_refused(count: int) -> None:
    with pytest.raises(DataError, match=f"has {count} rows?, too few to divide into 3 parts"):
        split(rows(count), None, None, 0)
    assert len(split(rows(count), rows(1, 50), rows(1, 60), 0).search) == count


@pytest.mark.parametrize(
    ("calibration", "test", "purposes"),
    [
        (0, None, "data and for --calibration"),
        (None, 0, "data and for --test"),
        (9, 9, "calib"),
    ],
)
def test_one_set_for_two_purposes_is_refused(
    calibration: int | None, test: int | None, purposes: str
) -> None:
    given_sets = [None if first is None else rows(9, first) for first in (calibration, test)]
    with pytest.raises(DataError, match=f"the same rows for --{purposes}"):
        split(rows(9), given_sets[0], given_sets[1], 0)


def test_a_part_is_read_in_pieces() -> None:
    part = Part(rows(10), np.array([1, 4, 5, 9]))
    pieces = list(part.batches(3))
    assert [piece.rows for piece in pieces] == [3, 1]
    together = np.concatenate([piece.inputs["x"] for piece in pieces])
    np.testing.assert_array_equal(together[:, 0], [2, 8, 10, 18])
    assert part.labels is not None
    assert part.labels.tolist() == [1, 4, 5, 9]
    assert Part(open_data(np.zeros((3, 2)), X), np.array([0])).labels is None


def test_unknown_files_are_refused_with_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "d.xls").touch()
    with pytest.raises(DataError, match=r"(?s)no kind of data file known.*\.csv, \.npy, \.npz"):
        open_data(tmp_path / "d.xls", X)
    with pytest.raises(DataError, match="no such file"):
        open_data(str(tmp_path / "e.xls"), X)
