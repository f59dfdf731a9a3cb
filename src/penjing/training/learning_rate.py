"""Looking for a learning rate: the range test."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from penjing.core.training import Moment
from penjing.training.rows import SeededBatches
from penjing.training.state import State, make_optimizer

if TYPE_CHECKING:
    from penjing.training.stepping import Stepper

LOWEST, HIGHEST = 1e-6, 10.0
STEPS = 100
SMOOTHING = 0.9
"""Share of the losses before in the smoothed one."""
BLOWN_UP = 4.0
"""Smoothed loss, relative to the lowest one, at which the test ends."""
AS_GOOD = 1.05
"""Smoothed loss, relative to the lowest one, that counts as low as that."""
SAFETY = 0.1
"""The rate to train with, relative to the largest that did no harm."""


def find_learning_rate(stepper: Stepper) -> float:
    """Raise the rate exponentially, batch by batch, and see where the loss ends falling.

    The rate chosen is a tenth of the largest whose smoothed loss is within five percent of
    the lowest.  A model that has nothing left to learn has no minimum to find: there, it is a
    tenth of where harm begins.  The trained arrays are put back as they were; what changes
    between steps (masks, costs of codes) is not touched.

    References:
        Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3.
    """
    module, settings = stepper.trainee.module, stepper.settings
    growth = (HIGHEST / LOWEST) ** (1 / (STEPS - 1))
    groups = stepper.trainee.groups(LOWEST, settings.weight_decay)
    raw = make_optimizer(settings, groups, LOWEST)
    optimizer = stepper.accelerator.prepare_optimizer(raw)
    state = State(module, optimizer, lambda step: growth**step, stepper.accelerator.scaler)
    before = state.copy()
    losses: list[float] = []
    average, lowest = 0.0, math.inf
    try:
        for places in SeededBatches(
            len(stepper.rows), settings.batch_size, stepper.seed, 0, STEPS
        ):
            moment = Moment(state.step, STEPS, state.learning_rate)
            loss = float(stepper.gradients(optimizer, places, moment))
            average = SMOOTHING * average + (1 - SMOOTHING) * loss
            smoothed = average / (1 - SMOOTHING ** (state.step + 1))
            if not math.isfinite(smoothed) or smoothed > BLOWN_UP * lowest:
                break
            losses.append(smoothed)
            lowest = min(lowest, smoothed)
            optimizer.step()
            state.advance()
    finally:
        state.restore(before)
        stepper.accelerator._optimizers.remove(optimizer)  # noqa: SLF001  # it was borrowed
        optimizer.zero_grad()
    return float(f"{SAFETY * _largest_good(losses, growth):.3g}")


def _largest_good(losses: list[float], growth: float) -> float:
    """Give the largest rate at which the loss was about as low as ever."""
    if not losses:
        return LOWEST
    limit = AS_GOOD * min(losses)
    # A loss is measured before its step: it tells of the rate of the step before.
    last = max(step for step, loss in enumerate(losses) if loss <= limit)
    return LOWEST * growth ** max(last - 1, 0)
