"""What tests of backends share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.core.registry import BACKENDS
from penjing.core.training import to_numpy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from penjing.core.tensors import Array


@pytest.fixture
def computes_the_same() -> Callable[[Any, Mapping[str, Array]], None]:
    """Check that a model gives the same outputs where it is trained as in ONNX Runtime."""
    torch = pytest.importorskip("torch", reason="training needs PyTorch")
    torch.set_num_threads(1)

    def check(model: Any, given: Mapping[str, Array]) -> None:
        backend = BACKENDS.load("onnx")()
        native = backend.open(model).native
        expected = backend.predict(native, given)
        tensors = {name: torch.from_numpy(array.copy()) for name, array in given.items()}
        found = backend.function(native)({}, tensors)
        assert list(found) == list(expected)
        for name, array in expected.items():
            other = to_numpy(found[name])
            assert other.dtype == array.dtype, name
            assert other.shape == array.shape, name
            finite = np.abs(array[np.isfinite(array)], dtype=np.float64)
            scale = max(1.0, float(finite.max(initial=0)))
            np.testing.assert_allclose(other, array, rtol=1e-4, atol=2e-6 * scale)

    return check
