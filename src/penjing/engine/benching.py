"""Timing one file: how fast it loads and runs, on random inputs."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.core.errors import ConfigError, DataError, UnsupportedError
from penjing.core.measure import Measurement
from penjing.engine.serving import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from penjing.core.model import Port
    from penjing.core.runtime import Session
    from penjing.core.tensors import Array

FEWEST_RUNS = 15
FREE_SIZES = (128, 256, 512, 1024, 64, 32, 16, 8, 4, 2, 1)
"""What to try, in this order, where a model leaves the length of something open."""
FREE_IMAGE_SIZE = 224
"""What to try first where it leaves the size of images open."""
IMAGE_RANK = 4
MOST_NUMBERS = 2**28
"""In one input."""

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast a model loads and runs."""

    size_bytes: int
    load_ms: float
    latency_ms: Measurement
    batch: int
    """Samples per run."""
    threads: int
    shapes: Shapes
    """Of the inputs that were run."""
    free_size: int | None = None
    """What was chosen for axes that the model leaves open, if there are any."""

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON values."""
        return asdict(self)


def bench(
    path: str | Path,
    *,
    seconds: float,
    threads: int,
    batch: int | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Timing:
    """Time loading once and running repeatedly; see ``penjing.api.bench``."""
    started = time.perf_counter()
    session = load(path, threads=threads)
    load_ms = 1000 * (time.perf_counter() - started)
    given = {name: tuple(shape) for name, shape in (shapes or {}).items()}
    _check_shapes(session.inputs, given)
    batch = _batch(session.inputs, given, batch)
    feed, free_size = _feed(session, given, batch)
    for _ in range(3):
        session.run(feed)
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < FEWEST_RUNS or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        session.run(feed)
        times.append(1000 * (time.perf_counter() - before))
    return Timing(
        Path(path).stat().st_size,
        load_ms,
        Measurement.median(np.array(times), "ms"),
        batch,
        threads,
        {name: array.shape for name, array in feed.items()},
        free_size,
    )


def _check_shapes(ports: Sequence[Port], given: Shapes) -> None:
    known = {port.name: port for port in ports}
    for name, shape in given.items():
        if name not in known:
            listed = ", ".join(map(repr, known))
            raise ConfigError("shapes", f"no input is called {name!r}", f"inputs: {listed}")
        wanted = known[name].shape
        fits = len(shape) == len(wanted) and all(
            size > 0 and asked in {None, size}
            for asked, size in zip(wanted, shape, strict=True)
        )
        if not fits:
            raise ConfigError(
                "shapes", f"input {name!r} takes {say(wanted)}, and {say(shape)} was given"
            )
        if prod(shape) > MOST_NUMBERS:
            raise ConfigError("shapes", f"{say(shape)} for input {name!r} is too large to time")


def _batch(ports: Sequence[Port], given: Shapes, asked: int | None) -> int:
    """Tell how many samples one run has: as many as fixed, as shapes say, or as asked.

    Raises:
        ConfigError: two of these differ.
    """
    found = {} if asked is None else {asked: "was asked for"}
    for port in ports:
        if port.batch_axis is None:
            continue
        fixed = port.shape[port.batch_axis]
        if port.name in given:
            found.setdefault(
                given[port.name][port.batch_axis], f"is in the shape of {port.name!r}"
            )
        elif fixed is not None:
            found.setdefault(fixed, f"is fixed in input {port.name!r} of the model")
    if asked is not None and all(port.batch_axis is None for port in ports):
        found.setdefault(1, "is what the model runs: none of its axes counts samples")
    if len(found) > 1:
        problem = ", but ".join(f"{size} {why}" for size, why in list(found.items())[:2])
        raise ConfigError("batch", problem, "leave it out to time the model as it is")
    return next(iter(found), 1)


def _feed(session: Session, given: Shapes, batch: int) -> tuple[dict[str, Array], int | None]:
    """Draw inputs that the model runs on; tell the size chosen for what it leaves open.

    Raises:
        DataError: nothing was left open, and the model does not run.
        UnsupportedError: it runs with no size that was tried.
    """
    left_open = [
        (port, axis)
        for port in session.inputs
        for axis, size in enumerate(port.shape)
        if size is None and axis != port.batch_axis and port.name not in given
    ]
    if not left_open:
        feed = _random(session.inputs, given, batch, 1)
        session.run(feed)
        return feed, None
    for free_size in _sizes([port for port, _ in left_open]):
        feed = _random(session.inputs, given, batch, free_size)
        try:
            session.run(feed)
        except DataError:  # perhaps the next size is one it runs with
            continue
        return feed, free_size
    port, axis = left_open[0]
    raise UnsupportedError(
        f"input {port.name!r}",
        f"has a free size on axis {axis}, and the model runs with none of "
        f"{', '.join(map(str, sorted(FREE_SIZES)))} there",
        f"say what to time: --shape {port.name}=1x..., for each input with free sizes",
    )


def _sizes(ports: Sequence[Port]) -> Iterator[int]:
    if any(len(port.shape) == IMAGE_RANK for port in ports):
        yield FREE_IMAGE_SIZE
    yield from FREE_SIZES


def _random(
    ports: Sequence[Port], given: Shapes, batch: int, free_size: int
) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    feed = {}
    for port in ports:
        sizes = [
            size if size is not None else batch if axis == port.batch_axis else free_size
            for axis, size in enumerate(port.shape)
        ]
        feed[port.name] = _draw(port.dtype, given.get(port.name, tuple(sizes)), rng)
    return feed


def _draw(dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if dtype == "str":
        return np.full(shape, "a", dtype=object)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return np.asarray(rng.normal(size=shape), kind)
    return np.asarray(rng.integers(0, 2, shape), kind)


def say(shape: Sequence[int | None]) -> str:
    """Write a shape down as users do.

    >>> say((None, 3, 32, 32))
    '?x3x32x32'
    """
    return "x".join("?" if size is None else str(size) for size in shape) or "one number"
