"""Walking an ONNX graph layer by layer, with the original and the compressed side by side.

Each stage is a small ONNX model of its own, whose layer weights are inputs, so changing a
weight costs nothing.  Results do not depend on the number of threads: the data are shared out
in fixed pieces, and sums are taken in fixed order.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from penjing.backends.onnx_support.feeding import Feeding
from penjing.backends.onnx_support.jacobians import Jacobian
from penjing.backends.onnx_support.moments import Moments, Sight, combine, moments
from penjing.backends.onnx_support.stages import constant_array, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from penjing.backends.onnx_support.reading import Cut
    from penjing.backends.onnx_support.roles import Role, Use
    from penjing.core.model import Port, Statistics, Weight
    from penjing.core.runtime import Runtime
    from penjing.core.tensors import Array

    Values = dict[str, Array]
    Encode = Callable[[str, Statistics], Mapping[str, Array]]

LANES = 8
"""Shares of the data whose sums are taken apart; the most threads that can work."""
PIECE_BYTES = 16 * 2**20
"""About what the values of one batch may take at a time."""
LIVE_BYTES = 512 * 2**20
"""What the values of all batches, original and compressed, may take at a time."""
PROBE_ROWS = 8


@dataclass(slots=True)
class _Piece:
    """Values at hand for one batch; ``compressed`` is None while both are the same."""

    index: int
    rows: int
    original: Values
    compressed: Values | None = None


class StagedWalker:
    """Implements ``Walker`` for ONNX graphs."""

    def __init__(  # noqa: PLR0913  # everything a graph is made of
        self,
        *,
        cut: Cut,
        roles: Mapping[str, Role],
        weights: Mapping[str, Weight],
        pieces: Iterable[Mapping[str, Array]],
        ports: Sequence[Port],
        runtime: Runtime,
        threads: int,
    ) -> None:
        """Cut the graph into stages.

        Args:
            cut: the graph.
            roles: of its arrays.
            weights: the arrays themselves.
            pieces: batches of model inputs.
            ports: of the model: which axes count samples.
            runtime: runs the stages.
            threads: to use; results do not depend on it.
        """
        self.roles, self.threads = roles, threads
        floats = [name for name, weight in weights.items() if weight.is_float]
        self.plan = plan(cut, roles, floats)
        self.feeding = Feeding(cut, roles, weights, self.plan, runtime)
        self.axes = {port.name: port.batch_axis for port in ports}
        self.is_fixed = any(
            port.batch_axis is not None and port.shape[port.batch_axis] is not None
            for port in ports
        )
        self.pieces = [dict(piece) for piece in pieces]
        self.extras: dict[str, list[Moments]] | None = None
        self.end = len(self.plan.stages)
        self._fit()
        self.samples = sum(self._rows(piece) for piece in self.pieces)

    def _rows(self, piece: Mapping[str, Array]) -> int:
        for name, array in piece.items():
            axis = self.axes.get(name)
            if axis is not None:
                return int(array.shape[axis])
        return 1

    def _take(self, piece: Mapping[str, Array], rows: slice) -> Values:
        taken = {}
        for name, array in piece.items():
            axis = self.axes.get(name)
            taken[name] = array if axis is None else array[(*[slice(None)] * axis, rows)]
        return taken

    def _fit(self) -> None:
        """Choose batches so that the values of all of them fit into memory."""
        if not self.pieces:
            return
        first = self.pieces[0]
        probe = first if self.is_fixed else self._take(first, slice(PROBE_ROWS))
        per_row = max(1, self._peak(probe) // max(1, self._rows(probe)))
        fitting: list[Values] = []
        for piece in self.pieces:
            rows = self._rows(piece)
            step = rows if self.is_fixed else max(1, PIECE_BYTES // per_row)
            if step >= rows:
                fitting.append(piece)
            else:
                starts = range(0, rows, step)
                fitting += [self._take(piece, slice(at, at + step)) for at in starts]
        total = sum(self._rows(piece) for piece in fitting)
        most = max(1, int(len(fitting) * LIVE_BYTES / (2 * per_row * total)))
        if most < len(fitting):
            chosen = np.linspace(0, len(fitting) - 1, most).astype(int)
            fitting = [fitting[index] for index in chosen]
        self.pieces = fitting

    def _peak(self, inputs: Mapping[str, Array]) -> int:
        """Run one batch through all stages; give the bytes of its values at their most."""
        values, peak = dict(inputs), 1
        for index, stage in enumerate(self.plan.stages):
            if not self.feeding.can_run(stage, values):
                self.end = index
                return peak
            values.update(self.feeding.run(stage, values, {}))
            peak = max(peak, sum(array.nbytes for array in values.values()))
            self._forget(values, index)
        return peak

    def _forget(self, values: Values, index: int) -> None:
        for name in [n for n in values if self.plan.last_read.get(n, -1) <= index]:
            del values[name]

    def run(self, encode: Encode) -> None:
        """See ``Walker.run``."""
        if self.plan.tied and self.extras is None:
            found: dict[str, list[Moments]] = {}
            self._walk(lambda _name, _statistics: {}, found)
            self.extras = found
        self._walk(encode, None)

    def jacobian(self, name: str, samples: int, seed: int) -> tuple[Array, Array] | None:
        """See ``Walker.jacobian``."""
        uses = [use for stage in self.plan.stages for n, use in stage.layer if n == name]
        if len(uses) != 1 or uses[0].how not in {"rows", "conv"} or not uses[0].has_goal:
            return None
        asked = Jacobian(self.feeding, uses[0].node)
        derivatives, outputs = [], []
        for index, piece in enumerate(self.pieces):
            if samples <= 0:
                break
            found = asked.of(piece, np.random.default_rng([seed, index, *name.encode()]))
            if found is None or len(found[1]) != self._rows(piece):
                return None
            derivatives.append(found[0])
            outputs.append(found[1])
            samples -= len(found[1])
        return (np.concatenate(derivatives), np.concatenate(outputs)) if outputs else None

    def _walk(self, encode: Encode, found: dict[str, list[Moments]] | None) -> None:
        """Go through all stages; note moments of repeated uses in ``found`` if given."""
        state = [
            _Piece(index, self._rows(piece), dict(piece))
            for index, piece in enumerate(self.pieces)
        ]
        lanes = [state[lane::LANES] for lane in range(LANES)]
        changed: dict[str, Array] = {}
        met: set[str] = set()
        with ThreadPoolExecutor(self.threads) as pool, threadpool_limits(1, "blas"):
            for index, stage in enumerate(self.plan.stages[: self.end]):

                def original(lane: list[_Piece], at: int = index) -> list[Moments]:
                    return self._original(lane, at, same=not changed)

                def compressed(lane: list[_Piece], at: int = index) -> None:
                    self._compressed(lane, at, changed)

                sums = list(pool.map(original, lanes))
                for number, (name, _) in enumerate(stage.layer):
                    parts = [lane[number] for lane in sums if lane]
                    if name in met:
                        if found is not None:
                            found.setdefault(name, []).extend(parts)
                        continue
                    met.add(name)
                    parts += (self.extras or {}).get(name, [])
                    changed.update(encode(name, combine(parts, self.samples)))
                list(pool.map(compressed, lanes))

    def _original(self, lane: list[_Piece], index: int, *, same: bool) -> list[Moments]:
        """Run a stage of the original; sum the moments at its layer."""
        stage = self.plan.stages[index]
        totals = [Moments() for _ in stage.layer] if lane else []
        for piece in lane:
            results = self.feeding.run(stage, piece.original, {})
            for number, (name, use) in enumerate(stage.layer):
                totals[number].add(self._moments(name, use, piece, results, same=same))
            piece.original.update({given: results[given] for given in stage.gives})
            if piece.compressed is not None:
                self._forget(piece.original, index)
        return totals

    def _compressed(self, lane: list[_Piece], index: int, changed: Mapping[str, Array]) -> None:
        """Run a stage with changed weights; drop what no later stage reads."""
        stage = self.plan.stages[index]
        for piece in lane:
            if changed:
                if piece.compressed is None:
                    piece.compressed = dict(piece.original)
                results = self.feeding.run(stage, piece.compressed, changed)
                piece.compressed.update({given: results[given] for given in stage.gives})
                self._forget(piece.compressed, index)
            self._forget(piece.original, index)

    def _moments(
        self, name: str, use: Use, piece: _Piece, results: Values, *, same: bool
    ) -> Moments:
        values = piece.original if piece.compressed is None else piece.compressed

        def inputs(value: str) -> Array:
            return values[value] if value in values else self._constant(value)

        def outputs(value: str) -> Array:
            return results[value] if value in results else piece.original[value]

        goal = None if same or name in self.plan.tied else self.plan.goals.get(name)
        rng = np.random.default_rng([piece.index, *name.encode()])
        role = self.roles[name]
        sight = Sight(role, use, inputs, outputs, goal, self.samples, piece.rows, rng)
        return moments(sight)

    def _constant(self, value: str) -> Any:
        array = self.plan.arrays.get(value)
        if array is not None:
            return self.feeding.stored(array, {})
        return constant_array(self.plan.constants[value])
