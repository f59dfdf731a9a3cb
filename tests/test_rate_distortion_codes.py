"""What choosing the codes of one layer promises: less loss for the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penjing.techniques.support import rate_distortion as support
from penjing.techniques.support.rate_distortion import Problem, natural_step, quantize

if TYPE_CHECKING:
    from penjing.core.tensors import Array

ROWS, COLUMNS = 24, 70  # more than one block of columns, and of rows


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def heavy(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).laplace(size=shape)


def curvature(columns: int, seed: int = 1) -> Array:
    """Second moments of inputs that move together."""
    mixing = normal(columns, columns, seed=seed)
    mixing *= np.exp(-np.arange(columns) / columns * 5)[:, None]
    return mixing.T @ mixing + 0.01 * np.eye(columns)


def interaction(rows: int, seed: int = 2) -> Array:
    """A row metric as networks have it: a strong common direction."""
    mixing = normal(rows, rows, seed=seed)
    metric: Array = mixing.T @ mixing / rows + np.eye(rows)
    return metric


def problem(seed: int = 0, **changes: Any) -> Problem:
    return Problem(
        **{"wanted": heavy(ROWS, COLUMNS, seed=seed), "curvature": curvature(COLUMNS)} | changes
    )


def loss(stated: Problem, codes: Array, steps: Array | float) -> float:
    error = stated.wanted - codes * steps
    metric = np.eye(len(error)) if stated.metric is None else stated.metric
    return float(np.sum((metric @ error) * (error @ stated.curvature)))


def bits(stated: Problem, codes: Array, table: Array) -> float:
    used = np.abs(codes[:, : stated.weight_columns]).astype(int)
    return float(table[np.minimum(used, len(table) - 1)].sum())


def entropy(codes: Array) -> float:
    """Bits of all codes under an ideal order-0 coder."""
    _, counts = np.unique(codes, return_counts=True)
    return float(-(counts * np.log2(counts / codes.size)).sum())


def solve(stated: Problem, step: float, mu: float, **changes: Any) -> Array:
    options = {"rate_term": True, "descents": 4} | changes
    (codes,) = quantize([stated], (step, step), mu, **options)
    return codes


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rows interact": {"metric": interaction(ROWS)},
    "pruned": {"keep": np.random.default_rng(5).random((ROWS, COLUMNS)) > 0.6},
    "biased": {"biased": True},
    "all": {
        "metric": interaction(ROWS),
        "keep": np.pad(
            np.random.default_rng(5).random((ROWS, COLUMNS - 1)) > 0.6,
            ((0, 0), (0, 1)),
            constant_values=True,
        ),
        "biased": True,
    },
}


@pytest.mark.parametrize("mu", [0.0, 0.02, 0.5])
@pytest.mark.parametrize("variant", VARIANTS)
def test_descent_never_raises_the_cost(variant: str, mu: float) -> None:
    stated = problem(**VARIANTS[variant])
    steps = np.full(COLUMNS, 0.5)
    steps[-1] = 0.2 if stated.biased else 0.5
    table = support.first_bits(stated.wanted, 0.5)
    codes = solve(stated, 0.5, mu, descents=0)
    before = loss(stated, codes, steps) + mu * bits(stated, codes, table)
    first = before
    for _ in range(5):
        codes = support._descend(stated, codes, steps, mu, table)  # noqa: SLF001  # one sweep
        after = loss(stated, codes, steps) + mu * bits(stated, codes, table)
        assert after <= before * (1 + 1e-9)
        before = after
    assert before < first


@settings(max_examples=25)
@given(st.integers(0, 10**6))
@example(171)  # a code far from its place that costs few bits
def test_descent_never_raises_the_cost_of_any_problem(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(1, 20, 2)
    metric = interaction(rows, seed) if seed % 2 else None
    wanted = heavy(rows, columns, seed=seed) * 10.0 ** rng.uniform(-2, 2)
    stated = Problem(wanted, curvature(columns, seed), metric=metric)
    mu = 10.0 ** rng.uniform(-4, 1)
    step = natural_step([stated], mu, 2.0)
    codes = solve(stated, step, mu, descents=0)
    table = support.bits_of(codes)
    moved = support._descend(stated, codes, np.full(columns, step), mu, table)  # noqa: SLF001  # one sweep
    before = loss(stated, codes, step) + mu * bits(stated, codes, table)
    after = loss(stated, moved, step) + mu * bits(stated, moved, table)
    assert after <= before * (1 + 1e-9)


def test_feedback_loses_far_less_than_rounding_at_equal_bytes() -> None:
    stated = problem(wanted=heavy(48, COLUMNS))
    for step in (0.3, 0.8):
        rounded = np.rint(stated.wanted / step)
        fed = solve(stated, step, 0.0, rate_term=False, descents=2)
        assert entropy(fed) <= 1.05 * entropy(rounded)
        assert loss(stated, fed, step) < 0.4 * loss(stated, rounded, step)


def test_the_rate_term_buys_bytes_at_less_than_a_larger_step_costs() -> None:
    stated = problem(wanted=heavy(48, COLUMNS))
    with_rate = solve(stated, 0.6, 0.05)
    coarse = next(
        (step, codes)
        for step in np.linspace(0.6, 3, 60)
        for codes in [solve(stated, step, 0.0, rate_term=False)]
        if entropy(codes) <= entropy(with_rate)
    )
    assert loss(stated, with_rate, 0.6) < loss(stated, coarse[1], coarse[0])


def test_without_correlation_or_rate_it_is_rounding() -> None:
    stated = problem(curvature=np.diag(np.linspace(0.1, 3, COLUMNS)))
    for options in ({"rate_term": False}, {"rate_term": True}):
        codes = solve(stated, 0.4, 0.0, **options)
        np.testing.assert_array_equal(codes, np.rint(stated.wanted / 0.4))


def test_rows_that_do_not_interact_need_no_metric() -> None:
    for mu in (0.0, 0.05):
        without = solve(problem(), 0.5, mu)
        identity = solve(problem(metric=np.eye(ROWS)), 0.5, mu)
        assert np.mean(without != identity) < 0.001  # rounding of ties


def test_knowing_how_rows_interact_lowers_the_loss() -> None:
    metric = interaction(ROWS) + 8.0  # errors of the same sign add up
    aware, unaware = problem(metric=metric), problem()
    codes = [solve(stated, 0.5, 0.0, rate_term=False) for stated in (aware, unaware)]
    assert loss(aware, codes[0], 0.5) < 0.7 * loss(aware, codes[1], 0.5)


def test_pruned_weights_stay_zero() -> None:
    for variant in ("pruned", "all"):
        stated = problem(**VARIANTS[variant])
        codes = solve(stated, 0.3, 0.01)
        assert stated.keep is not None
        assert not codes[~stated.keep].any()
        assert codes[stated.keep].any()


def test_a_bias_has_its_own_step_and_no_rate() -> None:
    stated = problem(biased=True)
    (coarse,) = quantize([stated], (2.0, 0.001), 5.0, rate_term=True, descents=4)
    assert (coarse[:, :-1] == 0).mean() > 0.8
    assert np.all(coarse[:, -1] != 0)


def test_a_larger_price_of_bits_gives_fewer_bits() -> None:
    stated = problem()
    sizes = [entropy(solve(stated, 0.5, mu)) for mu in (0.0, 0.02, 0.2, 2.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.5 * sizes[0]


def test_tables_know_every_code() -> None:
    table = support.bits_of(np.array([0, 0, 0, 0, 5, -5]))
    assert np.isfinite(table).all()
    assert table[0] < table[5] < table[3]
    assert len(support.bits_of(np.array([10**9]))) == support.LARGEST_TABLE + 3
    assert np.isfinite(support.first_bits(np.array([1e-3, -4e3]), 1e-4)).all()


def test_the_inverse_of_a_wide_triangle_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    upper = np.linalg.cholesky(curvature(COLUMNS)).T
    whole = np.linalg.inv(upper)
    monkeypatch.setattr(support, "WIDE", 8)
    found = support._inverse_of_upper(upper)  # noqa: SLF001  # the one slow step of wide layers
    np.testing.assert_allclose(found, whole, rtol=1e-9, atol=1e-9 * np.abs(whole).max())
    assert not np.tril(found, -1).any()
