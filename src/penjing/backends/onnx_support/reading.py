"""ONNX models as templates and arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from penjing.backends.onnx_support import wire
from penjing.backends.onnx_support.loading import numpy_dtype
from penjing.backends.onnx_support.scopes import is_constant, label, scopes, tensors_of
from penjing.core.errors import ModelError
from penjing.core.model import (
    ACTIVATION_SCALES,
    ACTIVATION_ZERO_POINTS,
    HEAD_BIAS,
    HEAD_WEIGHT,
)
from penjing.core.template import Form, Slot, Template

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

    from penjing.core.tensors import Array

FEWEST_FLOATS = 4
"""Lists of floats in attributes are coefficients of small models: they are all there is."""
SMALLEST_SLOT_BYTES = 64
"""Smaller arrays stay inside the template: a slot would cost more than it saves."""
TRAINED = {ACTIVATION_SCALES, ACTIVATION_ZERO_POINTS, HEAD_WEIGHT, HEAD_BIAS}
"""Arrays that get a slot whatever their size."""
LARGEST_MODEL_BYTES = 2**31 - 1
"""Protobuf's limit on one message."""


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A model with its arrays cut out."""

    template: Template
    """Slots have the shapes of the graph; roles may still change their layout."""
    arrays: dict[str, Array]
    graph: onnx.ModelProto
    """The model with tokens in place of its arrays: for looking at its structure."""
    original_bytes: int
    tokens: Mapping[bytes, str] = field(repr=False)
    """Name of the array that each token stands for."""
    shapes: Mapping[str, tuple[int, ...]]
    """Shape of each array in the graph."""

    def held(self, tensor: onnx.TensorProto) -> str | None:
        """Name the array that was cut out of a tensor of ``graph``; None if none was."""
        return self.tokens.get(tensor.raw_data)

    def held_floats(self, attribute: onnx.AttributeProto) -> str | None:
        """Name the array that was cut out of a list of floats; None if none was."""
        if len(attribute.floats) != wire.TOKEN_BYTES // 4:
            return None
        return self.tokens.get(np.array(attribute.floats, "<f4").tobytes())


def cut(model: onnx.ModelProto, original_bytes: int) -> Cut:
    """Cut the large arrays out of a loaded model; ``model`` is used up.

    Raises:
        ModelError: the model is too large for protobuf.
    """
    import onnx

    cutter = _Cutter()
    for scope in scopes(model):
        for name, tensor in tensors_of(scope):
            cutter.tensor(name, tensor)
        for node in scope.nodes:
            for attribute in node.attribute:
                cutter.floats(
                    node.output[0] if is_constant(node) else label(node, attribute), attribute
                )
    salt = _unused_salt(model.SerializeToString(deterministic=True))
    slots = cutter.mark(salt)
    skeleton = model.SerializeToString(deterministic=True)
    template = wire.place(skeleton, slots, salt)
    if template.size_bytes > LARGEST_MODEL_BYTES:
        raise ModelError("model", f"holds {template.size_bytes} bytes; ONNX files end at 2 GiB")
    return Cut(
        template,
        cutter.arrays,
        # Read again: the old object keeps the memory of all arrays for as long as it lives.
        onnx.load_model_from_string(skeleton),
        original_bytes,
        {token: slot.name for token, slot in slots.items()},
        {slot.name: slot.shape for slot in slots.values()},
    )


class _Cutter:
    """Takes arrays out and leaves tokens."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self.emptied: list[tuple[str, onnx.TensorProto | onnx.AttributeProto]] = []

    def tensor(self, name: str, tensor: onnx.TensorProto) -> None:
        dtype = numpy_dtype(tensor)
        if dtype is None:
            return
        raw = tensor.raw_data
        if len(raw) >= SMALLEST_SLOT_BYTES or name in TRAINED:
            array = np.frombuffer(raw, np.dtype(dtype).newbyteorder("<"))
            tensor.raw_data = b""
            self._keep(name, array.astype(dtype, copy=False).reshape(tensor.dims), tensor)

    def floats(self, name: str, attribute: onnx.AttributeProto) -> None:
        if len(attribute.floats) >= FEWEST_FLOATS:
            array = np.array(attribute.floats, np.float32)
            del attribute.floats[:]
            self._keep(name, array, attribute)

    def _keep(
        self, name: str, array: Array, holder: onnx.TensorProto | onnx.AttributeProto
    ) -> None:
        unique, count = name, 1
        while unique in self.arrays:
            count += 1
            unique = f"{name}#{count}"
        self.arrays[unique] = array
        self.emptied.append((unique, holder))

    def mark(self, salt: int) -> dict[bytes, Slot]:
        """Put a token in each place that an array was taken from."""
        slots = {}
        for index, (name, holder) in enumerate(self.emptied):
            token = wire.token(index, salt)
            array = self.arrays[name]
            is_tensor = holder.DESCRIPTOR.name == "TensorProto"
            form = Form.RAW if is_tensor else Form.TAGGED
            slots[token] = Slot(name, 0, array.shape, array.dtype.name, form)
            if is_tensor:
                holder.raw_data = token  # type: ignore[union-attr]
            else:
                holder.floats.extend(np.frombuffer(token, "<f4").tolist())  # type: ignore[union-attr]
        return slots


def _unused_salt(rest: bytes) -> int:
    """Find a salt whose marks stand nowhere in what is left of a model."""
    for salt in wire.SALTS:
        plain = wire.mark(salt)
        if rest.find(plain) < 0 and rest.find(wire.tagged(plain)) < 0:
            return salt
    raise ModelError("model", "was made to confuse this reader")
