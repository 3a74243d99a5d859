"""The generative side of DVC and the contrastive autoencoder: are samples of their cluster, diverse, and no copies?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from medstrata.errors import FitError
from medstrata.learning.graph import neighbours

GENERATIVE = ("dvc", "contrastive")
SAMPLES = 100  # per cluster
MOST = 2000  # images that distances are measured on

Flat = NDArray[np.float64]


def measure(model: Any, images: NDArray[Any], seed: int) -> dict[str, float]:
    """Measure samples, reconstructions and the latent space of a fitted model on (at most 2,000 of) its images.

    - ``samples in their cluster``: share of ``sample(n, c)`` that ``predict`` puts into c
    - ``diversity``: mean distance of two samples of a cluster over that of two members of it
    - ``nearest``: distance of a sample to the nearest training image over that of an image to the nearest other one;
      far below 1 would be copies
    - ``reconstruction``, ``reconstruction of PCA``: share of the variance that is lost, PCA with as many components
    - ``trustworthiness``: whether the 10 neighbours in the latent space are neighbours in the images (0..1)
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(images))[:MOST])
    real, labels = _flat(images[chosen]), model.labels_[chosen]
    hits, diversity, nearest = [], [], []
    own = _nearest_other(real)
    for cluster in np.unique(model.labels_):
        try:
            samples = model.sample(SAMPLES, int(cluster), seed)
        except FitError:  # a cluster without members has nothing to draw from
            continue
        hits.append(float((model.predict(samples) == cluster).mean()))
        members = real[labels == cluster]
        if len(members) > 1:
            diversity.append(_spread(_flat(samples)) / max(_spread(members), 1e-12))
        nearest.append(float(np.median(_distances(_flat(samples), real).min(1))) / own)
    rebuilt = _flat(model.reconstruct(images[chosen]))
    z = model.transform(images[chosen])
    return {
        "samples in their cluster": float(np.mean(hits)),
        "diversity": float(np.mean(diversity)),
        "nearest": float(np.mean(nearest)),
        "reconstruction": float(np.square(rebuilt - real).sum() / _variance(real)),
        "reconstruction of PCA": _lost_by_pca(real, z.shape[1], seed),
        "trustworthiness": float(trustworthiness(real, z, n_neighbors=10)) if len(real) > 20 else float("nan"),
    }


def _flat(images: NDArray[Any]) -> Flat:
    return np.asarray(images, np.float64).reshape(len(images), -1)


def _variance(real: Flat) -> float:
    return float(np.square(real - real.mean(0)).sum())


def _spread(x: Flat) -> float:
    """Root mean squared distance of two images, by the variance: no pairs are needed."""
    return float(np.sqrt(2 * np.square(x - x.mean(0)).sum(1).mean()))


def _distances(a: Flat, b: Flat) -> Flat:
    squares = np.square(a).sum(1)[:, None] - 2 * a @ b.T + np.square(b).sum(1)
    found: Flat = np.sqrt(squares.clip(0))
    return found


def _nearest_other(real: Flat) -> float:
    near = neighbours(real, real, 2)[:, 1]
    return max(float(np.median(np.sqrt(np.square(real - real[near]).sum(1)))), 1e-12)


def _lost_by_pca(real: Flat, components: int, seed: int) -> float:
    components = min(components, *real.shape)
    pca = PCA(components, svd_solver="randomized", random_state=seed).fit(real)
    return float(np.square(pca.inverse_transform(pca.transform(real)) - real).sum() / _variance(real))
