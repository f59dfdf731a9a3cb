"""How a model's output answers to each row of one layer, by finite differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penjing.backends.onnx_support.scopes import is_constant, reads
from penjing.backends.onnx_support.stages import Stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx

    from penjing.backends.onnx_support.feeding import Feeding
    from penjing.core.tensors import Array

STEP = 0.05
"""Size of a difference, relative to the row's own standard deviation."""
MOST_OUTPUTS = 256
"""Outputs per sample beyond which the answer would be too large to be worth it."""


class Jacobian:
    """Moves the output channels of one layer, and runs only what comes after it.

    A channel is moved along a random pattern of signs over samples and positions, so that
    what positions do adds up without favouring any common direction.
    """

    def __init__(self, feeding: Feeding, node: onnx.NodeProto) -> None:
        """Divide the graph at ``node``, a layer of the main graph."""
        self.feeding, self.node = feeding, node
        graph = feeding.cut.graph.graph
        self.layer, self.result = node.output[0], graph.output[0].name
        moved = set(node.output)
        before: list[onnx.NodeProto] = []
        after: list[onnx.NodeProto] = []
        for item in graph.node:
            if is_constant(item):
                continue
            depends = bool(reads(item) & moved) and list(item.output) != list(node.output)
            (after if depends else before).append(item)
            if depends:
                moved |= set(item.output)
        constants = set(feeding.plan.constants)
        self.tail = _stage(after, {self.result}, constants)
        live = set(self.tail.reads) - {item.name for item in graph.input}
        self.head = _stage(before, live | {self.layer}, constants)
        self.reachable = self.result in moved

    def of(
        self, feed: Mapping[str, Array], rng: np.random.Generator
    ) -> tuple[Array, Array] | None:
        """Give derivatives and outputs of one batch.

        Args:
            feed: model inputs.
            rng: draws the pattern.

        Returns:
            (samples, rows, outputs) derivatives, up to a sign common to a sample and a
            position, and (samples, outputs) outputs; None where the model's first output does
            not depend on the layer, or is no row of a few numbers per sample.
        """
        if not self.reachable or not self.feeding.can_run(self.head, feed):
            return None
        values = {**feed, **self.feeding.run(self.head, feed, {})}
        base = reference = values[self.layer]
        if self.layer != self.result:
            if not self.feeding.can_run(self.tail, values):
                return None
            reference = self.feeding.run(self.tail, values, {})[self.result]
        if reference.ndim != 2 or reference.shape[1] > MOST_OUTPUTS:  # noqa: PLR2004
            return None
        if self.layer == self.result:
            same = np.eye(reference.shape[1], dtype=np.float32)
            return np.broadcast_to(same, (len(reference), *same.shape)), reference
        axis = 1 if self.node.op_type.startswith("Conv") else base.ndim - 1
        spread = base.std(axis=tuple(a for a in range(base.ndim) if a != axis))
        steps = STEP * np.maximum(spread, 1e-3 * max(float(spread.max()), 1e-12))
        signs = rng.choice(np.array([-1, 1], base.dtype), np.take(base, 0, axis).shape)
        found = np.empty((len(reference), base.shape[axis], reference.shape[1]), np.float32)
        for row, step in enumerate(steps):
            moved = base.copy()
            np.moveaxis(moved, axis, 0)[row] += step * signs
            answer = self.feeding.run(self.tail, {**values, self.layer: moved}, {})
            found[:, row] = (answer[self.result] - reference) / step
        return found, reference


def _stage(nodes: Iterable[onnx.NodeProto], gives: set[str], constants: set[str]) -> Stage:
    """Keep the nodes that ``gives`` depend on."""
    wanted = set(gives)
    kept: list[onnx.NodeProto] = []
    for node in reversed(list(nodes)):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= reads(node)
    kept.reverse()
    made = {name for node in kept for name in node.output if name}
    asked = {name for node in kept for name in reads(node)} - made
    shown = sorted(gives & made)
    return Stage(kept, [], sorted(asked - constants), sorted(asked & constants), shown)
