"""Changing images at random, so that few of them go further."""

from __future__ import annotations

import torch
from torch.nn.functional import pad

IMAGE_AXES = 4


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


def blended(
    inputs: dict[str, torch.Tensor], generator: torch.Generator, *, batch: int, first: int
) -> dict[str, torch.Tensor]:
    """Blend every image with another of the same part of a batch, in shares drawn evenly.

    References:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
        Beyer et al., "Knowledge Distillation: A Good Teacher Is Patient and Consistent",
        CVPR 2022 (blending with the teacher's word alone).
    """
    count = max((len(a) for a in inputs.values() if a.ndim == IMAGE_AXES), default=0)
    shares = torch.rand(batch, generator=generator)[first : first + count]
    order = torch.argsort(torch.rand(batch, generator=generator)[first : first + count])
    found = dict(inputs)
    for name, images in inputs.items():
        if images.ndim != IMAGE_AXES:
            continue
        share = shares.to(images.device)[:, None, None, None]
        mixed = share * images.float() + (1 - share) * images[order.to(images.device)].float()
        whole = not images.dtype.is_floating_point
        found[name] = (mixed.round() if whole else mixed).to(images.dtype)
    return found
