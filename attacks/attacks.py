"""Hostile ``.penjing`` files with valid hashes; README.md says what they try."""

from __future__ import annotations

import hashlib
import pickle
import struct
import sys
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


# ---- parts of a file ------------------------------------------------------------------------


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


# ---- container ------------------------------------------------------------------------------


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


# ---- compressed text ------------------------------------------------------------------------


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


# ---- header ---------------------------------------------------------------------------------


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


# ---- slots ----------------------------------------------------------------------------------


@attack("declared")
def skeleton_past_the_end() -> bytes:
    return of_graph(text.compress(varint(100) + b"abc"))


@attack("declared")
def slots_without_end() -> bytes:
    return of_graph(text.compress(varint(0) + varint(1 << 60)))


@attack("too many bytes")
def integer_without_end() -> bytes:
    return of_graph(text.compress(b"\xff" * 200))


@attack("shortest")
def integer_with_padding() -> bytes:
    return of_graph(text.compress(b"\x80\x00\x00\x00"))


@attack("declared")
def slot_outside() -> bytes:
    return of_tables(b"\x7f" + slot((1,))[1:], bytes([DENSE]) + raw(FLOAT32))


@attack("declared")
def name_outside() -> bytes:
    body = b"\x02\x00\x03\x01" + bytes([FLOAT32, 0])
    return of_tables(body, bytes([DENSE]) + raw(FLOAT32))


@attack("UTF-8")
def name_of_bytes() -> bytes:
    body = b"\x02\x40\x02\xff\xfe" + bytes([FLOAT32, 0])
    return of_tables(body, bytes([DENSE]) + raw(FLOAT32))


@attack("two tensors")
def one_name_for_two() -> bytes:
    second = b"\x00" + slot((1,))[1:]
    return of_tables(slot((1,)) + second, (bytes([DENSE]) + raw(FLOAT32)) * 2, n=2)


@attack("come before")
def slot_of_a_later_tensor() -> bytes:
    return of_tables(b"\x02\x20\x00", b"")


@attack("flags")
def slot_of_unknown_form() -> bytes:
    return of_tables(slot((1,), flags=9), bytes([DENSE]) + raw(FLOAT32))


@attack("element type")
def slot_of_unknown_type() -> bytes:
    return of_tables(slot((1,), dtype=99), bytes([DENSE]) + raw(FLOAT32))


@attack("only float32")
def integers_laid_out_as_floats() -> bytes:
    return of_tables(slot((1,), dtype=INT64, flags=1), bytes([DENSE]) + raw(INT64))


@attack("turned")
def turned_in_thirds() -> bytes:
    return of_tables(slot((4, 4), flags=16, extra=varint(3)), bytes([DENSE]) + raw(FLOAT32))


@attack("declared")
def shape_of_many_dimensions() -> bytes:
    return of_tensor((1,) * 200, bytes([DENSE]) + raw(FLOAT32))


@attack("limit")
def shape_that_overflows() -> bytes:
    """The product of the sizes is 2**64, which is 0 in 64-bit arithmetic."""
    return of_tensor((1 << 16,) * 4, bytes([DENSE]) + raw(FLOAT32))


@attack("limit")
def shape_hidden_behind_zero() -> bytes:
    """No elements, but sizes that overflow on the way."""
    return of_tensor((0, *((1 << 31,) * 8)), bytes([DENSE]) + raw(FLOAT32))


# ---- tensors --------------------------------------------------------------------------------


@attack("limit")
def gigabytes_of_zeros() -> bytes:
    return of_tensor((1 << 28,), bytes([DENSE]) + raw(FLOAT32))


@attack("limit")
def many_slots_of_one_tensor() -> bytes:
    """Each slot is a megabyte more in the filled model."""
    body = slot((1 << 18,)) + b"\x00\x20\x00" * 1000
    return of_tables(body, bytes([DENSE]) + raw(FLOAT32), n=1001)


@attack("does not exist")
def unknown_encoding() -> bytes:
    return of_tensor((4,), b"\x63")


@attack("deep")
def nested_without_end() -> bytes:
    one = bytes([CODEBOOK, 1])
    return of_tensor((1,), (one + raw(UINT8)) * 1000)


@attack("does not exist")
def unknown_coder() -> bytes:
    return of_tensor((4,), bytes([DENSE, 14, FLOAT32]), lengths=b"\x00")


@attack("does not take")
def coder_of_integers_for_floats() -> bytes:
    return of_tensor((4,), bytes([DENSE, CONTEXT, FLOAT32]), lengths=b"\x00")


@attack("view")
def floats_seen_as_bits() -> bytes:
    return of_tensor((4,), bytes([DENSE, CONTEXT | 2 << 4, FLOAT32]), lengths=b"\x00")


@attack("is int64")
def integers_in_a_slot_of_floats() -> bytes:
    return of_tensor((4,), bytes([DENSE]) + raw(INT64))


@attack("where only")
def codes_of_another_type() -> bytes:
    return of_tensor((4,), bytes([AFFINE, 0]) + raw(INT64) + raw(FLOAT32) + raw(5))


@attack("flags")
def steps_of_unknown_form() -> bytes:
    return of_tensor((4,), bytes([AFFINE, 255]) + raw(INT8) + raw(FLOAT32) + raw(5))


@attack("do not fit")
def steps_that_broadcast_outwards() -> bytes:
    return of_tensor((4,), bytes([AFFINE, 2, 1, 3]) + raw(INT8) + raw(FLOAT32) + raw(5))


@attack("outside its table")
def index_outside() -> bytes:
    records = bytes([CODEBOOK, 2]) + raw(UINT8, 1) + bytes([DENSE]) + raw(FLOAT32)
    return of_tensor((4,), records, b"\x00\x01\x02\xff")


@attack("mask")
def mask_that_keeps_more() -> bytes:
    records = bytes([BITMASK, 2, DENSE]) + raw(FLOAT32) + raw(UINT8, 1)
    return of_tensor((8,), records, b"\xff")


@attack("mask")
def mask_with_bits_behind_the_end() -> bytes:
    records = bytes([BITMASK, 2, DENSE]) + raw(FLOAT32) + raw(UINT8, 1)
    return of_tensor((3,), records, b"\x03")


@attack("needs rows")
def groups_of_none() -> bytes:
    return of_tensor((4, 4), bytes([NM_SPARSE, 0, 0, DENSE]) + raw(FLOAT32) + raw(UINT8))


@attack("outside its group")
def position_outside() -> bytes:
    records = bytes([NM_SPARSE, 4, 1, DENSE]) + raw(FLOAT32) + raw(UINT8, 1)
    return of_tensor((1, 4), records, b"\x04")


@attack("do not rise")
def one_position_for_two() -> bytes:
    records = bytes([NM_SPARSE, 4, 2, DENSE]) + raw(FLOAT32) + raw(UINT8, 1)
    return of_tensor((1, 4), records, b"\x02\x02")


@attack("declared")
def rank_above_the_matrix() -> bytes:
    records = bytes([LOW_RANK]) + varint(HUGE) + (bytes([DENSE]) + raw(FLOAT32)) * 2
    return of_tensor((4, 4), records)


@attack("real")
def factors_of_integers() -> bytes:
    return of_tensor((4, 4), bytes([LOW_RANK, 1]) + (bytes([DENSE]) + raw(INT8)) * 2)


@attack("rank is zero")
def core_of_nothing() -> bytes:
    return of_tensor((4, 4), bytes([TUCKER, 0, 0]) + (bytes([DENSE]) + raw(FLOAT32)) * 3)


# ---- payloads -------------------------------------------------------------------------------


@attack("declared")
def payload_past_the_end() -> bytes:
    return of_tensor((4,), bytes([DENSE]) + raw(FLOAT32, 4), b"short")


@attack("declared")
def more_bytes_than_an_element_has() -> bytes:
    return of_tensor((4,), bytes([DENSE]) + raw(FLOAT32, 9), bytes(36))


@attack("left over")
def payload_left_over() -> bytes:
    return of_tensor((4,), bytes([DENSE]) + raw(FLOAT32), b"surplus")


@attack("left over")
def records_left_over() -> bytes:
    return of_tensor((4,), bytes([DENSE]) + raw(FLOAT32) + b"\x00")


@attack("left over")
def lengths_left_over() -> bytes:
    return of_tensor((4,), bytes([DENSE]) + raw(FLOAT32), lengths=b"\x00")


@attack("come before")
def repetition_of_the_future() -> bytes:
    return of_tensor((4,), bytes([DENSE, REPEAT, 0]))


@attack("another shape")
def repetition_of_another_shape() -> bytes:
    return of_tensor((4,), bytes([AFFINE, 0]) + raw(INT8) + raw(FLOAT32) + bytes([REPEAT, 0]))


@attack("truth")
def truth_of_two() -> bytes:
    return of_tables(slot((2,), dtype=BOOL), bytes([DENSE]) + raw(BOOL, 1), b"\x01\x02")


@attack("not int8")
def numbers_shifted_out_of_their_type() -> bytes:
    """Zeros of the context coder, shifted to 300."""
    records = bytes([AFFINE, 0, CONTEXT | 1 << 4, INT8, 1]) + varint(600)
    return of_tensor((4,), records + raw(FLOAT32) + raw(5), lengths=b"\x00")


if __name__ == "__main__":
    sys.stdout.buffer.write(ATTACKS[sys.argv[1]].build())
