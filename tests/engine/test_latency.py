"""Timing: whatever slows the machine for a while slows both models alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from penjing.engine import latency
from penjing.engine.latency import interleaved

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.model import Port
    from penjing.core.tensors import Array


class Fake:
    """Notes its turns, and takes as long as it is told on a clock of its own."""

    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()

    def __init__(self, name: str, turns: list[str], clock: list[float], takes: float) -> None:
        self.name, self.turns, self.clock, self.takes = name, turns, clock, takes

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.turns.append(self.name)
        # The machine gets ten times slower half-way.
        self.clock[0] += self.takes * (10 if len(self.turns) > 60 else 1)
        return dict(inputs)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(latency, "MOST_RUNS", 100)
    return now


def test_models_take_turns_at_being_first(clock: list[float]) -> None:
    turns: list[str] = []
    both = Fake("a", turns, clock, 0.002), Fake("b", turns, clock, 0.001)
    interleaved(both, {}, seconds=0.5)
    timed = turns[2 * latency.WARM_UP :]
    pairs = ["".join(timed[i : i + 2]) for i in range(0, len(timed), 2)]
    assert len(pairs) >= latency.FEWEST_RUNS
    assert set(pairs[::2]) == {"ab"}
    assert set(pairs[1::2]) == {"ba"}


def test_a_slow_spell_does_not_change_the_ratio(clock: list[float]) -> None:
    turns: list[str] = []
    both = Fake("a", turns, clock, 0.003), Fake("b", turns, clock, 0.001)
    before, after, speed_up = interleaved(both, {}, seconds=1.0)
    assert speed_up.value == pytest.approx(3)
    assert before.high > 2 * before.low
    assert before.unit == after.unit == "ms"
    assert before.value / after.value == pytest.approx(3, rel=0.5)


def test_slow_models_run_a_few_times_and_quick_ones_not_for_ever(clock: list[float]) -> None:
    for takes, count in ((100.0, latency.FEWEST_RUNS), (1e-9, latency.MOST_RUNS)):
        turns: list[str] = []
        both = Fake("a", turns, clock, takes), Fake("b", turns, clock, takes)
        interleaved(both, {"x": np.zeros(1)}, seconds=1.0)
        assert len(turns) == 2 * (latency.WARM_UP + count)
