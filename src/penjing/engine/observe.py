"""One calibration pass: what reaches each weight, and how much an error there matters."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from penjing.core.data import Part
from penjing.core.model import LayerKind, Observes, Statistics
from penjing.core.technique import Observation
from penjing.core.tensors import Dense
from penjing.engine.evaluate import Batching, check_finite, divergence, padded, run_all, threads
from penjing.engine.running import Running

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from penjing.core.model import Model, Walker, Weight
    from penjing.core.tensors import Array

PROBE_SAMPLES = 256
"""Calibration samples on which sensitivities are measured."""
PROBE_ENERGY = 0.1
"""Size of the probing noise, relative to the weights' own standard deviation."""
SMALLEST_ENERGY = 1e-30
MOST_METRIC_SAMPLES = 2048
FEWEST_METRIC_SAMPLES = 512
MOST_METRIC_WORK = 5e10
"""Multiplications that the row metric of one layer may take."""
METRIC_TEMPERATURE = 2.0
"""Divides the logits: above 1, more samples count than the few unsure ones."""
MOST_METRIC_ROWS = 1024
METRIC_KINDS = {LayerKind.LINEAR, LayerKind.CONV}


def observe(
    model: Model,
    calibration: Part,
    seed: int,
    on_step: Callable[[str, float], None] | None = None,
    *,
    classes: bool = True,
) -> Observation:
    """Watch the calibration data pass through the model, then probe every weight.

    Args:
        model: the original.
        calibration: unlabelled rows.
        seed: of the probing noise.
        on_step: told what is being done and the share that is done.
        classes: whether several outputs per sample are scores of classes.

    Raises:
        DataError: the original gives NaN or infinity on these rows.
    """
    statistics: dict[str, Statistics] = {}
    prober = _Prober(model, calibration, statistics, on_step, classes=classes)
    walker = None
    if isinstance(model.backend, Observes):
        ports = Running(model).inputs
        batching = Batching.of(ports)
        batches = calibration.batches(batching.rows)
        pieces = [padded(b, ports, batching) if batching.fixed else b.inputs for b in batches]
        walker = model.backend.walker(model.native, pieces)

        def note(name: str, seen: Statistics) -> Mapping[str, Array]:
            statistics[name] = seen
            return {}

        walker.run(note)
        for name, samples in _metric_samples(model, statistics).items():
            metric = _row_metric(walker, name, samples, seed, classes=classes)
            statistics[name] = replace(statistics[name], row_metric=metric)
    return Observation(statistics, prober.from_noise(seed), walker, prober)


class _Prober:
    """Measures, forward only, the loss per unit of output error energy of every weight.

    One layer at a time is moved, by random noise or by an actual error.  The divergence of the
    outputs over the error energy at the layer's own output is its sensitivity; while errors
    are small and independent, loss adds up over layers.
    """

    def __init__(
        self,
        model: Model,
        calibration: Part,
        statistics: Mapping[str, Statistics],
        on_step: Callable[[str, float], None] | None,
        *,
        classes: bool,
    ) -> None:
        stride = max(1, len(calibration) // PROBE_SAMPLES)
        self.part = Part(calibration.dataset, calibration.rows[::stride][:PROBE_SAMPLES])
        self.model, self.statistics, self.on_step = model, statistics, on_step
        self.classes = classes
        self.original = run_all(Running(model), self.part)
        check_finite(self.original, calibration.dataset.source)
        self.remembered: dict[Hashable, Mapping[str, float]] = {}

    @cached_property
    def weights(self) -> dict[str, Weight]:
        """Weights to probe, once statistics are known."""
        known = self.model.weights().items()
        return {name: weight for name, weight in known if self._probed(weight)}

    @cached_property
    def biases(self) -> dict[str, Weight]:
        """Biases that share the sensitivity of their layer, by the layer's weight."""
        known = self.model.weights()
        return {w.layer: w for w in known.values() if w.layer and w.name not in self.weights}

    def _probed(self, weight: Weight) -> bool:
        """Probe all but biases of layers whose inputs were seen: they share its outputs."""
        if not weight.is_float:
            return False
        seen = self.statistics.get(weight.layer) if weight.layer else None
        shares = weight.kind is LayerKind.BIAS and seen is not None and seen.gram is not None
        return not shares and bool(np.isfinite(weight.tensor.dense()).all())

    def from_noise(self, seed: int) -> dict[str, float]:
        """Probe each weight with Gaussian noise."""

        def one(weight: Weight) -> float:
            array = weight.tensor.dense()
            rng = np.random.default_rng([seed, *weight.name.encode()])
            noise = np.asarray(rng.normal(size=array.shape)) * (PROBE_ENERGY * _spread(array))
            if weight.divides:
                noise = np.where(array < 0, -np.abs(noise), np.abs(noise))
            energy = self._energy(weight, noise)
            return self._loss({weight.name: array + noise}) / max(energy, SMALLEST_ENERGY)

        return self._each(list(self.weights.values()), one)

    def __call__(
        self, key: Hashable, values: Callable[[], Mapping[str, Array]]
    ) -> Mapping[str, float]:
        """Probe each weight with its actual error; see ``penjing.core.technique.Prober``."""
        if key not in self.remembered:
            given = values()

            def one(weight: Weight) -> float:
                error = given[weight.name] - weight.tensor.dense()
                changed = {weight.name: given[weight.name]}
                bias = self.biases.get(weight.name)
                if bias is not None and bias.name in given:
                    changed[bias.name] = given[bias.name]
                energy = self._energy(weight, error)
                return self._loss(changed) / energy if energy > SMALLEST_ENERGY else 0.0

            probed = [weight for name, weight in self.weights.items() if name in given]
            self.remembered[key] = self._each(probed, one)
        return self.remembered[key]

    def _each(
        self, weights: list[Weight], measure: Callable[[Weight], float]
    ) -> dict[str, float]:
        found: dict[str, float] = {}
        with ThreadPoolExecutor(threads()) as pool:
            for weight, value in zip(weights, pool.map(measure, weights), strict=True):
                found[weight.name] = value
                if self.on_step is not None:
                    self.on_step("probing layers", len(found) / len(weights))
        return found

    def _loss(self, changed: Mapping[str, Array]) -> float:
        weights = self.model.weights()
        moved = self.model.with_weights(
            {
                name: Dense(array.astype(weights[name].tensor.dtype))
                for name, array in changed.items()
            }
        )
        outputs = run_all(Running(moved), self.part)
        return float(divergence(self.original, outputs, classes=self.classes).mean())

    def _energy(self, weight: Weight, error: Array) -> float:
        return error_energy(error, weight, self.statistics.get(weight.name, Statistics()))


def _metric_samples(model: Model, statistics: Mapping[str, Statistics]) -> dict[str, int]:
    """Choose the layers whose row metric is worth its work, and on how many samples.

    Each row of a layer takes one run of all layers after it; statistics lie in the order of
    computation.
    """
    weights = model.weights()
    chosen = {}
    work_after = 0.0
    for name in reversed(list(statistics)):
        weight, seen = weights[name], statistics[name]
        rows = len(weight.tensor.dense())
        fits = int(MOST_METRIC_WORK / max(rows * work_after, 1.0))
        suits = weight.kind in METRIC_KINDS and weight.groups == 1 and rows <= MOST_METRIC_ROWS
        if suits and fits >= FEWEST_METRIC_SAMPLES:
            chosen[name] = min(fits, MOST_METRIC_SAMPLES)
        work_after += weight.tensor.dense().size * seen.positions
    return chosen


def _row_metric(
    walker: Walker, name: str, samples: int, seed: int, *, classes: bool
) -> Array | None:
    """Measure how errors of two rows of a layer add up in the loss, mean diagonal 1.

    With J the derivatives of the outputs by the rows' outputs, this is the mean of Jᵀ F J: F is
    the Fisher matrix of the softmax for class scores (Martens, "New insights and perspectives
    on the natural gradient method", JMLR 2020), the inverse variance for other outputs.
    """
    found = walker.jacobian(name, samples, seed)
    if found is None:
        return None
    jacobian, outputs = found
    if classes and outputs.shape[1] > 1:
        logs = outputs.astype(np.float64) / METRIC_TEMPERATURE
        odds = np.exp(logs - logs.max(axis=1, keepdims=True))
        shares = odds / odds.sum(axis=1, keepdims=True)
        centred = jacobian - (jacobian * shares[:, None, :]).sum(axis=2, keepdims=True)
        roots = centred * np.sqrt(shares)[:, None, :]
    else:
        roots = jacobian.astype(np.float64)
    flat = roots.transpose(0, 2, 1).reshape(-1, jacobian.shape[1])
    metric = flat.T @ flat
    mean = float(np.diag(metric).mean())
    return metric / mean if mean > 0 else None


def _spread(array: Array) -> float:
    """Give the standard deviation, or a tenth of the size where numbers are nearly equal."""
    values = array.astype(np.float64)
    return float(max(values.std(), 0.1 * np.sqrt((values**2).mean()), 1e-12))


def error_energy(error: Array, weight: Weight, seen: Statistics) -> float:
    """Energy per sample that an error of this weight causes at the layer's output.

    Args:
        error: of the weight's shape.
        weight: whose groups tell which inputs each row sees.
        seen: statistics at its input; without a gram, every element counts alike.
    """
    if seen.row_importance is not None:
        rows = (error.reshape(len(error), -1) ** 2).sum(axis=1)
        return float(rows @ seen.row_importance)
    if seen.gram is None:
        return float((error.astype(np.float64) ** 2).sum()) * max(seen.positions, 1.0)
    groups, columns = weight.groups, seen.gram.shape[-1]
    matrix = error.reshape(groups, -1, columns).astype(np.float64)
    if seen.row_metric is not None:
        return float(np.sum((seen.row_metric @ matrix[0]) * (matrix[0] @ seen.gram[0])))
    return float(np.einsum("gri,gij,grj->", matrix, seen.gram, matrix, optimize=True))
