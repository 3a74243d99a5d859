"""What methods with a decoder share: images from embeddings, in stored units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medstrata.learning.batches import blocks
from medstrata.methods.method import BLOCK, ClusteringMethod
from medstrata.methods.settings import check_fitted

Decode = Callable[[torch.Tensor], torch.Tensor]


def decode_images(method: ClusteringMethod, z: torch.Tensor, decode: Decode) -> NDArray[np.float32]:
    """Embeddings (n, Z) -> images (n, C, ...) float32 in the units of the images that were fitted."""
    method.network_.eval()
    parts = []
    with torch.inference_mode():
        for part in z.to(method.device_).split(BLOCK):
            parts.append(method.preprocessing_.inverse(decode(part)).cpu())
    return torch.cat(parts).numpy()


def reconstruct(method: ClusteringMethod, X: Any, decode: Decode) -> NDArray[np.float32]:
    """Images -> their reconstructions (N, C, ...) float32 in stored units, block by block."""
    images = method._as_images(X)
    check_fitted(method, images)
    result = np.empty(images.shape, np.float32)
    for part in blocks(images, BLOCK):
        result[part] = decode_images(method, method._embed_all(images[part]), decode)
    return result
