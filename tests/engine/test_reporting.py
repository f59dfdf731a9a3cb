"""From a finished search to the report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from penjing.core.budget import Budget
from penjing.core.measure import Measurement
from penjing.engine import reporting

if TYPE_CHECKING:
    from collections.abc import Callable

    from penjing.engine.search import Search

HEADER_BYTES = 321


@pytest.mark.parametrize("confidence", [None, 0.95], ids=["estimate", "proof"])
def test_offers_are_the_smallest_files_that_other_limits_allow(
    searching: Callable[..., Search], confidence: float | None
) -> None:
    search = searching(max_drop=0.01, confidence=confidence)
    for trade_off in (1e-8, 1e-7, 1e-6, 3e-6, 1e-5):
        search._try(trade_off, {"sequential": False})  # noqa: SLF001  # one setting
    chosen = search.candidates[2]
    artifact: Any = SimpleNamespace(size_bytes=chosen.size_bytes + HEADER_BYTES)
    decision: Any = SimpleNamespace(chosen=chosen)
    offers = reporting._offers(search, decision, artifact)  # noqa: SLF001  # a part of the report
    assert offers
    for offer in offers:
        kept = [
            c
            for c in search.candidates
            if search.estimates.within(c, offer.limit)
            and search.estimates.upper(c) <= offer.limit
        ]
        assert offer.size_bytes == min(c.size_bytes for c in kept) + HEADER_BYTES
        is_smaller = offer.size_bytes < artifact.size_bytes
        assert is_smaller == (offer.limit > 0.01)
        assert not is_smaller or offer.size_bytes <= 0.95 * artifact.size_bytes


@pytest.mark.parametrize(
    ("budget", "drop", "warned"),
    [
        (Budget(max_size_bytes=1000), 0.88, 1),
        (Budget(max_size_bytes=1000), 0.01, 0),
        (Budget(max_size_bytes=1000, max_drop=0.9), 0.88, 0),
    ],
    ids=["no limit", "small", "limit"],
)
def test_a_large_drop_that_nobody_limited_is_warned_of(
    budget: Budget, drop: float, warned: int
) -> None:
    job: Any = SimpleNamespace(budget=budget)
    found = Measurement(drop, drop, drop, "")
    told = reporting._unlimited(job, "accuracy", found, absolute=True)  # noqa: SLF001  # a part of the report
    assert len(told) == warned
    assert not warned or "accuracy is 88 points worse" in told[0]
