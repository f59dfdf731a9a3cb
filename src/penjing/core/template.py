"""A serialized model with its arrays cut out, so that new arrays can be put back in place.

The template is what the file format stores beside the tensors.  Filling it needs neither the
framework nor a protobuf library, so loading a model costs no more than copying its bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.tensors import Array


class Form(IntEnum):
    """How the bytes of an array are laid into the template."""

    RAW = 0
    """Little-endian elements, one after the other (``TensorProto.raw_data``)."""
    TAGGED = 1
    """Each float32 behind the tag byte of its field (``AttributeProto.floats``)."""


FLOATS_TAG = 0x3D
"""Protobuf tag of field 7 with 32-bit wire type: ``AttributeProto.floats``."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the template where an array belongs."""

    name: str
    """Name of the array; several slots may hold the same array."""
    offset: int
    """Bytes of the skeleton that come before it."""
    shape: tuple[int, ...]
    """Shape of the array as techniques see it: output axis first."""
    dtype: str
    """NumPy name of the element type: ``float32``, ``int64``, ..."""
    form: Form = Form.RAW
    swapped: int = 0
    """0: stored as it is.  g > 0: the graph stores it in ``g`` groups with the input axis
    before the output axis (``MatMul``: g = 1; ``ConvTranspose``: its groups)."""

    @property
    def size_bytes(self) -> int:
        """Bytes this slot takes in the filled model."""
        count = prod(self.shape)
        return count * (5 if self.form is Form.TAGGED else np.dtype(self.dtype).itemsize)


@dataclass(frozen=True, slots=True)
class Template:
    """Bytes of a serialized model without its arrays, and the slots to fill, in order."""

    skeleton: bytes
    slots: tuple[Slot, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of the filled model."""
        return len(self.skeleton) + sum(slot.size_bytes for slot in self.slots)

    def fill(self, arrays: Mapping[str, Array]) -> bytes:
        """Return the serialized model with these arrays in its slots."""
        pieces: list[bytes | memoryview] = []
        at = 0
        for slot in self.slots:
            pieces.append(self.skeleton[at : slot.offset])
            pieces.append(to_stored(arrays[slot.name], slot))
            at = slot.offset
        pieces.append(self.skeleton[at:])
        return b"".join(pieces)


def to_stored(array: Array, slot: Slot) -> bytes | memoryview:
    """Lay an array out as the graph stores it; a view where it lies so already."""
    assert array.shape == slot.shape, (slot.name, array.shape, slot.shape)
    if slot.swapped:
        array = swap(array, slot.swapped)
    little = np.ascontiguousarray(array, np.dtype(slot.dtype).newbyteorder("<"))
    if slot.form is Form.RAW:
        return little.reshape(-1).view(np.uint8).data
    tagged = np.empty((little.size, 5), np.uint8)
    tagged[:, 0] = FLOATS_TAG
    tagged[:, 1:] = little.reshape(-1, 1).view(np.uint8)
    return tagged.tobytes()


def swap(array: Array, groups: int) -> Array:
    """Exchange the first two axes of each of ``groups`` equal parts of axis 0.

    Turns (out, in / g, ...) into (in, out / g, ...); with the same ``groups`` it is its own
    inverse.
    """
    first, second, *rest = array.shape
    parts = array.reshape(groups, first // groups, second, *rest)
    return np.ascontiguousarray(parts.swapaxes(1, 2)).reshape(
        groups * second, first // groups, *rest
    )
