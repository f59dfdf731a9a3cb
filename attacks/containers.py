"""Attacks on the outside: the container, compressed text, the header."""

from __future__ import annotations

import pickle
import struct

from attacks.building import (
    HEADER,
    attack,
    container,
    of_graph,
    of_header,
)
from penjing.artifact import text
from penjing.artifact.container import CRITICAL, MAGIC, Kind

# ---- container -----------------------------------------------------------------------------


@attack("not a .penjing")
def pickled() -> bytes:
    return pickle.dumps({"weights": [1, 2, 3]})


@attack("not a .penjing")
def zipped() -> bytes:
    return b"PK\x03\x04" + bytes(60)


@attack("version")
def from_the_future() -> bytes:
    return container((Kind.HEADER, HEADER), version=65535)


@attack("declares")
def endless_table() -> bytes:
    return struct.pack("<8sHH", MAGIC, 1, 65535) + bytes(1000)


@attack("declares")
def no_chunks() -> bytes:
    return struct.pack("<8sHH", MAGIC, 1, 0)


@attack("ends before")
def chunk_of_terabytes() -> bytes:
    entry = struct.pack("<BBHI32s", Kind.HEADER, CRITICAL, 65535, 0, bytes(32))
    return struct.pack("<8sHH", MAGIC, 1, 1) + entry


@attack("out of order")
def two_headers() -> bytes:
    return container((Kind.HEADER, HEADER), (Kind.HEADER, HEADER))


@attack("missing")
def no_weights() -> bytes:
    return container((Kind.HEADER, HEADER), (Kind.GRAPH, text.compress(bytes(3))))


@attack("signed")
def signature_that_nobody_checks() -> bytes:
    chunks = [(Kind.HEADER, HEADER), (Kind.GRAPH, text.compress(bytes(3))), (Kind.WEIGHTS, b"")]
    return container(*chunks, (Kind.SIGNATURE, bytes(64)))


@attack("critical")
def header_to_be_ignored() -> bytes:
    return container((Kind.HEADER, HEADER), flags=0)


@attack("follow")
def stowaway() -> bytes:
    return of_header(b"{}") + b"MZ\x90"


# ---- compressed text -----------------------------------------------------------------------


@attack("limit")
def zstd_bomb() -> bytes:
    """100 MB of zeros in a few kB."""
    return of_graph(text.compress(bytes(100 << 20)))


@attack("limit")
def zstd_claim() -> bytes:
    """A frame of 20 bytes that declares 2**60."""
    return of_graph(b"\xe0" + struct.pack("<Q", 1 << 60) + bytes(11))


@attack("limit")
def header_bomb() -> bytes:
    return of_graph(
        text.compress(bytes(3)), header=text.compress(b'{"a":"' + b" " * (5 << 20) + b'"}')
    )


@attack("how long")
def zstd_without_size() -> bytes:
    return of_graph(b"\x00\x58\x01\x00\x00")


@attack("decompressed")
def zstd_longer_than_declared() -> bytes:
    """Single segment, declares 3 bytes, holds a raw block of 5."""
    return of_graph(b"\x20\x03" + struct.pack("<I", 5 << 3 | 1)[:3] + b"abcde")


@attack("decompressed")
def zstd_shorter_than_declared() -> bytes:
    return of_graph(b"\x20\x63" + struct.pack("<I", 5 << 3 | 1)[:3] + b"abcde")


@attack("decompressed")
def zstd_with_appendix() -> bytes:
    return of_graph(text.compress(bytes(3)) + b"more")


@attack("decompressed")
def zstd_far_reference() -> bytes:
    """A sequence that refers to bytes before the dictionary."""
    frame = bytearray(text.compress(b"net.conv1.weight net.conv2.weight net.conv1.weight" * 2))
    frame[-2] ^= 0xFF
    frame[-3] ^= 0xFF
    return of_graph(bytes(frame))


# ---- header --------------------------------------------------------------------------------


@attack("nests")
def header_of_brackets() -> bytes:
    return of_header(b'{"a":' + b"[" * 1_000_000)


@attack("canonical")
def header_with_two_truths() -> bytes:
    return of_header(b'{"met":false,"met":true}')


@attack("JSON")
def header_not_a_number() -> bytes:
    return of_header(b'{"drop":NaN}')


@attack("JSON")
def header_long_number() -> bytes:
    return of_header(b'{"n":' + b"9" * 100_000 + b"}")


@attack("canonical")
def header_in_other_words() -> bytes:
    return of_header(b'{"n": 1}')


@attack("canonical")
def header_no_object() -> bytes:
    return of_header(b"[]")
