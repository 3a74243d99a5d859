"""Baselines that need no training: a deep clustering that does not agree with or beat them has to say why.

PCA + k-means on the pixels, and the Leiden partition of the pixels' neighbour graph. Both take seconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from medstrata.learning.batches import Images, as_images, blocks
from medstrata.learning.graph import leiden, neighbours, shared_neighbour_graph

COMPONENTS = 50
REFERENCE = 20_000  # larger sets are fitted on a random sample of this size; the others join their nearest sample
REFERENCE_BYTES = 1 << 30  # of the sample in float32: large volumes make it smaller
VOTERS = 5

Labels = NDArray[np.int64]


def principal_components(X: Any, seed: int) -> NDArray[np.float32]:
    """Return the first 50 principal components (N, <= 50) of the flattened images, fitted on a sample."""
    images = as_images(X)
    row_bytes = 4 * int(np.prod(images.shape[1:]))
    sample = _sample(len(images), seed, max(2, REFERENCE_BYTES // row_bytes))
    flat = _flat(images, sample)
    components = min(COMPONENTS, *flat.shape)
    pca = PCA(components, svd_solver="randomized", random_state=seed).fit(flat)
    parts = [pca.transform(_flat(images, np.arange(part.start, part.stop))) for part in blocks(images)]
    return np.concatenate(parts).astype(np.float32)


def pca_kmeans(components: NDArray[np.float32], n_clusters: int, seed: int) -> Labels:
    """PCA + k-means: labels (N,) from the principal components (N, Z)."""
    model = KMeans(n_clusters, n_init=10, random_state=seed).fit(components[_sample(len(components), seed)])
    return model.predict(components).astype(np.int64)  # type: ignore[no-any-return]


def pixel_graph(components: NDArray[np.float32], n_clusters: int, seed: int) -> Labels:
    """Neighbour graph of the pixels -> Leiden: labels (N,) from the principal components (N, Z)."""
    sample = _sample(len(components), seed)
    reference = components[sample]
    found = leiden(shared_neighbour_graph(reference), n_clusters, seed)
    labels = np.empty(len(components), np.int64)
    labels[sample] = found
    rest = np.setdiff1d(np.arange(len(components)), sample)
    if len(rest):
        votes = found[neighbours(reference, components[rest], VOTERS)]
        labels[rest] = np.apply_along_axis(lambda row: np.bincount(row).argmax(), 1, votes)
    return labels


def _sample(count: int, seed: int, most: int | None = None) -> NDArray[np.int64]:
    most = min(REFERENCE, most or REFERENCE)
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def _flat(images: Images, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    return images[rows].reshape(len(rows), -1).astype(np.float32)
