"""Changes of images that a model does not mind: found out, and used for other views of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penjing.core.data import Part, Splits, open_data
from penjing.core.model import Model, Port
from penjing.engine import invariances
from penjing.engine.invariances import kept_by, views

if TYPE_CHECKING:
    from tests.engine.conftest import Task


class Sides:
    """Tells whether the left or the right half of a picture is brighter."""

    def predict(self, native: object, inputs: dict[str, Any]) -> dict[str, Any]:
        del native
        (images,) = inputs.values()
        half = images.shape[-1] // 2
        sums = [images[..., :half].sum((1, 2, 3)), images[..., half:].sum((1, 2, 3))]
        return {"y": np.stack(sums, axis=1).astype(np.float32)}


def pictures(place: int) -> Splits:
    x = np.zeros((64, 1, 32, 32), np.float32)
    x[:32, :, 16, place] = x[32:, :, 16, -1 - place] = 1
    dataset = open_data({"x": x}, [Port("x", "float32", (None, 1, 32, 32))])
    part = Part(dataset, np.arange(64))
    return Splits(part, part, part)


@pytest.mark.parametrize(("place", "shift"), [(8, 4), (13, 2), (14, 1), (15, None)])
def test_images_are_shifted_no_further_than_the_original_takes(
    place: int, shift: int | None
) -> None:
    model: Any = Model(None, Sides())  # type: ignore[arg-type]
    assert kept_by(model, pictures(place)).get("shift") == shift


def test_images_are_mirrored_only_where_the_original_does_not_mind() -> None:
    model: Any = Model(None, Sides())  # type: ignore[arg-type]
    assert not kept_by(model, pictures(8)).get("mirror")
    blind: Any = Model(None, Blind())  # type: ignore[arg-type]
    assert kept_by(blind, pictures(8))["mirror"]


class Blind(Sides):
    """Tells whether the upper or the lower half is brighter."""

    def predict(self, native: object, inputs: dict[str, Any]) -> dict[str, Any]:
        turned = {name: images.swapaxes(2, 3) for name, images in inputs.items()}
        return super().predict(native, turned)


def test_tables_have_no_images_to_change(task: Task) -> None:
    part = task.part(0, 64)
    assert kept_by(task.model, Splits(part, part, part)) == {}


def test_rows_are_viewed_as_far_as_the_original_does_not_mind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    part = pictures(8).search
    seen = views(part, {"mirror": True, "shift": 4})
    assert len(seen) == 5
    rows = np.arange(3)
    (plain,) = part.dataset.take(rows).inputs.values()
    shown = [next(iter(view.dataset.take(rows).inputs.values())) for view in seen]
    np.testing.assert_array_equal(shown[0], plain[..., ::-1])
    np.testing.assert_array_equal(shown[1][:, :, 2:], plain[:, :, :-2])
    np.testing.assert_array_equal(shown[4][..., :-2], plain[..., 2:])
    assert all(len(view) == len(part) for view in seen)
    assert all(view.labels is None for view in seen)
    assert views(part, {}) == []
    monkeypatch.setattr(invariances, "MOST_VIEWED", 3 * len(part))
    assert len(views(part, {"mirror": True, "shift": 4})) == 2
