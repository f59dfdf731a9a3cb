"""Changes of images that a model does not mind: what it may be shown in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from penjing.core.metric import decide

if TYPE_CHECKING:
    from penjing.core.data import Splits
    from penjing.core.model import Model
    from penjing.core.tensors import Array

SHIFTS = (4, 2, 1)
MIND = 0.05
"""Share of decisions that a change of images may turn, beyond which it is not used."""
LOOKED_AT = 512
IMAGE_AXES = 4


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
    if not minds([array[..., ::-1].copy()]):
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
