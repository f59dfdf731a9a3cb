"""A model that computes something else in training than in use is not trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.core.errors import UnsupportedError

torch = pytest.importorskip("torch", reason="training needs PyTorch")

from penjing.training.agreement import agrees  # noqa: E402  # imports PyTorch

if TYPE_CHECKING:
    from penjing.core.tensors import Array

VALUES = np.linspace(-2, 3, 60, dtype=np.float32).reshape(20, 3)
LABELS = np.arange(200) % 7
WITH_GAPS = np.array([1, np.nan, np.inf, 2], np.float32)


class Predicts:
    """Stands for a backend: gives these arrays."""

    def __init__(self, **arrays: Array) -> None:
        self.arrays = arrays

    def predict(self, _native: object, _inputs: object) -> dict[str, Array]:
        return self.arrays


def compare(expected: Array, found: Array) -> None:
    backend: Any = Predicts(first=VALUES, y=expected)
    made = {"first": torch.from_numpy(VALUES.copy()), "y": torch.from_numpy(found.copy())}
    agrees(backend, None, lambda *_args: made, {"x": VALUES})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        (VALUES, VALUES * np.float32(1.0005)),
        (VALUES * 1e-9, VALUES * np.float32(1e-9)),
        (LABELS, np.where(np.arange(200) == 3, 0, LABELS)),
        (WITH_GAPS, WITH_GAPS),
        (VALUES[:0], VALUES[:0]),
        (0 * VALUES, 0 * VALUES),
    ],
    ids=["rounding", "faint", "near_tie", "not_finite", "empty", "zero"],
)
def test_what_differs_by_rounding_only_agrees(expected: Array, found: Array) -> None:
    compare(expected, found)


@pytest.mark.parametrize(
    ("expected", "found", "how"),
    [
        (VALUES, VALUES * np.float32(1.01), "off by"),
        (VALUES * 1e-9, VALUES * np.float32(2e-9), "off by"),
        (LABELS, np.roll(LABELS, 1), "200 of 200 values differ"),
        (WITH_GAPS, WITH_GAPS[[0, 2, 1, 3]], "not finite"),
        (VALUES, VALUES[:-1], r"shape is \[19, 3\] instead of \[20, 3\]"),
        (VALUES, np.where(VALUES < 3, VALUES, np.float32(np.nan)), "off by nan"),
    ],
    ids=["values", "faint", "labels", "not_finite", "shape", "nan"],
)
def test_any_other_difference_is_named(expected: Array, found: Array, how: str) -> None:
    with pytest.raises(UnsupportedError, match=f"output 'y'.*{how}"):
        compare(expected, found)
