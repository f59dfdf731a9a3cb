"""The graph chunk: the serialized model without its arrays, and the tables of its arrays."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from penjing.artifact import encodings, leaves
from penjing.artifact.binary import Reader, varint
from penjing.artifact.encodings import Plain, Plan
from penjing.artifact.leaves import DTYPES, Coded, Source
from penjing.artifact.limits import MAX_DIMENSIONS, MAX_NAME_BYTES, MAX_SLOTS, Limits
from penjing.core.errors import UnsupportedError
from penjing.core.template import Form, Slot, Template

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penjing.core.tensors import Tensor

_SWAPPED, _AGAIN, _SPELLED = 1 << 4, 1 << 5, 1 << 6
"""Flags of a slot, above the four bits of its form."""
_FORM = 0xF
_THREADS = 2
_WORTH_REPEATING = 4
"""Bytes from which an array that occurs again is stored as a reference."""


@dataclass(frozen=True, slots=True)
class Body:
    """What a graph chunk and a weights chunk hold, before compression of the former."""

    text: bytes
    weights: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor as the tables describe it, and the bytes they spend on it."""

    plan: Plan
    table_bytes: int
    """Of its slots, records and lengths, before compression."""
    weight_bytes: int


@dataclass(frozen=True, slots=True)
class Tables:
    """A graph chunk read back."""

    template: Template
    entries: Mapping[str, Entry]


# ---- writing --------------------------------------------------------------------------------


def write(template: Template, tensors: Mapping[str, Tensor], coder: str | None) -> Body:
    """Code every tensor and put both chunks together.

    Args:
        template: The model without its arrays.
        tensors: One tensor for each name of a slot, of the slot's shape.
        coder: Name of the one coder to use wherever it can be; None tries all of them.

    Raises:
        UnsupportedError: A tensor cannot be expressed in this format.
        ConfigError: ``coder`` is not a coder of this format.
    """
    names = list(dict.fromkeys(slot.name for slot in template.slots))
    _check(template, tensors, names)
    run = [item for name in names for item in encodings.flatten(tensors[name], name)]
    coded = iter(_code([item for item in run if isinstance(item, Plain)], coder))
    records, lengths, weights = bytearray(), bytearray(), bytearray()
    for item in run:
        if isinstance(item, bytes):
            records += item
            continue
        leaf = next(coded)
        records += leaf.record
        lengths += leaf.length
        weights += leaf.payload
    text = b"".join(
        [
            *(varint(len(template.skeleton)), template.skeleton),
            *(varint(len(template.slots)), _write_slots(template)),
            *(varint(len(records)), records, lengths),
        ]
    )
    return Body(text, bytes(weights))


def tensor_bytes(tensor: Tensor, name: str) -> int:
    """Count the bytes that one tensor takes, before the tables are compressed."""
    total = 0
    for item in encodings.flatten(tensor, name):
        if isinstance(item, bytes):
            total += len(item)
        else:
            leaf = leaves.encode(item.array, item.bits)
            total += len(leaf.record) + len(leaf.length) + len(leaf.payload)
    return total


def _check(template: Template, tensors: Mapping[str, Tensor], names: Sequence[str]) -> None:
    for name in names:
        if name not in tensors:
            raise UnsupportedError(name, "is a slot of the template without a tensor")
    for name in tensors:
        if name not in names:
            raise UnsupportedError(name, "the template has no slot for this tensor")
    first: dict[str, Slot] = {}
    for slot in template.slots:
        same = first.setdefault(slot.name, slot)
        if (same.shape, same.dtype) != (slot.shape, slot.dtype):
            raise UnsupportedError(slot.name, "two of its slots differ in shape or type")
        if tensors[slot.name].shape != slot.shape:
            raise UnsupportedError(
                slot.name, f"its shape is {tensors[slot.name].shape}, its slot's {slot.shape}"
            )
        dtype = tensors[slot.name].dtype.name
        if slot.dtype not in DTYPES or not _fits(slot.dtype, dtype):
            raise UnsupportedError(slot.name, f"{dtype} cannot stand in for {slot.dtype}")


def _code(items: Sequence[Plain], coder: str | None) -> list[Coded]:
    """Code arrays, each different one once; two threads, since coders release the lock."""
    only = None if coder is None else leaves.number_of(coder)
    keys = [_key(item) for item in items]
    unique = dict(zip(reversed(keys), reversed(items), strict=True))
    order = list(dict.fromkeys(keys))

    def encode(key: str) -> Coded:
        return leaves.encode(unique[key].array, unique[key].bits, only)

    with ThreadPoolExecutor(_THREADS) as pool:
        made = pool.map(encode, order)
        known = dict(zip(order, made, strict=True))
    found: list[Coded] = []
    places: dict[str, int] = {}
    stored = 0
    for key in keys:
        leaf = known[key]
        if key in places and len(leaf.payload) >= _WORTH_REPEATING:
            found.append(leaves.repeat(places[key]))
            continue
        places.setdefault(key, stored)
        stored += 1
        found.append(leaf)
    return found


def _key(item: Plain) -> str:
    """Tell arrays apart by their type, shape and bytes."""
    array = np.ascontiguousarray(item.array)
    head = f"{array.dtype.name} {item.array.shape} {item.bits} ".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()


def _write_slots(template: Template) -> bytes:
    out = bytearray()
    known: dict[str, int] = {}
    at = 0
    for slot in template.slots:
        swapped = varint(slot.swapped) if slot.swapped else b""
        flags = slot.form | (_SWAPPED if slot.swapped else 0)
        out += varint(slot.offset - at)
        at = slot.offset
        if slot.name in known:
            out += bytes([flags | _AGAIN]) + swapped + varint(known[slot.name])
            continue
        known[slot.name] = len(known)
        name = slot.name.encode()
        start = template.skeleton.rfind(name, 0, slot.offset) if name else -1
        if start < 0:
            out += bytes([flags | _SPELLED]) + swapped + varint(len(name)) + name
        else:
            back = slot.offset - start - len(name)
            out += bytes([flags]) + swapped + varint(back) + varint(len(name))
        out += bytes([DTYPES.index(slot.dtype)]) + varint(len(slot.shape))
        out += b"".join(varint(size) for size in slot.shape)
    return bytes(out)


# ---- reading --------------------------------------------------------------------------------


def read(text: bytes, weights: memoryview, limits: Limits, file_bytes: int) -> Tables:
    """Read the tables; nothing is decoded.

    Raises:
        FormatError: The tables are damaged, contradict each other, or declare more than
            ``limits`` allow.
    """
    reader = Reader(text, "graph")
    skeleton = bytes(reader.take(reader.varint(len(text))))
    slots, spent = _read_slots(reader, skeleton, limits)
    source = Source(
        Reader(reader.take(reader.varint(len(text))), "tensor table"),
        Reader(reader.take(reader.left), "payload lengths"),
        Reader(weights, "weights"),
    )
    entries: dict[str, Entry] = {}
    template = Template(skeleton, slots)
    total = template.size_bytes
    for slot in slots:
        if slot.name in entries:
            continue
        before = source.left
        plan = encodings.read(source, slot.shape, slot.name)
        if not _fits(slot.dtype, plan.dtype):
            raise reader.error(f"{slot.name!r} is {plan.dtype}, not {slot.dtype}")
        after = source.left
        table = spent[slot.name] + sum(before[:2]) - sum(after[:2])
        entries[slot.name] = Entry(plan, table, before[2] - after[2])
        total += plan.decoded_bytes
        limits.check_arrays(total, file_bytes)
    source.finish()
    limits.check_arrays(total, file_bytes)
    return Tables(template, entries)


def _fits(wanted: str, given: str) -> bool:
    """Tell whether decoded numbers may stand in a slot: the same type, or both real."""
    return wanted == given or {np.dtype(wanted).kind, np.dtype(given).kind} == {"f"}


def _read_slots(
    reader: Reader, skeleton: bytes, limits: Limits
) -> tuple[tuple[Slot, ...], dict[str, int]]:
    """Read the slots, and the bytes of this table spent on each tensor."""
    slots: list[Slot] = []
    known: list[Slot] = []
    spent: dict[str, int] = {}
    at = 0
    for _ in range(reader.varint(min(MAX_SLOTS, reader.left))):
        before = reader.left
        at += reader.varint(len(skeleton) - at)
        flags = reader.byte()
        form, more = flags & _FORM, flags & ~_FORM
        if form not in Form.__members__.values() or more & ~(_SWAPPED | _AGAIN | _SPELLED):
            raise reader.error(f"a slot has unknown flags {flags:#x}")
        swapped = reader.varint(limits.decoded) if more & _SWAPPED else 0
        if more & _AGAIN:
            index = reader.varint(len(known))
            if index == len(known) or more & _SPELLED:
                raise reader.error("a slot names a tensor that does not come before it")
            slot = replace(known[index], offset=at, form=Form(form), swapped=swapped)
        else:
            name = _read_name(reader, skeleton, at, spelled=bool(more & _SPELLED))
            if name in spent:
                raise reader.error(f"two tensors are called {name!r}")
            dtype, shape = _read_kind(reader, limits)
            slot = Slot(name, at, shape, dtype, Form(form), swapped)
            known.append(slot)
        _check_slot(reader, slot, limits)
        slots.append(slot)
        spent[slot.name] = spent.get(slot.name, 0) + before - reader.left
    return tuple(slots), spent


def _read_kind(reader: Reader, limits: Limits) -> tuple[str, tuple[int, ...]]:
    number = reader.byte()
    if number >= len(DTYPES):
        raise reader.error(f"element type {number} does not exist")
    count = reader.varint(MAX_DIMENSIONS)
    return DTYPES[number], tuple(reader.varint(limits.decoded) for _ in range(count))


def _check_slot(reader: Reader, slot: Slot, limits: Limits) -> None:
    if prod(size for size in slot.shape if size) > limits.decoded:
        raise reader.error(f"{slot.name!r} is larger than the limit")
    if slot.form is Form.TAGGED and slot.dtype != "float32":
        raise reader.error(f"{slot.name!r} is laid out in a way only float32 can be")
    if slot.swapped and (len(slot.shape) < 2 or slot.shape[0] % slot.swapped):  # noqa: PLR2004
        raise reader.error(f"{slot.name!r} cannot be turned in {slot.swapped} groups")


def _read_name(reader: Reader, skeleton: bytes, at: int, *, spelled: bool) -> str:
    back = 0 if spelled else reader.varint(at)
    size = reader.varint(min(MAX_NAME_BYTES, reader.left if spelled else at - back))
    end = at - back
    raw = bytes(reader.take(size)) if spelled else skeleton[end - size : end]
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise reader.error("a name is not UTF-8") from None
