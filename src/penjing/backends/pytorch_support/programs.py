"""Files of torch.export (``.pt2``), read without running anything that they hold.

``torch.export.load`` unpickles, evaluates text, and loads compiled libraries.  Here the
archive is read by the standard library against a closed list of entries, the JSON in it is
checked place by place, tensors are made of their bytes, and only then does
``torch._export.serde`` put the program together.  Sample inputs, which are pickled, are not
looked at.  The format: https://docs.pytorch.org/docs/stable/export/pt2_archive.html
"""

from __future__ import annotations

import json
import logging
import re
import struct
import sys
import zipfile
import zlib
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from penjing.backends.pytorch_support.calling import FAILURES, reason
from penjing.backends.pytorch_support.grammar import Refused
from penjing.core.errors import ModelError, PenjingError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARKS = {"archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little"}
MODEL = "models/model.json"
WEIGHTS, CONSTANTS = "data/weights/", "data/constants/"
CONFIGS = {
    WEIGHTS: f"{WEIGHTS}model_weights_config.json",
    CONSTANTS: f"{CONSTANTS}model_constants_config.json",
}
PAYLOADS = {
    WEIGHTS: re.compile(r"weight_[0-9]{1,9}"),
    CONSTANTS: re.compile(r"tensor_[0-9]{1,9}"),
}
IGNORED = re.compile(
    r"\.data/(?:version|serialization_id)|version|data/sample_inputs/model\.pt"
    r"|extra/[A-Za-z0-9_-]{1,80}\.(?:txt|json|md|ya?ml)"
)
"""What is never read."""
LONGEST_JSON = 64 << 20
LARGEST = 1 << 48
"""Of sizes: beyond, arithmetic of tensors overflows."""
MOST_SHARED = 32
"""How many times over the tensors of a file may use the same bytes."""
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    NotImplementedError,
    UnicodeDecodeError,
)
"""What the standard library raises for damaged archives."""
HINT = "give the module in Python: penjing.compress(module, data)"
AGAIN = "save it with torch.export.save() of PyTorch 2.9 or later, or " + HINT


class Archive:
    """The entries of a file, all of them on the list."""

    def __init__(self, file: zipfile.ZipFile, size_bytes: int) -> None:
        self.file = file
        self.entries: dict[str, zipfile.ZipInfo] = {}
        infos = file.infolist()
        root = infos[0].filename.split("/")[0] if infos else ""
        for info in infos:
            self._add(info, root)
        if sum(info.file_size for info in infos) > size_bytes:
            raise Refused("its entries claim more bytes than the file has")
        for name, wanted in MARKS.items():
            if self.read(name, len(wanted) + 2).strip() != wanted:
                raise Refused(f"entry {name!r} does not say {wanted.decode()!r}")

    def _add(self, info: zipfile.ZipInfo, root: str) -> None:
        name = info.filename.removeprefix(f"{root}/")
        shown = info.filename[:120]
        folder, _, last = name.rpartition("/")
        pattern = PAYLOADS.get(f"{folder}/")
        known = name in {*MARKS, MODEL, *CONFIGS.values()} or IGNORED.fullmatch(name)
        if root in {"", ".", ".."} or info.filename != f"{root}/{name}":
            raise Refused(f"entry {shown!r} lies outside the folder {root!r}")
        if not known and not (pattern and pattern.fullmatch(last)):
            raise Refused(f"entry {shown!r} is not accepted")
        if name in self.entries:
            raise Refused(f"entry {shown!r} is there twice")
        if info.flag_bits & 1 or info.compress_type != zipfile.ZIP_STORED:
            raise Refused(f"entry {shown!r} is compressed or encrypted")
        if info.file_size != info.compress_size:
            raise Refused(f"entry {shown!r} claims a size that it does not have")
        self.entries[name] = info

    def read(self, name: str, most: int) -> bytes:
        """Give an entry of at most so many bytes.

        Raises:
            Refused: it is missing, or longer.
        """
        if name not in self.entries:
            raise Refused(f"entry {name!r} is missing")
        if self.entries[name].file_size > most:
            raise Refused(f"entry {name!r} is longer than {most} bytes")
        return self.file.read(self.entries[name])

    def json(self, name: str) -> Any:
        """Parse an entry.

        Raises:
            Refused: it is no JSON.
        """
        text = self.read(name, LONGEST_JSON)
        try:
            return json.loads(text.decode())
        except (ValueError, RecursionError) as error:
            raise Refused(f"entry {name!r} is no JSON: {error}") from error


def load(path: Path) -> Any:
    """Read an exported program; no code in it is run.

    Raises:
        ModelError: it holds more than a program of PyTorch's operators, or is damaged.
        UnsupportedError: this version of PyTorch reads other files.
    """
    where = str(path)
    try:
        from torch._export.serde.serialize import SerializedArtifact, deserialize
        from torch._export.verifier import SpecViolationError

        from penjing.backends.pytorch_support.schemas import exported_program
    except ImportError as error:
        raise UnsupportedError(
            where, f"cannot be read by PyTorch {torch.__version__}", HINT
        ) from error
    try:
        with path.open("rb") as raw, zipfile.ZipFile(raw) as file:
            archive = Archive(file, path.stat().st_size)
            model = exported_program(archive.json(MODEL))
            weights, constants = (_tensors(archive, folder) for folder in CONFIGS)
    except Refused as error:
        raise ModelError(where, f"is no plain exported program: {error}", AGAIN) from error
    except PenjingError:
        raise
    except DAMAGE as error:
        raise ModelError(
            where, f"is no exported program, or damaged: {error}", AGAIN
        ) from error
    parts: list[Any] = [json.dumps(model).encode(), weights, constants, b""]
    try:
        with _silent():
            program = deserialize(SerializedArtifact(*parts))
            program.module()  # it is made anew of the graph, and fails here if at all
    except (*FAILURES, SpecViolationError, SyntaxError) as error:
        raise ModelError(where, f"cannot be put together: {reason(error)}", AGAIN) from error
    return program


def _tensors(archive: Archive, folder: str) -> dict[str, torch.Tensor]:
    from penjing.backends.pytorch_support.schemas import payloads

    flat: dict[str, bytearray] = {}
    found, size_bytes = {}, 0
    for name, entry in payloads(archive.json(CONFIGS[folder])).items():
        payload, meta = entry["path_name"], entry["tensor_meta"]
        if entry["use_pickle"] or not PAYLOADS[folder].fullmatch(payload) or meta is None:
            raise Refused(f"{name!r} is pickled, or is no tensor")
        if payload not in flat:
            flat[payload] = bytearray(archive.read(folder + payload, sys.maxsize))
        tensor = _strided(name, flat[payload], meta)
        size_bytes += tensor.numel() * tensor.itemsize
        if entry["is_param"]:
            trained = meta["requires_grad"] and tensor.dtype.is_floating_point
            tensor = torch.nn.Parameter(tensor, requires_grad=trained)
        found[name] = tensor
    if size_bytes > MOST_SHARED * sum(map(len, flat.values())):
        raise Refused("its tensors share their bytes too many times")
    return found


def _strided(name: str, data: bytearray, meta: dict[str, Any]) -> torch.Tensor:
    """Look at bytes as a tensor, which must lie within them."""
    from torch._export.serde.serialize import deserialize_scalar_type

    try:
        dtype = deserialize_scalar_type(meta["dtype"])
        sizes = [each["as_int"] for each in meta["sizes"]]
        strides = [each["as_int"] for each in meta["strides"]]
        offset = meta["storage_offset"]["as_int"]
    except KeyError as error:
        raise Refused(f"the type or shape of {name!r} is not known") from error
    count, rest = divmod(len(data), dtype.itemsize)
    last = offset + sum((size - 1) * step for size, step in zip(sizes, strides, strict=False))
    empty = 0 in sizes
    if (
        rest
        or len(sizes) != len(strides)
        or min([offset, *sizes, *strides]) < 0
        or max([offset, *sizes, *strides]) > LARGEST
        or prod(size for size in sizes if size) > LARGEST
        or (not empty and (last >= count or prod(sizes) > count))
    ):
        raise Refused(f"the shape {sizes} of {name!r} does not fit its bytes")
    if empty:
        return torch.empty(sizes, dtype=dtype)
    raw = torch.frombuffer(data, dtype=torch.uint8)
    values = raw != 0 if dtype == torch.bool else raw.view(dtype)
    return values.as_strided(sizes, strides, offset)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what torch.export notes of a file from the user."""
    import warnings

    logger = logging.getLogger("torch._export.serde.serialize")
    before = logger.level
    try:
        logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
