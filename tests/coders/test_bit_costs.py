"""What the context coder tells a quantizer about its costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from penjing.coders.context_arithmetic import ContextArithmetic

if TYPE_CHECKING:
    from penjing.core.tensors import Array

SHAPES = [(40, 60), (32, 16, 3, 3), (2000,)]


def weights(shape: tuple[int, ...], sigma: float) -> Array:
    rng = np.random.default_rng(0)
    scale = np.exp(0.5 * rng.standard_normal((shape[0],) + (1,) * (len(shape) - 1)))
    return np.rint(sigma * scale * rng.standard_normal(shape)).astype(np.int16)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sigma", [0.5, 3, 50])
def test_estimate_is_close_to_what_is_written(shape: tuple[int, ...], sigma: float) -> None:
    array = weights(shape, sigma)
    written = len(ContextArithmetic().encode(array)) * 8
    assert ContextArithmetic().estimated_bits(array) == pytest.approx(
        written, rel=0.003, abs=12
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sigma", [0.5, 3])
def test_costs_of_the_coded_values_add_up(shape: tuple[int, ...], sigma: float) -> None:
    array = weights(shape, sigma)
    maximum = int(np.abs(array).max())
    table, classes = ContextArithmetic().bit_costs(array, maximum)
    total = table[classes, array + maximum].sum()
    assert classes.shape == array.shape
    assert total == pytest.approx(ContextArithmetic().estimated_bits(array), rel=0.06)


def test_every_class_is_a_distribution() -> None:
    table, _ = ContextArithmetic().bit_costs(weights((40, 60), 0.7), 200)
    assert table.shape == (256, 401)
    assert (np.exp2(-table).sum(axis=1) <= 1 + 1e-9).all()
    assert (np.exp2(-table).sum(axis=1) >= 0.95).all()


def test_average_costs_follow_the_frequencies() -> None:
    array = weights((60, 80), 1)
    average = ContextArithmetic().bit_costs(array, 3).average
    shares = np.array([(array == value).mean() for value in range(-3, 4)])
    np.testing.assert_allclose(average, -np.log2(shares), atol=0.5)


def test_zeros_are_cheap_where_all_is_zero() -> None:
    costs = ContextArithmetic().bit_costs(np.zeros((30, 40), np.int8), 2).average
    assert costs[2] < 0.05
    assert costs[1] > 4
