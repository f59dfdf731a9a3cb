"""ResNet-56 for small images."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.templates.support.families import SmallImageResNet

__all__ = ["ResNet56"]


@dataclass(frozen=True)
class ResNet56(SmallImageResNet):
    """Classify small images by 56 layers with shortcuts: 853,018 parameters for CIFAR-10.

    Shortcuts have no weights: they skip pixels and pad channels (option A).

    References:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
    """

    blocks = 9
