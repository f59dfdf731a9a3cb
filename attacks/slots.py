"""Attacks on slots: where the arrays of a model belong."""

from __future__ import annotations

from attacks.building import (
    DENSE,
    FLOAT32,
    INT64,
    attack,
    of_graph,
    of_tables,
    of_tensor,
    raw,
    slot,
)
from penjing.artifact import text
from penjing.artifact.binary import varint


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
