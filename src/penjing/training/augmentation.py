"""Changing images at random, so that few of them go further."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import affine_grid, grid_sample, pad

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE_AXES = 4
HALF = 0.5
TURN = 0.25
"""Radians by which images are turned, at most."""
ZOOM = (0.8, 1.25)
TURNED = 0.7
"""Share of images that are turned and zoomed."""
CONTRAST, BRIGHTNESS = (0.7, 1.3), (-0.15, 0.15)
"""Factor of the distance to the mean, and what is added, in standard deviations."""


def channels_last(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Lay images out in memory as convolutions run fastest; shapes stay (N, C, H, W)."""
    return {
        name: array.contiguous(memory_format=torch.channels_last)
        if array.ndim == IMAGE_AXES
        else array
        for name, array in inputs.items()
    }


def augmented(  # noqa: PLR0913  # a part of a batch has a place in it
    inputs: dict[str, torch.Tensor],
    shift: int,
    generator: torch.Generator,
    *,
    mirror: bool,
    batch: int | None = None,
    first: int = 0,
) -> dict[str, torch.Tensor]:
    """Shift, and maybe mirror, every image: inputs with four axes, the last two in space.

    Pixels that come in from outside are zero.  Images are changed in the same way whether they
    are a whole batch or a part of one, of ``batch`` images, that begins at its ``first``.
    """
    if not (shift or mirror):
        return inputs
    return {
        name: _moved(array, shift, generator, mirror, (batch or len(array), first))
        if array.ndim == IMAGE_AXES
        else array
        for name, array in inputs.items()
    }


def _moved(
    images: torch.Tensor,
    shift: int,
    generator: torch.Generator,
    mirror: bool,  # noqa: FBT001  # passed on
    place: tuple[int, int],
) -> torch.Tensor:
    count, _, height, width = images.shape
    batch, first = place

    def draw(below: int) -> torch.Tensor:
        return torch.randint(below, (batch,), generator=generator)[first : first + count]

    rows = draw(2 * shift + 1)[:, None] + torch.arange(height)
    columns = draw(2 * shift + 1)[:, None] + torch.arange(width)
    if mirror:
        turned = draw(2).bool()
        columns[turned] = columns[turned].flip(1)
    padded = pad(images, (shift, shift, shift, shift))
    device = images.device
    which = torch.arange(count, device=device)[:, None, None]
    found: torch.Tensor = padded[
        which, :, rows.to(device)[:, :, None], columns.to(device)[:, None, :]
    ]
    return found.permute(0, 3, 1, 2)


def distorted(
    inputs: dict[str, torch.Tensor], generator: torch.Generator, *, batch: int, first: int
) -> dict[str, torch.Tensor]:
    """Turn and zoom most images, and change contrast and brightness of all, at random.

    What lies outside of an image is its mirror image.

    References:
        Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search
        Space", NeurIPS 2020 (the kinds of changes).
    """

    def changed(images: torch.Tensor) -> torch.Tensor:
        return _warped(images, _Draws(generator, batch, first, images))

    return _each(inputs, changed)


def blended(
    inputs: dict[str, torch.Tensor], generator: torch.Generator, *, batch: int, first: int
) -> dict[str, torch.Tensor]:
    """Blend every image with another of the same part of a batch, in shares drawn evenly.

    Every other image is blended all over; the others get a rectangle of another instead.

    References:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
        Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with
        Localizable Features", ICCV 2019.
        Beyer et al., "Knowledge Distillation: A Good Teacher Is Patient and Consistent",
        CVPR 2022 (blending with the teacher's word alone).
    """
    count = max((len(a) for a in inputs.values() if a.ndim == IMAGE_AXES), default=0)
    order = torch.argsort(torch.rand(batch, generator=generator)[first : first + count])

    def mixed(images: torch.Tensor) -> torch.Tensor:
        share = _own_share(images, _Draws(generator, batch, first, images))
        return share * images + (1 - share) * images[order.to(images.device)]

    return _each(inputs, mixed)


class _Draws:
    """Random numbers, one for each image; the same for a whole batch and for a part of it."""

    def __init__(
        self, generator: torch.Generator, batch: int, first: int, images: torch.Tensor
    ) -> None:
        self.generator, self.batch, self.device = generator, batch, images.device
        self.part = slice(first, first + len(images))

    def __call__(self, low: float, high: float) -> torch.Tensor:
        """Draw evenly between two numbers, (images,)."""
        drawn = torch.rand(self.batch, generator=self.generator)[self.part]
        return (low + (high - low) * drawn).to(self.device)


def _each(
    inputs: dict[str, torch.Tensor], change: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Change images as floats; what are whole numbers stay whole and in their range."""
    found = dict(inputs)
    for name, images in inputs.items():
        if images.ndim != IMAGE_AXES:
            continue
        made = change(images.float())
        if not images.dtype.is_floating_point:
            limits = torch.iinfo(images.dtype)
            made = made.round().clamp(limits.min, limits.max)
        found[name] = made.to(images.dtype)
    return found


def _own_share(images: torch.Tensor, draw: _Draws) -> torch.Tensor:
    """Give the share that each image keeps of itself, (images, 1, height, width)."""
    height, width = images.shape[2:]
    share, size = draw(0, 1), draw(0, 1).sqrt()
    rows = torch.arange(height, device=images.device)[None, :, None] + 0.5
    columns = torch.arange(width, device=images.device)[None, None, :] + 0.5

    def near(places: torch.Tensor, length: int) -> torch.Tensor:
        middle = draw(0, 1)[:, None, None] * length
        return (places - middle).abs() < size[:, None, None] * length / 2

    inside = near(rows, height) & near(columns, width)
    cut = draw(0, 1)[:, None, None] < HALF
    return torch.where(cut, 1 - inside.float(), share[:, None, None])[:, None]


def _warped(images: torch.Tensor, draw: _Draws) -> torch.Tensor:
    angle, wide, high = draw(-TURN, TURN), draw(*ZOOM), draw(*ZOOM)
    rows = (angle.cos() * wide, -angle.sin() * wide), (angle.sin() * high, angle.cos() * high)
    turn = torch.stack([torch.stack([*row, torch.zeros_like(angle)], 1) for row in rows], 1)
    grid = affine_grid(turn, list(images.shape), align_corners=False)
    turned = grid_sample(images, grid, align_corners=False, padding_mode="reflection")
    which = (draw(0, 1) < TURNED)[:, None, None, None]
    moved = torch.where(which, turned, images)
    mean = moved.mean(dim=(1, 2, 3), keepdim=True)
    spread = moved.std(dim=(1, 2, 3), keepdim=True, correction=0)
    contrast, brightness = (
        draw(*limits)[:, None, None, None] for limits in (CONTRAST, BRIGHTNESS)
    )
    return mean + contrast * (moved - mean) + brightness * spread
