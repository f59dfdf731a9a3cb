"""Rate-distortion-optimal quantization: the smallest file for a given loss, no training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
from threadpoolctl import threadpool_limits

from penjing.core.fields import Range
from penjing.core.model import LayerKind, Statistics
from penjing.core.structures import Bitmask, LowRank, NMSparse, Tucker
from penjing.core.technique import Context, Observation, Technique
from penjing.core.tensors import Affine
from penjing.techniques.support.rate_distortion import (
    WATER_FILLING,
    Problem,
    natural_step,
    quantize,
    row_level,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.model import Model, Weight
    from penjing.core.tensors import Array, Tensor

__all__ = ["RateDistortion"]

LEAST_SENSITIVITY = 1e-12
REPAIR = 0.8
"""How far a layer follows what would repair earlier losses: calibration is only a sample."""
ROW_DAMPING = 1.0
"""Share of its own diagonal added to a row metric."""


@dataclass(frozen=True)
class RateDistortion(Technique):
    """Quantize all weights and biases so that loss plus rate is least.

    One trade-off for the whole model decides the step of every layer, from the layer's
    sensitivity and the second moments of its inputs; errors are fed back to the weights that
    are quantized later, and codes that cost more bits than they save loss are given up.

    References:
        Frantar et al., "GPTQ", ICLR 2023; Conzelmann & Bamler, "CERWU", arXiv 2505.18758;
        Lifar et al., "WaterSIC", arXiv 2603.04956 (feedback, entropy coding and step rule).
    """

    trade_off: Annotated[float, Range(1e-15, 1e6)] = 1e-6
    """Loss (nats, or relative energy) that one bit may save: larger is smaller and worse."""
    step_ratio: Annotated[float, Range(0.25, 8.0)] = 2.0
    """Step relative to the optimum of a fine quantizer."""
    rate_term: bool = True
    """Whether codes are chosen by their length, too."""
    damping: Annotated[float, Range(1e-6, 1.0)] = 0.01
    """Added to the diagonal of second moments, relative to its mean."""
    descents: Annotated[int, Range(0, 32)] = 4
    """Coordinate-descent sweeps after the feedback sweeps."""
    sequential: bool = True
    """Whether each layer makes up for what the layers before it have lost."""
    probe_at: Annotated[float, Range(0.0, 1e6)] = 0.0
    """Trade-off whose errors measure the layers' sensitivities; 0: random noise does."""

    def takes(self, weight: Weight) -> bool:
        """Leave infinities, and what steps in float32 cannot reach, as they are."""
        largest = np.abs(weight.tensor.dense()).max(initial=0)
        return bool(largest <= np.finfo(np.float32).max)

    def apply(self, model: Model, context: Context) -> Model:
        """Quantize every chosen weight, layer by layer, each together with its bias."""
        chosen = self.chosen(model, context)
        observation = context.observation
        if self.probe_at and observation.prober is not None:
            context = replace(context, observation=self._probed(model, context))
        biases = {w.layer: w for w in chosen.values() if w.layer and w.kind is LayerKind.BIAS}
        changes: dict[str, Tensor] = {}

        def encode(name: str, seen: Statistics) -> Mapping[str, Array]:
            if name not in chosen:
                return {}
            known = observation.statistics.get(name, Statistics())
            seen = replace(seen, row_metric=known.row_metric)
            made = self._layer(chosen[name], biases.get(name), seen, context)
            changes.update(made)
            return {key: tensor.dense() for key, tensor in made.items()}

        with threadpool_limits(1, "blas"):
            if self.sequential and observation.walker is not None:
                observation.walker.run(encode)
            for name, weight in chosen.items():
                if name not in changes and weight.kind is not LayerKind.BIAS:
                    encode(name, observation.statistics.get(name, Statistics()))
            for name, weight in chosen.items():
                if name not in changes:
                    encode(name, self._bias_statistics(weight, observation.statistics))
        return model.with_weights(changes)

    def _probed(self, model: Model, context: Context) -> Observation:
        """Measure sensitivities from the errors that a first, plain pass makes."""
        observation = context.observation
        assert observation.prober is not None
        first = replace(self, trade_off=self.probe_at, sequential=False, probe_at=0.0)

        def values() -> dict[str, Array]:
            changed = first.apply(model, context).changed
            return {name: tensor.dense() for name, tensor in changed.items()}

        measured = observation.prober((first, context.only), values)
        found = {
            name: value if value > 0 else observation.sensitivity.get(name, 1.0)
            for name, value in measured.items()
        }
        return replace(observation, sensitivity={**observation.sensitivity, **found})

    def _bias_statistics(
        self, bias: Weight, statistics: Mapping[str, Statistics]
    ) -> Statistics:
        """Let a bias that is treated alone count at every position of its layer."""
        positions = statistics[bias.layer].positions if bias.layer in statistics else 1.0
        return Statistics(positions=positions)

    def _layer(
        self, weight: Weight, bias: Weight | None, seen: Statistics, context: Context
    ) -> dict[str, Tensor]:
        sensitivity = self._sensitivity(weight, context)
        mu = self.trade_off / sensitivity
        if weight.divides:
            return {weight.name: self._divisor(weight.tensor.dense(), mu)}
        if isinstance(weight.tensor, LowRank | Tucker):
            return {weight.name: weight.tensor.map_values(lambda a: self._alone(a, mu))}
        if seen.gram is None or not seen.gram.size:
            importance = max(seen.positions, 1.0)
            rows = seen.row_importance
            if rows is not None and rows.size:
                importance = max(float(rows.mean()), LEAST_SENSITIVITY)
            return {weight.name: self._alone(weight.tensor.dense(), mu / importance)}
        if bias is not None and bias.tensor.dense().size != len(weight.tensor.dense()):
            bias = None
        problems = self._problems(weight, bias, seen)
        columns = problems[0].weight_columns
        step = natural_step(problems, mu, self.step_ratio)
        step = _bounded(step, weight.tensor.dense())
        bias_step = step
        if bias is not None:
            bias_step = self._bias_step(problems, mu)
            bias_step = _bounded(bias_step, bias.tensor.dense())
        codes = quantize(
            problems,
            (step, bias_step),
            mu,
            rate_term=self.rate_term,
            descents=self.descents,
        )
        found = np.stack([code[:, :columns] for code in codes]).reshape(weight.tensor.shape)
        made: dict[str, Tensor] = {weight.name: Affine.encode(found.astype(np.int64), step)}
        if bias is not None:
            offsets = np.concatenate([code[:, -1] for code in codes])
            offsets = offsets.astype(np.int64).reshape(bias.tensor.shape)
            made[bias.name] = Affine.encode(offsets, bias_step)
        return made

    def _bias_step(self, problems: list[Problem], mu: float) -> float:
        """Give the step of biases: they are the last column, with inputs of one."""
        count = float(np.mean([p.curvature[-1, -1] for p in problems]))
        rows = problems[0].row_factor
        level = 0.0 if rows is None else row_level(rows)
        return float(self.step_ratio * np.sqrt(WATER_FILLING * mu / count) * np.exp(level))

    def _sensitivity(self, weight: Weight, context: Context) -> float:
        known = context.observation.sensitivity
        found = known.get(weight.name, known.get(weight.layer, 1.0))
        return max(found, LEAST_SENSITIVITY)

    def _problems(self, weight: Weight, bias: Weight | None, seen: Statistics) -> list[Problem]:
        """State one quadratic problem per group; with a goal, aim at the goal."""
        assert seen.gram is not None
        assert seen.mean is not None
        groups, columns = weight.groups, seen.gram.shape[-1]
        metric = self._row_metric(seen)
        matrix = weight.tensor.dense().astype(np.float64).reshape(groups, -1, columns)
        kept = _kept(weight.tensor)
        keep = None if kept is None else kept.reshape(matrix.shape)
        offsets = None
        if bias is not None:
            offsets = bias.tensor.dense().astype(np.float64).reshape(groups, -1, 1)
        problems = []
        for group in range(groups):
            gram = seen.gram[group]
            wanted = matrix[group]
            cross = None if seen.cross is None else seen.cross[group]
            if offsets is not None:
                mean = seen.mean[group][:, None]
                gram = np.block([[gram, mean], [mean.T, np.array([[seen.positions]])]])
                wanted = np.concatenate([wanted, offsets[group]], axis=1)
                if cross is not None and seen.target is not None:
                    cross = np.concatenate([cross, seen.target[group][:, None]], axis=1)
            moment = gram
            if offsets is None and cross is not None and seen.target is not None:
                # The goal may include a bias that is not ours: fit what varies about the means.
                mean = seen.mean[group]
                moment = gram - np.outer(mean, mean) / seen.positions
                cross = cross - np.outer(seen.target[group], mean) / seen.positions
            level = max(float(np.diag(gram)[:columns].mean()), 1e-30)
            # A bias sees ones, whatever the scale of the inputs.
            levels = np.where(np.arange(len(gram)) < columns, level, max(seen.positions, 1e-30))
            ridge = self.damping * levels
            if cross is not None:
                aim = cross + wanted * ridge
                fitted = np.linalg.solve(moment + np.diag(ridge), aim.T).T
                wanted = wanted + REPAIR * (fitted - wanted)
            problems.append(
                Problem(
                    wanted,
                    gram + np.diag(ridge),
                    None if keep is None else _with_bias(keep[group], offsets is not None),
                    offsets is not None,
                    metric,
                )
            )
        return problems

    def _row_metric(self, seen: Statistics) -> Array | None:
        """Damp the measured row metric: it comes from few samples, the diagonal is sure."""
        if seen.row_metric is None:
            return None
        diagonal = np.diag(seen.row_metric)
        ridge = ROW_DAMPING * diagonal + 1e-3 * diagonal.mean()
        damped = seen.row_metric + np.diag(ridge)
        return np.asarray(damped / np.diag(damped).mean())

    def _alone(self, array: Array, mu: float) -> Tensor:
        """Quantize numbers whose inputs were not seen: every element counts alike."""
        values = array.astype(np.float64).reshape(1, -1)
        step = _bounded(float(self.step_ratio * np.sqrt(WATER_FILLING * mu)), array)
        flat = Problem(values.T, np.ones((1, 1)))
        codes = quantize([flat], (step, step), mu, rate_term=self.rate_term, descents=0)
        found = codes[0].astype(np.int64).reshape(array.shape)
        return Affine.encode(found, step)

    def _divisor(self, array: Array, mu: float) -> Tensor:
        """Quantize numbers that divide: none but zeros becomes zero, none changes its sign."""
        made = self._alone(array, mu)
        assert isinstance(made, Affine)
        least = np.sign(array).astype(np.int64)
        codes = np.where(least * made.codes > 0, made.codes, least)
        return Affine.encode(codes.astype(np.int64), float(made.scale.reshape(())))


def _with_bias(keep: Array, biased: bool) -> Array:  # noqa: FBT001
    return np.pad(keep, ((0, 0), (0, int(biased))), constant_values=True)


def _bounded(step: float, array: Array) -> float:
    """Keep a step between the resolution of float32 and the largest magnitude."""
    largest = float(np.abs(array).max(initial=0))
    if largest == 0:
        return 1.0
    return float(np.float32(np.clip(step, largest * 2.0**-24, largest)))


def _kept(tensor: Tensor) -> Array | None:
    """Positions that an earlier pruning left non-zero, or None where there was none."""
    if isinstance(tensor, Bitmask):
        return tensor.kept()
    if isinstance(tensor, NMSparse):
        ones = replace(tensor, values=tensor.values.project(np.ones(tensor.values.shape, "f4")))
        return np.asarray(ones.dense() != 0)
    return None
