"""NumPy files: ``.npz`` with named arrays, ``.npy`` with the one input."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from contextlib import closing, contextmanager
from math import prod
from tokenize import TokenError
from typing import IO, TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np

from penjing.core.errors import DataError, PenjingError
from penjing.readers.support.dataset import assemble
from penjing.readers.support.files import existing_file, has_suffix
from penjing.readers.support.fit import fit
from penjing.readers.support.labels import as_labels
from penjing.readers.support.names import name_arrays
from penjing.readers.support.ports import as_port, beside, name_inputs
from penjing.readers.support.stores import PLAIN_KINDS, ArrayStore, Spool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from penjing.core.data import Dataset
    from penjing.core.model import Port
    from penjing.core.tensors import Array

__all__ = ["Npz"]

LARGE_BYTES = 64 << 20
"""Members larger than this go to a temporary file instead of memory."""
COPY_BYTES = 4 << 20
"""Copied in pieces of this size."""
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    NotImplementedError,
)
"""What the standard library raises for damaged archives."""


class Npz:
    """Reads arrays named as the model's inputs, or ``x`` when there is one; labels ``y``.

    Files are mapped, not loaded: ``.npy`` in place, large members of ``.npz`` through a
    temporary file.  Nothing is ever unpickled.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".npz", ".npy")

    def recognises(self, source: object) -> bool:
        """Tell whether ``source`` is a path that ends in .npz or .npy."""
        return has_suffix(source, self.suffixes)

    def open(
        self,
        source: object,
        inputs: Sequence[Port],
        target: str | None,
        *,
        allow_missing: bool = False,
    ) -> Dataset:
        """Open the file for a model with these inputs; ``target`` names the labels.

        Raises:
            DataError: it is missing, damaged, or does not fit the model.
        """
        path = existing_file(source)
        if path.suffix.lower() == ".npy":
            arrays, label_name = {"x": _map_npy(path)}, None
            chosen, _ = name_arrays(str(path), ["x"], inputs, target)
        else:
            arrays, chosen, label_name = _read_npz(path, inputs, target)
        labels, labels_where = None, _called(path, label_name or "y")
        if label_name is not None:
            labels = as_labels(labels_where, arrays[label_name])
        feeds = [
            fit(
                port,
                ArrayStore(arrays[chosen[port.name]]),
                _called(path, chosen[port.name]),
                allow_missing=allow_missing,
            )
            for port in inputs
        ]
        return assemble(str(path), feeds, labels, labels_where)

    def describe(self, source: object, target: str | None) -> tuple[Port, ...]:
        """Tell what arrays there are beside the labels, as inputs of a model to be made.

        Raises:
            DataError: the file is missing or damaged, or has no such labels.
        """
        path = existing_file(source)
        if path.suffix.lower() == ".npy":
            name_inputs(str(path), ["x"], target)
            array = _map_npy(path)
            return (as_port(str(path), "x", array.shape, array.dtype),)
        with _archive(path) as (archive, members):
            ports = []
            for name in name_inputs(str(path), members, target):
                header = _look_at(path, name, archive, members)
                ports.append(as_port(_called(path, name), name, header.shape, header.dtype))
        return tuple(ports)

    def first_rows(
        self, source: object, target: str | None, rows: int
    ) -> dict[str, Array] | tuple[Array, ...]:
        """Give the first rows of every array but the labels; single numbers have none.

        Raises:
            DataError: the file is missing or damaged, or has no such labels.
        """
        path = existing_file(source)
        if path.suffix.lower() == ".npy":
            beside(str(path), ["x"], target)
            return (np.array(_map_npy(path)[:rows]),)
        with _archive(path) as (archive, members):
            return {
                name: np.array(_read_member(_called(path, name), archive, members[name])[:rows])
                for name in beside(str(path), members, target)
                if _look_at(path, name, archive, members).shape
            }


def _called(path: Path, name: str) -> str:
    return str(path) if path.suffix.lower() == ".npy" else f"{path}, array {name!r}"


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int

    @property
    def order(self) -> Literal["C", "F"]:
        return "F" if self.fortran else "C"

    @property
    def size_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def _read_header(where: str, file: IO[bytes], total_bytes: int) -> _Header:
    """Read the header of a .npy and check it against the bytes there are."""
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        header = _Header(*read(file), file.tell())
    except (ValueError, SyntaxError, TokenError) as error:
        raise DataError(
            where, f"is no array in NumPy's format, or damaged ({error})"
        ) from error
    if header.dtype.hasobject:
        raise DataError(
            where,
            "holds Python objects, which are never unpickled here",
            "save plain arrays: x.astype(np.float32) for numbers, x.astype(str) for text",
        )
    if header.dtype.kind not in PLAIN_KINDS:
        raise DataError(where, f"holds {header.dtype}, neither numbers nor strings")
    if min(header.shape, default=0) < 0:
        raise DataError(where, f"is damaged: shape {header.shape}")
    _check_length(where, header, total_bytes - header.offset)
    return header


def _map_npy(path: Path) -> Array:
    with path.open("rb") as file:
        header = _read_header(str(path), file, path.stat().st_size)
        if not header.size_bytes:  # no bytes, nothing to map
            return np.empty(header.shape, header.dtype)
        return np.memmap(path, header.dtype, "r", header.offset, header.shape, header.order)


def _read_npz(
    path: Path, inputs: Sequence[Port], target: str | None
) -> tuple[dict[str, Array], dict[str, str], str | None]:
    """Read the arrays that are needed, and say which one is what."""
    with _archive(path) as (archive, members):
        chosen, label_name = name_arrays(str(path), members, inputs, target)
        needed = {*chosen.values()} | ({label_name} if label_name else set())
        arrays = {
            name: _read_member(_called(path, name), archive, members[name])
            for name in sorted(needed)
        }
    return arrays, chosen, label_name


@contextmanager
def _archive(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Open the file and list its arrays; damage found while it is open becomes a DataError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield (
                archive,
                {info.filename.removesuffix(".npy"): info for info in archive.infolist()},
            )
    except PenjingError:
        raise
    except DAMAGE as error:
        raise DataError(
            str(path), f"is no .npz file, or damaged ({error})", "write it with np.savez"
        ) from error


def _open_member(where: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    if info.flag_bits & 1:
        raise DataError(where, "is encrypted", "write the file with np.savez")
    return archive.open(info)


def _look_at(
    path: Path, name: str, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]
) -> _Header:
    where, info = _called(path, name), members[name]
    with _open_member(where, archive, info) as file:
        return _read_header(where, file, info.file_size)


def _read_member(where: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    with _open_member(where, archive, info) as file:
        header = _read_header(where, file, info.file_size)
        if header.size_bytes <= LARGE_BYTES:
            content = file.read()
            _check_length(where, header, len(content))
            return np.ndarray(header.shape, header.dtype, content, order=header.order)
        with closing(Spool()) as spool:
            while piece := file.read(COPY_BYTES):
                spool.append(piece)
            _check_length(where, header, spool.size_bytes)
            return spool.mapped(header.dtype, header.shape, header.order)


def _check_length(where: str, header: _Header, size_bytes: int) -> None:
    if header.size_bytes != size_bytes:
        raise DataError(
            where,
            f"is damaged: shape {header.shape} of {header.dtype} needs {header.size_bytes} "
            f"bytes, {size_bytes} are there",
        )
