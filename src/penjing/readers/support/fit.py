"""Whether an array fits an input of the model, and the small repairs that cannot go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penjing.core.model import Port
    from penjing.core.tensors import Array
    from penjing.readers.support.stores import Store

CHUNK_BYTES = 4 << 20
"""About this much is looked at in one go."""
IMAGE_RANK = 3
"""From this rank on, channels may stand before or behind the other axes."""
MOST_NAMED = 5
"""A message names no more columns than this."""


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """One input of the model and the array that feeds it."""

    port: Port
    store: Store
    where: str
    """How messages call the array."""
    columns: tuple[str, ...] = ()
    """Names of the columns of axis 1, for messages, where it has names."""
    new_axis: int | None = None
    """Axis of size 1 that the model has and the array lacks."""

    @property
    def axis(self) -> int | None:
        """Axis of the array, as stored, that counts rows."""
        axis = self.port.batch_axis
        if axis is not None and self.new_axis is not None and self.new_axis < axis:
            return axis - 1
        return axis

    @property
    def rows(self) -> int | None:
        """Count the rows; None where the same array serves all of them."""
        return None if self.axis is None else self.store.shape[self.axis]

    def read(self, rows: Array | slice) -> Array:
        """Read rows, laid out and typed as the model asks; all of it where rows share it."""
        part = self.raw(rows)
        if self.new_axis is not None:
            part = np.expand_dims(part, self.new_axis)
        if self.store.is_text:
            return part
        return np.ascontiguousarray(part, np.dtype(self.port.dtype)).reshape(part.shape)

    def raw(self, rows: Array | slice) -> Array:
        """Read rows as they are stored."""
        if self.axis is None:
            return self.store.read(slice(None), 0)
        return self.store.read(rows, self.axis)

    def chunks(self) -> Iterator[tuple[int, slice]]:
        """Give slices that cover all rows, a few MB each, and the row each begins with."""
        if self.rows is None:
            yield 0, slice(None)
            return
        total_bytes = prod(self.store.shape) * self.store.dtype.itemsize
        step = max(1, self.rows * CHUNK_BYTES // max(total_bytes, 1))
        for start in range(0, self.rows, step):
            yield start, slice(start, start + step)


def fit(
    port: Port,
    store: Store,
    where: str,
    columns: tuple[str, ...] = (),
    *,
    allow_missing: bool = False,
) -> Feed:
    """Check shape, type and every value of an array against an input of the model.

    An axis of size 1 is added where the array lacks exactly one.  Values keep their meaning:
    numbers are rounded to a float type; whole numbers are cast to an integer type that holds
    all of them; any other change is refused.

    Raises:
        DataError: the array does not fit.
    """
    feed = Feed(port, store, where, columns, _new_axis(port, store.shape, where))
    if feed.rows == 0:
        raise DataError(where, "has no rows", "give some: a few hundred tell something")
    if prod(store.shape) == 0:
        raise DataError(
            where,
            f"is empty: its shape is {store.shape}",
            f"input {port.name!r} of the model takes {_say_shape(port)}",
        )
    if store.is_text or port.dtype == "str":
        if store.is_text == (port.dtype == "str"):
            return feed
        holds = "strings" if store.is_text else f"numbers ({store.dtype})"
        raise DataError(
            where,
            f"holds {holds}, but input {port.name!r} of the model takes {port.dtype}",
            "give strings, such as x.astype(str)"
            if port.dtype == "str"
            else f"give numbers; if the strings are some, x.astype(np.{port.dtype})",
        )
    _check_finite(feed, allow_missing=allow_missing)
    _check_cast(feed)
    return feed


def _new_axis(port: Port, shape: tuple[int, ...], where: str) -> int | None:
    if _matches(port, shape):
        return None
    if len(shape) + 1 == len(port.shape):
        for axis, size in enumerate(port.shape):
            widened = (*shape[:axis], 1, *shape[axis:])
            if size == 1 and axis != port.batch_axis and _matches(port, widened):
                return axis
    raise DataError(
        where,
        f"has shape {shape}, but input {port.name!r} of the model takes {_say_shape(port)}",
        _shape_hint(port, shape),
    )


def _matches(port: Port, shape: tuple[int, ...]) -> bool:
    return len(shape) == len(port.shape) and all(
        wanted in {None, size} or axis == port.batch_axis
        for axis, (wanted, size) in enumerate(zip(port.shape, shape, strict=True))
    )


def _say_shape(port: Port) -> str:
    sizes = [
        "rows" if axis == port.batch_axis else "any" if size is None else str(size)
        for axis, size in enumerate(port.shape)
    ]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _shape_hint(port: Port, shape: tuple[int, ...]) -> str:
    rank = len(shape)
    if rank == len(port.shape) >= IMAGE_RANK:
        orders = ((0, rank - 1, *range(1, rank - 1)), (0, *range(2, rank), 1))
        for order, layout in zip(orders, ("last", "first"), strict=True):
            if _matches(port, tuple(shape[axis] for axis in order)):
                return f"the channels come {layout} here: use x.transpose{order}"
    rows_moved = _rows_first(port, rank)
    if rows_moved and _matches(port, tuple(shape[axis] for axis in rows_moved)):
        return f"the rows come first here: use x.transpose{rows_moved}"
    wanted = f"give an array of shape {_say_shape(port)}, one row for each sample"
    if port.batch_axis != 0:
        return wanted
    if _matches(port, (1, *shape)):
        return "this looks like one sample without a sample axis: use x[np.newaxis]"
    sizes = port.shape[1:]
    known = [size for size in sizes if size is not None]
    if rank and len(known) == len(sizes) and prod(known) == prod(shape[1:]):
        return f"the sizes agree: use x.reshape{(-1, *known)}"
    return wanted


def _rows_first(port: Port, rank: int) -> tuple[int, ...]:
    """Give the order of axes that moves the rows from the first to where the model has them."""
    if not port.batch_axis or rank != len(port.shape):
        return ()
    others = list(range(1, rank))
    others.insert(port.batch_axis, 0)
    return tuple(others)


def _check_finite(feed: Feed, *, allow_missing: bool) -> None:
    if feed.store.dtype.kind != "f":
        return
    faults = _find(feed, np.isinf if allow_missing else lambda part: ~np.isfinite(part))
    if faults is None:
        return
    raise DataError(
        feed.where,
        f"holds values that are missing, NaN or infinite: {faults}",
        "fill them in or leave those rows out"
        + ("" if allow_missing else "; --allow-missing is for models that fill NaN in"),
    )


def _check_cast(feed: Feed) -> None:
    have = feed.store.dtype
    want = _plain_dtype(feed.port.dtype)
    if want is None:
        raise DataError(
            feed.where,
            f"cannot feed input {feed.port.name!r}: no array holds {feed.port.dtype}",
            "export the model again with inputs of float32",
        )
    if have.kind == "b" or np.can_cast(have, want, "safe"):
        return
    if want.kind == "f":
        largest = float(np.finfo(want).max)
        faults = _find(feed, lambda part: np.abs(part) > largest)
    else:
        low, high = (0, 1) if want.kind == "b" else _limits(want)
        faults = _find(
            feed, lambda part: (part < low) | (part > high) | (part != np.trunc(part))
        )
    if faults is not None:
        raise DataError(
            feed.where,
            f"input {feed.port.name!r} of the model takes {want}, which cannot hold {faults}",
            _cast_hint(want, have),
        )


def _limits(want: np.dtype[Any]) -> tuple[int, int]:
    info = np.iinfo(want)
    return int(info.min), int(info.max)


def _cast_hint(want: np.dtype[Any], have: np.dtype[Any]) -> str:
    if have.kind == "f" and want.kind in "iu":
        return (
            f"give whole numbers, as {want}; for images scaled to [0, 1] that is "
            f"np.round(x * 255).astype(np.{want})"
        )
    return f"give numbers that {want} holds: were the inputs encoded for another model?"


def _find(feed: Feed, faulty: Callable[[Array], Array]) -> str | None:
    """Say how many values are faulty and where the first one is; None if none is."""
    axis = feed.axis or 0
    count, first = 0, -1
    per_column = np.zeros(len(feed.columns), np.int64)
    for start, rows in feed.chunks():
        bad = np.atleast_1d(faulty(feed.raw(rows)))
        if not bad.any():
            continue
        flat = np.moveaxis(bad, axis, 0).reshape(bad.shape[axis], -1)
        if not count:
            first = start + int(np.flatnonzero(flat.any(axis=1))[0])
        count += int(flat.sum())
        if feed.columns:
            per_column += flat.sum(axis=0)
    if not count:
        return None
    place = "" if feed.rows is None else f", the first in row {first} (counting from 0)"
    if not feed.columns:
        return f"{count} of the values{place}"
    named = [
        f"{bad} in column {name!r}"
        for name, bad in zip(feed.columns, per_column.tolist(), strict=True)
        if bad
    ]
    more = f", and in {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return f"{', '.join(named[:MOST_NAMED])}{more}{place}"


def _plain_dtype(name: str) -> np.dtype[Any] | None:
    """NumPy's own type of this name; packages that register a bfloat16 do not count."""
    try:
        found = np.dtype(name)
    except TypeError:
        return None
    return found if found.isbuiltin == 1 else None
