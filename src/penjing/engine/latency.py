"""Timing two models against each other, interleaved, on the same inputs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from penjing.core.measure import Measurement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.tensors import Array
    from penjing.engine.evaluate import Runs

FEWEST_RUNS, MOST_RUNS = 15, 400
WARM_UP = 3


def interleaved(
    models: tuple[Runs, Runs], feed: Mapping[str, Array], seconds: float = 1.0
) -> tuple[Measurement, Measurement, Measurement]:
    """Time both models by turns, so that whatever else the machine does hits both alike.

    Args:
        models: the original and the compressed one.
        feed: inputs of one batch.
        seconds: about how long to measure.

    Returns:
        Median milliseconds of each, and the speed-up (original over compressed), all with
        distribution-free 95 % intervals.
    """
    for model in models:
        for _ in range(WARM_UP):
            model.run(feed)
    started = time.perf_counter()
    times: tuple[list[float], list[float]] = ([], [])
    while len(times[0]) < FEWEST_RUNS or (
        time.perf_counter() - started < seconds and len(times[0]) < MOST_RUNS
    ):
        # Whoever runs second finds warmer caches: take turns.
        order = (0, 1) if len(times[0]) % 2 == 0 else (1, 0)
        for index in order:
            before = time.perf_counter()
            models[index].run(feed)
            times[index].append(1000 * (time.perf_counter() - before))
    first, second = np.array(times[0]), np.array(times[1])
    return (
        Measurement.median(first, "ms"),
        Measurement.median(second, "ms"),
        Measurement.speed_up(first, second),
    )
