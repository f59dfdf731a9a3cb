"""What a bar says of the time left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from penjing.cli import progress
from penjing.cli.screen import Screen

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


def test_a_log_has_a_line_a_minute_and_the_expected_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    clock: Callable[[], float] = lambda: now  # noqa: E731  # read anew at every call
    monkeypatch.setattr("penjing.cli.progress.time.monotonic", clock)
    with progress.SearchProgress(Screen(), 0, {"training": (0.0, 1.0)}) as told:
        told("expected time", 0.0, "about 5.0 min")
        for share in (0.0, 0.05, 0.1, 0.2):
            told("training", share, f"loss {1 - share:g}")
            now += 40
    assert capsys.readouterr().err.splitlines() == [
        "Expected time: about 5.0 min",
        "training ... (0% done, loss 1)",
        "training ... (10% done, 12:00 left, loss 0.9)",
    ]
