"""Files on disk: read whole, written whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from penjing.core.errors import FormatError, ModelError, OutputError


def as_path(given: object) -> str | Path:
    """Refuse what is no path.

    Raises:
        ModelError: it is something else, such as the bytes of a file.
    """
    if isinstance(given, str | Path):
        return given
    if isinstance(given, os.PathLike):
        return Path(given)
    raise ModelError(
        "file",
        f"must be the path of a .penjing or .onnx file, got {type(given).__name__}",
        "write it to a file first",
    )


def read_file(path: str | Path, most: int) -> bytes:
    """Read a file of at most ``most`` bytes.

    Raises:
        ModelError: There is no such file, or it cannot be read.
        FormatError: It is longer than that.
    """
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(most + 1) if size <= most else b""
    except OSError as error:
        raise ModelError(str(path), f"cannot be read: {error.strerror}") from error
    if max(size, len(data)) > most:
        raise FormatError(str(path), f"is larger than the limit of {most:,} bytes")
    return data


def write_file(path: str | Path, data: bytes) -> None:
    """Write a file under a temporary name beside the final one, then rename it.

    Whatever happens before the rename, an existing file stays as it was and no part of the
    new one is left behind.

    Raises:
        OutputError: The folder or the file cannot be written, or the disk is full.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():
            _write_in_place(target, data)
            return
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(None, "the file is read-only")
        _write_beside(target, data)
    except OSError as error:
        raise OutputError(
            str(path),
            f"cannot be written: {error.strerror or error}",
            "choose another place with -o; nothing was changed",
        ) from error


def _write_in_place(target: Path, data: bytes) -> None:
    """Write to a device or a pipe, which a rename would replace."""
    with target.open("wb") as file:
        file.write(data)


def _write_beside(target: Path, data: bytes) -> None:
    part = target.with_name(f".penjing-{secrets.token_hex(6)}.part")
    try:
        with part.open("xb") as file:
            if target.exists():
                part.chmod(target.stat().st_mode & 0o777)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
