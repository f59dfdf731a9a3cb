"""How far the outputs moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penjing.core.errors import DataError
from penjing.core.metric import Metric
from penjing.metrics.support.classes import shapes

if TYPE_CHECKING:
    from penjing.core.metric import Outputs
    from penjing.core.tensors import Array

__all__ = ["Deviation"]


class Deviation(Metric):
    """Root mean square change of the float outputs, as a share of their own spread; no labels.

    For each output the spread is the root mean square about its mean over samples, or about 0
    where it does not vary; outputs count alike.  The original scores 0, and a limit of 1 %
    allows a deviation of 0.01: the square of it is the share of variance that is lost.
    """

    higher_is_better = False
    bounded = False
    decomposes = False
    needs_labels = False
    relative_already = True

    def check(self, outputs: Outputs, labels: Array | None) -> None:  # noqa: ARG002  # unused here
        """Raise DataError where no output holds real numbers, or one of them is not finite."""
        found = _floats(outputs)
        if not found:
            raise DataError(
                "metric deviation",
                f"wrong for the task: no output holds real numbers ({shapes(outputs)})",
                "choose agreement",
            )
        for name, output in found.items():
            bad = int((~np.isfinite(output)).sum())
            if bad:
                raise DataError(
                    f"output {name!r}",
                    f"the original model gives {bad} values that are NaN or infinite",
                    "check that the data are scaled as the model expects",
                )

    def scores(self, outputs: Outputs, labels: Array | None, original: Outputs) -> Array:
        """Raise: a ratio of roots is not a mean over samples."""
        raise NotImplementedError

    def value(self, outputs: Outputs, labels: Array | None, original: Outputs) -> float:  # noqa: ARG002  # unused here
        """Give the deviation over all samples; infinite where an output is no number."""
        shares = [
            _share(outputs[name].astype(np.float64), before)
            for name, before in _floats(original).items()
        ]
        return float(np.sqrt(np.mean(shares)))


def _floats(outputs: Outputs) -> dict[str, Array]:
    return {
        name: output.astype(np.float64)
        for name, output in outputs.items()
        if output.dtype.kind == "f" and output.size
    }


def _share(after: Array, before: Array) -> float:
    """Give the mean squared change as a share of the mean squared spread."""
    change = float(((after - before) ** 2).mean())
    if change == 0:
        return 0.0
    about_mean = float(((before - before.mean(axis=0)) ** 2).mean())
    about_zero = float((before**2).mean())
    # Rounding alone makes equal outputs differ from their mean by about 1e-16 of their size.
    spread = about_mean if about_mean > np.finfo(np.float64).eps * about_zero else about_zero
    return change / spread if spread and np.isfinite(change) else float("inf")
