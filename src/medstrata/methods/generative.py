"""What methods with a decoder share: images from embeddings, in stored units."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medstrata.learning.adjustment import apart
from medstrata.learning.batches import blocks, other_scale
from medstrata.learning.comm import generator
from medstrata.learning.ranges import check_whole
from medstrata.methods.method import BLOCK, ClusteringMethod
from medstrata.methods.settings import check_fitted

Decode = Callable[[torch.Tensor], torch.Tensor]
ROUNDS = 20  # of candidates that ``sample`` draws before it takes what comes nearest


def decode_images(method: ClusteringMethod, z: torch.Tensor, decode: Decode) -> NDArray[np.float32]:
    """Embeddings (n, Z) -> images (n, C, ...) float32 in the units of the images that were fitted."""
    method.network_.eval()
    parts = []
    with torch.inference_mode():
        for part in z.to(method.device_).split(BLOCK):
            parts.append(method.preprocessing_.inverse(decode(part)).cpu())
    return torch.cat(parts).numpy()


def candidates(
    method: ClusteringMethod, count: int, cluster: int, chance: torch.Generator, decode: Decode
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw images from the Gaussian of ``cluster``: (count, C, ...) as the network sees them, their q (count, K)."""
    method.network_.eval()
    with torch.inference_mode():
        x = decode(method.network_.gaussians.draw(count, cluster, chance))
        return x, method.soft_assignment(x)


def sample(
    method: ClusteringMethod, count: int, cluster: int, random_state: int, decode: Decode
) -> NDArray[np.float32]:
    """Draw ``count`` new images (count, C, ...) of ``cluster``, float32 in the units of the training images.

    Embeddings come from the Gaussian of the cluster. A Gaussian reaches into its neighbours, and a decoded image need
    not lie where its embedding lay: only images that the model itself assigns to the cluster are kept, or, where 20
    rounds do not bring enough of them, those with the highest probability.

    Raises
    ------
    FitError : not fitted, no such cluster or an empty one, ``count`` below 1
    """
    check_fitted(method)
    check_whole("count", count, 1)
    check_whole("cluster", cluster)
    check_whole("random_state", random_state)
    chance = generator(random_state, cluster)
    best: list[torch.Tensor] = []
    rank: list[torch.Tensor] = []
    for _ in range(ROUNDS):
        x, q = candidates(method, max(count, 32), cluster, chance, decode)
        of_all = torch.cat([*rank, torch.where(q.argmax(1) == cluster, 1.0, q[:, cluster])])
        chosen = of_all.argsort(descending=True, stable=True)[:count]  # of those in the cluster, the first drawn
        best, rank = [torch.cat([*best, x])[chosen]], [of_all[chosen]]
        missing = int((rank[0] < 1).sum())
        if not missing:
            break
    else:
        warnings.warn(
            f"The model assigns only {count - missing} of {count} samples of cluster {cluster} to it; the others came "
            f"nearest among {ROUNDS * max(count, 32)} draws. Train longer, or ask for fewer clusters.",
            stacklevel=3,
        )
    return method.preprocessing_.inverse(best[0]).cpu().numpy()


def reconstruct(method: ClusteringMethod, X: Any, decode: Decode) -> NDArray[np.float32]:
    """Images -> their reconstructions (N, C, ...) float32 in stored units, block by block.

    Raises
    ------
    FitError : not fitted, images of another shape, values that are not finite
    """
    images, _ = apart(X, method._as_images)
    check_fitted(method, images)
    if sentence := other_scale(images, method.preprocessing_):
        warnings.warn(sentence, stacklevel=3)
    result = np.empty(images.shape, np.float32)
    for part in blocks(images, BLOCK):
        result[part] = decode_images(method, method._embed_all(images[part]), decode)
    return result
