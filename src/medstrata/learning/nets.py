"""Convolutional encoders and decoders, for 2-D and 3-D alike: the number of spatial axes decides the layers.

Shapes: n images, C channels, F feature maps, Z embedding size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from medstrata.errors import FitError
from medstrata.learning.ranges import check_whole, check_wholes


@dataclass(frozen=True)
class Architecture:
    """The size of a network: ``widths``, the channels after each halving of the image, and ``embedding_size`` Z."""

    widths: tuple[int, ...] = (16, 32, 64)
    embedding_size: int = 32

    def __post_init__(self) -> None:
        check_wholes("widths", self.widths)
        check_whole("embedding_size", self.embedding_size, 1)


@dataclass(frozen=True)
class Layers:
    """What the convolutions are like: ``kernel`` 3 or 4 (stride 2), with BatchNorm or not, slope of LeakyReLU."""

    kernel: int = 4
    batch_norm: bool = False
    leak: float = 0.1  # Ryan et al. 2020

    def after(self, channels: int, dimensions: int) -> list[nn.Module]:
        """Return what follows a convolution of ``channels`` outputs."""
        norm = nn.BatchNorm2d if dimensions == 2 else nn.BatchNorm3d
        activation = nn.LeakyReLU(self.leak) if self.leak else nn.ReLU()
        return [norm(channels), activation] if self.batch_norm else [activation]


class Encoder(nn.Module):
    """Convolutions of stride 2, then one linear layer."""

    def __init__(self, image_shape: tuple[int, ...], widths: tuple[int, ...], outputs: int, layers: Layers) -> None:
        """``image_shape`` is ``(C, H, W)`` or ``(C, D, H, W)``; ``outputs`` of the linear layer."""
        super().__init__()
        dimensions = len(image_shape) - 1
        convolution = nn.Conv2d if dimensions == 2 else nn.Conv3d
        self.layers = nn.Sequential()
        for before, after in pairwise((image_shape[0], *widths)):
            self.layers.append(convolution(before, after, layers.kernel, stride=2, padding=1))
            self.layers.extend(layers.after(after, dimensions))
        self.feature_shape = (widths[-1], *_sides(image_shape[1:], len(widths), layers.kernel)[-1])
        self.embedding = nn.Linear(math.prod(self.feature_shape), outputs)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Images ``(n, C, ...)`` -> feature maps ``(n, F, ...)`` of the last layer, after its activation."""
        return self.layers(x)  # type: ignore[no-any-return]

    def embed(self, features: torch.Tensor) -> torch.Tensor:
        """Feature maps -> ``(n, outputs)``, linear."""
        return self.embedding(features.flatten(1))  # type: ignore[no-any-return]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images ``(n, C, ...)`` -> ``(n, outputs)``."""
        return self.embed(self.features(x))


class Decoder(nn.Module):
    """The mirror of ``Encoder``: one linear layer, then transposed convolutions.

    Odd sides are kept through output padding, so every image size that the encoder takes works.
    """

    def __init__(self, image_shape: tuple[int, ...], widths: tuple[int, ...], inputs: int, layers: Layers) -> None:
        """``image_shape`` as for ``Encoder``; the last layer is linear."""
        super().__init__()
        dimensions = len(image_shape) - 1
        transposed = nn.ConvTranspose2d if dimensions == 2 else nn.ConvTranspose3d
        sides = _sides(image_shape[1:], len(widths), layers.kernel)
        channels = (image_shape[0], *widths)
        self.feature_shape = (widths[-1], *sides[-1])
        self.expansion = nn.Linear(inputs, math.prod(self.feature_shape))
        self.layers = nn.Sequential()
        for level in range(len(widths), 0, -1):
            # Kernel 4 and padding 1 double a side exactly; what is missing to the encoder's side is padded.
            padding = tuple(large - 2 * small for large, small in zip(sides[level - 1], sides[level], strict=True))
            cut = tuple(max(0, -amount) for amount in padding)
            layer = transposed(
                channels[level],
                channels[level - 1],
                4,
                stride=2,
                padding=1,
                output_padding=tuple(max(0, amount) for amount in padding),  # type: ignore[arg-type]
            )
            self.layers.append(layer)
            if any(cut):
                self.layers.append(_Cut(cut))
            if level > 1:
                self.layers.extend(layers.after(channels[level - 1], dimensions))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """``(n, inputs)`` -> images ``(n, C, ...)``."""
        hidden = nn.functional.relu(self.expansion(z))
        return self.layers(hidden.unflatten(1, self.feature_shape))  # type: ignore[no-any-return]


class _Cut(nn.Module):
    """Cut ``amounts`` from the end of each spatial axis."""

    def __init__(self, amounts: tuple[int, ...]) -> None:
        super().__init__()
        self.amounts = amounts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for axis, amount in enumerate(self.amounts, start=2):
            x = x.narrow(axis, 0, x.shape[axis] - amount)
        return x


def _sides(spatial: tuple[int, ...], halvings: int, kernel: int) -> list[tuple[int, ...]]:
    """Return the spatial sizes before and after each convolution (stride 2, padding 1).

    Raises
    ------
    FitError : the images are too small
    """
    sides = [tuple(spatial)]
    for _ in range(halvings):
        sides.append(tuple((side + 2 - kernel) // 2 + 1 for side in sides[-1]))
    if min(spatial) < 2**halvings:
        raise FitError(
            f"Images of {' x '.join(map(str, spatial))} are too small for an encoder that halves them "
            f"{halvings} times: give larger images, or fewer widths."
        )
    return sides


INITIAL_WEIGHTS = 3  # names the stream of random numbers that a network starts from


def initialise(network: nn.Module, generator: torch.Generator, kind: str = "glorot") -> None:
    """Draw all weights of convolutions and linear layers anew from ``generator``, biases zero.

    ``kind``: "glorot" (uniform, as in Keras) or "he" (normal, for ReLU networks with BatchNorm). One-dimensional
    weights (BatchNorm) keep their values.
    """
    for name, parameter in network.named_parameters():
        if not parameter.numel():  # prototypes that are not found yet
            continue
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.ndim > 1 and kind == "glorot":
            nn.init.xavier_uniform_(parameter, generator=generator)
        elif parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
