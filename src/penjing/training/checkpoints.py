"""Training runs on disk: where one stands, and what it gave in the end.

A run is known by the digest of all that decides its result, so what lies in a folder can only
ever be taken up by the same run.  Every file begins with the digest of the rest: what was cut
off or damaged is not taken up either.  Nothing is unpickled but plain tensors and numbers.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from penjing.core.errors import OutputError, PenjingWarning
from penjing.core.files import write_file

if TYPE_CHECKING:
    from pathlib import Path

    from penjing.core.tensors import Array

UNFINISHED, FINISHED = ".checkpoint", ".trained"
PART = ".penjing-*.part"
"""What is left of a file whose writing was cut off."""
DIGEST_BYTES = 32
SEPARATOR = "\x1f"
"""Between the names of a weight and of an array: in neither."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """A folder of training runs; without one, nothing is kept."""

    folder: Path | None = None
    runs: set[str] = field(default_factory=set, compare=False)
    """Runs that were asked for."""
    told: set[str] = field(default_factory=set, compare=False)
    """What was warned of."""

    def load(self, run: str) -> dict[str, Any] | None:
        """Give the state of an unfinished run; None where there is none to go on from.

        Warns if there is one that is damaged, or there are only those of other runs.
        """
        path = self._path(run, UNFINISHED)
        content = None if path is None else self._read(path)
        if content is None:
            self._tell_of_others()
            return None
        try:
            found: dict[str, Any] = torch.load(
                io.BytesIO(content), map_location="cpu", weights_only=True
            )
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError):
            self._warn(f"{path} is no checkpoint: training begins anew")
            return None
        return found

    def save(self, run: str, state: dict[str, Any]) -> None:
        """Keep the state of an unfinished run; where that fails, warn and go on.

        What was there before stays then.
        """
        path = self._path(run, UNFINISHED)
        if path is not None:
            content = io.BytesIO()
            torch.save(state, content)
            self._write(path, content.getvalue())

    def result(self, run: str) -> dict[str, dict[str, Array]] | None:
        """Give what a finished run has left; None where there is none."""
        path = self._path(run, FINISHED)
        content = None if path is None else self._read(path)
        if content is None:
            return None
        try:
            flat = load(content)
        except SafetensorError:
            return None
        found: dict[str, dict[str, Array]] = {}
        for name, array in flat.items():
            weight, _, key = name.partition(SEPARATOR)
            found.setdefault(weight, {})[key] = array
        return found

    def finish(self, run: str, arrays: dict[str, dict[str, Array]]) -> None:
        """Keep the result of a run, and drop its state; where that fails, warn and go on."""
        path = self._path(run, FINISHED)
        if path is None:
            return
        flat = {
            f"{weight}{SEPARATOR}{key}": array
            for weight, held in arrays.items()
            for key, array in held.items()
        }
        if self._write(path, save(flat)):
            unfinished = self._path(run, UNFINISHED)
            assert unfinished is not None
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what these runs have left, and the folder if that was all."""
        if self.folder is None:
            return
        with suppress(OSError):  # it holds something else, or was never made
            for run in sorted(self.runs):
                for ending in (UNFINISHED, FINISHED):
                    (self.folder / _name(run, ending)).unlink(missing_ok=True)
            for part in sorted(self.folder.glob(PART)):
                part.unlink(missing_ok=True)
            self.folder.rmdir()

    def _path(self, run: str, ending: str) -> Path | None:
        self.runs.add(run)
        return None if self.folder is None else self.folder / _name(run, ending)

    def _tell_of_others(self) -> None:
        """Say that nothing in the folder belongs to what is asked for, if that is so."""
        if self.folder is None:
            return
        own = {_name(run, ending) for run in self.runs for ending in (UNFINISHED, FINISHED)}
        known = {
            path.name
            for ending in (UNFINISHED, FINISHED)
            for path in self.folder.glob(f"*{ending}")
        }
        if known and not known & own:
            self._warn(
                f"{self.folder} holds checkpoints of another model, or of other data or "
                "settings: they are left alone, and training begins anew. Give the same "
                "command again to go on from them, or remove the folder"
            )

    def _read(self, path: Path) -> bytes | None:
        """Read a file; None where there is none, or it is damaged."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(f"{path} cannot be read ({error.strerror}): training begins anew")
            return None
        digest, rest = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(rest).digest() != digest:
            self._warn(f"{path} is damaged or was cut off: training begins anew")
            return None
        return rest

    def _write(self, path: Path, content: bytes) -> bool:
        """Write a file; tell whether that went well, and warn, once, where it did not."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, hashlib.sha256(content).digest() + content)
        except OSError as error:
            problem = error.problem if isinstance(error, OutputError) else error.strerror
            self._warn(
                f"{path.parent}: checkpoints cannot be kept ({problem}): training goes on, but "
                "could not be taken up again. Free some space, or name another folder with "
                "--checkpoints"
            )
            return False
        return True

    def _warn(self, text: str) -> None:
        if text not in self.told:
            self.told.add(text)
            warnings.warn(text, PenjingWarning, stacklevel=2)


def _name(run: str, ending: str) -> str:
    return f"{run[:32]}{ending}"
