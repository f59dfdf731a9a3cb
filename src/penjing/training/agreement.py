"""Whether a model computes the same where it is trained and where it will run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from penjing.core.errors import UnsupportedError
from penjing.core.training import to_numpy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penjing.core.model import Backend
    from penjing.core.tensors import Array
    from penjing.core.training import Function

TOLERANCE = 1e-3
"""Root of the mean squared difference, over that of the values."""
SMALLEST = 1e-30
MOST_DIFFERENT = 0.01
"""Share of whole numbers (labels) that may differ: near ties are decided by the last bits."""
FEWEST = 10
"""Of so many numbers or more, one may always differ."""


def agrees(
    backend: Backend, native: Any, function: Function, inputs: Mapping[str, Array]
) -> None:
    """Compare a function with what the backend predicts, on one batch.

    A function that rounds on the way, where the last bits decide, may have a ``tolerance`` of
    its own.

    Raises:
        UnsupportedError: an output differs; the error names the first one.
    """
    expected = backend.predict(native, inputs)
    given = {
        name: torch.from_numpy(np.array(array))
        for name, array in inputs.items()
        if np.asarray(array).dtype.kind in "biuf"
    }
    tolerance = getattr(function, "tolerance", TOLERANCE)
    with torch.no_grad():
        found = function({}, given)
    for name, tensor in found.items():
        array = to_numpy(tensor.float() if tensor.dtype == torch.bfloat16 else tensor)
        problem = _difference(array, np.asarray(expected[name]), tolerance)
        if problem:
            raise UnsupportedError(
                f"output {name!r}",
                f"is not the same in training as in use: {problem}",
                "this is an error of the conversion for training; please report the model",
            )


def _difference(found: Array, expected: Array, tolerance: float) -> str:
    """Say how two arrays differ; nothing if they agree."""
    if found.shape != expected.shape:
        return f"its shape is {list(found.shape)} instead of {list(expected.shape)}"
    if expected.dtype.kind not in "fc":
        count, size = int(np.sum(found != expected)), expected.size
        allowed = max(MOST_DIFFERENT * size, float(size >= FEWEST))
        return f"{count} of {size} values differ" if count > allowed else ""
    odd = ~np.isfinite(expected)
    if not np.array_equal(found[odd], expected[odd].astype(found.dtype), equal_nan=True):
        return "it differs where it is not finite"
    one, other = found[~odd].astype(np.float64), expected[~odd].astype(np.float64)
    scale = float(np.sqrt(np.mean(other**2))) if other.size else 0.0
    distance = float(np.sqrt(np.mean((one - other) ** 2))) if other.size else 0.0
    # Half floats have three digits, which rounding uses up layer by layer.
    tolerance = max(tolerance, 4 * float(np.finfo(expected.dtype).eps))
    if not distance <= tolerance * max(scale, SMALLEST):  # NaN agrees with nothing
        return f"it is off by {distance:.3g}, where values are about {scale:.3g}"
    return ""
