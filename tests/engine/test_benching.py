"""Timing a file: what is reported is what ran."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from penjing.api import bench
from penjing.core.errors import ConfigError, DataError, UnsupportedError
from penjing.testing.onnx_zoo import draw, graph

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from penjing.engine.benching import Timing

    Timed = Callable[..., Timing]


@pytest.fixture
def timed(tmp_path: Path) -> Timed:
    """Give a function that times ``x @ w``, for ``x`` and ``w`` of these shapes."""

    def run(x: Sequence[int | str], w: tuple[int, int], **options: Any) -> Timing:
        import onnx

        made = graph(
            [("MatMul", ["x", "w"], "y", {})], {"x": ("float32", x)}, draw(w=w), rank=len(x)
        )
        onnx.save(made, tmp_path / "model.onnx")
        return bench(tmp_path / "model.onnx", seconds=0, **options)

    return run


def test_one_sample_is_run_unless_more_are_asked_for(timed: Timed) -> None:
    for asked, expected in ((None, 1), (4, 4)):
        found = timed(["n", 6], (6, 3), batch=asked)
        assert (found.batch, found.shapes, found.free_size) == (
            expected,
            {"x": (expected, 6)},
            None,
        )


def test_a_fixed_batch_is_what_runs_and_what_is_reported(timed: Timed) -> None:
    found = timed([8, 6], (6, 3))
    assert (found.batch, found.shapes) == (8, {"x": (8, 6)})
    assert timed([8, 6], (6, 3), batch=8).batch == 8
    with pytest.raises(ConfigError, match="4 was asked for, but 8 is fixed in input 'x'"):
        timed([8, 6], (6, 3), batch=4)


def test_free_sizes_are_chosen_and_told(timed: Timed) -> None:
    found = timed(["n", "t", 6], (6, 3))
    assert (found.free_size, found.shapes) == (128, {"x": (1, 128, 6)})
    picture = timed(["n", 3, "height", "width"], (224, 3))
    assert (picture.free_size, picture.shapes) == (224, {"x": (1, 3, 224, 224)})


def test_the_first_size_that_the_model_runs_with_is_taken(timed: Timed) -> None:
    found = timed(["n", "t"], (32, 3), batch=2)
    assert (found.free_size, found.shapes) == (32, {"x": (2, 32)})


def test_where_no_size_runs_the_error_tells_what_to_pass(timed: Timed) -> None:
    with pytest.raises(UnsupportedError, match=r"free size on axis 1(.|\n)*--shape x=1x"):
        timed(["n", "t"], (37, 3))
    found = timed(["n", "t"], (37, 3), shapes={"x": (5, 37)})
    assert (found.batch, found.shapes, found.free_size) == (5, {"x": (5, 37)}, None)


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        ({"z": (1, 6)}, "no input is called 'z'"),
        ({"x": (1, 2, 6)}, "takes [?]x6, and 1x2x6 was given"),
        ({"x": (1, 7)}, "takes [?]x6, and 1x7 was given"),
        ({"x": (0, 6)}, "0x6 was given"),
        ({"x": (2**40, 6)}, "too large"),
        ({"x": (2, 6)}, "3 was asked for, but 2 is in the shape of 'x'"),
    ],
    ids=["name", "rank", "size", "none", "size of all", "batch"],
)
def test_shapes_that_the_model_does_not_take(
    timed: Timed, shapes: dict[str, tuple[int, ...]], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        timed(["n", 6], (6, 3), shapes=shapes, batch=3)


def test_shapes_that_do_not_run_are_told_with_the_reason(timed: Timed) -> None:
    with pytest.raises(DataError, match="does not run on x float32"):
        timed(["n", "t"], (37, 3), shapes={"x": (1, 36)})


def test_real_models_with_free_sizes_are_timed(data: Callable[[str], Path]) -> None:
    found = bench(data("silero-vad/silero_vad_16k_op15.onnx"), seconds=0, batch=3)
    assert found.shapes["state"] == (2, 3, 128)
    assert found.shapes["input"] == (3, found.free_size)
