"""Running models over data: batched, threaded, and the same result for any thread count."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from penjing.core.errors import DataError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from penjing.core.data import Batch, Part
    from penjing.core.model import Port
    from penjing.core.tensors import Array

BATCH_ROWS = 128
LARGEST_BATCH_BYTES = 3 * 2**17
"""Inputs of one batch as floats.  What a model computes on the way grows with them: larger
batches of images leave the processor's caches, which is slower and takes more memory."""
FARTHEST = 1e6
"""Divergence at which outputs have nothing in common with the original's."""


class NotFiniteError(DataError):
    """The original model gives NaN or infinite outputs."""


class Runs(Protocol):
    """Anything that maps a batch of inputs to outputs: a session, or a wrapped model."""

    @property
    def inputs(self) -> tuple[Port, ...]:
        """Describe the inputs."""

    @property
    def outputs(self) -> tuple[Port, ...]:
        """Describe the outputs."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch."""


@dataclass(frozen=True, slots=True)
class Batching:
    """How many rows run at once, and whether the model insists on exactly that many."""

    rows: int
    fixed: bool

    @classmethod
    def of(cls, ports: Sequence[Port]) -> Batching:
        """Take the model's own batch size where it is fixed."""
        for port in ports:
            if port.batch_axis is not None:
                size = port.shape[port.batch_axis]
                if size is not None:
                    return cls(size, fixed=True)
        row_bytes = sum(_row_bytes(port) for port in ports)
        fitting = max(1, LARGEST_BATCH_BYTES // max(1, row_bytes))
        return cls(min(BATCH_ROWS, fitting), fixed=False)


def _row_bytes(port: Port) -> int:
    sizes = [size or 1 for axis, size in enumerate(port.shape) if axis != port.batch_axis]
    width = 8 if port.dtype == "str" else max(4, np.dtype(port.dtype).itemsize)
    return int(np.prod(sizes)) * width


def threads() -> int:
    """Threads to use: the cores this process may run on, 8 at most."""
    if hasattr(os, "sched_getaffinity"):
        return min(8, len(os.sched_getaffinity(0)))
    return min(8, os.cpu_count() or 1)


def run_all(model: Runs, part: Part) -> dict[str, Array]:
    """Run every row of ``part``; give each output with the sample axis first.

    Outputs without one row per sample, or whose rows differ in shape from batch to batch, are
    left out.  Batches are cut the same way whatever the number of threads, so results are too;
    only a few are in memory at a time.

    Raises:
        DataError: the model does not run on these data, or gives NaN.
        ModelError: no output has a sample axis.
    """
    batching = Batching.of(model.inputs)
    axes = {p.name: p.batch_axis for p in model.outputs if p.batch_axis is not None}

    def one(batch: Batch) -> dict[str, Array]:
        feed = padded(batch, model.inputs, batching) if batching.fixed else batch.inputs
        results = model.run(feed)
        fed = batching.rows if batching.fixed else batch.rows
        return {
            name: np.moveaxis(results[name], axis, 0)[: batch.rows]
            for name, axis in axes.items()
            if results[name].ndim > axis and results[name].shape[axis] == fed
        }

    pieces = list(_in_order(one, part.batches(batching.rows)))
    outputs = {}
    for name in axes:
        found = [piece[name] for piece in pieces if name in piece]
        if sum(map(len, found)) == len(part) and len({piece.shape[1:] for piece in found}) == 1:
            outputs[name] = np.concatenate(found)
    if not outputs:
        raise ModelError("model", "gives no output with one row per sample")
    return outputs


def _in_order(
    work: Callable[[Batch], dict[str, Array]], batches: Iterable[Batch]
) -> Iterator[dict[str, Array]]:
    """Work on batches in threads, never reading far ahead of what is done."""
    waiting: deque[Future[dict[str, Array]]] = deque()
    with ThreadPoolExecutor(threads()) as pool:
        for batch in batches:
            waiting.append(pool.submit(work, batch))
            if len(waiting) > 2 * threads():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def check_finite(outputs: Mapping[str, Array], where: str) -> None:
    """Refuse NaN and infinite outputs of the original model.

    Raises:
        NotFiniteError: an output is not finite.
    """
    for name, array in outputs.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            bad = int((~np.isfinite(array).reshape(len(array), -1).all(1)).sum())
            raise NotFiniteError(
                where,
                f"the original model gives NaN or infinity in {name!r} for {bad} of "
                f"{len(array)} rows",
                "check the weights and the scaling of the inputs",
            )


def padded(batch: Batch, ports: Sequence[Port], batching: Batching) -> dict[str, Array]:
    """Repeat the last row until a model with a fixed batch size has all its rows."""
    missing = batching.rows - batch.rows
    feed = dict(batch.inputs)
    for port in ports:
        if missing and port.batch_axis is not None:
            array = feed[port.name]
            last = np.take(array, [-1], axis=port.batch_axis)
            tail = np.repeat(last, missing, axis=port.batch_axis)
            feed[port.name] = np.concatenate([array, tail], axis=port.batch_axis)
    return feed


def divergence(
    original: Mapping[str, Array], outputs: Mapping[str, Array], *, classes: bool = True
) -> Array:
    """Tell how far outputs have moved, one number per sample; zero means not at all.

    Class scores: Kullback-Leibler divergence in nats, from the original's softmax to the
    compressed model's.  Other real outputs: squared error over the output's variance.
    An output that is no number any more has moved by ``FARTHEST``.

    Args:
        original: what the outputs were.
        outputs: what they are.
        classes: whether two or more numbers per sample are scores of classes.
    """
    total: Array | None = None
    for name, wanted in original.items():
        if not np.issubdtype(wanted.dtype, np.floating):
            continue
        before, after = wanted.astype(np.float64), outputs[name].astype(np.float64)
        is_scores = classes and before.ndim >= 2 and before.shape[-1] >= 2  # noqa: PLR2004
        with np.errstate(over="ignore", invalid="ignore"):
            moved = _kullback_leibler(before, after) if is_scores else _energy(before, after)
        moved = np.minimum(np.where(np.isnan(moved), FARTHEST, moved), FARTHEST)
        total = moved if total is None else total + moved
    if total is None:
        first = next(iter(original))
        differs = original[first] != outputs[first]
        return np.asarray(differs.reshape(len(differs), -1).mean(1))
    return total


def _kullback_leibler(before: Array, after: Array) -> Array:
    logs = [_log_shares(scores) for scores in (before, after)]
    each = (np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis=-1)
    return np.asarray(np.maximum(each.reshape(len(each), -1).mean(axis=1), 0.0))


def _log_shares(scores: Array) -> Array:
    """Log-probabilities from logits, or from probabilities if that is what they are."""
    if scores.min() >= 0 and np.allclose(scores.sum(axis=-1), 1, atol=1e-3):
        return np.asarray(np.log(np.maximum(scores, 1e-12)))
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _energy(before: Array, after: Array) -> Array:
    spread = max(float(before.var()), 1e-12)
    squares = ((after - before) ** 2).reshape(len(before), -1)
    return np.asarray(squares.mean(axis=1) / spread)
