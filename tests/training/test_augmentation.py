"""Images are shifted within the range, mirrored half of the time, by the seed alone."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")


def changed(images: Any, shift: int, *, mirror: bool, seed: int = 0, **place: int) -> Any:
    """Change images."""
    from penjing.training.augmentation import augmented

    generator = torch.Generator().manual_seed(seed)
    return augmented({"x": images}, shift, generator, mirror=mirror, **place)["x"]


def dots(count: int) -> Any:
    """Make images of 9 x 9 with one bright pixel in the middle."""
    images = torch.zeros(count, 2, 9, 9)
    images[:, :, 4, 4] = 1
    return images


def test_shifts_stay_within_the_range_and_use_all_of_it() -> None:
    """Every shift up to the largest occurs, to all sides, and none beyond."""
    moved = changed(dots(500), 2, mirror=False)
    assert moved.shape == (500, 2, 9, 9)
    found = moved[:, 0].nonzero()
    assert len(found) == 500
    for axis in (1, 2):
        assert set(found[:, axis].tolist()) == {2, 3, 4, 5, 6}
    assert torch.equal(moved[:, 0], moved[:, 1])


def test_zeros_come_in_from_outside() -> None:
    """What is shifted out is gone, and nothing comes in its place."""
    moved = changed(torch.ones(50, 1, 4, 4), 4, mirror=False)
    sums = moved.sum(dim=(1, 2, 3))
    assert float(sums.min()) < 16
    assert set(moved.unique().tolist()) <= {0.0, 1.0}


def test_half_of_the_images_are_mirrored() -> None:
    """Each is as it was or mirrored left to right, about as often."""
    images = torch.arange(12.0).reshape(1, 1, 3, 4).repeat(600, 1, 1, 1)
    moved = changed(images, 0, mirror=True)
    same = (moved == images).all(dim=3).all(dim=2).all(dim=1)
    turned = (moved == images.flip(3)).all(dim=3).all(dim=2).all(dim=1)
    assert bool((same ^ turned).all())
    assert 240 < int(turned.sum()) < 360


def test_the_seed_decides() -> None:
    """The same seed gives the same images."""
    images = torch.rand(20, 3, 8, 8)
    one = changed(images, 2, mirror=True, seed=4)
    assert torch.equal(one, changed(images, 2, mirror=True, seed=4))
    assert not torch.equal(one, changed(images, 2, mirror=True, seed=5))


def test_a_part_of_a_batch_is_changed_like_the_batch() -> None:
    """Processes that share a batch change its images as one process would."""
    images = torch.rand(10, 1, 6, 6)
    whole = changed(images, 2, mirror=True)
    part = changed(images[4:7], 2, mirror=True, batch=10, first=4)
    assert torch.equal(part, whole[4:7])


def test_what_is_no_image_stays() -> None:
    """Rows of features and whole numbers are left alone; nothing wanted, nothing done."""
    from penjing.training.augmentation import augmented

    inputs = {"rows": torch.rand(3, 5), "ids": torch.ones(3, 4, dtype=torch.int64)}
    found = augmented(inputs, 3, torch.Generator(), mirror=True)
    assert all(found[name] is inputs[name] for name in inputs)
    images = dots(2)
    assert changed(images, 0, mirror=False) is images


def blend(images: Any, seed: int = 0, first: int = 0) -> Any:
    """Blend images in pairs."""
    from penjing.training.augmentation import blended

    generator = torch.Generator().manual_seed(seed)
    inputs = {"x": images, "other": torch.ones(len(images), 3)}
    return blended(inputs, generator, batch=len(images) + first, first=first)


def test_blended_images_lie_between_two_of_the_batch() -> None:
    """Each is a mean of two or has a rectangle of another; types and other inputs stay."""
    levels = torch.arange(0, 240, 12, dtype=torch.uint8)
    images = levels[:, None, None, None].repeat(1, 1, 8, 8)
    found = blend(images)
    assert found["x"].dtype == torch.uint8
    assert found["x"].shape == images.shape
    assert (found["x"] <= images.max()).all()
    assert torch.equal(found["other"], torch.ones(20, 3))
    cut = 0
    for own, made in zip(levels, found["x"][:, 0], strict=True):
        values = made.unique()
        assert len(values) <= 2, "a share is one number for all that is blended"
        if len(values) == 2:
            cut += 1
            assert own in values
            others = (made != own).nonzero()
            height, width = others.max(dim=0).values - others.min(dim=0).values + 1
            assert len(others) == height * width, "what is of another is a rectangle"
    assert 0 < cut < 20


def distort(images: Any, seed: int = 0, first: int = 0, batch: int = 0) -> Any:
    """Turn, zoom and so on."""
    from penjing.training.augmentation import distorted

    generator = torch.Generator().manual_seed(seed)
    inputs = {"x": images, "other": torch.ones(len(images), 3)}
    return distorted(inputs, generator, batch=batch or len(images), first=first)["x"]


def test_distorted_images_are_near_what_they_were() -> None:
    """A broad spot stays where it is; contrast and brightness differ from image to image."""
    rows = torch.linspace(-1, 1, 17)
    spot = torch.exp(-2 * (rows[:, None] ** 2 + rows[None, :] ** 2))
    found = distort(spot.repeat(40, 2, 1, 1))
    flat = torch.corrcoef(torch.cat([spot.reshape(1, -1), found[:, 0].reshape(40, -1)]))
    assert (flat[0] > 0.95).all()
    assert found.std(dim=(1, 2, 3)).std() > 0.01
    assert found.mean(dim=(1, 2, 3)).std() > 0.01
    whole = distort((255 * spot).to(torch.uint8).repeat(4, 1, 1, 1))
    assert whole.dtype == torch.uint8


def test_a_part_of_a_batch_is_distorted_like_the_batch() -> None:
    images = torch.rand(9, 3, 6, 5)
    whole = distort(images)
    assert torch.allclose(distort(images[4:], first=4, batch=9), whole[4:], atol=1e-6)
    assert torch.equal(distort(images), whole)
    assert not torch.equal(distort(images, seed=1), whole)
    assert torch.isfinite(distort(torch.ones(2, 1, 1, 1))).all()


def test_blending_is_decided_by_the_seed() -> None:
    """Equal seeds give equal blends, other seeds others."""
    images = torch.rand(8, 1, 3, 3)
    assert torch.equal(blend(images)["x"], blend(images)["x"])
    assert not torch.equal(blend(images)["x"], blend(images, seed=1)["x"])


def test_images_lie_channels_last_and_stay_what_they_are() -> None:
    """The layout in memory is the convolutions' own, with and without changes."""
    from penjing.training.augmentation import channels_last

    images, rows = torch.rand(3, 2, 5, 5), torch.rand(3, 7)
    laid = channels_last({"x": images, "rows": rows})
    assert torch.equal(laid["x"], images)
    assert laid["rows"] is rows
    moved = changed(laid["x"], 1, mirror=True)
    for each in (laid["x"], moved):
        assert each.is_contiguous(memory_format=torch.channels_last)
