"""Tensors in the file: the closed list of encodings, nested at most four deep.

``flatten`` turns a tensor into a run of bytes and arrays to code; ``Source`` and ``read`` turn
the same run back into a plan, whose ``build`` decodes the arrays and gives the tensor.  Every
number needed to know the shape of every array is in the run, so that a plan can be checked
against the limits before anything is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from penjing.artifact.binary import varint
from penjing.artifact.leaves import DTYPES
from penjing.artifact.limits import MAX_DEPTH
from penjing.core.errors import FormatError, UnsupportedError
from penjing.core.structures import Bitmask, LowRank, NMSparse, Tucker
from penjing.core.tensors import FORMATS, Affine, Cast, Codebook, Dense

if TYPE_CHECKING:
    from collections.abc import Callable

    from penjing.artifact.leaves import Leaf, Source
    from penjing.core.tensors import Array, Tensor

Shape = tuple[int, ...]

DENSE, CAST, AFFINE, CODEBOOK, BITMASK, NM_SPARSE, LOW_RANK, TUCKER = range(8)
NAMES = (
    *("dense", "cast", "affine", "codebook", "bitmask", "n:m sparse", "low rank", "tucker"),
)
_CODES, _INDICES, _BYTES = ("int8", "int16", "int32"), ("uint8", "uint16"), ("uint8",)
_ONES, _ROWS, _EXPLICIT = range(3)
"""Shapes of the steps of an affine encoding: one step, one per output, or spelled out."""
_MAX_GROUP = 256
_WIDEST = 8
"""Bytes of the widest element."""


@dataclass(frozen=True, slots=True, eq=False)
class Plain:
    """An array to be coded, and for a packed mask the shape of the masked array."""

    array: Array
    bits: Shape | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A tensor read from the tables, not decoded yet."""

    encoding: int
    shape: Shape
    dtype: str
    parts: tuple[Leaf | Plan, ...]
    build: Callable[[], Tensor]
    """Decode every array and check that they fit together."""

    @property
    def decoded_bytes(self) -> int:
        """Bytes that decoding allocates, for every array on the way and the dense result."""
        own = prod(self.shape) * _WIDEST
        return own + sum(part.decoded_bytes for part in self.parts)

    def describe(self) -> str:
        """Name the encodings, outermost first: ``bitmask(affine int8 codes)``."""
        name = NAMES[self.encoding]
        first = self.parts[0]
        if self.encoding == AFFINE:
            # The type that decoding gives, not what the codes take in the file.
            return f"{name} {np.dtype(first.dtype).name} codes"
        inner = [part.describe() for part in self.parts if isinstance(part, Plan)]
        if self.encoding == DENSE:
            return self.dtype
        return f"{name}({', '.join(dict.fromkeys(inner))})" if inner else name

    def leaves(self) -> list[Leaf]:
        """Every array, in the order of the file."""
        found: list[Leaf] = []
        for part in self.parts:
            found.extend(part.leaves() if isinstance(part, Plan) else [part])
        return found


def flatten(  # noqa: C901, PLR0911  # one branch for each encoding of the closed list
    tensor: Tensor, name: str, depth: int = 1
) -> list[bytes | Plain]:
    """Turn a tensor into bytes of structure and arrays, in the order of the file.

    Raises:
        UnsupportedError: The tensor is no encoding of this format, or nests too deep.
    """
    if depth > MAX_DEPTH:
        raise UnsupportedError(name, f"encodings nest more than {MAX_DEPTH} deep")

    def inner(part: Tensor) -> list[bytes | Plain]:
        return flatten(part, name, depth + 1)

    match tensor:
        case Dense():
            return [bytes([DENSE]), Plain(np.asarray(tensor.array))]
        case Cast():
            form = FORMATS.index(tensor.form)
            return [bytes([CAST, form]), Plain(_typed(tensor.bits, ("uint16",), name))]
        case Affine():
            return _flatten_affine(tensor, name)
        case Codebook():
            indices = _typed(tensor.indices, _INDICES, name)
            head = bytes([CODEBOOK]) + varint(tensor.centroids.shape[0])
            return [head, Plain(indices), *inner(tensor.centroids)]
        case Bitmask():
            _expect(tensor.values.shape, (prod(tensor.values.shape),), name)
            head = bytes([BITMASK]) + varint(prod(tensor.values.shape))
            mask = Plain(_typed(tensor.mask, _BYTES, name), tensor.full_shape)
            return [head, *inner(tensor.values), mask]
        case NMSparse():
            positions = _typed(tensor.positions, _BYTES, name)
            _expect(tensor.values.shape, (positions.size,), name)
            head = bytes([NM_SPARSE]) + varint(tensor.m) + varint(positions.shape[1])
            return [head, *inner(tensor.values), Plain(positions)]
        case LowRank():
            left, right, shape = tensor.left.shape, tensor.right.shape, tensor.shape
            _expect(left + right, (shape[0], left[1], left[1], prod(shape[1:])), name)
            head = bytes([LOW_RANK]) + varint(tensor.left.shape[1])
            return [head, *inner(tensor.left), *inner(tensor.right)]
        case Tucker():
            ranks = b"".join(varint(rank) for rank in tensor.core.shape[:2])
            parts = (tensor.core, tensor.outputs, tensor.inputs)
            return [bytes([TUCKER]) + ranks, *(i for part in parts for i in inner(part))]
    kind = type(tensor).__name__
    raise UnsupportedError(name, f"the file format has no encoding {kind!r}")


def _expect(shape: Shape, expected: Shape, name: str) -> None:
    if shape != expected:
        raise UnsupportedError(
            name, f"its encoding holds an array of shape {shape} where {expected} belongs"
        )


def _flatten_affine(tensor: Affine, name: str) -> list[bytes | Plain]:
    shape = tensor.shape
    scale = _typed(tensor.scale, ("float32",), name)
    zero_point = _typed(tensor.zero_point, ("int32",), name)
    forms = [_step_form(steps.shape, shape) for steps in (scale, zero_point)]
    head = bytes([AFFINE, forms[0] | forms[1] << 2])
    for form, steps in zip(forms, (scale, zero_point), strict=True):
        if form == _EXPLICIT:
            head += varint(steps.ndim) + b"".join(varint(size) for size in steps.shape)
    codes = _typed(tensor.codes, _CODES, name)
    return [head, Plain(codes), Plain(scale), Plain(zero_point)]


def _step_form(steps: Shape, shape: Shape) -> int:
    if steps == (1,) * len(shape):
        return _ONES
    return _ROWS if shape and steps == _rows(shape) else _EXPLICIT


def _rows(shape: Shape) -> Shape:
    return (shape[0], *(1 for _ in shape[1:]))


def _typed(array: Array, allowed: tuple[str, ...], name: str) -> Array:
    if array.dtype.name not in allowed:
        raise UnsupportedError(
            name, f"an array of its encoding is {array.dtype}, not {' or '.join(allowed)}"
        )
    return array


def read(source: Source, shape: Shape, name: str, depth: int = 1) -> Plan:
    """Read the plan of a tensor of this shape.

    Raises:
        FormatError: The encoding is unknown, nests too deep or contradicts the shape.
    """
    if depth > MAX_DEPTH:
        raise source.records.error(f"the encodings of {name!r} nest too deep")
    number = source.records.byte()
    if number >= len(_READERS):
        raise source.records.error(f"encoding {number} does not exist")
    return _READERS[number](source, shape, name, depth)


def _read_dense(source: Source, shape: Shape, _name: str, _depth: int) -> Plan:
    leaf = source.leaf(shape, DTYPES)
    return Plan(DENSE, shape, leaf.dtype, (leaf,), lambda: Dense(leaf.decode()))


def _read_cast(source: Source, shape: Shape, _name: str, _depth: int) -> Plan:
    number = source.records.varint(len(FORMATS) - 1)
    leaf = source.leaf(shape, ("uint16",))
    return Plan(CAST, shape, "float32", (leaf,), lambda: Cast(leaf.decode(), FORMATS[number]))


def _read_affine(source: Source, shape: Shape, _name: str, _depth: int) -> Plan:
    forms = source.records.byte()
    if forms >= 1 << 4:
        raise source.records.error("an affine encoding has unknown flags")
    steps = [_read_steps(source, form, shape) for form in (forms & 3, forms >> 2)]
    parts = (
        source.leaf(shape, _CODES),
        source.leaf(steps[0], ("float32",)),
        source.leaf(steps[1], ("int32",)),
    )
    return Plan(AFFINE, shape, "float32", parts, lambda: Affine(*(p.decode() for p in parts)))


def _read_steps(source: Source, form: int, shape: Shape) -> Shape:
    reader = source.records
    if form == _ONES:
        return (1,) * len(shape)
    if form == _ROWS and shape:
        return _rows(shape)
    if form != _EXPLICIT:
        raise reader.error("the steps of an affine encoding have no known shape")
    count = reader.varint(len(shape))
    steps = tuple(reader.varint(max(1, size)) for size in shape[len(shape) - count :])
    fits = zip(steps, shape[len(shape) - count :], strict=True)
    if any(step not in (1, size) for step, size in fits):
        raise reader.error("the steps of an affine encoding do not fit its codes")
    return steps


def _read_codebook(source: Source, shape: Shape, name: str, depth: int) -> Plan:
    count = source.records.varint(np.iinfo(np.uint16).max + 1)
    indices = source.leaf(shape, _INDICES)
    table = read(source, (count,), name, depth + 1)

    def build() -> Codebook:
        found = indices.decode()
        if found.size and int(found.max()) >= count:
            raise FormatError(name, "an index points outside its table")
        return Codebook(found, table.build())

    return Plan(CODEBOOK, shape, table.dtype, (indices, table), build)


def _read_bitmask(source: Source, shape: Shape, name: str, depth: int) -> Plan:
    total = prod(shape)
    count = source.records.varint(total)
    values = read(source, (count,), name, depth + 1)
    mask = source.leaf((-(-total // 8),), _BYTES, shape)

    def build() -> Bitmask:
        bits = mask.decode()
        if int(np.unpackbits(bits).sum()) != count or (
            bits.size and bits[-1] & ((1 << -total % 8) - 1)
        ):
            raise FormatError(name, "its mask does not keep as many elements as are stored")
        return Bitmask(values.build(), bits, shape)

    return Plan(BITMASK, shape, values.dtype, (values, mask), build)


def _read_nm(source: Source, shape: Shape, name: str, depth: int) -> Plan:
    reader = source.records
    m = reader.varint(_MAX_GROUP)
    n = reader.varint(m)
    if not shape or not m:
        raise reader.error("an N:M pattern needs rows and groups")
    groups = shape[0] * -(-prod(shape[1:]) // m)
    values = read(source, (groups * n,), name, depth + 1)
    positions = source.leaf((groups, n), _BYTES)

    def build() -> NMSparse:
        places = positions.decode()
        if places.size and int(places.max()) >= m:
            raise FormatError(name, "a position lies outside its group")
        if (places[:, 1:] <= places[:, :-1]).any():
            raise FormatError(name, "the positions in a group do not rise")
        return NMSparse(values.build(), places, m, shape)

    return Plan(NM_SPARSE, shape, values.dtype, (values, positions), build)


def _read_low_rank(source: Source, shape: Shape, name: str, depth: int) -> Plan:
    reader = source.records
    if not shape or not prod(shape):
        raise reader.error("factors need a matrix")
    rows, columns = shape[0], prod(shape[1:])
    rank = reader.varint(min(rows, columns))
    left = _float(source, (rows, rank), name, depth)
    right = _float(source, (rank, columns), name, depth)

    def build() -> LowRank:
        return LowRank(left.build(), right.build(), shape)

    return Plan(LOW_RANK, shape, left.dtype, (left, right), build)


def _read_tucker(source: Source, shape: Shape, name: str, depth: int) -> Plan:
    reader = source.records
    if len(shape) < 2 or not prod(shape):  # noqa: PLR2004  # output and input channels
        raise reader.error("factors need output and input channels")
    ranks = [reader.varint(size) for size in shape[:2]]
    if not all(ranks):
        raise reader.error("a rank is zero")
    core = _float(source, (*ranks, *shape[2:]), name, depth)
    outputs = _float(source, (shape[0], ranks[0]), name, depth)
    inputs = _float(source, (shape[1], ranks[1]), name, depth)
    parts = (core, outputs, inputs)
    return Plan(
        TUCKER, shape, core.dtype, parts, lambda: Tucker(*(part.build() for part in parts))
    )


def _float(source: Source, shape: Shape, name: str, depth: int) -> Plan:
    plan = read(source, shape, name, depth + 1)
    if np.dtype(plan.dtype).kind != "f":
        raise source.records.error(f"a factor of {name!r} is not a real matrix")
    return plan


_READERS = (
    *(_read_dense, _read_cast, _read_affine, _read_codebook),
    *(_read_bitmask, _read_nm, _read_low_rank, _read_tucker),
)
