"""Patience: held-out rows say when to end, and which state to end with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.core.errors import ConfigError

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

if TYPE_CHECKING:
    from pathlib import Path

Fit = Any
Line = Any
PATIENT = {"patience": 2, "epochs": 200, "schedule": "constant", "rows": 60}


def held_out_losses(notes: list[str]) -> list[float]:
    """Read the held-out losses that were told."""
    return [float(note.rpartition("held-out loss ")[2]) for note in notes if ", held" in note]


def test_training_ends_once_nothing_is_gained(fit: Fit) -> None:
    """It ends after as many epochs without a better loss, with the best state."""
    done = fit(**PATIENT)
    losses = held_out_losses(done.notes)
    best = int(np.argmin(losses))
    assert len(losses) < 200
    assert len(losses) == best + 1 + 2
    assert done.said("with the best state by held-out loss") == 1
    exact = fit(**{**PATIENT, "epochs": best + 1})
    assert torch.equal(done.parameters, exact.parameters)


def test_a_tenth_is_held_out(fit: Fit) -> None:
    """Training sees nine tenths of the rows; which ones, the seed says."""
    seen = [
        {value for values in fit(**PATIENT, seed=seed).line.seen.values() for value in values}
        for seed in (0, 0, 1)
    ]
    assert [len(each) for each in seen] == [60, 60, 60]  # the held-out ones are measured
    runs = [fit(**{**PATIENT, "epochs": 1, "batch_size": 18}, seed=seed) for seed in (0, 0, 1)]
    trained = [{v for step in range(3) for v in run.line.seen[step]} for run in runs]
    assert [len(each) for each in trained] == [54, 54, 54]
    assert trained[0] == trained[1] != trained[2]


def test_without_patience_all_rows_are_trained_on(fit: Fit) -> None:
    """Nothing is held out."""
    done = fit(epochs=1, rows=60)
    assert len({v for step in range(4) for v in done.line.seen[step]}) == 60
    assert not held_out_losses(done.notes)


def test_states_before_the_last_form_do_not_count(fit: Fit) -> None:
    """Where half of the run has to pass first, no earlier state is the result."""
    done = fit(**{**PATIENT, "epochs": 60}, settled=0.5)
    assert len(held_out_losses(done.notes)) >= 30
    (told,) = [note for note in done.notes if "that of step" in note]
    assert int(told.rpartition(" ")[2]) >= 0.5 * done.run.steps


def test_a_checkpoint_remembers_the_best_state(fit: Fit, line: Line, tmp_path: Path) -> None:
    """Interrupted between the best state and the end, it still ends with the best."""
    whole = fit(**PATIENT)
    last = max(whole.line.seen)
    with pytest.raises(KeyboardInterrupt):
        fit(line(fails_at=last), **PATIENT, at=tmp_path)
    done = fit(**PATIENT, at=tmp_path)
    assert min(done.line.seen) > 0
    assert torch.equal(done.parameters, whole.parameters)


def test_one_row_cannot_be_divided(fit: Fit) -> None:
    """It is refused, with what to do."""
    with pytest.raises(ConfigError, match="needs rows to hold out") as info:
        fit(patience=1, rows=1)
    assert info.value.where == "training.patience"
