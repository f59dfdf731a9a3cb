"""What one batch tells about the inputs of a weight, and sums of that over batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from penjing.backends.onnx_support import grams
from penjing.backends.onnx_support.roles import attributes
from penjing.core.model import Statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from penjing.backends.onnx_support.roles import Role, Use
    from penjing.core.tensors import Array

    Look = Callable[[str], Array]
    """Gives a value by name."""

POSITIONS_PER_COLUMN = 32
"""Positions looked at for each column of a gram, over all samples; random beyond that."""
FEWEST_POSITIONS = 32
"""Positions looked at per sample where a sample has as many."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What the output of a layer should be: what the original gives, less what is added."""

    value: str
    """Name of the layer's output, with its bias."""
    total: str = ""
    """Where something is added to that output: name of the sum."""
    added: str = ""
    """What is added; the compressed model's own counts."""
    offset: str = ""
    """Constant in all of them that is no weight of its own: a small bias."""


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """One batch at one layer."""

    role: Role
    use: Use
    inputs: Look
    """Values that the compressed model gives."""
    outputs: Look
    """Values that the original gives."""
    goal: Goal | None
    samples: int
    """Samples of the whole walk."""
    rows: int
    """Samples of this batch."""
    rng: np.random.Generator

    @property
    def most(self) -> int:
        """Positions to look at, per sample."""
        columns = int(np.prod(self.role.shape[1:]))
        return max(FEWEST_POSITIONS, ceil(POSITIONS_PER_COLUMN * columns / self.samples))


@dataclass(slots=True)
class Moments:
    """Sums over positions of some samples; see ``Statistics``."""

    gram: Array | None = None
    mean: Array | None = None
    positions: float = 0.0
    cross: Array | None = None
    target: Array | None = None
    rows: Array | None = None
    fields: tuple[str, ...] = field(
        default=("gram", "mean", "cross", "target", "rows"), repr=False
    )

    def add(self, other: Moments) -> None:
        """Add the sums of further samples of the same weight."""
        self.positions += other.positions
        for name in self.fields:
            mine, its = getattr(self, name), getattr(other, name)
            if its is not None:
                setattr(self, name, its if mine is None else mine + its)


def combine(parts: Iterable[Moments], samples: int) -> Statistics:
    """Average sums over samples.

    Where a table is looked up and multiplied too, both count: look-ups as if all rows were
    used alike.
    """
    total = Moments()
    for part in parts:
        total.add(part)
    if total.gram is not None and total.rows is not None:
        size = total.gram.shape[-1]
        total.gram = total.gram + float(total.rows.mean()) * np.eye(size)
        total.rows = total.cross = total.target = None

    def mean(value: Array | None) -> Array | None:
        return None if value is None else value / samples

    return Statistics(
        mean(total.gram),
        mean(total.mean),
        total.positions / samples,
        mean(total.cross),
        mean(total.target),
        mean(total.rows),
        samples,
    )


def moments(sight: Sight) -> Moments:
    """Sum the moments of one batch, at the inputs that the compressed model gives."""
    use, role = sight.use, sight.role
    values = sight.inputs(use.tap)
    if use.how == "gather":
        counts = np.bincount(values.ravel() % role.shape[0], minlength=role.shape[0])
        return Moments(rows=counts.astype(np.float64), positions=float(values.size))
    if use.how in {"inputs", "states"}:
        columns = _recurrent(sight, values)
        return _summed(*_some(columns, None, sight))
    if use.how in {"conv", "conv_transpose"}:
        return _convolution(sight, values)
    outputs = None
    wanted = _wanted(sight)
    if use.how.startswith("stacked"):
        first = use.how == "stacked_columns"
        columns = grams.columns_of_stack(values, role.groups, first=first)
        if wanted is not None:
            outputs = grams.columns_of_stack(wanted, role.groups, first=first)
    else:
        columns = grams.columns_of_rows(values, first=use.how.startswith("columns"))
        if wanted is not None:
            outputs = grams.columns_of_rows(wanted, first=use.how.endswith("columns"))
    return _summed(*_some(columns, outputs, sight), scale=use.scale)


def _convolution(sight: Sight, values: Array) -> Moments:
    role, known = sight.role, attributes(sight.use.node)
    kernel = role.shape[2:]
    if sight.use.how == "conv":
        patches = grams.Patches.draw(values.shape, kernel, known, sight.rng, sight.most)
    else:
        spaces = (values.shape[2:], sight.outputs(sight.use.output).shape[2:])
        patches = grams.Patches.draw_transposed(spaces, kernel, known, sight.rng, sight.most)
    wanted = _wanted(sight)
    outputs = None if wanted is None else patches.outputs(wanted, role.groups)
    return _summed(patches.columns(values, role.groups), outputs, patches.weight)


def _some(
    columns: Array, outputs: Array | None, sight: Sight
) -> tuple[Array, Array | None, float]:
    """Draw positions where there are more than needed; give what each stands for, too."""
    total, most = columns.shape[2], sight.most * sight.rows
    if total <= most:
        return columns, outputs, 1.0
    chosen = grams.choose(total, most, sight.rng)
    return (
        columns[:, :, chosen],
        None if outputs is None else outputs[:, :, chosen],
        total / most,
    )


def _summed(
    columns: Array, outputs: Array | None, weight: float, *, scale: float = 1.0
) -> Moments:
    moment, mean = grams.gram(columns)
    made = Moments(weight * scale**2 * moment, weight * scale * mean, weight * columns.shape[2])
    if outputs is not None:
        turned = columns.swapaxes(1, 2).astype(np.float32, copy=False)
        cross = np.matmul(outputs.astype(np.float32, copy=False), turned)
        made.cross = weight * scale * cross.astype(np.float64)
        made.target = weight * outputs.sum(axis=2, dtype=np.float64)
    return made


def _wanted(sight: Sight) -> Array | None:
    """Give what the layer should output; None where it has no goal."""
    goal = sight.goal
    if goal is None:
        return None
    wanted = sight.outputs(goal.value)
    shape = wanted.shape
    if goal.total:
        total = sight.outputs(goal.total)
        # Where the addition repeats the output, its sum is no goal for each position.
        wanted = total - sight.inputs(goal.added) if total.shape == shape else wanted
    if goal.offset:
        offset = sight.inputs(goal.offset)
        if sight.use.how in {"conv", "conv_transpose"}:
            offset = offset.reshape(-1, *[1] * (len(shape) - 2))
        wanted = wanted - offset
    return wanted


def _recurrent(sight: Sight, values: Array) -> Array:
    """Inputs of a recurrent layer, or the states that it feeds back, as (g, columns, count).

    A GRU's candidate state sees them through a gate, which is left out here.
    """
    known = attributes(sight.use.node)
    batch_first = bool(known.get("layout", 0))
    groups, size = sight.role.groups, sight.role.shape[1]
    if sight.use.how == "inputs":
        flat = values.reshape(-1, size).T
        return np.broadcast_to(flat, (groups, *flat.shape))
    states = sight.outputs(sight.use.output)  # (steps, directions, samples, hidden)
    if batch_first:
        states = states.transpose(1, 2, 0, 3)
    first = np.zeros_like(states[:1])
    given = sight.use.node.input[5] if len(sight.use.node.input) > 5 else ""  # noqa: PLR2004
    if given:
        initial = sight.inputs(given)
        first[0] = initial.swapaxes(0, 1) if batch_first else initial
    backward = known.get("direction", b"forward") == b"reverse"
    fed = []
    for direction in range(groups):
        own, start = states[:, direction], first[:, direction]
        reverse = backward or direction == 1
        fed.append(np.concatenate([own[1:], start] if reverse else [start, own[:-1]]))
    stacked = np.stack(fed)
    return stacked.reshape(groups, -1, size).swapaxes(1, 2)
