"""Changes of images that a model does not mind: what it may be shown in training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.core.data import Batch, Part, Wrapped
from penjing.core.metric import decide

if TYPE_CHECKING:
    from collections.abc import Callable

    from penjing.core.data import Splits
    from penjing.core.model import Model
    from penjing.core.tensors import Array

SHIFTS = (4, 2, 1)
MIND = 0.05
"""Share of decisions that a change of images may turn, beyond which it is not used."""
LOOKED_AT = 512
IMAGE_AXES = 4
MOST_VIEWED = 50_000
"""Rows of all views together, at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Changed(Wrapped):
    """Rows whose images are changed, in a way that their labels do not mind."""

    change: Callable[[Array], Array]

    @property
    def labels(self) -> Array | None:
        """The labels, as they were."""
        return self.inner.labels

    def take(self, rows: Array) -> Batch:
        """Read rows, and change their images."""
        batch = self.inner.take(rows)
        changed = {
            name: self.change(array) if array.ndim == IMAGE_AXES else array
            for name, array in batch.inputs.items()
        }
        return replace(batch, inputs=changed)


def views(part: Part, kept: dict[str, Any]) -> list[Part]:
    """Show the same rows in other ways: mirrored, or shifted by half of what may be.

    Args:
        part: the rows.
        kept: changes that the original does not mind, as ``kept_by`` gives them.
    """
    changes: list[Callable[[Array], Array]] = []
    if kept.get("mirror"):
        changes.append(_mirrored)
    pixels = (kept.get("shift", 0) + 1) // 2
    changes += [partial(_shifted_by, pixels, place) for place in range(4 if pixels else 0)]
    few = max(MOST_VIEWED // max(len(part), 1) - 1, 0)
    return [Part(Changed(part.dataset, change), part.rows) for change in changes[:few]]


def kept_by(model: Model, splits: Splits) -> dict[str, Any]:
    """Find out which changes of images leave the original's decisions as they are.

    Whoever mistakes a shifted or mirrored image for another class was not trained on such, and
    has no use for them.
    """
    part = splits.calibration
    batch = part.dataset.take(part.rows[:LOOKED_AT])
    images = {name: array for name, array in batch.inputs.items() if array.ndim == IMAGE_AXES}
    if len(images) != 1:
        return {}
    ((name, array),) = images.items()

    def decided(changed: Array) -> Array | None:
        outputs = model.backend.predict(model.native, {**batch.inputs, name: changed})
        found = decide(outputs)
        return None if found is None else found.predicted

    plain = decided(array)
    if plain is None:
        return {}

    def minds(changes: list[Array]) -> bool:
        turned = [np.mean(decided(changed) != plain) for changed in changes]
        return float(np.mean(turned)) > MIND

    found: dict[str, Any] = {}
    shift = next((s for s in SHIFTS if not minds(_shifted(array, s))), 0)
    if shift:
        found["shift"] = shift
    if not minds([_mirrored(array)]):
        found["mirror"] = True
    return found


def _shifted(images: Array, pixels: int) -> list[Array]:
    """Shift by so many pixels to each side; zeros come in."""
    padded = np.pad(images, ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels)))
    height, width = images.shape[2:]
    return [
        np.ascontiguousarray(padded[:, :, top : top + height, left : left + width])
        for top, left in ((0, pixels), (2 * pixels, pixels), (pixels, 0), (pixels, 2 * pixels))
    ]


def _shifted_by(pixels: int, place: int, images: Array) -> Array:
    return _shifted(images, pixels)[place]


def _mirrored(images: Array) -> Array:
    return images[..., ::-1].copy()
