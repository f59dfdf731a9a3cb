"""Encodings with structure: sparse masks, N:M patterns, low-rank and Tucker factors.

Each holds further tensors, so their numbers can be quantized, cast or shared in turn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace, device

from penjing.core.tensors import Affine, Array, Cast, Codebook, Dense, Tensor, like

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True, eq=False)
class Bitmask(Tensor):
    """Non-zero values in C order, plus one bit per element."""

    values: Tensor
    """One-dimensional."""
    mask: Array
    """Packed bits, uint8, most significant bit first."""
    full_shape: tuple[int, ...]

    @classmethod
    def encode(cls, array: Array, keep: Array | None = None) -> Bitmask:
        """Keep the elements under the mask ``keep``; the non-zero ones if there is none."""
        kept = array != 0 if keep is None else keep
        return cls(Dense(array[kept]), np.packbits(kept), tuple(array.shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape before packing."""
        return self.full_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type of the values."""
        return self.values.dtype

    def kept(self) -> Array:
        """Unpack the mask to a boolean array of ``shape``."""
        bits = np.unpackbits(self.mask, count=prod(self.full_shape))
        return bits.astype(bool).reshape(self.full_shape)

    def dense(self) -> Array:
        """Put the kept values back in place."""
        values = self.values.dense()
        xp = array_namespace(values)
        out: Array = xp.zeros(self.full_shape, dtype=values.dtype, device=device(values))
        out[like(values, self.kept())] = values
        return out

    def project(self, array: Array) -> Bitmask:
        """Keep the mask."""
        return replace(self, values=self.values.project(array[like(array, self.kept())]))

    def parts(self) -> Mapping[str, Tensor | Array]:
        """Give the kept values and the mask."""
        return {"values": self.values, "mask": self.mask}

    def map_values(self, encode: Callable[[Array], Tensor]) -> Tensor:
        """Re-encode the kept values."""
        return replace(self, values=self.values.map_values(encode))


@dataclass(frozen=True, slots=True, eq=False)
class NMSparse(Tensor):
    """At most ``n`` of every ``m`` neighbours along a row are kept (N:M sparsity).

    A row is one output channel, flattened and padded with zeros to a multiple of ``m``.
    ``values`` holds ``rows * groups * n`` numbers; ``positions`` (uint8) their place, 0 to
    ``m - 1``, in the group.
    """

    values: Tensor
    positions: Array
    m: int
    full_shape: tuple[int, ...]

    @classmethod
    def encode(cls, array: Array, keep: int, out_of: int) -> NMSparse:
        """Keep the ``keep`` largest magnitudes of every ``out_of``; ties go to the earlier."""
        rows = array.reshape(array.shape[0], prod(array.shape[1:]))
        padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % out_of)))
        groups = padded.reshape(-1, out_of)
        order = np.argsort(-np.abs(groups), axis=1, kind="stable")[:, :keep]
        positions = np.sort(order, axis=1)
        values = np.take_along_axis(groups, positions, axis=1)
        return cls(
            Dense(values.ravel()), positions.astype(np.uint8), out_of, tuple(array.shape)
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape before packing."""
        return self.full_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type of the values."""
        return self.values.dtype

    def kept(self) -> Array:
        """Give the pattern as a boolean array, (rows, padded columns)."""
        out = np.zeros((len(self.positions), self.m), bool)
        np.put_along_axis(out, self.positions.astype(np.int64), values=True, axis=1)
        return out.reshape(self._padded())

    def _padded(self) -> tuple[int, int]:
        columns = prod(self.full_shape[1:])
        return self.full_shape[0], columns + -columns % self.m

    def _spread(self) -> Array:
        """Put the kept values back in place, (rows, padded columns)."""
        values = self.values.dense()
        xp = array_namespace(values)
        out: Array = xp.zeros(self._padded(), dtype=values.dtype, device=device(values))
        out[like(values, self.kept())] = values
        return out

    def dense(self) -> Array:
        """Put the kept values back in place and cut the padding off."""
        spread = self._spread()
        xp = array_namespace(spread)
        cut: Array = xp.reshape(spread[:, : prod(self.full_shape[1:])], self.full_shape)
        return cut

    def project(self, array: Array) -> NMSparse:
        """Keep the pattern."""
        xp = array_namespace(array)
        flat = xp.reshape(array, (self.full_shape[0], prod(self.full_shape[1:])))
        # Kept padding stays what it is: a zero would pull the mean of shared values.
        fill = xp.astype(like(array, self._spread()[:, flat.shape[1] :]), array.dtype)
        padded = xp.concat([flat, fill], axis=1)
        return replace(self, values=self.values.project(padded[like(array, self.kept())]))

    def parts(self) -> Mapping[str, Tensor | Array]:
        """Give the kept values and their positions."""
        return {"values": self.values, "positions": self.positions}

    @property
    def nbytes(self) -> int:
        """Values, plus the positions at their ideal fixed width."""
        width = max(1, int(np.ceil(np.log2(self.m))))
        return self.values.nbytes + -(-self.positions.size * width // 8)

    def map_values(self, encode: Callable[[Array], Tensor]) -> Tensor:
        """Re-encode the kept values."""
        return replace(self, values=self.values.map_values(encode))


@dataclass(frozen=True, slots=True, eq=False)
class LowRank(Tensor):
    """A product of two thin matrices, folded back to the weight's shape.

    ``left`` is (rows, rank) and ``right`` is (rank, columns), for a weight of ``rows`` output
    channels.
    """

    left: Tensor
    right: Tensor
    full_shape: tuple[int, ...]

    @classmethod
    def encode(cls, array: Array, rank: int) -> LowRank:
        """Give the best approximation of this rank (Eckart-Young), singular values split."""
        u, s, vt = np.linalg.svd(
            array.reshape(len(array), -1).astype(np.float64), full_matrices=False
        )
        root = np.sqrt(s[:rank])
        left, right = u[:, :rank] * root, root[:, None] * vt[:rank]
        return cls(
            Dense(left.astype(array.dtype)), Dense(right.astype(array.dtype)), array.shape
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the product, folded back."""
        return self.full_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type of the factors."""
        return self.left.dtype

    def dense(self) -> Array:
        """Multiply the factors."""
        left, right = self.left.dense(), self.right.dense()
        xp = array_namespace(left)
        product: Array = xp.reshape(xp.matmul(left, right), self.full_shape)
        return product

    def project(self, array: Array) -> LowRank:
        """Keep the rank; each factor keeps its own encoding.

        Plain factors become the best ones of this rank.  Factors in an encoding of their own
        are fitted one after the other by least squares, starting from what they are: a
        singular value decomposition would turn their basis, which their grids do not fit.
        """
        xp = array_namespace(array)
        rank = self.left.shape[1]
        matrix = xp.reshape(array, (self.left.shape[0], self.right.shape[1]))
        if not (isinstance(self.left, Dense) and isinstance(self.right, Dense)):
            left = self.left.project(
                xp.matmul(matrix, xp.linalg.pinv(like(array, self.right.dense())))
            )
            inverse = xp.linalg.pinv(like(array, left.dense()))
            return replace(
                self, left=left, right=self.right.project(xp.matmul(inverse, matrix))
            )
        u, s, vt = xp.linalg.svd(matrix, full_matrices=False)
        root = xp.sqrt(s[:rank])
        return replace(
            self,
            left=self.left.project(u[:, :rank] * root),
            right=self.right.project(root[:, None] * vt[:rank, :]),
        )

    def parts(self) -> Mapping[str, Tensor | Array]:
        """Give both factors."""
        return {"left": self.left, "right": self.right}

    def map_values(self, encode: Callable[[Array], Tensor]) -> Tensor:
        """Re-encode both factors."""
        return replace(
            self, left=self.left.map_values(encode), right=self.right.map_values(encode)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Tucker(Tensor):
    """A convolution as a small core between two factor matrices (Tucker-2).

    ``core`` is (rank_out, rank_in, *kernel), ``outputs`` is (out, rank_out) and ``inputs`` is
    (in, rank_in); the weight is their product over the two ranks.
    """

    core: Tensor
    outputs: Tensor
    inputs: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Output channels, input channels, then the kernel."""
        return (self.outputs.shape[0], self.inputs.shape[0], *self.core.shape[2:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type of the core."""
        return self.core.dtype

    def dense(self) -> Array:
        """Multiply the core by both factors."""
        core, outputs, inputs = self.core.dense(), self.outputs.dense(), self.inputs.dense()
        xp = array_namespace(core)
        rank_out, rank_in = self.core.shape[:2]
        half = xp.matmul(outputs, xp.reshape(core, (rank_out, -1)))
        half = xp.reshape(half, (outputs.shape[0], rank_in, -1))
        product: Array = xp.reshape(xp.matmul(inputs, half), self.shape)
        return product

    def project(self, array: Array) -> Tucker:
        """Keep both ranks (truncated higher-order SVD); each part keeps its encoding."""
        xp = array_namespace(array)
        rank_out, rank_in = self.core.shape[:2]
        cube = xp.reshape(array, (*self.shape[:2], -1))
        if not all(isinstance(part, Dense) for part in (self.core, self.outputs, self.inputs)):
            return self._refit(cube)
        outputs = _leading(cube, rank_out)
        inputs = _leading(xp.permute_dims(cube, (1, 0, 2)), rank_in)
        core = _contract(
            cube, xp.permute_dims(outputs, (1, 0)), xp.permute_dims(inputs, (1, 0))
        )
        return Tucker(
            self.core.project(xp.reshape(core, self.core.shape)),
            self.outputs.project(outputs),
            self.inputs.project(inputs),
        )

    def _refit(self, cube: Array) -> Tucker:
        """Fit the parts to (out, in, taps) in turn by least squares, from what they are."""
        xp = array_namespace(cube)
        out, into, taps = cube.shape
        rank_out, rank_in = self.core.shape[:2]
        core = xp.reshape(like(cube, self.core.dense()), (rank_out, rank_in, taps))
        half = xp.reshape(xp.matmul(like(cube, self.inputs.dense()), core), (rank_out, -1))
        outputs = self.outputs.project(
            xp.matmul(xp.reshape(cube, (out, -1)), xp.linalg.pinv(half))
        )
        left = like(cube, outputs.dense())
        half = xp.matmul(left, xp.reshape(core, (rank_out, -1)))
        half = xp.permute_dims(xp.reshape(half, (out, rank_in, taps)), (1, 0, 2))
        turned = xp.reshape(xp.permute_dims(cube, (1, 0, 2)), (into, -1))
        inputs = self.inputs.project(
            xp.matmul(turned, xp.linalg.pinv(xp.reshape(half, (rank_in, -1))))
        )
        right = like(cube, inputs.dense())
        best = _contract(cube, xp.linalg.pinv(left), xp.linalg.pinv(right))
        return Tucker(self.core.project(xp.reshape(best, self.core.shape)), outputs, inputs)

    def parts(self) -> Mapping[str, Tensor | Array]:
        """Give the core and both factors."""
        return {"core": self.core, "outputs": self.outputs, "inputs": self.inputs}

    def map_values(self, encode: Callable[[Array], Tensor]) -> Tensor:
        """Re-encode the core and both factors."""
        parts = (self.core, self.outputs, self.inputs)
        return Tucker(*(part.map_values(encode) for part in parts))


def _leading(cube: Array, rank: int) -> Array:
    """Give the leading left singular vectors of a cube unfolded along its first axis."""
    xp = array_namespace(cube)
    matrix = xp.reshape(cube, (cube.shape[0], -1))
    vectors: Array = xp.linalg.svd(matrix, full_matrices=False)[0]
    return vectors[:, :rank]


def _contract(cube: Array, outputs: Array, inputs: Array) -> Array:
    """Multiply the first axis of (out, in, taps) by one matrix, the second by another."""
    xp = array_namespace(cube)
    out, into, taps = cube.shape
    half = xp.matmul(outputs, xp.reshape(cube, (out, -1)))
    product: Array = xp.matmul(inputs, xp.reshape(half, (outputs.shape[0], into, taps)))
    return product


def pruned_mask(tensor: Tensor) -> Array | None:
    """Give ones where a pruned weight is not zero, float32; None where nothing was pruned.

    Pruned is what has a mask or an N:M pattern.
    """
    if not isinstance(tensor, Bitmask | NMSparse):
        return None
    return np.asarray(tensor.dense() != 0, np.float32)


def selected(tensor: Tensor, where: Array) -> Tensor:
    """Return the elements under a boolean mask, in C order, in the encoding they are in.

    Where that encoding cannot hold a part of itself, they come back as ``Dense``.
    """
    if isinstance(tensor, Cast):
        return replace(tensor, bits=tensor.bits[where])
    if isinstance(tensor, Codebook):
        return replace(tensor, indices=tensor.indices[where])
    if isinstance(tensor, Affine) and tensor.scale.size == tensor.zero_point.size == 1:
        scale, zero_point = tensor.scale.reshape(1), tensor.zero_point.reshape(1)
        return Affine.encode(tensor.codes[where], scale, zero_point)
    return Dense(tensor.dense()[where])


def zeroed(tensor: Tensor, keep: Array) -> Tensor:
    """Return ``tensor`` with every element outside the boolean mask ``keep`` set to zero.

    The encoding is kept: codes become zero points, indices point to a zero in the table, and
    of what else can be taken element by element only the kept elements stay, behind a mask.
    Low-rank and Tucker weights are decoded, since their factors hold no element of their own.
    """
    if isinstance(tensor, Affine):
        zero = np.broadcast_to(tensor.zero_point, tensor.shape)
        codes = np.where(keep, tensor.codes, zero)
        return Affine.encode(codes, tensor.scale, tensor.zero_point)
    if isinstance(tensor, Codebook):
        table = tensor.centroids.dense()
        at = np.flatnonzero(table == 0)
        if at.size:
            indices = np.where(keep, tensor.indices, at[0])
            return replace(tensor, indices=indices.astype(tensor.indices.dtype))
    if isinstance(tensor, Bitmask):
        before = tensor.kept()
        after = keep & before
        values = selected(tensor.values, after[before])
        return Bitmask(values, np.packbits(after), tensor.full_shape)
    if isinstance(tensor, NMSparse):
        pattern = tensor.kept()
        padded = np.zeros_like(pattern)
        padded[:, : prod(tensor.shape[1:])] = keep.reshape(len(pattern), -1)
        return replace(tensor, values=zeroed(tensor.values, padded[pattern]))
    return Bitmask(selected(tensor, keep), np.packbits(keep), tensor.shape)
