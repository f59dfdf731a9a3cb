"""Arrays that may be larger than memory, and temporary files to build them in."""

from __future__ import annotations

import errno
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from penjing.core.errors import DataError, OutputError
from penjing.core.training import to_numpy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from penjing.core.tensors import Array

PLAIN_KINDS = "biufUS"
"""Kinds of arrays that hold numbers or text."""


class Store(Protocol):
    """An array of which parts can be read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of all axes."""

    @property
    def is_text(self) -> bool:
        """Whether it holds strings rather than numbers."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type; ``object`` for strings."""

    def read(self, rows: Array | slice, axis: int) -> Array:
        """Read these indices of one axis; strings come as an object array of ``str``."""


@dataclass(frozen=True, slots=True, eq=False)
class ArrayStore:
    """An array in memory or mapped from a file.  Objects in it are all ``str``."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of all axes."""
        return tuple(self.array.shape)

    @property
    def is_text(self) -> bool:
        """Whether it holds strings rather than numbers."""
        return self.array.dtype.kind in "OUS"

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type; ``object`` for strings."""
        return np.dtype(object) if self.is_text else self.array.dtype

    def read(self, rows: Array | slice, axis: int) -> Array:
        """Read these indices of one axis; strings come as an object array of ``str``."""
        # numpy.take would first copy an array that is not C-contiguous as a whole.
        part = np.asarray(
            self.array[(*(slice(None),) * axis, rows)] if self.shape else self.array
        )
        if part.dtype.kind == "S":
            part = np.char.decode(part, "utf-8")
        return part.astype(object) if part.dtype.kind == "U" else part


@dataclass(frozen=True, slots=True, eq=False)
class TextStore:
    """Strings mapped from a file, row by row: UTF-8 and the offsets where each one ends."""

    text: Array
    """(bytes,) uint8."""
    ends: Array
    """(strings + 1,) int64, beginning with 0."""
    shape: tuple[int, ...]
    """(rows,) or (rows, columns)."""

    @property
    def is_text(self) -> bool:
        """Whether it holds strings rather than numbers: it does."""
        return True

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of what is read: ``object``."""
        return np.dtype(object)

    def read(self, rows: Array | slice, axis: int) -> Array:
        """Read these rows as an object array of ``str``; ``axis`` is 0."""
        assert axis == 0
        index = np.arange(self.shape[0], dtype=np.int64)[rows]
        columns = prod(self.shape[1:])
        cells = (index[:, None] * columns + np.arange(columns)).ravel()
        starts, ends = self.ends[cells].tolist(), self.ends[cells + 1].tolist()
        found = np.empty(len(cells), object)
        for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
            found[place] = self.text[start:end].tobytes().decode()
        return found.reshape(len(index), *self.shape[1:])


class Spool:
    """A temporary file that grows, then is mapped; the system deletes it with its last user.

    Close it after use: what was mapped stays.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        self.size_bytes = 0

    def append(self, data: bytes) -> None:
        """Write behind what is there.

        Raises:
            OutputError: the disk for temporary files is full.
        """
        with _explaining_full_disk():
            self._file.write(data)
        self.size_bytes += len(data)

    def mapped(
        self, dtype: np.dtype[Any], shape: tuple[int, ...], order: Literal["C", "F"] = "C"
    ) -> Array:
        """Give the content as a read-only array."""
        assert self.size_bytes == prod(shape) * dtype.itemsize
        with _explaining_full_disk():
            self._file.flush()
        if not self.size_bytes:  # no bytes, nothing to map
            return np.empty(shape, dtype)
        return np.memmap(self._file, dtype, "r", shape=shape, order=order)

    def close(self) -> None:
        """Close the file; arrays mapped from it stay valid."""
        self._file.close()


class TextSpool:
    """Strings on their way to a ``TextStore``."""

    def __init__(self) -> None:
        self._text, self._ends = Spool(), Spool()
        self._ends.append(np.zeros(1, np.int64).tobytes())

    def append(self, strings: Iterable[str]) -> None:
        """Write behind what is there."""
        encoded = [string.encode() for string in strings]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        self._ends.append((self._text.size_bytes + np.cumsum(lengths)).tobytes())
        self._text.append(b"".join(encoded))

    def stored(self, shape: tuple[int, ...]) -> TextStore:
        """Give the content as strings of this shape."""
        text = self._text.mapped(np.dtype(np.uint8), (self._text.size_bytes,))
        return TextStore(text, self._ends.mapped(np.dtype(np.int64), (prod(shape) + 1,)), shape)

    def close(self) -> None:
        """Close the files; what was stored stays valid."""
        self._text.close()
        self._ends.close()


@contextmanager
def _explaining_full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise OutputError(
            tempfile.gettempdir(),
            "no room left for a temporary copy of the data",
            "set TMPDIR to a folder with more room",
        ) from error


def is_tensor(value: object) -> bool:
    """Tell whether this is a tensor of PyTorch; nothing is imported to find out."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def as_array(where: str, value: Any) -> Array:
    """Make an array of what a user gave; only numbers and strings are let in.

    Raises:
        DataError: it holds something else.
    """
    if is_tensor(value):
        # NumPy has no bfloat16; float32 holds all of its numbers.
        narrow = str(value.dtype) == "torch.bfloat16"
        value = to_numpy(value.float() if narrow else value)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(where, "is no array: its rows differ in shape") from error
    if array.dtype.kind in PLAIN_KINDS:
        return array
    if array.dtype.kind == "O" and array.ndim:
        odd = next((item for item in array.flat if not isinstance(item, str)), None)
        if odd is None and all(isinstance(item, str) for item in array.flat):
            return array
        raise DataError(
            where,
            f"holds Python objects such as {odd!r}",
            "give an array of numbers, or of strings with '' where one is missing",
        )
    raise DataError(where, f"holds {array.dtype}, neither numbers nor strings")
