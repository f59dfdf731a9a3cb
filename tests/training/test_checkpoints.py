"""What is kept of a run: it goes on to the same bits, and nothing else is ever taken up."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.core.errors import OutputError, PenjingWarning, TrainingError

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.filterwarnings("ignore:the loss is no number:penjing.PenjingWarning"),
    pytest.mark.filterwarnings("ignore:the GPU's memory is full:penjing.PenjingWarning"),
]
Fit = Any
Line = Any
LONG: dict[str, Any] = {"epochs": 20, "rows": 200, "optimizer": "adamw", "weight_decay": 0.1}


def names(folder: Path) -> list[str]:
    """List a folder."""
    return sorted(path.name for path in folder.iterdir())


def interrupted(fit: Fit, line: Line, folder: Path, step: int = 110, **more: Any) -> None:
    """Press Ctrl-C at a step."""
    with pytest.raises(KeyboardInterrupt):
        fit(line(fails_at=step), at=folder, **{**LONG, **more})


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("step", [0, 30, 110])
def test_an_interrupted_run_goes_on_to_the_same_bits(
    fit: Fit, line: Line, tmp_path: Path, optimizer: str, step: int
) -> None:
    """Ctrl-C leaves the last good state, whenever it comes; from there it is the same run."""
    whole = fit(**{**LONG, "optimizer": optimizer})
    interrupted(fit, line, tmp_path, step, optimizer=optimizer)
    assert names(tmp_path) == ["run.checkpoint"]
    done = fit(**{**LONG, "optimizer": optimizer}, at=tmp_path)
    assert step - 25 < min(done.line.seen) <= step
    assert torch.equal(done.parameters, whole.parameters)


def test_rollbacks_and_pieces_are_remembered(fit: Fit, line: Line, tmp_path: Path) -> None:
    """A rate that was made smaller, and a batch that was cut, stay so."""

    def breaks(one: Line) -> bool:
        return bool(one.rates[-1] > 0.04)

    changes = {**LONG, "schedule": "constant"}
    whole = fit(line(breaks=breaks, memory=8), **changes)
    assert whole.run.rollbacks == 1
    with pytest.raises(KeyboardInterrupt):
        fit(line(breaks=breaks, memory=8, fails_at=110), **changes, at=tmp_path)
    done = fit(line(), **changes, at=tmp_path)
    assert min(done.line.rates) == max(done.line.rates) == pytest.approx(0.015)
    assert max(done.line.sizes) <= 8
    assert torch.equal(done.parameters, whole.parameters)


def test_a_run_that_fails_leaves_no_checkpoint(fit: Fit, line: Line, tmp_path: Path) -> None:
    """Going on from where a loss is always NaN would lead nowhere."""
    with pytest.raises(TrainingError):
        fit(line(breaks=lambda _: True), at=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_another_run_is_not_taken_up_and_that_is_said(
    fit: Fit, line: Line, tmp_path: Path
) -> None:
    """A folder of another model or other settings is left alone, with a note."""
    whole = fit(**LONG)
    interrupted(fit, line, tmp_path, key="another")
    with pytest.warns(PenjingWarning, match="of another model, or of other data or settings"):
        done = fit(**LONG, at=tmp_path)
    assert min(done.line.seen) == 0
    assert torch.equal(done.parameters, whole.parameters)
    assert names(tmp_path) == ["another.checkpoint"]


@pytest.mark.parametrize("harm", ["cut", "flipped", "empty", "other"])
def test_a_damaged_checkpoint_is_not_taken_up_and_that_is_said(
    fit: Fit, line: Line, tmp_path: Path, harm: str
) -> None:
    """Wherever it is damaged: training begins anew."""
    whole = fit(**LONG)
    interrupted(fit, line, tmp_path)
    path = tmp_path / "run.checkpoint"
    content = path.read_bytes()
    half = len(content) // 2
    harmed = {
        "cut": content[:half],
        "flipped": content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :],
        "empty": b"",
        "other": b"what somebody else keeps under this name",
    }
    path.write_bytes(harmed[harm])
    with pytest.warns(PenjingWarning, match="is damaged or was cut off: training begins anew"):
        done = fit(**LONG, at=tmp_path)
    assert min(done.line.seen) == 0
    assert torch.equal(done.parameters, whole.parameters)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    """Even one whose digest is right is refused if it holds more than tensors and numbers."""
    import hashlib
    import pickle

    from penjing.training.checkpoints import Checkpoints

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (tmp_path.joinpath("ran").write_text, ("x",))

    content = pickle.dumps({"step": Evil()}, protocol=2)
    path = tmp_path / "run.checkpoint"
    path.write_bytes(hashlib.sha256(content).digest() + content)
    with pytest.warns(PenjingWarning, match="is no checkpoint"):
        assert Checkpoints(tmp_path).load("run") is None
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_does_not_end_training(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said once, and the run goes on to its result."""
    from penjing.training import checkpoints, loop

    def full(path: Path, _: bytes) -> None:
        raise OutputError(str(path), "cannot be written: No space left on device")

    monkeypatch.setattr(checkpoints, "write_file", full)
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        done = fit(**LONG, at=tmp_path)
    assert ["No space left" in str(each.message) for each in caught] == [True]
    assert torch.equal(done.parameters, fit(**LONG).parameters)


def test_results_are_kept_until_they_are_cleared(tmp_path: Path) -> None:
    """A finished run gives its arrays again; clearing leaves what belongs to others."""
    from penjing.training.checkpoints import Checkpoints

    folder = tmp_path / "kept"
    first = Checkpoints(folder)
    first.save("run", {"step": 3})
    held: dict[str, dict[str, Any]] = {
        "layer": {"values": np.arange(4.0, dtype=np.float32)},
        "a.b": {"x": np.ones(())},
    }
    first.finish("run", held)
    assert names(folder) == ["run.trained"]
    again = Checkpoints(folder)
    found = again.result("run")
    assert found is not None
    assert found.keys() == held.keys()
    np.testing.assert_array_equal(found["layer"]["values"], held["layer"]["values"])
    (folder / "notes.txt").write_text("mine")
    (folder / ".penjing-0a0a.part").write_bytes(b"cut off")
    Checkpoints(folder).save("another", {"step": 1})
    again.clear()
    assert names(folder) == ["another.checkpoint", "notes.txt"]


def test_nothing_is_left_of_an_empty_folder(tmp_path: Path) -> None:
    """Where all was ours, the folder goes, too; where there is none, nothing happens."""
    from penjing.training.checkpoints import Checkpoints

    kept = Checkpoints(tmp_path / "kept")
    kept.save("run", {"step": 3})
    kept.clear()
    assert names(tmp_path) == []
    kept.clear()
    nowhere = Checkpoints()
    nowhere.save("run", {"step": 3})
    nowhere.finish("run", {})
    assert nowhere.load("run") is None
    assert nowhere.result("run") is None
    nowhere.clear()
