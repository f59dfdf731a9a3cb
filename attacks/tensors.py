"""Attacks on tensors and their payloads."""

from __future__ import annotations

from attacks.building import (
    AFFINE,
    BITMASK,
    BOOL,
    CODEBOOK,
    CONTEXT,
    DENSE,
    FLOAT32,
    HUGE,
    INT8,
    INT64,
    LOW_RANK,
    NM_SPARSE,
    REPEAT,
    TUCKER,
    UINT8,
    attack,
    of_tables,
    of_tensor,
    raw,
    slot,
)
from penjing.artifact.binary import varint

# ---- tensors -------------------------------------------------------------------------------


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


# ---- payloads ------------------------------------------------------------------------------


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
