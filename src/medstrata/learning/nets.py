"""Networks, for 2-D and 3-D alike: one code path, the number of spatial axes decides the layers.

Shapes: n images, C channels, F feature maps, Z embedding size.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn

from medstrata.errors import FitError

LEAK = 0.1  # slope of LeakyReLU for negative values (Ryan et al. 2020)


class ConvolutionalAutoencoder(nn.Module):
    """Encoder of 4-wide stride-2 convolutions, a linear embedding, and the mirrored decoder (Ryan et al. 2020).

    With ``widths`` (16, 32, 64) and ``embedding_size`` 60 on 88 x 88 x 88 voxels this is the published network. Odd
    sides are kept through the output padding of the decoder, so every image size from ``2 ** len(widths)`` works.
    """

    def __init__(
        self, image_shape: tuple[int, ...], widths: tuple[int, ...], embedding_size: int, rectified_output: bool
    ) -> None:
        """``image_shape`` is ``(C, H, W)`` or ``(C, D, H, W)``; ``rectified_output``: LeakyReLU at the end."""
        super().__init__()
        spatial = [image_shape[1:]]
        for _ in widths:
            spatial.append(tuple(side // 2 for side in spatial[-1]))
        if min(spatial[-1]) < 1:
            raise FitError(
                f"Images of {' x '.join(map(str, image_shape[1:]))} are too small for an encoder that halves them "
                f"{len(widths)} times: give larger images, or fewer widths."
            )
        convolution, transposed = (
            (nn.Conv2d, nn.ConvTranspose2d) if len(image_shape) == 3 else (nn.Conv3d, nn.ConvTranspose3d)
        )
        channels = (image_shape[0], *widths)
        self.feature_shape = (widths[-1], *spatial[-1])
        self.encoder = nn.Sequential()
        for before, after in pairwise(channels):
            self.encoder.extend([convolution(before, after, 4, stride=2, padding=1), nn.LeakyReLU(LEAK)])
        features = math.prod(self.feature_shape)
        self.embedding = nn.Linear(features, embedding_size)
        self.expansion = nn.Linear(embedding_size, features)
        self.decoder = nn.Sequential()
        for level in range(len(widths), 0, -1):
            padding = tuple(large - 2 * small for large, small in zip(spatial[level - 1], spatial[level], strict=True))
            layer = transposed(channels[level], channels[level - 1], 4, stride=2, padding=1, output_padding=padding)  # type: ignore[arg-type]
            self.decoder.append(layer)
            if level > 1 or rectified_output:
                self.decoder.append(nn.LeakyReLU(LEAK))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Images ``(n, C, ...)`` -> feature maps ``(n, F, ...)`` of the last encoder layer, after its LeakyReLU."""
        return self.encoder(x)  # type: ignore[no-any-return]

    def embed(self, features: torch.Tensor) -> torch.Tensor:
        """Feature maps -> embedding ``(n, Z)``, linear."""
        return self.embedding(features.flatten(1))  # type: ignore[no-any-return]

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Embedding -> reconstruction ``(n, C, ...)``."""
        hidden = nn.functional.relu(self.expansion(nn.functional.leaky_relu(z, LEAK)))
        return self.decoder(hidden.unflatten(1, self.feature_shape))  # type: ignore[no-any-return]


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights anew from ``generator``: Glorot uniform as in Keras, biases zero."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter, generator=generator)
