"""The range test finds a rate that training goes well with, and leaves no trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from penjing.training.learning_rate import HIGHEST, LOWEST

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

if TYPE_CHECKING:
    from pathlib import Path

Fit = Any
Line = Any


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_rate_is_found_that_learns(fit: Fit, optimizer: str) -> None:
    """A rate of 0 is replaced by one between the ends, and that one is told and trains."""
    done = fit(learning_rate=0, epochs=60, optimizer=optimizer)
    assert 1e-3 < done.run.learning_rate < 1
    assert done.said("looking for a learning rate") == 1
    assert done.said(f"learning rate {done.run.learning_rate:.3g}, found by a range test") == 1
    wanted = torch.tensor([1.0, -2.0, 0.5, 0.0, 0.3])
    assert torch.allclose(done.parameters, wanted, atol=0.15)


def test_the_test_leaves_no_trace(fit: Fit, line: Line) -> None:
    """Training with the rate that was found is training with that rate given."""
    found = fit(learning_rate=0)
    given = fit(learning_rate=found.run.learning_rate)
    assert torch.equal(found.parameters, given.parameters)
    again = fit(line(), learning_rate=0)
    assert again.run.learning_rate == found.run.learning_rate


def test_the_test_ends_where_the_loss_blows_up(fit: Fit, line: Line) -> None:
    """A loss that is no number from some rate on ends it; the rate is far below that."""

    def breaks(one: Line) -> bool:
        return bool(one.rates[-1] > 1e-2)

    done = fit(line(breaks=breaks), learning_rate=0, epochs=1)
    assert LOWEST <= done.run.learning_rate <= 1e-3
    assert done.run.rollbacks == 0


def test_nothing_to_learn_gives_a_rate_that_does_no_harm(fit: Fit) -> None:
    """What has been trained to the end stays good with the rate found for it."""
    line = fit(epochs=60).line
    before = line.parameters
    done = fit(line, learning_rate=0, epochs=2)
    assert LOWEST * 0.1 <= done.run.learning_rate < HIGHEST
    assert torch.allclose(done.parameters, before, atol=0.05)


def test_an_interrupted_run_keeps_its_rate(fit: Fit, line: Line, tmp_path: Path) -> None:
    """Whoever goes on from a checkpoint does not look again, and ends with the same bits."""
    whole = fit(learning_rate=0, epochs=10)

    class Interrupted(line):  # type: ignore[misc]  # a class of the conftest
        def after(self, moment: Any, pace: Any) -> None:
            super().after(moment, pace)
            if moment.step == 22:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(Interrupted(), learning_rate=0, epochs=10, at=tmp_path)
    done = fit(learning_rate=0, epochs=10, at=tmp_path)
    assert done.said("looking for a learning rate") == 0
    assert min(done.line.seen) == 20
    assert torch.equal(done.parameters, whole.parameters)
