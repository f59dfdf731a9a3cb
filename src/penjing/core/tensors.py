"""How a weight is held once it is no longer a plain float array.

The list of encodings is closed: it is the vocabulary of the file format.  Encodings nest: the
numbers a bitmask keeps, or the factors of a low-rank weight, may themselves be quantized.
Everything that computes on numbers does so through the array API standard, so ``project`` and
``dense`` work on NumPy arrays and, inside a training step, on the arrays of a framework.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace, device

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Array = np.ndarray[Any, np.dtype[Any]]


class Tensor(ABC):
    """A weight in some encoding.  Immutable: techniques return new tensors."""

    __slots__ = ()

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the decoded array."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Number type of the decoded array."""

    @abstractmethod
    def dense(self) -> Array:
        """Decode to a plain array of ``shape`` and ``dtype``."""

    @abstractmethod
    def project(self, array: Array) -> Tensor:
        """Return the closest tensor to ``array`` that this encoding can hold.

        Training calls this after every step, so a pruned weight stays pruned and a shared
        value stays shared without the training loop knowing which of the two it is.
        """

    @abstractmethod
    def parts(self) -> Mapping[str, Tensor | Array]:
        """Everything stored: nested encodings and plain arrays, in the order of the file."""

    @property
    def nbytes(self) -> int:
        """Bytes this encoding stores, before any entropy coding."""
        return sum(int(part.nbytes) for part in self.parts().values())

    def map_values(self, encode: Callable[[Array], Tensor]) -> Tensor:
        """Re-encode the real numbers that this encoding stores, and keep its structure.

        This is how encodings nest: quantizing a bitmask quantizes the kept values,
        quantizing a low-rank weight quantizes its factors.
        """
        return encode(self.dense())


@dataclass(frozen=True, slots=True, eq=False)
class Dense(Tensor):
    """The weight as it came: any number type, any shape."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type of the array."""
        return self.array.dtype

    def dense(self) -> Array:
        """Return the array itself."""
        return self.array

    def project(self, array: Array) -> Dense:
        """Hold anything."""
        return Dense(array)

    def parts(self) -> Mapping[str, Tensor | Array]:
        """The array."""
        return {"array": self.array}


FORMATS = ("float16", "bfloat16")


@dataclass(frozen=True, slots=True, eq=False)
class Cast(Tensor):
    """16-bit floating point: IEEE half precision or bfloat16, kept as bit patterns."""

    bits: Array
    """Bit patterns, uint16."""
    form: str
    """``float16`` or ``bfloat16``."""

    @classmethod
    def encode(cls, array: Array, form: str) -> Cast:
        """Round to nearest, ties to even; the largest finite value stands for overflow."""
        single = np.array(array, np.float32, order="C")  # a copy; keeps scalars scalar
        if form == "float16":
            limit = np.float32(np.finfo(np.float16).max)
            np.clip(single, -limit, limit, out=single)
            return cls(single.astype(np.float16).view(np.uint16), form)
        assert form == "bfloat16"
        pattern = single.view(np.uint32).astype(np.uint64)
        rounded = (pattern + 0x7FFF + ((pattern >> 16) & 1)) >> 16
        finite = np.minimum(rounded & 0x7FFF, 0x7F7F) | (rounded & 0x8000)
        return cls(np.asarray(finite, np.uint16), form)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the bit patterns."""
        return tuple(self.bits.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Decodes to float32."""
        return np.dtype(np.float32)

    def dense(self) -> Array:
        """Widen to float32; exact."""
        if self.form == "float16":
            return self.bits.view(np.float16).astype(np.float32)
        return np.asarray(self.bits.astype(np.uint32) << 16).view(np.float32)

    def project(self, array: Array) -> Tensor:
        """Round to the 16-bit format; other frameworks' arrays come back as ``Dense``."""
        if isinstance(array, np.ndarray):
            return Cast.encode(array, self.form)
        xp = array_namespace(array)
        number = getattr(xp, self.form, None)
        if number is None:  # not in the standard: round in NumPy
            return Dense(like(array, Cast.encode(np.asarray(array), self.form).dense()))
        return Dense(xp.astype(xp.astype(array, number), xp.float32))

    def parts(self) -> Mapping[str, Tensor | Array]:
        """Give the bit patterns."""
        return {"bits": self.bits}


@dataclass(frozen=True, slots=True, eq=False)
class Affine(Tensor):
    """Uniformly quantized: ``scale * (codes - zero_point)``, in float32.

    ``codes`` are signed integers, in the narrowest of int8, int16 and int32.  ``scale``
    (float32) and ``zero_point`` (int32) broadcast against the codes: shape ``(1, 1)`` for one
    step per weight, ``(rows, 1)`` for one step per output channel.
    """

    codes: Array
    scale: Array
    zero_point: Array

    @classmethod
    def encode(cls, codes: Array, scale: Array | float, zero_point: Array | int = 0) -> Affine:
        """Hold these integer codes; scalars become arrays that broadcast."""
        ones = (1,) * np.ndim(codes)
        return cls(
            narrowest(np.asarray(codes)),
            np.asarray(scale, np.float32).reshape(np.shape(scale) or ones),
            np.asarray(zero_point, np.int32).reshape(np.shape(zero_point) or ones),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the codes."""
        return tuple(self.codes.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Decodes to float32."""
        return np.dtype(np.float32)

    def dense(self) -> Array:
        """Multiply out, in float32."""
        xp = array_namespace(self.codes)
        steps = self.codes
        if xp.any(self.zero_point != 0):
            steps = xp.astype(steps, xp.int32) - self.zero_point
        out: Array = xp.astype(steps, xp.float32) * self.scale
        return out

    def project(self, array: Array) -> Affine:
        """Round to the same grid, within the range of codes in use."""
        xp = array_namespace(array)
        scale, zero_point = like(array, self.scale), like(array, self.zero_point)
        codes = like(array, self.codes)
        if not prod(self.shape):
            return replace(self, codes=codes, scale=scale, zero_point=zero_point)
        low, high = int(xp.min(codes)), int(xp.max(codes))
        steps = xp.round(array / scale) + xp.astype(zero_point, array.dtype)
        fitted = xp.astype(xp.clip(steps, low, high), codes.dtype)
        return replace(self, codes=fitted, scale=scale, zero_point=zero_point)

    def parts(self) -> Mapping[str, Tensor | Array]:
        """Give the codes, the steps and the zero points."""
        return {"codes": self.codes, "scale": self.scale, "zero_point": self.zero_point}


@dataclass(frozen=True, slots=True, eq=False)
class Codebook(Tensor):
    """Each element is an index into a short table of shared values."""

    indices: Array
    """Unsigned integers, uint8 or uint16."""
    centroids: Tensor
    """One-dimensional table of shared values."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the indices."""
        return tuple(self.indices.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type of the table."""
        return self.centroids.dtype

    def dense(self) -> Array:
        """Look every index up."""
        table = self.centroids.dense()
        xp = array_namespace(table)
        flat = xp.astype(xp.reshape(like(table, self.indices), (-1,)), xp.int64)
        out: Array = xp.reshape(xp.take(table, flat, axis=0), self.shape)
        return out

    def project(self, array: Array) -> Codebook:
        """Keep the indices; each shared value becomes the mean of its members."""
        xp = array_namespace(array)
        table = like(array, self.centroids.dense())
        members = xp.reshape(like(array, self.indices), (-1,))
        flat = xp.reshape(array, (-1,))
        means = []
        for index in range(table.shape[0]):
            chosen = members == index
            count = int(xp.sum(xp.astype(chosen, xp.int64)))
            means.append(xp.mean(flat[chosen]) if count else table[index])
        return replace(self, centroids=self.centroids.project(xp.stack(means)))

    def parts(self) -> Mapping[str, Tensor | Array]:
        """Give the indices and the table."""
        return {"indices": self.indices, "centroids": self.centroids}

    @property
    def nbytes(self) -> int:
        """Indices at their ideal fixed width, plus the table."""
        width = max(1, int(np.ceil(np.log2(max(2, self.centroids.shape[0])))))
        return -(-prod(self.shape) * width // 8) + self.centroids.nbytes

    def map_values(self, encode: Callable[[Array], Tensor]) -> Tensor:
        """Re-encode the table of shared values."""
        return replace(self, centroids=self.centroids.map_values(encode))


def narrowest(codes: Array) -> Array:
    """Return integers in the narrowest of int8, int16 and int32 that holds them all."""
    low, high = (int(codes.min()), int(codes.max())) if codes.size else (0, 0)
    for kind in (np.int8, np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.array(codes, kind, order="C")
    raise AssertionError((low, high))


def like(array: Array, stored: Array) -> Array:
    """Bring stored numbers to the framework and device of ``array``."""
    moved: Array = array_namespace(array).asarray(stored, device=device(array))
    return moved
