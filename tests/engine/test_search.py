"""The search: what it finds, when it stops, and what it looks at."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penjing
from penjing.core.errors import UnsupportedError
from penjing.core.model import Model
from penjing.engine import search as module
from penjing.engine.candidate import pareto

if TYPE_CHECKING:
    from collections.abc import Callable

    from penjing.engine.candidate import Candidate
    from penjing.engine.search import Search


def lossy(search: Search) -> list[Candidate]:
    return [c for c in search.candidates if c.recipe.steps]


def test_the_trade_off_found_uses_the_limit_and_keeps_it(
    searching: Callable[..., Search],
) -> None:
    search = searching(max_drop=0.03, confidence=None)
    search.run()
    passing = [c for c in lossy(search) if search.estimates.within(c, 0.03)]
    best = min(passing, key=lambda c: c.size_bytes)
    assert best.size_bytes < search.candidates[0].size_bytes / 2
    assert search.estimates.drop(best) > 0.03 / 4


def test_looser_limits_give_smaller_files(searching: Callable[..., Search]) -> None:
    sizes = []
    for limit in (0.004, 0.1):
        search = searching(max_drop=limit, confidence=None)
        search.run()
        passing = [c for c in search.candidates if search.estimates.within(c, limit)]
        sizes.append(min(c.size_bytes for c in passing))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.8 * sizes[0]


def test_excess_grows_with_the_trade_off(searching: Callable[..., Search]) -> None:
    for limits in ({"max_drop": 0.02}, {"max_size_bytes": 1400}):
        search = searching(**limits)
        tried = [
            search._try(trade_off, {"sequential": False})  # noqa: SLF001  # one setting
            for trade_off in (1e-9, 1e-7, 1e-6, 1e-5)
        ]
        excesses = [search.excess(candidate) for candidate in tried]
        assert excesses == sorted(excesses), limits
        assert excesses[0] < 0 < excesses[-1], limits


@pytest.mark.parametrize(("limit", "confidence"), [(1200, None), (2000, 0.95)])
def test_a_size_limit_alone_is_used_up_but_kept(
    limit: int, confidence: float | None, searching: Callable[..., Search]
) -> None:
    search = searching(max_size_bytes=limit, confidence=confidence)
    search.run()
    best = max((c for c in search.candidates if search.fits(c)), key=lambda c: c.size_bytes)
    assert best.recipe.steps
    assert best.size_bytes > 0.85 * (limit - module.HEADER_RESERVE_BYTES)


def test_what_fits_anyway_needs_no_search(searching: Callable[..., Search]) -> None:
    search = searching(max_size_bytes=10**6)
    search.run()
    assert len(search.candidates) == 1


def test_no_drop_at_all_needs_no_search(searching: Callable[..., Search]) -> None:
    search = searching(max_drop=0.0)
    search.run()
    assert len(search.candidates) == 1


@pytest.mark.parametrize(
    "limits", [{"max_size_bytes": 1}, {"max_drop": 0.99}, {"max_drop": 1e-9}], ids=str
)
def test_impossible_and_trivial_limits_end_in_bounds(
    limits: dict[str, Any], searching: Callable[..., Search]
) -> None:
    search = searching(**limits, confidence=None)
    search.run()
    assert lossy(search)
    assert len(search.candidates) < 40


def test_out_of_time_keeps_what_there_is(searching: Callable[..., Search]) -> None:
    search = searching(max_drop=0.05, deadline=time.monotonic() - 1)
    search.run()
    assert len(lossy(search)) == 1
    assert search.candidates[0].label == "lossless"


def test_a_candidate_is_tried_once_and_named_once(searching: Callable[..., Search]) -> None:
    search = searching(max_drop=0.02)
    search.run()
    recipes = [c.recipe.to_yaml() for c in search.candidates]
    labels = [c.label for c in search.candidates]
    assert len(set(recipes)) == len(recipes)
    assert len(set(labels)) == len(labels)


def test_settings_that_print_alike_still_have_names_of_their_own(
    searching: Callable[..., Search],
) -> None:
    search = searching(max_drop=0.02)
    first, second = (
        search._try(1e-6, {"sequential": False, "damping": damping})  # noqa: SLF001  # one setting
        for damping in (0.01, 0.1)
    )
    assert first is not second
    assert first.label != second.label


def test_the_ladder_starts_with_a_step_that_holds(searching: Callable[..., Search]) -> None:
    search = searching(max_drop=0.006)
    search.run()
    safest = min(lossy(search), key=lambda c: c.judgement.divergence)
    allowed = safest.judgement.drop + safest.judgement.allowance(1600, 0.95)
    assert allowed + safest.judgement.allowance(1000, 0.95) <= 0.006


def test_searches_end_alike(searching: Callable[..., Search]) -> None:
    found = []
    for _ in range(2):
        search = searching(max_drop=0.02)
        search.run()
        found.append(
            [(c.label, c.size_bytes, c.judgement.divergence) for c in search.candidates]
        )
    assert found[0] == found[1]


def test_the_front_holds_what_nothing_beats(searching: Callable[..., Search]) -> None:
    search = searching(max_drop=0.05)
    search.run()
    front = pareto(search.candidates, search.estimates.risk)
    sizes = [c.size_bytes for c in front]
    moved = [c.judgement.divergence for c in front]
    assert sizes == sorted(sizes, reverse=True)
    assert moved == sorted(moved)
    for candidate in search.candidates:
        assert any(
            f.size_bytes <= candidate.size_bytes
            and f.judgement.divergence <= candidate.judgement.divergence
            for f in front
        )


def test_candidates_keep_no_outputs_and_no_decoded_weights(
    searching: Callable[..., Search],
) -> None:
    search = searching(max_drop=0.05)
    made = search.attempt(
        penjing.Recipe.from_dict({"steps": [{"use": "rate_distortion"}]}), "kept"
    )
    largest = 0
    for array in _arrays(made, set()):
        largest = max(largest, array.size)
    assert largest <= 24 * 16, "an array as large as the largest weight at most"


def _arrays(value: object, seen: set[int]) -> list[np.ndarray[Any, Any]]:
    """Find every array a candidate alone keeps alive; the model itself is shared."""
    if id(value) in seen:
        return []
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, Model):
        return _arrays(dict(value.changed), seen)
    found: list[np.ndarray[Any, Any]] = []
    children: list[object] = []
    if isinstance(value, dict):
        children = list(value.values())
    elif isinstance(value, list | tuple):
        children = list(value)
    elif type(value).__module__.startswith("penjing"):
        names = [*getattr(value, "__dict__", {}), *getattr(type(value), "__slots__", ())]
        children = [getattr(value, name) for name in names]
    for child in children:
        found += _arrays(child, seen)
    return found


@pytest.mark.parametrize("metric", ["agreement", "f1", "auc"])
def test_other_metrics_steer_too(metric: str, searching: Callable[..., Search]) -> None:
    search = searching(max_drop=0.05, confidence=None, metric=metric)
    search.run()
    passing = [c for c in lossy(search) if search.estimates.within(c, 0.05)]
    assert passing
    assert all(c.judgement.expected is None for c in search.candidates)
    assert min(c.size_bytes for c in passing) < search.candidates[0].size_bytes / 2


def test_a_recipe_that_finds_nothing_says_so(searching: Callable[..., Search]) -> None:
    search = searching(max_drop=0.05)
    recipe = penjing.Recipe.from_dict(
        {"steps": [{"use": "rate_distortion", "only": "nothing"}]}
    )
    with pytest.raises(UnsupportedError, match="nothing"):
        search.attempt(recipe, "recipe")
    assert len(search.candidates) == 1


def test_false_position_stays_between_what_passes_and_what_does_not() -> None:
    points = [(0.0, -2.0), (4.0, 1.0)]
    for _ in range(6):
        x = module._next(points)  # noqa: SLF001  # the rule itself
        below = max(p[0] for p in points if p[1] <= 0)
        above = min(p[0] for p in points if p[1] > 0)
        assert below < x < above
        points.append((x, x - 2.5))
    assert math.isclose(points[-1][0], 2.5, abs_tol=0.3)
    assert module._next([(0.0, -50.0)]) == math.log(module.STEEPEST)  # noqa: SLF001  # the rule itself


def test_a_candidate_that_would_overrun_the_time_is_not_begun(
    searching: Callable[..., Search],
) -> None:
    search = searching(max_drop=0.02, deadline=time.monotonic() + 1000)
    assert not search.out_of_time
    search.slowest = 2000.0
    assert search.out_of_time
    assert search.stopped
