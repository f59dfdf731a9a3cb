"""Adaptive context arithmetic coding of integers: the smallest files."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from penjing.coders.native.binding import (
    as_bytes,
    call,
    damaged,
    native_order,
    tables,
    width_of,
    work_buffer,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from penjing.core.tensors import Array

__all__ = ["ContextArithmetic"]

_BITS = 2048  # the library counts costs in 1/2048 bits
_TRIAL = 1 << 14  # symbols that the first comparison of settings looks at
_UNARY = 14
_LARGEST_KERNEL = 4096
_OUT_IN_KERNEL, _IN_OUT_KERNEL, _IN_KERNEL_OUT, _FLAT = range(4)

Shape = tuple[int, int, int, int]


class BitCosts(NamedTuple):
    """What each value costs, by the model that was in force at each position."""

    table: Array
    """Bits of the values -maximum to maximum in each class, (256, 2 * maximum + 1) float64."""
    classes: Array
    """Class of each position, uint8 in the shape of the array."""

    @property
    def average(self) -> Array:
        """Bits of each value under the average of all positions, (2 * maximum + 1,)."""
        shares = np.bincount(self.classes.ravel(), minlength=len(self.table))
        mean = shares @ np.exp2(-self.table) / max(1, shares.sum())
        costs: Array = -np.log2(mean)
        return costs


@dataclass(frozen=True, slots=True)
class _Choice:
    """How an array is coded; the header holds all of it."""

    scan: int = _FLAT
    near: int = 0
    """Neighbours in the kernel that are looked at: none, the 4 nearest, or 10."""
    column: int = 0
    """Whether positions within a row have effects of their own."""
    slow: int = 0
    """Whether the effects of a row start with more certainty."""
    fast: int = 0
    """Whether thresholds keep adapting fast."""
    shift: int = 0
    """Low bits of each size that are not modelled."""
    height: int = 0
    width: int = 0
    """Picture that the inputs of a matrix form, 0 for none."""
    transposed: int = 0
    """Whether a matrix is coded with inputs first."""

    def as_array(self) -> Array:
        return np.array([getattr(self, field.name) for field in fields(self)], np.uint32)


class ContextArithmetic:
    """Codes integers with an adaptive binary arithmetic coder and a model learned on the way.

    Each integer becomes bits, "is |q| larger than 0, 1, 2, ...", then its sign.  The former
    follow an ordinal logistic model whose logit is a sum of effects of the row, column,
    channel and kernel position, learned while coding (online Bayesian logistic regression
    with a diagonal posterior, as in Graepel et al. 2010); signs follow a logistic model of
    the neighbours in the kernel, whose certainty also enters the size.  The order of coding,
    the neighbourhood and a few rates are chosen per array by trial.

    References: I. Witten, R. Neal, J. Cleary, Arithmetic coding for data compression, 1987;
    G. Martin, Range encoding, 1979 (the coder); T. Graepel et al., Web-scale Bayesian
    click-through rate prediction, ICML 2010 (the learning rule).

    >>> coder, array = ContextArithmetic(), np.eye(64, dtype=np.int8)
    >>> bool((coder.decode(coder.encode(array), (64, 64), np.dtype(np.int8)) == array).all())
    True
    """

    def accepts(self, array: Array) -> bool:
        """Accept signed integers of up to 32 bits, in any shape."""
        return array.dtype.kind == "i" and array.dtype.itemsize <= 4  # noqa: PLR2004  # bytes

    def encode(self, array: Array) -> bytes:
        """Code the array with the cheapest settings found; zeros only become no bytes."""
        if not array.any():
            return b""
        array = native_order(array)
        choice, bits = _best(array)
        work = _work(array.shape, choice)
        out = np.empty(int(bits / 8 * 1.01) + 64, np.uint8)
        size = call(
            "context_encode",
            *(tables(), array, width_of(array.dtype), _shape(array.shape), choice.as_array()),
            *(work, work.nbytes, out, out.nbytes),
        )
        return out[:size].tobytes()

    def decode(
        self, payload: bytes | memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> Array:
        """Rebuild the array; raises FormatError on damaged bytes."""
        array = np.zeros(shape, dtype.newbyteorder("="))
        data = as_bytes(payload)
        if not data.size:
            return array
        if not array.size:
            raise damaged("there are bytes for an empty array")
        four = _shape(shape)
        work = work_buffer(call("context_decode_work", data, data.size, four))
        call(
            "context_decode",
            *(tables(), data, data.size, array, width_of(array.dtype), four),
            *(work, work.nbytes),
        )
        return array

    def estimated_bits(self, array: Array) -> float:
        """Bits that ``encode`` would take for this array, without writing them."""
        return _best(native_order(array))[1] if array.any() else 0.0

    def bit_costs(self, array: Array, maximum: int) -> BitCosts:
        """Give the bits of each value from ``-maximum`` to ``maximum`` at each position.

        The costs are those of the coder's own adaptive model while it codes this array, so a
        quantizer can weigh every value that it could have put in the array instead.
        """
        array = native_order(array)
        choice, _ = _best(array)
        classes = np.zeros(array.shape, np.uint8)
        thresholds = np.zeros(_UNARY, np.int32)
        _measure(array, choice, classes, thresholds)
        return BitCosts(_cost_table(thresholds / 65536, choice.shift, maximum), classes)


def _shape(shape: tuple[int, ...]) -> Array:
    """Read a shape as (out, in, y, x): what kernels of any rank have in common."""
    if len(shape) == 3 and shape[0] == 1:  # noqa: PLR2004  # recurrent weights, one direction
        shape = shape[1:]
    match shape:
        case ():
            four = (1, 1, 1, 1)
        case (count,):
            four = (1, count, 1, 1)
        case (out, into):
            four = (out, into, 1, 1)
        case (out, into, *middle, last):
            four = (out, into, prod(middle), last)
    return np.array(four, np.uint64)


def _work(shape: tuple[int, ...], choice: _Choice) -> Array:
    return work_buffer(call("context_work", _shape(shape), choice.as_array()))


def _measure(
    array: Array, choice: _Choice, classes: Array | None = None, thresholds: Array | None = None
) -> float:
    work = _work(array.shape, choice)
    total = call(
        "context_measure",
        *(tables(), array, width_of(array.dtype), _shape(array.shape), choice.as_array()),
        *(work, work.nbytes, classes, thresholds),
    )
    header = 1 + (choice.shift > 0 or choice.height > 0 or choice.transposed > 0)
    header += 2 * (choice.height > 0)
    return total / _BITS + 8 * header + 6  # and what the last byte wastes, on average


def _best(array: Array) -> tuple[_Choice, float]:
    """Find the cheapest settings: the layout on a part of the array, the rest on all of it."""
    shift = _shift(array)
    layouts = [_layout(array, shift)]
    if array.ndim == 2 and any(_pictures(array.shape[0])):  # noqa: PLR2004  # a matrix
        turned = _layout(np.ascontiguousarray(array.T), shift)
        if turned.height:
            layouts.append(replace(turned, transposed=1))
    best, bits = _cheapest(array, layouts)
    changes: list[dict[str, int]] = [{"column": 1}, {"slow": 1}, {"fast": 1}]
    if shift:
        changes += [{"shift": other} for other in range(max(0, shift - 3), min(shift + 3, 31))]
    for change in changes:
        other = replace(best, **change)
        if (cost := _measure(array, other)) < bits:
            best, bits = other, cost
    return best, bits


def _layout(array: Array, shift: int) -> _Choice:
    """Choose scan, neighbourhood and picture on rows from the start of the array."""
    part = array
    if array.size > 2 * _TRIAL and array.ndim > 1:
        part = array[: max(1, array.shape[0] * _TRIAL // array.size)]
    layouts = [replace(layout, shift=shift) for layout in _layouts(part.shape)]
    return _cheapest(part, layouts)[0] if len(layouts) > 1 else layouts[0]


def _cheapest(array: Array, choices: Iterable[_Choice]) -> tuple[_Choice, float]:
    return min(((c, _measure(array, c)) for c in choices), key=lambda found: found[1])


def _shift(array: Array) -> int:
    """Guess how many low bits are noise: those below a quarter of the mean size."""
    mean = int(np.abs(array.astype(np.int64)).sum()) // max(1, array.size)
    return max(0, mean.bit_length() - 2)


def _layouts(shape: tuple[int, ...]) -> Iterator[_Choice]:
    """List scans and neighbourhoods that suit a shape."""
    out, into, height, width = (int(n) for n in _shape(shape))
    if height * width > 1:
        nears = (1, 2) if height * width <= _LARGEST_KERNEL else (0,)
        for scan in (_OUT_IN_KERNEL, _IN_OUT_KERNEL, _IN_KERNEL_OUT):
            for near in nears:
                yield _Choice(scan, near)
        return
    yield _Choice(_FLAT)
    if out == 1 or into == 1:
        return
    yield _Choice(_IN_KERNEL_OUT)
    for rows, columns in _pictures(into):
        for near in (1, 2):
            yield _Choice(_IN_KERNEL_OUT, near, height=rows, width=columns)


def _pictures(inputs: int) -> Iterator[tuple[int, int]]:
    """List the pictures that so many inputs may show: squares in channels, or one oblong."""
    for side in range(3, min(int(inputs**0.5), 64) + 1):
        if inputs % (side * side) == 0:
            yield side, side
    for columns in range(4, min(inputs // 4, 256) + 1):
        rows = inputs // columns
        oblong = rows * columns == inputs and rows != columns and rows * 8 >= columns
        if oblong and columns * 8 >= rows and inputs <= _LARGEST_KERNEL:
            yield rows, columns


def _cost_table(thresholds: Array, shift: int, maximum: int) -> Array:
    """Bits of each value in each class, from the class's logit and the final thresholds."""
    classes = np.arange(256)
    logit = ((classes >> 3) - 15.5) / 2  # of the first bit, thresholds included
    side = (classes & 7) - 4.0
    rest = 1.375 * (logit - thresholds[0])[:, None] + thresholds[1:]
    logits = np.concatenate([logit[:, None], rest], axis=1)  # (256, _UNARY)
    larger, not_larger = np.logaddexp(0, -logits), np.logaddexp(0, logits)
    so_far = np.concatenate([np.zeros((256, 1)), np.cumsum(larger, axis=1)], axis=1)
    ends = np.concatenate([so_far[:, :-1] + not_larger, so_far[:, -1:]], axis=1) / np.log(2)
    values = np.arange(-maximum, maximum + 1)
    high = np.abs(values) >> shift
    beyond = np.maximum(high - _UNARY, 0)
    costs = ends[:, np.minimum(high, _UNARY)] + shift
    costs += np.where(high >= _UNARY, 2 * np.floor(np.log2(beyond + 1)) + 1, 0)
    signs = np.logaddexp(0, np.outer(side, np.sign(values))) / np.log(2)
    table: Array = costs + np.where(values == 0, 0, signs)
    return table
