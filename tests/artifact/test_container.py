"""A file is intact or refused, byte by byte."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.artifact import Artifact, Limits, container, text
from penjing.artifact.container import CRITICAL, MAGIC, Kind
from penjing.core.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Sequence

ENTRY = 40
PRELUDE = 12


def build(chunks: Sequence[tuple[int, int, bytes]], version: int = 1) -> bytes:
    table = b"".join(
        struct.pack("<BBHI", kind, flags, 0, len(data)) + hashlib.sha256(data).digest()
        for kind, flags, data in chunks
    )
    head = struct.pack("<8sHH", MAGIC, version, len(chunks))
    return head + table + b"".join(data for _, _, data in chunks)


def chunks_of(artifact: Artifact) -> list[tuple[int, int, bytes]]:
    unpacked = container.unpack(artifact.to_bytes(), Limits())
    return [(kind, CRITICAL, bytes(data)) for kind, data in unpacked.items()]


def read_all(data: bytes) -> bytes:
    return Artifact.from_bytes(data).onnx_bytes()


def test_a_file_is_what_the_specification_says(small: Artifact) -> None:
    assert build(chunks_of(small)) == small.to_bytes()


def test_every_flipped_bit_is_noticed(small: Artifact) -> None:
    data = small.to_bytes()
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            with pytest.raises(FormatError):
                Artifact.from_bytes(bytes(damaged))


def test_every_cut_is_noticed(small: Artifact) -> None:
    data = small.to_bytes()
    for size in range(len(data)):
        with pytest.raises(FormatError):
            Artifact.from_bytes(data[:size])


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_random_edits_are_noticed(small: Artifact, data: st.DataObject) -> None:
    original = small.to_bytes()
    start = data.draw(st.integers(0, len(original)))
    stop = data.draw(st.integers(start, len(original)))
    edited = original[:start] + data.draw(st.binary(max_size=40)) + original[stop:]
    if edited != original:
        with pytest.raises(FormatError):
            Artifact.from_bytes(edited)


@settings(max_examples=1000, deadline=None)
@given(data=st.data())
def test_edits_behind_valid_hashes_never_crash(small: Artifact, data: st.DataObject) -> None:
    """Change bytes before compression or after it, and hash again, as an attacker would."""
    chunks = chunks_of(small)
    index = data.draw(st.integers(0, len(chunks) - 1))
    kind, flags, content = chunks[index]
    is_text = kind in (Kind.HEADER, Kind.GRAPH) and data.draw(st.booleans())
    edited = bytearray(text.decompress(content, "") if is_text else content)
    for _ in range(data.draw(st.integers(1, 3))):
        edited[data.draw(st.integers(0, len(edited) - 1))] = data.draw(st.integers(0, 255))
    chunks[index] = (kind, flags, text.compress(bytes(edited)) if is_text else bytes(edited))
    tracemalloc.start()
    try:
        with suppress(FormatError):
            read_all(build(chunks))
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 26


def test_foreign_files_are_named_as_such() -> None:
    for data, hint in (
        (b"", "empty"),
        (b"\x08\x07\x12\x07pytorch", "does not begin"),
        (MAGIC.replace(b"\r\n", b"\n") + bytes(99), "binary mode"),
    ):
        with pytest.raises(FormatError, match=hint):
            Artifact.from_bytes(data)


def test_newer_versions_are_refused_with_advice(small: Artifact) -> None:
    with pytest.raises(FormatError, match="newer penjing"):
        Artifact.from_bytes(build(chunks_of(small), version=2))


@pytest.mark.parametrize(
    ("kind", "word"), [(Kind.SIGNATURE, "signed"), (Kind.ENCRYPTION, "encrypted")]
)
def test_reserved_chunks_are_refused(small: Artifact, kind: Kind, word: str) -> None:
    with pytest.raises(FormatError, match=word):
        Artifact.from_bytes(build([*chunks_of(small), (kind, CRITICAL, b"x")]))


def test_unknown_chunks_are_skipped_unless_critical(small: Artifact) -> None:
    chunks = chunks_of(small)
    skipped = build([*chunks, (200, 0, b"a note")])
    assert read_all(skipped) == small.onnx_bytes()
    assert sum(row["bytes"] for row in Artifact.from_bytes(skipped).ledger()) == len(skipped)
    with pytest.raises(FormatError, match="does not know"):
        Artifact.from_bytes(build([*chunks, (200, CRITICAL, b"a note")]))


def test_chunks_are_complete_in_order_and_alone(small: Artifact) -> None:
    chunks = chunks_of(small)
    kind, _, data = chunks[0]
    for wrong in (
        chunks[::-1],
        [chunks[0], *chunks],
        chunks[1:],
        chunks[:2],
        [],
        [(kind, 0, data), *chunks[1:]],
        [(kind, CRITICAL | 2, data), *chunks[1:]],
    ):
        with pytest.raises(FormatError):
            Artifact.from_bytes(build(wrong))
    with pytest.raises(FormatError, match="follow"):
        Artifact.from_bytes(build(chunks) + b"\0")


def test_sections_add_up_to_the_file(small: Artifact) -> None:
    data = small.to_bytes()
    parts = container.sections(data)
    assert sum(part.size_bytes for part in parts) == len(data)
    for part in parts[1:]:
        chunk = data[part.offset : part.offset + part.size_bytes]
        assert hashlib.sha256(chunk).hexdigest() == part.sha256


def test_limits_are_kept_before_anything_is_unpacked(small: Artifact) -> None:
    data = small.to_bytes()
    for limits in (
        Limits(file=100),
        Limits(header=3),
        Limits(graph=30),
        Limits(decoded=200),
        Limits(free=0, array_ratio=1),
        Limits(free=0, text_ratio=0),
    ):
        with pytest.raises(FormatError, match="limit"):
            Artifact.from_bytes(data, limits)
