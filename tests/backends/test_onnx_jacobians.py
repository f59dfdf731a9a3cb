"""How outputs answer to the rows of a layer: a row of a few numbers per sample, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.core.registry import BACKENDS
from penjing.testing import models
from penjing.testing.onnx_zoo import draw, graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penjing.core.model import Model
    from penjing.core.tensors import Array


def asked(
    sizes: Sequence[int | str], outputs: int, *, after: bool
) -> tuple[Array, Array] | None:
    """Ask for ``x @ w``, which is the output itself or has twice of it come after."""
    nodes: list[Any] = [("MatMul", ["x", "w"], "m" if after else "y", {})]
    if after:
        nodes.append(("Add", ["m", "m"], "y", {}))
    arrays = draw(w=(6, outputs))
    made = graph(nodes, {"x": ("float32", sizes)}, arrays, rank=len(sizes))
    model: Model = BACKENDS.load("onnx")().open(made)
    walker = model.backend.walker(model.native, [models.inputs(model, 8, 1)])  # type: ignore[attr-defined]
    found: tuple[Array, Array] | None = walker.jacobian("w", 8, 0)
    return found


@pytest.mark.parametrize("after", [False, True], ids=["output", "before the output"])
def test_a_row_of_outputs_answers_to_each_row(*, after: bool) -> None:
    found = asked(["n", 6], 4, after=after)
    assert found is not None
    derivatives, outputs = found
    assert outputs.shape == (8, 4)
    expected = np.broadcast_to(np.eye(4) * (2 if after else 1), (8, 4, 4))
    np.testing.assert_allclose(abs(derivatives), expected, atol=1e-3)


@pytest.mark.parametrize("after", [False, True], ids=["output", "before the output"])
@pytest.mark.parametrize(
    ("sizes", "outputs"), [(["n", 5, 6], 4), (["n", 6], 300)], ids=["positions", "too many"]
)
def test_other_outputs_are_out_of_reach(
    sizes: Sequence[int | str], outputs: int, *, after: bool
) -> None:
    assert asked(sizes, outputs, after=after) is None
