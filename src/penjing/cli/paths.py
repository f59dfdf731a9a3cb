"""Look at every path before any work is done: an hour of search must not end in a typo."""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from typing import TYPE_CHECKING

from penjing.core.errors import (
    DataError,
    MissingExtraError,
    ModelError,
    OutputError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MODELS = (".onnx", ".keras", ".pt2", ".penjing")
REPORT_NEEDS = ("jinja2", "matplotlib")
"""What the ``report`` extra installs."""


def check_model(path: Path, *, to_compress: bool = False) -> None:
    """Refuse a model that is not there, is a folder, or is compressed already.

    Raises:
        ModelError: it cannot be used, and why.
    """
    if not path.exists():
        raise ModelError(str(path), "no such file", "is the name spelled right?")
    if path.is_dir():
        inside = sorted(str(each) for each in path.iterdir() if each.suffix in MODELS)
        raise ModelError(
            str(path),
            "is a folder",
            f"give the file inside it: {inside[0]}" if inside else "give the name of a file",
        )
    if to_compress and path.suffix.lower() == ".penjing":
        raise ModelError(
            str(path),
            "is compressed already",
            "give the original model; 'penjing unpack' makes a plain .onnx of this one",
        )


def check_data(path: Path | None, option: str) -> None:
    """Refuse data that are not there, or are a folder.

    Raises:
        DataError: there is no such file.
    """
    if path is None:
        return
    if not path.exists():
        raise DataError(str(path), "no such file", f"it was given with {option}")
    if path.is_dir():
        raise DataError(str(path), "is a folder", f"give {option} the name of a file in it")


def checkpoints_of(output: Path, given: Path | None) -> Path:
    """Name the folder in which training is kept on the way: beside the output unless given."""
    return given or output.with_name(f"{output.name}.checkpoints")


def check_folder(path: Path | None, option: str) -> None:
    """Refuse a folder to keep files in that is a file.

    Raises:
        OutputError: it is no folder.
    """
    if path is not None and path.exists() and not path.is_dir():
        raise OutputError(str(path), "is no folder", f"give {option} the name of a folder")


def check_output(path: Path, option: str, inputs: Sequence[Path | None] = ()) -> None:
    """Refuse a place where nothing can be written, or where an input would be overwritten.

    Raises:
        OutputError: what is in the way.
    """
    if path.is_dir():
        raise OutputError(str(path), "is a folder", f"give {option} the name of a file in it")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(
            str(path), f"there is no folder {str(folder)!r}", "create it, or choose another"
        )
    for given in inputs:
        if given is not None and _same(path, given):
            raise OutputError(
                str(path), "is one of the inputs", f"give {option} another name: it stays as is"
            )
    if path.exists() and not os.access(path, os.W_OK):
        raise OutputError(str(path), "the file is read-only", f"choose another with {option}")
    if path.exists() and not path.is_file():
        return  # a device or a pipe, which is written in place
    try:
        # Permissions alone do not tell: the whole disk may be read-only, or full.
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0")
    except OSError as error:
        raise OutputError(
            str(path),
            f"the folder cannot be written to: {error.strerror or error}",
            f"choose another with {option}",
        ) from error


def check_ending(path: Path, option: str, refused: Sequence[str], kind: str) -> None:
    """Refuse a name that says something else than what will be written.

    Raises:
        OutputError: the ending is one of those ``refused``.
    """
    ending = path.suffix.lower()
    if ending in refused:
        raise OutputError(
            str(path),
            f"ends in {ending}, but {kind} would be written",
            f"give {option} a name that ends in {kind.split()[1]}",
        )


def check_report(path: Path | None, inputs: Sequence[Path | None], output: Path) -> None:
    """Refuse a report that could not be written at the end.

    Raises:
        MissingExtraError: what makes reports is not installed.
        OutputError: it cannot be written there.
    """
    if path is None:
        return
    if any(find_spec(module) is None for module in REPORT_NEEDS):
        raise MissingExtraError("report", "--report")
    check_output(path, "--report", inputs)
    if _same(path, output):
        raise OutputError(str(path), "is given for --output, too", "give --report another name")


def _same(first: Path, second: Path) -> bool:
    if first.exists() and second.exists():
        return first.samefile(second)
    return first.absolute() == second.absolute()
