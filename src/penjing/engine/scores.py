"""From scores of the original and the compressed model to evidence."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from penjing.core.errors import DataError
from penjing.engine.evidence import Bounded, Resampled, ZeroOne, no_samples

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from penjing.core.tensors import Array

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]


def paired(
    original: Array,
    compressed: Array,
    *,
    zero_one: bool | None = None,
    higher_is_better: bool = True,
    seed: int = 0,
) -> ZeroOne | Bounded:
    """Make evidence of per-sample scores in [0, 1] whose mean is the metric.

    Args:
        original: Scores of the original model, (n,).
        compressed: Scores of the compressed model on the same samples in the same order, (n,).
        zero_one: Whether scores can only be 0 or 1, a fact about the metric.  By default true
            for Boolean and integer arrays, false for floats.
        higher_is_better: False where a larger score is worse.
        seed: Orders the samples for betting.

    Raises:
        DataError: no samples, different lengths, not numbers, NaN, or outside [0, 1].
    """
    before = _numbers(original, "scores of the original model", 0.0)
    after = _numbers(compressed, "scores of the compressed model", 0.0)
    _check_pairs(before, after)
    if zero_one is None:
        zero_one = original.dtype.kind in "biu" and compressed.dtype.kind in "biu"
    differences = before - after if higher_is_better else after - before
    return from_differences(differences, zero_one=zero_one, seed=seed)


def from_differences(
    differences: Array, *, zero_one: bool | None = None, seed: int = 0
) -> ZeroOne | Bounded:
    """Make evidence of what each sample loses, (n,), in [-1, 1]; see ``paired``.

    Raises:
        DataError: no samples, not numbers, NaN, or outside [-1, 1]; with ``zero_one``,
            anything but -1, 0 and 1.
    """
    if zero_one is None:
        zero_one = differences.dtype.kind in "biu"
    values = _numbers(differences, "differences", -1.0)
    if not zero_one:
        return Bounded(values, seed)
    if not np.isin(values, (-1.0, 0.0, 1.0)).all():
        raise DataError(
            "scores",
            "a right-or-wrong metric gave scores other than 0 and 1",
            "pass zero_one=False for graded scores",
        )
    return ZeroOne(int((values > 0).sum()), int((values < 0).sum()), len(values))


def mean_drop(
    original: Array,
    compressed: Array,
    *,
    higher_is_better: bool,
    relative: bool = True,
    seed: int = 0,
) -> Resampled:
    """Make approximate evidence of unbounded per-sample scores whose mean is the metric.

    Args:
        original: Scores such as squared errors of the original model, (n,).
        compressed: Scores of the compressed model on the same samples in the same order, (n,).
        higher_is_better: False where a larger score is worse.
        relative: Divide the drop by the original's mean, so that 0.005 stands for 0.5 %.
        seed: Of the resamples.

    Raises:
        DataError: no samples, different lengths, not numbers, not finite, or a relative drop
            from an original of 0.
    """
    before = _numbers(original, "scores of the original model", -math.inf)
    after = _numbers(compressed, "scores of the compressed model", -math.inf)
    _check_pairs(before, after)
    sign = 1.0 if higher_is_better else -1.0

    def statistic(indices: Integers) -> Floats:
        mean = before[indices].mean(axis=1)
        lost: Floats = sign * (mean - after[indices].mean(axis=1))
        # Nothing lost is no drop, even from an original of 0.
        return lost / np.where(lost == 0, 1.0, np.abs(mean)) if relative else lost

    return Resampled(statistic, len(before), seed)


def metric_drop(drop: Callable[[Integers], float], samples: int, *, seed: int = 0) -> Resampled:
    """Make approximate evidence of a metric that is no mean of scores, such as F1 or AUC.

    ``drop`` maps indices (n,) of samples, some repeated, to the drop of the metric on them.
    It is called about 2,200 times.
    """

    def statistic(indices: Integers) -> Floats:
        return np.array([drop(row) for row in indices])

    return Resampled(statistic, samples, seed)


def _check_pairs(before: Floats, after: Floats) -> None:
    if before.shape != after.shape:
        raise DataError(
            "scores",
            f"{before.size} of the original but {after.size} of the compressed model",
            "score both on the same samples in the same order",
        )


def _numbers(values: Array, where: str, lowest: float) -> Floats:
    """Check and convert to float64: one axis, at least one entry, finite, in range."""
    if values.ndim != 1 or values.dtype.kind not in "biuf":
        raise DataError(where, f"need one number per sample, got {values.dtype}{values.shape}")
    if not values.size:
        raise no_samples()
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        bad = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise DataError(
            where,
            f"sample {bad} scores {numbers[bad]}",
            "remove it or repair the model's output",
        )
    highest = math.inf if math.isinf(lowest) else 1.0
    if numbers.min() < lowest or numbers.max() > highest:
        raise DataError(
            where,
            f"must lie in [{lowest:g}, 1], got [{numbers.min():g}, {numbers.max():g}]",
            "use mean_drop for unbounded metrics",
        )
    return numbers
