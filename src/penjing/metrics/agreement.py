"""Share of decisions that stay what they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from penjing.core.errors import DataError
from penjing.core.metric import Metric, decide
from penjing.metrics.support.classes import shapes

if TYPE_CHECKING:
    from penjing.core.metric import Outputs
    from penjing.core.tensors import Array

__all__ = ["Agreement"]


class Agreement(Metric):
    """Share of samples for which the compressed model decides as the original; no labels.

    The original scores 1.  One minus the agreement bounds what any accuracy can lose.
    """

    needs_labels = False

    def check(self, outputs: Outputs, labels: Array | None) -> None:  # noqa: ARG002  # unused here
        """Raise DataError where the outputs decide for no class."""
        found = decide(outputs, logits=False)
        if found is None:
            raise DataError(
                "metric agreement",
                f"wrong for the task: the outputs decide for no class ({shapes(outputs)})",
                "choose deviation, which needs no labels, or rmse if there are labels",
            )
        bad = int((found.predicted == -1).sum()) if found.classes is not None else 0
        if bad:
            raise DataError(
                f"output {found.output!r}",
                f"the original model gives NaN for {bad} decisions",
                "check that the data are scaled as the model expects",
            )

    def scores(self, outputs: Outputs, labels: Array | None, original: Outputs) -> Array:  # noqa: ARG002  # unused here
        """Give 1 where the decision is the original's, else 0, (n,) float64."""
        before, after = decide(original), decide(outputs, original)
        assert before is not None
        assert after is not None
        same = before.predicted == after.predicted
        means: Array = same.reshape(len(same), -1).mean(axis=1, dtype=np.float64)
        return means
