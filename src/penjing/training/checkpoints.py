"""Training runs on disk: where one stands, and what it gave in the end.

A run is known by the digest of all that decides its result, so what lies in a folder can only
ever be taken up by the same run.  Nothing is unpickled but plain tensors and numbers.
"""

from __future__ import annotations

import io
import pickle
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from penjing.core.errors import OutputError
from penjing.core.files import write_file

if TYPE_CHECKING:
    from pathlib import Path

    from penjing.core.tensors import Array

UNFINISHED, FINISHED = ".checkpoint.pt", ".safetensors"
SEPARATOR = "\x1f"
"""Between the names of a weight and of an array: in neither."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """A folder of training runs; without one, nothing is kept."""

    folder: Path | None = None
    runs: set[str] = field(default_factory=set, compare=False)
    """Runs that were asked for."""

    def load(self, run: str) -> dict[str, Any] | None:
        """Give the state of an unfinished run; None where there is none, or it is damaged."""
        path = self._path(run, UNFINISHED)
        if path is None or not path.exists():
            return None
        try:
            found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError):
            return None  # cut off while it was written: the run begins again
        return found

    def save(self, run: str, state: dict[str, Any]) -> None:
        """Keep the state of an unfinished run.

        Raises:
            OutputError: it cannot be written; what was there before stays.
        """
        path = self._path(run, UNFINISHED)
        if path is not None:
            content = io.BytesIO()
            torch.save(state, content)
            _write(path, content.getvalue())

    def result(self, run: str) -> dict[str, dict[str, Array]] | None:
        """Give what a finished run has left; None where there is none."""
        path = self._path(run, FINISHED)
        if path is None or not path.exists():
            return None
        try:
            flat = load_file(path)
        except (SafetensorError, OSError):
            return None
        found: dict[str, dict[str, Array]] = {}
        for name, array in flat.items():
            weight, _, key = name.partition(SEPARATOR)
            found.setdefault(weight, {})[key] = array
        return found

    def finish(self, run: str, arrays: dict[str, dict[str, Array]]) -> None:
        """Keep the result of a run, and drop its state.

        Raises:
            OutputError: it cannot be written.
        """
        path = self._path(run, FINISHED)
        if path is None:
            return
        flat = {
            f"{weight}{SEPARATOR}{key}": array
            for weight, held in arrays.items()
            for key, array in held.items()
        }
        _write(path, save(flat))
        unfinished = self._path(run, UNFINISHED)
        assert unfinished is not None
        unfinished.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what these runs have left, and the folder if that was all."""
        for run in sorted(self.runs):
            for ending in (UNFINISHED, FINISHED):
                path = self._path(run, ending)
                if path is not None:
                    path.unlink(missing_ok=True)
        if self.folder is not None:
            with suppress(OSError):  # it holds something else, or was never made
                self.folder.rmdir()

    def _path(self, run: str, ending: str) -> Path | None:
        self.runs.add(run)
        return None if self.folder is None else self.folder / f"{run[:32]}{ending}"


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)
    except OSError as error:
        problem = error.problem if isinstance(error, OutputError) else str(error.strerror)
        raise OutputError(
            str(path),
            f"the checkpoint cannot be kept: {problem}",
            "free some space, or name another folder with --checkpoints",
        ) from error
