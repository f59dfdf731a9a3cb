"""Rate-distortion-optimal integers for one layer: feedback sweeps, then coordinate descent.

The layer's loss is quadratic, ``tr(S (W - Q) H (W - Q)ᵀ)``: H holds the second moments of its
inputs, S (the identity, unless measured) tells how errors of its outputs add up.  The rate is
the length of the codes under a table of bits that is learned from the codes themselves.  Both
are minimised together: ``loss + mu * bits``, with ``mu`` in units of loss per bit.

References:
    Hassibi & Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon",
    NeurIPS 1992; Frantar et al., "GPTQ", ICLR 2023; Conzelmann & Bamler, "CERWU", 2025
    (feedback with a rate term); Tseng et al., "YAQA", 2025 (feedback along both axes).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from penjing.core.tensors import Array

BLOCK = 64
"""Columns treated between two matrix products; feedback within a block is column by column."""
ROW_BLOCK = 8
"""Rows quantized at once where rows interact."""
LARGEST_TABLE = 4096
WIDE = 1024
"""Columns up to which a general inverse is as good as one that knows of triangles."""
FEEDBACK_SWEEPS = 3
WATER_FILLING = 6 / np.log(2)
"""At high rate a uniform quantizer of step d costs d²/12 per weight and saves 1/ln 2 / d bits
per unit of step: the two slopes meet where d² = 6 mu / ln 2 over the local curvature."""


@dataclass(frozen=True, eq=False)
class Problem:
    """One group of rows that share their inputs."""

    wanted: Array
    """(rows, columns) float64: real values to approximate; a bias is the last column."""
    curvature: Array
    """(columns, columns) float64, positive definite: H."""
    keep: Array | None = None
    """(rows, columns) bool: False where a weight must stay zero."""
    biased: bool = False
    """Whether the last column is a bias; it has its own step and no rate term."""
    metric: Array | None = None
    """(rows, rows) float64, positive definite: S.  None: rows do not interact."""

    @property
    def weight_columns(self) -> int:
        """Columns that are weights."""
        return int(self.wanted.shape[1]) - self.biased

    @cached_property
    def factor(self) -> Array:
        """Upper triangular C with ``inv(H) = Cᵀ C``: the feedback of each column."""
        return _inverse_factor(self.curvature)

    @cached_property
    def row_factor(self) -> Array | None:
        """Upper triangular C with ``inv(S) = Cᵀ C``: the feedback of each row."""
        return None if self.metric is None else _inverse_factor(self.metric)


def _inverse_factor(matrix: Array) -> Array:
    lower = np.linalg.cholesky(matrix[::-1, ::-1])
    return _inverse_of_upper(lower[::-1, ::-1])


def _inverse_of_upper(upper: Array) -> Array:
    """Invert an upper triangular matrix; by halves where that saves most of the work."""
    size = len(upper)
    if size <= WIDE:
        return np.linalg.inv(upper)
    half = size // 2
    first = _inverse_of_upper(upper[:half, :half])
    last = _inverse_of_upper(upper[half:, half:])
    found = np.zeros_like(upper)
    found[:half, :half], found[half:, half:] = first, last
    found[:half, half:] = -first @ (upper[:half, half:] @ last)
    return found


def natural_step(problems: list[Problem], mu: float, ratio: float) -> float:
    """Give the step that balances loss and rate at ``mu``, times ``ratio``.

    Args:
        problems: one per group of the layer.
        mu: loss per bit.
        ratio: 1 is the optimum at high rates; above it fewer, larger codes.
    """
    logs = []
    for problem in problems:
        diagonal = np.diag(problem.factor)[: problem.weight_columns]
        rows = problem.row_factor
        logs.append(np.log(diagonal).mean() + (0 if rows is None else row_level(rows)))
    return float(ratio * np.sqrt(WATER_FILLING * mu) * np.exp(np.mean(logs)))


def row_level(row_factor: Array) -> float:
    """Mean logarithm by which the feedback along rows relaxes the step."""
    return float(np.log(np.diag(row_factor)).mean())


def bits_of(codes: Array) -> Array:
    """Learn a table: bits of a code by its magnitude, sign included, from a histogram.

    Args:
        codes: integers of any shape.

    Returns:
        (size,) float64; the last entry stands for everything beyond, and tails are smooth so
        that a magnitude never seen is dear but not forbidden.
    """
    magnitudes = np.minimum(np.abs(codes).ravel().astype(np.int64), LARGEST_TABLE)
    size = int(magnitudes.max(initial=0)) + 3
    counts = np.bincount(magnitudes, minlength=size).astype(np.float64)
    shares = (counts + 0.25) / (counts.sum() + 0.25 * size)
    bits: Array = -np.log2(shares)
    bits[1:] += 1
    return bits


def first_bits(wanted: Array, step: float) -> Array:
    """Guess the table before there are codes: a Laplace distribution of the same spread."""
    spread = max(float(np.abs(wanted).sum()) / max(wanted.size, 1) / step, 0.05)
    size = min(LARGEST_TABLE, int(np.abs(wanted).max(initial=0) / step) + 3)
    decay = np.exp(-1.0 / spread)
    shares = (1 - decay) * decay ** np.arange(size) + 1e-6
    bits: Array = -np.log2(shares / shares.sum())
    bits[1:] += 1
    return bits


def quantize(
    problems: list[Problem],
    steps: tuple[float, float],
    mu: Array | float,
    *,
    rate_term: bool,
    descents: int,
) -> list[Array]:
    """Choose integer codes for all groups of a layer.

    Args:
        problems: one per group.
        steps: of the weights, and of the bias column.
        mu: loss per bit; one number, or one per row (rows, 1 group only).
        rate_term: whether the length of the codes counts; otherwise round to nearest.
        descents: coordinate-descent sweeps after the feedback sweeps.

    Returns:
        Codes of each group, (rows, columns) float64 with integer values.
    """
    factors = [(problem.factor, problem.row_factor) for problem in problems]
    widths = [_step_row(problem, steps) for problem in problems]
    table = None
    if rate_term:
        weights = [p.wanted[:, : p.weight_columns] for p in problems]
        table = first_bits(np.concatenate(weights), steps[0])
    codes = [p.wanted for p in problems]
    for _ in range(FEEDBACK_SWEEPS if rate_term else 1):
        codes = [
            _feedback(problem, factor, width, mu, table)
            for problem, factor, width in zip(problems, factors, widths, strict=True)
        ]
        table = _learn(problems, codes) if rate_term else None
    for _ in range(descents):
        codes = [
            _descend(problem, code, width, mu, table)
            for problem, code, width in zip(problems, codes, widths, strict=True)
        ]
        table = _learn(problems, codes) if rate_term else None
    return codes


def _step_row(problem: Problem, steps: tuple[float, float]) -> Array:
    row = np.full(problem.wanted.shape[1], steps[0])
    if problem.biased:
        row[-1] = steps[1]
    return row


def _learn(problems: list[Problem], codes: list[Array]) -> Array:
    used = [c[:, : p.weight_columns] for p, c in zip(problems, codes, strict=True)]
    return bits_of(np.concatenate(used))


def _feedback(
    problem: Problem,
    factors: tuple[Array, Array | None],
    steps: Array,
    mu: Array | float,
    table: Array | None,
) -> Array:
    """Quantize column by column; later columns make up for the error of earlier ones."""
    left = problem.wanted.copy()
    rows, columns = left.shape
    codes = np.empty_like(left)
    factor, row_factor = factors
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        errors = np.empty((rows, end - start))
        for j in range(start, end):
            bits = table if j < problem.weight_columns else None
            weight = (steps[j] / factor[j, j]) ** 2
            keep = None if problem.keep is None else problem.keep[:, j]
            codes[:, j] = _column(left[:, j] / steps[j], weight, row_factor, mu, bits, keep)
            error = (left[:, j] - codes[:, j] * steps[j]) / factor[j, j]
            errors[:, j - start] = error
            left[:, j + 1 : end] -= error[:, None] * factor[j, j + 1 : end]
        left[:, end:] -= errors @ factor[start:end, end:]
    return codes


def _column(  # noqa: PLR0913, PLR0917  # the innermost step: everything is at hand
    position: Array,
    weight: float,
    row_factor: Array | None,
    mu: Array | float,
    bits: Array | None,
    keep: Array | None,
) -> Array:
    """Quantize one column; where rows interact, later rows make up for earlier ones."""
    if row_factor is None:
        codes = _pick(position, weight, mu, bits)
        return codes if keep is None else codes * keep
    codes, left = np.empty_like(position), position.copy()
    gains = 1 / np.diag(row_factor)
    for start in range(0, len(position), ROW_BLOCK):
        block = slice(start, start + ROW_BLOCK)
        codes[block] = _pick(left[block], weight * gains[block] ** 2, mu, bits)
        if keep is not None:
            codes[block] *= keep[block]
        errors = (left[block] - codes[block]) * gains[block]
        left[start + ROW_BLOCK :] -= errors @ row_factor[block, start + ROW_BLOCK :]
    return codes


def _descend(
    problem: Problem, codes: Array, steps: Array, mu: Array | float, table: Array | None
) -> Array:
    """Re-choose each code given all others; the total cost never grows."""
    codes, curvature, metric = codes.copy(), problem.curvature, problem.metric
    rows, columns = codes.shape
    gains = np.ones(rows) if metric is None else np.diag(metric)
    errors = problem.wanted - codes * steps
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        pulls = errors @ curvature[:, start:end]
        if metric is not None:
            pulls = metric @ pulls
        for j in range(start, end):
            bits = table if j < problem.weight_columns else None
            local = gains * curvature[j, j]
            best = codes[:, j] + pulls[:, j - start] / (local * steps[j])
            chosen = _pick(best, local * steps[j] ** 2, mu, bits, present=codes[:, j])
            if problem.keep is not None:
                chosen = chosen * problem.keep[:, j]
            moved = np.flatnonzero(chosen != codes[:, j])
            if metric is None:
                change = (chosen[moved] - codes[moved, j]) * steps[j]
                errors[moved, j] -= change
                codes[moved, j] = chosen[moved]
                pulls[moved] -= change[:, None] * curvature[j, start:end]
                continue
            # Rows interact: the most eager first, and each looks again before it moves.
            for row in moved[np.argsort(-np.abs(best - codes[:, j])[moved], kind="stable")]:
                pull = pulls[row : row + 1, j - start]
                place = codes[row : row + 1, j] + pull / (local[row] * steps[j])
                present = codes[row : row + 1, j]
                weight = local[row] * steps[j] ** 2
                value = float(_pick(place, weight, mu, bits, present=present)[0])
                if problem.keep is not None and not problem.keep[row, j]:
                    continue
                change = (value - codes[row, j]) * steps[j]
                if change:
                    errors[row, j] -= change
                    codes[row, j] = value
                    pulls -= change * np.outer(metric[:, row], curvature[j, start:end])
    return codes


def _pick(
    position: Array,
    weight: Array | float,
    mu: Array | float,
    bits: Array | None,
    *,
    present: Array | None = None,
) -> Array:
    """Choose integers near ``position``: the nearest, one nearer to zero, zero, or ``present``.

    Minimises ``weight * (position - code)² + mu * bits``; ``position`` is in steps.
    """
    nearest = np.rint(position)
    if bits is None:
        return nearest
    last = len(bits) - 1

    def cost(code: Array) -> Array:
        lengths = bits[np.minimum(np.abs(code), last).astype(np.intp)]
        return weight * (position - code) ** 2 + mu * lengths

    best, least = nearest, cost(nearest)
    others = [nearest - np.sign(nearest), np.zeros_like(nearest)]
    for other in others if present is None else [*others, present]:
        price = cost(other)
        cheaper = price < least
        best, least = np.where(cheaper, other, best), np.where(cheaper, price, least)
    return best
