"""Writing what took long to make: a full disk must not lose it."""

from __future__ import annotations

from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING

from penjing.core.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable


def save_or_rescue(save: Callable[[Path], None], path: Path, rescue_name: str) -> None:
    """Save a result; where that fails, save it in the folder for temporary files.

    Args:
        save: writes a file, whole or not at all.
        path: where it is to be.
        rescue_name: of the file in the other folder.

    Raises:
        OutputError: it is not where it was to be; the hint says where it is, if anywhere.
    """
    try:
        save(path)
    except OutputError as error:
        rescued = Path(gettempdir()) / rescue_name
        try:
            save(rescued)
        except OutputError:
            raise error from None
        hint = f"the result was saved as {rescued} instead: copy it from there"
        raise OutputError(error.where, error.problem, hint) from error
