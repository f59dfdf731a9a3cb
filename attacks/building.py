"""What attacks are made of: parts of a file whose hashes are right."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penjing.artifact import text
from penjing.artifact.binary import varint
from penjing.artifact.container import CRITICAL, MAGIC, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = text.compress(b"{}")
SKELETON = b"<w>"
FLOAT32, INT64, UINT8, INT8, BOOL = 10, 7, 2, 1, 0
DENSE, AFFINE, CODEBOOK, BITMASK, NM_SPARSE, LOW_RANK, TUCKER = 0, 2, 3, 4, 5, 6, 7
RAW, CONTEXT, REPEAT = 0, 1, 15
HUGE = 1 << 40


@dataclass(frozen=True)
class Attack:
    """A hostile file, and a word that the error about it must hold."""

    build: Callable[[], bytes]
    met_by: str


ATTACKS: dict[str, Attack] = {}


def attack(met_by: str) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    """Add a file to the list."""

    def add(build: Callable[[], bytes]) -> Callable[[], bytes]:
        ATTACKS[build.__name__] = Attack(build, met_by)
        return build

    return add


def container(*chunks: tuple[int, bytes], flags: int = CRITICAL, version: int = 1) -> bytes:
    """Join chunks under valid hashes."""
    table = b"".join(
        struct.pack("<BBHI", kind, flags, 0, len(data)) + hashlib.sha256(data).digest()
        for kind, data in chunks
    )
    head = struct.pack("<8sHH", MAGIC, version, len(chunks))
    return head + table + b"".join(data for _, data in chunks)


def of_graph(frame: bytes, weights: bytes = b"", header: bytes = HEADER) -> bytes:
    """Make a file around a compressed graph."""
    return container((Kind.HEADER, header), (Kind.GRAPH, frame), (Kind.WEIGHTS, weights))


def slot(
    shape: tuple[int, ...], dtype: int = FLOAT32, flags: int = 0, extra: bytes = b""
) -> bytes:
    """Describe one slot behind the name ``w`` of the skeleton."""
    sizes = b"".join(varint(size) for size in shape)
    head = varint(2) + bytes([flags]) + extra + varint(0) + varint(1)
    return head + bytes([dtype]) + varint(len(shape)) + sizes


def of_tables(
    slots: bytes, records: bytes, weights: bytes = b"", lengths: bytes = b"", n: int = 1
) -> bytes:
    """Make a file around tables."""
    body = varint(len(SKELETON)) + SKELETON + varint(n) + slots
    return of_graph(text.compress(body + varint(len(records)) + records + lengths), weights)


def of_tensor(
    shape: tuple[int, ...], records: bytes, weights: bytes = b"", lengths: bytes = b""
) -> bytes:
    """Make a file around one float32 tensor."""
    return of_tables(slot(shape), records, weights, lengths)


def raw(dtype: int, kept: int = 0) -> bytes:
    """Describe an uncompressed array of which ``kept`` bytes of every element are there."""
    return bytes([RAW, dtype, kept])


def of_header(json: bytes) -> bytes:
    """Make a file around a header."""
    body = varint(0) + varint(0) + varint(0)
    return of_graph(text.compress(body), b"", text.compress(json))
