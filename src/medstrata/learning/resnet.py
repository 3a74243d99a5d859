"""Small residual networks, for 2-D and 3-D alike: the number of spatial axes decides the layers.

    He, Zhang, Ren, Sun: Deep residual learning for image recognition. CVPR 2016. Blocks as in its figure 5, left.

Shapes: n images, C channels, F feature maps.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from medstrata.errors import FitError

SMALL, LARGE = 20, 40  # sides up to which the stem keeps an axis, halves it, and above which it halves it twice


class ResNet(nn.Module):
    """A stem, one block of two convolutions per width, the mean over all places.

    The stem is a convolution with kernel 3 and, where any axis is long, a max-pooling. Each axis is brought to about
    20 places or fewer by it: an axis of up to 20 pixels stays (small images have no detail to lose), one of up to 40 is
    halved by the stride of the convolution, a longer one is halved once more by the pooling. Each block after the first
    halves all axes. Images may be smaller than ``image_shape`` (crops), down to single pixels.
    """

    def __init__(self, image_shape: tuple[int, ...], widths: tuple[int, ...]) -> None:
        """``image_shape`` is ``(C, H, W)`` or ``(C, D, H, W)``; ``widths``: the channels of the blocks.

        Raises
        ------
        FitError : the images are too small
        """
        super().__init__()
        channels, sides = image_shape[0], image_shape[1:]
        if min(sides) < 2 ** len(widths):
            raise FitError(
                f"Images of {' x '.join(map(str, sides))} are too small for a residual network of {len(widths)} "
                f"blocks: give images of at least {2 ** len(widths)} pixels a side, or fewer widths."
            )
        stride = tuple(2 if side > SMALL else 1 for side in sides)
        pooling = tuple(2 if side > LARGE else 1 for side in sides)
        self.layers = nn.Sequential(*_convolution(channels, widths[0], stride), nn.ReLU())
        if max(pooling) > 1:
            pool = nn.MaxPool2d if len(sides) == 2 else nn.MaxPool3d
            # Sides are rounded up, so that a small crop never vanishes.
            self.layers.append(pool(pooling, ceil_mode=True))
        one, two = (1,) * len(sides), (2,) * len(sides)
        for number, (before, after) in enumerate(pairwise((widths[0], *widths))):
            self.layers.append(Block(before, after, two if number else one))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Images ``(n, C, ...)`` -> feature maps ``(n, F, ...)`` of the last block, none below zero."""
        return self.layers(x)  # type: ignore[no-any-return]

    def embed(self, features: torch.Tensor) -> torch.Tensor:
        """Feature maps ``(n, F, ...)`` -> their means over all places ``(n, F)``."""
        return features.flatten(2).mean(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images ``(n, C, ...)`` -> ``(n, F)``."""
        return self.embed(self.features(x))


class Block(nn.Module):
    """relu(shortcut(x) + two convolutions of x), each with BatchNorm; the shortcut is x where sizes agree."""

    def __init__(self, before: int, after: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        ones = (1,) * len(stride)
        self.residual = nn.Sequential(
            *_convolution(before, after, stride), nn.ReLU(), *_convolution(after, after, ones)
        )
        same = before == after and stride == ones
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(before, after, stride, kernel=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``(n, before, ...)`` -> maps ``(n, after, ...)``, sides halved (rounded up) where the stride is 2."""
        return torch.relu(self.shortcut(x) + self.residual(x))


def _convolution(before: int, after: int, stride: tuple[int, ...], kernel: int = 3) -> tuple[nn.Module, nn.Module]:
    convolution, norm = (nn.Conv2d, nn.BatchNorm2d) if len(stride) == 2 else (nn.Conv3d, nn.BatchNorm3d)
    return convolution(before, after, kernel, stride, kernel // 2, bias=False), norm(after)  # type: ignore[arg-type]
