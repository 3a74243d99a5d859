"""Scores that need no labels: does any of them put methods into the order that labels give?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import silhouette_score

from medstrata.learning.graph import modularity, shared_neighbour_graph
from medstrata.methods.principal import PrincipalComponents

MOST = 5000  # images that the scores are measured on


def label_free(images: NDArray[Any], z: torch.Tensor, labels: NDArray[np.int64]) -> dict[str, float]:
    """Score the partition ``labels`` (N,) of ``images``, on the pixels and on the method's own embedding z (N, Z)."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(images))[:MOST])
    pixels = PrincipalComponents(1, assignment="kmeans").fit(images[chosen]).transform(images[chosen])
    pixels = pixels / np.linalg.norm(pixels, axis=1, keepdims=True).clip(1e-12)
    own = z[torch.from_numpy(chosen)].cpu().numpy()
    own = own - own.mean(0)
    own = own / np.linalg.norm(own, axis=1, keepdims=True).clip(1e-12)
    found = np.unique(labels[chosen], return_inverse=True)[1].astype(np.int64)
    if found.max() == 0:
        return {}
    return {
        "modularity on the pixels": modularity(shared_neighbour_graph(pixels), found),
        "modularity on its embedding": modularity(shared_neighbour_graph(own), found),
        "silhouette on the pixels": float(silhouette_score(pixels, found)),
        "silhouette on its embedding": float(silhouette_score(own, found)),
    }
