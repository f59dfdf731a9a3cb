"""Rate-penalised training: the model learns to be short as well as right."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from array_api_compat import array_namespace

from penjing.core.fields import Range
from penjing.core.model import LayerKind, Statistics
from penjing.core.structures import pruned_mask
from penjing.core.technique import Context, TrainingTechnique
from penjing.core.tensors import Affine, like
from penjing.core.training import Moment, Parametrization, straight_through, to_numpy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.model import Weight
    from penjing.core.tensors import Array, Tensor
    from penjing.core.training import Plan

__all__ = ["RatePenalizedTraining"]

FIRST_STEP = 0.5
"""Step to begin with, in standard deviations of the weights."""
SMALLEST_STEP = 1e-3
STEP_RATE, USUAL_RATE = 1e-3, 0.03
"""Largest learning rate of the logarithm of a step, and that of weights beside it."""
REFRESH_EVERY = 20
"""Steps between looks at the codes: what each costs is learned from them."""
SIZES = 255
"""Magnitudes of codes that are told apart in what they cost."""
LAW = 0.1
"""Weight of a geometric law beside the counted sizes of codes."""
PRIOR = 0.5
LARGEST_EFFECT = 6.0


@dataclass(frozen=True)
class RatePenalizedTraining(TrainingTechnique):
    """Train weights, steps and biases against the loss plus what their codes cost in bits.

    Codes are rounded weights; a gradient passes straight through.  A code's cost is that of an
    adaptive coder: whether it is zero depends on its row and its column (input channel and
    kernel position for convolutions), which a factorised logistic model learns while training
    goes on.  So whole rows and columns empty themselves.  The cost pulls every weight towards
    zero past the optimizer's averages, which would drown it in the gradients' noise.  What was
    pruned before stays zero.

    References:
        Oktay et al., "Scalable Model Compression by Entropy Penalized Reparameterization",
        ICLR 2020.
        Wiedemann, Müller, Samek, "Compact and Computationally Efficient Representation of Deep
        Neural Networks", IEEE TNNLS 2020 (entropy-constrained training).
        Loshchilov & Hutter, "Decoupled Weight Decay Regularization", ICLR 2019 (decoupling).
    """

    epochs: Annotated[float, Range(0.0, 10000.0)] = 20.0
    """Passes over the training data."""
    learning_rate: Annotated[float, Range(0.0, 10.0)] = 0.03
    """Largest learning rate, in steps of each weight's grid."""
    trade_off: Annotated[float, Range(0.0, 1e3)] = 1e-6
    """Loss (nats, or relative energy) that one bit may save: larger is smaller and worse."""
    ramp: Annotated[float, Range(0.0, 1.0)] = 0.5
    """Share of the run over which the cost of bits rises to its full size."""
    centered: bool = False
    """Whether biases make up for what codes change in the mean of a layer's outputs."""

    def takes(self, weight: Weight) -> bool:
        """Leave what divides as it is: a step past zero would make all outputs none."""
        return not weight.divides

    def keeps_training(self, weight: Weight) -> bool:
        """Train nothing but what is chosen: that is every real number."""
        del weight
        return False

    @property
    def settled(self) -> float:
        """Never before the end: a loss on held-out rows knows nothing of bits."""
        return 1.0

    def parametrize(self, weight: Weight, context: Context) -> Parametrization:
        """Give the weight codes of its own step."""
        del context
        return Coded(weight, self)

    def plan(self, made: Mapping[str, Parametrization], context: Context, **more: Any) -> Plan:
        """Let biases keep the means of outputs, where that is asked for."""
        kept = self._centered(made, context.observation.statistics) if self.centered else {}
        return super().plan({**made, **kept}, context, **more)

    def _centered(
        self, made: Mapping[str, Parametrization], statistics: Mapping[str, Statistics]
    ) -> dict[str, Parametrization]:
        """Give biases of layers whose inputs were seen another parametrization."""
        found: dict[str, Parametrization] = {}
        for name, bias in made.items():
            if not isinstance(bias, Coded) or bias.source.kind is not LayerKind.BIAS:
                continue
            weight = made.get(bias.source.layer)
            seen = statistics.get(bias.source.layer, Statistics())
            if not isinstance(weight, Coded) or seen.mean is None or not seen.mean.size:
                continue
            inputs = np.asarray(seen.mean / max(seen.positions, 1e-30), np.float32)
            before = mean_outputs(weight.values, inputs)
            if before.shape == bias.values.shape:
                found[name] = CenteredBias(bias.source, self, inputs, before)
        return found


@dataclass(frozen=True, eq=False)
class Coded(Parametrization):
    """A weight as codes times a step, and what the codes cost."""

    source: Weight
    technique: RatePenalizedTraining

    @cached_property
    def values(self) -> Array:
        """The weight to begin with."""
        return np.array(self.source.tensor.dense(), np.float32)

    @cached_property
    def axes(self) -> tuple[tuple[int, ...], ...]:
        """Axes along which zeros gather: outputs, inputs, and positions of a kernel."""
        count = self.values.ndim
        if self.source.kind is LayerKind.BIAS or count < 2:  # noqa: PLR2004  # no matrix
            return ()
        return ((0,), (1,), tuple(range(2, count)))[: 2 + (count > 2)]  # noqa: PLR2004

    @cached_property
    def first_step(self) -> float:
        """The step to begin with: that of codes where there are some, or a rule of thumb."""
        tensor = self.source.tensor
        if isinstance(tensor, Affine) and tensor.scale.size == 1:
            return float(tensor.scale.reshape(()))
        spread = float(self.values.std()) if self.values.size else 0.0
        largest = float(np.abs(self.values).max(initial=0.0))
        return max(FIRST_STEP * spread, SMALLEST_STEP * largest, 1e-30)

    def parameters(self) -> Mapping[str, Array]:
        """Train the weights, in units of the first step, and the logarithm of its growth.

        So one learning rate suits all weights, whatever their scale.
        """
        return {
            "latent": self.values / np.float32(self.first_step),
            "growth": np.zeros((), np.float32),
        }

    def buffers(self) -> Mapping[str, Array]:
        """Hold what codes cost: effects on the odds of not being zero, and slopes in bits."""
        found = {
            f"effect_{number}": np.zeros(self._shape_of(axes), np.float32)
            for number, axes in enumerate(self.axes)
        }
        found["base"] = np.zeros((), np.float32)
        found["first"] = np.ones(self.values.shape, np.float32)
        found["further"] = np.ones(SIZES, np.float32)
        found["saved"] = np.zeros((), np.float32)
        mask = pruned_mask(self.source.tensor)
        if mask is not None:
            found["mask"] = mask
        return found

    def _shape_of(self, axes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(size if axis in axes else 1 for axis, size in enumerate(self.values.shape))

    def rates(self) -> Mapping[str, float]:
        """Let the step grow at a pace of its own: it moves all weights at once."""
        return {"growth": STEP_RATE / (self.technique.learning_rate or USUAL_RATE)}

    def weight(self, held: Mapping[str, Any]) -> Any:
        """Round onto the grid."""
        xp = array_namespace(held["latent"])
        grown = xp.exp(held["growth"])
        inner = self._inner(held) / grown
        made = straight_through(xp.round(inner), inner) * (grown * self.first_step)
        return made * held["mask"] if "mask" in held else made

    def _inner(self, held: Mapping[str, Any]) -> Any:
        """Give what is rounded, in units of the first step."""
        return held["latent"]

    def penalty(self, held: Mapping[str, Any], moment: Moment) -> Any:
        """Let a larger step pay off: it makes codes, and so their cost, smaller."""
        # The number it stands for changes slowly: the one of the last look will do.
        return -self._price(moment) * held["saved"] * held["growth"]

    def slopes(self, held: Mapping[str, Any], moment: Moment) -> Mapping[str, Any]:
        """Pull every weight towards zero by what its code would save on the way."""
        xp = array_namespace(held["latent"])
        grown = xp.exp(held["growth"])
        cost = self._slopes(held, xp.abs(held["latent"]) / grown)
        return {"latent": cost * (self._price(moment) / grown)}

    def _price(self, moment: Moment) -> float:
        """Loss per bit at a moment."""
        ramp = self.technique.ramp
        return self.technique.trade_off * (min(1.0, moment.progress / ramp) if ramp else 1.0)

    def _slopes(self, held: Mapping[str, Any], sizes: Any) -> Any:
        """Give bits per step: between 0 and 1 by row and column, beyond by the size."""
        xp = array_namespace(sizes)
        places = xp.clip(xp.floor(sizes), 1, SIZES)
        places = xp.where(xp.isnan(sizes), 1, places)  # the loop finds out, and goes back
        flat = xp.reshape(xp.astype(places, xp.int64) - 1, (-1,))
        further = xp.reshape(xp.take(held["further"], flat, axis=0), sizes.shape)
        return xp.where(sizes < 1, held["first"], further)

    def update(self, held: Mapping[str, Any], moment: Moment) -> Mapping[str, Any]:
        """Learn what codes cost from the codes there are."""
        if (moment.step % REFRESH_EVERY and moment.step > 1) or not prod(self.values.shape):
            return {}
        xp = array_namespace(held["latent"])
        sizes = xp.abs(self._inner(held)) / xp.exp(held["growth"])
        if "mask" in held:
            sizes = sizes * held["mask"]
        codes = xp.round(sizes)
        model = self._odds(held, xp.clip(codes, 0, 1), rounds=5 if moment.step <= 1 else 1)
        lengths = _lengths(to_numpy(codes))
        # log2 of the odds of zero: what a code pays for not being zero.
        first = xp.clip(float(lengths[0]) - model.pop("odds") / np.log(2), 0, None)
        found = {
            **model,
            "first": first + xp.zeros_like(codes),
            "further": like(codes, np.diff(lengths).astype(np.float32)),
        }
        return {**found, "saved": xp.sum(self._slopes(found, sizes) * sizes)}

    def _odds(self, held: Mapping[str, Any], active: Any, rounds: int) -> dict[str, Any]:
        """Fit log odds of not being zero: a base plus an effect of each axis, by scaling.

        Iterative proportional fitting: each effect moves until as many codes are expected to
        be non-zero along its axis as there are.
        """
        xp = array_namespace(active)
        base = held["base"]
        effects = {
            f"effect_{number}": held[f"effect_{number}"] for number in range(len(self.axes))
        }
        mean = float(xp.mean(active))
        prior = min(20 * max(mean, 1e-6), PRIOR)
        for _ in range(rounds):
            for number, axes in enumerate(self.axes):
                others = tuple(axis for axis in range(active.ndim) if axis not in axes)
                expected = xp.sum(
                    _share(sum(effects.values()) + base), axis=others, keepdims=True
                )
                counted = xp.sum(active, axis=others, keepdims=True)
                moved = xp.log((counted + prior) / (expected + prior))
                name = f"effect_{number}"
                effects[name] = xp.clip(
                    effects[name] + xp.clip(moved, -2, 2), -LARGEST_EFFECT, LARGEST_EFFECT
                )
            total = sum(effects.values()) + base + xp.zeros_like(active)
            wrong = (xp.sum(active) + PRIOR) / (xp.sum(_share(total)) + PRIOR)
            base = base + xp.clip(xp.log(wrong), -2, 2)
        return {**effects, "base": base, "odds": sum(effects.values()) + base}

    def tensor(self, held: Mapping[str, Array]) -> Tensor:
        """Give codes and step."""
        grown = np.exp(np.asarray(held["growth"], np.float32))
        codes = np.round(self._inner(held) / grown) * held.get("mask", 1.0)
        return Affine.encode(codes.astype(np.int64), grown * np.float32(self.first_step))


@dataclass(frozen=True, eq=False)
class CenteredBias(Coded):
    """A bias that moves with the codes of its layer, so that outputs keep their means.

    Inputs behind a rectifier have large means: each code that changes shifts an output, and
    all of them together shift it as no later step could foresee.  Batch normalization, which
    is folded away in a trained model, would take this out.

    References:
        Ioffe & Szegedy, "Batch Normalization", ICML 2015.
        Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
        ICCV 2019.
    """

    inputs: Array
    """(groups, columns) means of the layer's inputs."""
    before: Array
    """(rows,) means of the layer's outputs, without bias, to begin with."""

    @property
    def beside(self) -> str:
        """Depend on the weight of the layer."""
        return self.source.layer

    def _inner(self, held: Mapping[str, Any]) -> Any:
        if "beside" not in held:
            return held["latent"]
        moved = like(held["latent"], self.before) - mean_outputs(
            held["beside"], like(held["latent"], self.inputs)
        )
        return held["latent"] + moved / self.first_step

    def slopes(self, held: Mapping[str, Any], moment: Moment) -> Mapping[str, Any]:
        """Pull nothing towards zero: where zero is changes with the codes of the layer."""
        del held, moment
        return {}


def mean_outputs(weight: Any, inputs: Any) -> Any:
    """Give the mean of each output, (rows,), for the means of inputs, (groups, columns)."""
    xp = array_namespace(weight)
    groups, columns = inputs.shape
    matrix = xp.reshape(weight, (groups, -1, columns))
    return xp.reshape(xp.sum(matrix * inputs[:, None, :], axis=2), (-1,))


def _share(odds: Any) -> Any:
    xp = array_namespace(odds)
    return 1 / (1 + xp.exp(-odds))


def _lengths(codes: Array) -> Array:
    """Bits for sign and size of codes that are not zero, by size, from how often each occurs.

    A geometric law stands in for sizes that hardly occur.  Bits never fall with the size, or
    training would be paid for enlarging codes; there is one entry more than sizes, so that
    the last slope is known, too.

    Args:
        codes: absolute values, any shape.
    """
    sizes = codes[codes > 0]
    mean = max(float(sizes.mean()) if sizes.size else 1.5, 1.2)
    law = (1 / mean) * (1 - 1 / mean) ** np.arange(SIZES)
    counts = np.bincount(np.clip(sizes, 1, SIZES).astype(np.int64), minlength=SIZES + 1)[1:]
    blended = counts + max(1.0, LAW * sizes.size) * law
    lengths = np.maximum.accumulate(1 - np.log2(blended / blended.sum()))
    return np.append(lengths, lengths[-1] - np.log2(1 - 1 / mean))
