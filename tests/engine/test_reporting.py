"""From a finished search to the report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

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
            if search.within(c, offer.limit) and search.expected_drop(c) <= offer.limit
        ]
        assert offer.size_bytes == min(c.size_bytes for c in kept) + HEADER_BYTES
        is_smaller = offer.size_bytes < artifact.size_bytes
        assert is_smaller == (offer.limit > 0.01)
