"""Protobuf bytes of an ONNX model with short tokens in place of its arrays.

The tokens are found by following the fields of the ONNX messages, and the lengths of the
messages around them are written as they are in the full model.  So a template is made without
ever serializing the arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from penjing.core.template import FLOATS_TAG, Slot, Template

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse",
        23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Which fields of a message hold messages with arrays inside (onnx.proto)."""
RAW_DATA = 9
TOKEN_BYTES = 16
SALTS = range(1, 1000)


def token(index: int, salt: int) -> bytes:
    """Give the 16 bytes that stand for array ``index``; as floats, they are ordinary ones."""
    marks = [1.0 / 3.0 + salt, -(2.0**0.5) * salt, 5e5 + salt, index]
    return np.array(marks, "<f4").tobytes()


def tagged(raw: bytes) -> bytes:
    """Lay four floats out as ``AttributeProto.floats``."""
    return b"".join(bytes([FLOATS_TAG]) + raw[at : at + 4] for at in range(0, len(raw), 4))


def mark(salt: int) -> bytes:
    """Give the bytes that all tokens of a salt begin with."""
    return token(0, salt)[:12]


def place(skeleton: bytes, slots: Mapping[bytes, Slot], salt: int) -> Template:
    """Make a template of a serialized model with tokens in place of arrays.

    Args:
        skeleton: the model; the marks of ``salt`` stand in its tokens only.
        slots: what to put in place of each token; offsets are not looked at.
        salt: of the tokens.
    """
    marks = (mark(salt), tagged(mark(salt)))
    made = _Grower(skeleton, slots, marks).message(0, len(skeleton), "model")
    placed = []
    offset, pieces = 0, []
    for piece in made.pieces:
        if isinstance(piece, Slot):
            placed.append(replace(piece, offset=offset))
        else:
            pieces.append(piece)
            offset += len(piece)
    assert len(placed) == len(slots), "a token was not found"
    return Template(b"".join(pieces), tuple(placed))


@dataclass(slots=True)
class _Grown:
    """A message in pieces, and its length with the arrays inside."""

    pieces: list[bytes | Slot] = field(default_factory=list)
    size: int = 0

    def add(self, piece: bytes | Slot) -> None:
        self.pieces.append(piece)
        self.size += piece.size_bytes if isinstance(piece, Slot) else len(piece)

    def add_all(self, inner: _Grown) -> None:
        self.pieces.extend(inner.pieces)
        self.size += inner.size


class _Grower:
    def __init__(
        self, data: bytes, slots: Mapping[bytes, Slot], marks: tuple[bytes, bytes]
    ) -> None:
        self.data, self.slots, self.marks = data, slots, marks

    def message(self, start: int, end: int, kind: str) -> _Grown:
        """Copy a message field by field, with slots for tokens and the lengths they ask."""
        made = _Grown()
        at = kept = start
        while at < end:
            tag, body = _varint(self.data, at)
            number, wire = tag >> 3, tag & 7
            if kind == "attribute" and self.data.startswith(self.marks[1], at):
                raw = self.data[at : at + 20]
                made.add(self.data[kept:at])
                made.add(self.slots[b"".join(raw[i + 1 : i + 5] for i in range(0, 20, 5))])
                at = kept = at + 20
                continue
            if wire != 2:  # noqa: PLR2004  # length-delimited
                at = _skip(self.data, body, wire)
                continue
            length, content = _varint(self.data, body)
            stop = content + length
            slot = self.slots.get(self.data[content:stop]) if length == TOKEN_BYTES else None
            inner = FIELDS.get(kind, {}).get(number)
            if kind == "tensor" and number == RAW_DATA and slot is not None:
                made.add(self.data[kept:body] + _to_varint(slot.size_bytes))
                made.add(slot)
                kept = stop
            elif inner is not None and self._holds(content, stop):
                grown = self.message(content, stop, inner)
                made.add(self.data[kept:body] + _to_varint(grown.size))
                made.add_all(grown)
                kept = stop
            at = stop
        made.add(self.data[kept:end])
        return made

    def _holds(self, start: int, end: int) -> bool:
        return any(self.data.find(token, start, end) >= 0 for token in self.marks)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a base-128 number; give it and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:  # noqa: PLR2004  # the top bit says that more follow
            return value, at


def _to_varint(value: int) -> bytes:
    made = bytearray()
    while value >= 0x80:  # noqa: PLR2004
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _skip(data: bytes, at: int, wire: int) -> int:
    """Give the end of a value of fixed or variable length."""
    widths = {1: 8, 5: 4}
    return at + widths[wire] if wire in widths else _varint(data, at)[1]
