"""Adaptive context arithmetic coding of integers: the smallest files."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import prod
from typing import TYPE_CHECKING, Any

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
_LARGEST_KERNEL = 4096
_SLOW_FROM = 2048  # elements from which the time to decode counts
# A tenth more time has to save 0.4 % of the bytes: measured on convolutions of ResNets.
_PRICE_OF_NEAR = (0.0, 0.006, 0.008, 0.004)
_PRICE_OF_COLUMN = 0.002
_OUT_IN_KERNEL, _IN_OUT_KERNEL, _IN_KERNEL_OUT, _FLAT = range(4)


@dataclass(frozen=True, slots=True)
class _Choice:
    """How an array is coded; the header holds all of it."""

    scan: int = _FLAT
    near: int = 0
    """Neighbours in the kernel that are looked at: none (0), the 4 nearest (1), 10 (2), or 10
    for the sign alone (3)."""
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


def _measure(array: Array, choice: _Choice) -> float:
    work = _work(array.shape, choice)
    total = call(
        "context_measure",
        *(tables(), array, width_of(array.dtype), _shape(array.shape), choice.as_array()),
        *(work, work.nbytes),
    )
    header = 1 + (choice.shift > 0 or choice.height > 0 or choice.transposed > 0)
    header += 2 * (choice.height > 0)
    return total / _BITS + 8 * header + 6  # and what the last byte wastes, on average


def _price(array: Array, choice: _Choice) -> float:
    """Bits, and what it costs to decode them slower: large arrays should load fast, too."""
    return _measure(array, choice) * _slowness(array, choice)


def _slowness(array: Array, choice: _Choice) -> float:
    if array.size < _SLOW_FROM:
        return 1.0
    return 1 + _PRICE_OF_NEAR[choice.near] + _PRICE_OF_COLUMN * choice.column


def _best(array: Array) -> tuple[_Choice, float]:
    """Find the best settings, and their bits: the layout on a part, the rest on the whole."""
    shift = _shift(array)
    layouts = [_layout(array, shift)]
    if array.ndim == 2 and any(_pictures(array.shape[0])):  # noqa: PLR2004  # a matrix
        turned = _layout(np.ascontiguousarray(array.T), shift)
        if turned.height:
            layouts.append(replace(turned, transposed=1))
    best, price = _cheapest(array, layouts)
    changes: list[dict[str, int]] = [{"column": 1}, {"slow": 1}, {"fast": 1}]
    if best.near:
        changes += [{"near": near} for near in (1, 2, 3) if near != best.near]
    if shift:
        changes += [{"shift": other} for other in range(max(0, shift - 3), min(shift + 3, 31))]
    for change in changes:
        other = replace(best, **change)
        if (cost := _price(array, other)) < price:
            best, price = other, cost
    return best, price / _slowness(array, best)


def _layout(array: Array, shift: int) -> _Choice:
    """Choose scan, neighbourhood and picture on rows from the start of the array."""
    part = array
    if array.size > 2 * _TRIAL and array.ndim > 1:
        part = array[: max(1, array.shape[0] * _TRIAL // array.size)]
    layouts = [replace(layout, shift=shift) for layout in _layouts(part.shape)]
    return _cheapest(part, layouts)[0] if len(layouts) > 1 else layouts[0]


def _cheapest(array: Array, choices: Iterable[_Choice]) -> tuple[_Choice, float]:
    return min(((c, _price(array, c)) for c in choices), key=lambda found: found[1])


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
