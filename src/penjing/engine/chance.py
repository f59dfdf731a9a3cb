"""A look at whether a classifier is worth anything: more than one answer for every row."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from penjing.core.errors import PenjingWarning

if TYPE_CHECKING:
    from penjing.core.tensors import Array


ENOUGH = 50
"""Answers below which a good classifier may be unlucky."""


def warn_of_chance(who: str, accuracy: float, labels: Array) -> None:
    """Warn of a classifier that is no better than its data's most frequent class.

    Args:
        who: what messages call the model.
        accuracy: share of right decisions, in [0, 1].
        labels: class numbers or names, any shape.
    """
    classes, counts = np.unique(labels, return_counts=True)
    often = int(counts.argmax())
    share = float(counts[often] / counts.sum())
    if accuracy <= share and counts.sum() >= ENOUGH:
        warnings.warn(
            f"{who} is right for {accuracy:.1%} of the rows, and answering "
            f"{classes[often].item()!r} every time would be for {share:.1%}: do labels belong "
            "to their rows, are classes numbered as the model's outputs are, and are inputs "
            "scaled as it expects?",
            PenjingWarning,
            stacklevel=2,
        )
