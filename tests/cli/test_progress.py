"""What a bar says of the time left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from penjing.cli import progress

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(("limit_s", "said"), [(None, "15:00 left"), (400.0, "5:00 left")])
def test_time_left_is_no_more_than_the_limit_leaves(
    limit_s: float | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    clock: Callable[[], float] = lambda: now  # noqa: E731  # read anew at every call
    monkeypatch.setattr("penjing.cli.progress.time.monotonic", clock)
    left = progress._TimeLeft(limit_s)  # noqa: SLF001
    assert not str(left)
    now += 100
    left.estimate(0.1)
    assert str(left) == said
