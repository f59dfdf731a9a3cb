"""Paths given by users."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path

from penjing.core.errors import DataError


def has_suffix(source: object, suffixes: tuple[str, ...]) -> bool:
    """Tell whether ``source`` is a path with one of these endings, in any case."""
    return isinstance(source, (str, PathLike)) and str(fspath(source)).lower().endswith(
        suffixes
    )


def existing_file(source: object) -> Path:
    """Give the path of a file that can be read.

    Raises:
        DataError: it is not there, is a folder, or may not be read.
    """
    assert isinstance(source, (str, PathLike))
    path = Path(str(fspath(source)))
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise DataError(
            str(path),
            f"cannot be read: {error.strerror}",
            f"the working folder is {Path.cwd()}",
        ) from error
