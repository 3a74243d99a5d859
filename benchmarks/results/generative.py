"""The generative side of DVC and the contrastive autoencoder: are samples of their cluster, diverse, and no copies?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from medstrata.errors import FitError
from medstrata.learning.comm import generator
from medstrata.learning.graph import neighbours
from medstrata.methods.generative import candidates

GENERATIVE = ("dvc", "contrastive")
SAMPLES = 100  # per cluster
MOST = 2000  # images that distances are measured on

Flat = NDArray[np.float64]


def measure(model: Any, images: NDArray[Any], before: NDArray[Any], seed: int) -> dict[str, float | None]:
    """Measure samples, reconstructions and the latent space of a fitted model on (at most 2,000 of) its images.

    - ``drawn in their cluster``: share of the draws from the Gaussian of c that the model assigns to c
    - ``samples in their cluster``: the same of ``sample(n, c)``, which keeps only such draws as long as it finds any
    - ``diversity``: mean distance of two samples of a cluster over that of two members of it
    - ``nearest``: distance of a sample to the nearest of all training images, over that of a training image to the
      nearest other one; far below 1 would be copies
    - ``reconstruction``, ``reconstruction of PCA``: share of the variance that is lost, PCA with as many components and
      learned on the same images; None where there are fewer than 4 images for each component
    - ``trustworthiness``: whether the 10 neighbours in the latent space are neighbours in the images (0..1);
      ``trustworthiness before`` of the embedding ``before`` (N, Z), as it was before the clustering phase
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(images))[:MOST])
    real, labels = _flat(images[chosen]), model.labels_[chosen]
    everything = _flat(images)
    drawn, hits, diversity, nearest = [], [], [], []
    own = _nearest_other(everything)
    for cluster in np.unique(model.labels_):
        try:
            samples = model.sample(SAMPLES, int(cluster), seed)
        except FitError:  # a cluster without members has nothing to draw from
            continue
        drawn.append(accepted(model, int(cluster), seed))
        hits.append(float((model.predict(samples) == cluster).mean()))
        members = real[labels == cluster]
        if len(members) > 1:
            diversity.append(_spread(_flat(samples)) / max(_spread(members), 1e-12))
        nearest.append(to_nearest(_flat(samples), everything) / own)
    rebuilt = _flat(model.reconstruct(images[chosen]))
    z = model.transform(images[chosen])
    return {
        "drawn in their cluster": float(np.mean(drawn)),
        "samples in their cluster": float(np.mean(hits)),
        "diversity": float(np.mean(diversity)),
        "nearest": float(np.mean(nearest)),
        "reconstruction": float(np.square(rebuilt - real).sum() / _variance(real)),
        "reconstruction of PCA": _lost_by_pca(everything, real, z.shape[1], seed),
        "trustworthiness": _trustworthiness(real, z),
        "trustworthiness before": _trustworthiness(real, before[chosen]),
    }


def _trustworthiness(real: Flat, z: NDArray[Any]) -> float | None:
    return float(trustworthiness(real, z, n_neighbors=10)) if len(real) > 20 else None


def accepted(model: Any, cluster: int, seed: int) -> float:
    """Return the share of draws from the Gaussian of ``cluster`` that the model assigns to it."""
    _, q = candidates(model, SAMPLES, cluster, generator(seed, cluster), model._decode)
    return float((q.argmax(1) == cluster).double().mean())


def to_nearest(samples: Flat, everything: Flat) -> float:
    """Return the median distance of ``samples`` (n, P) to the nearest of all images (N, P), block by block."""
    found = np.full(len(samples), np.inf)
    for start in range(0, len(everything), MOST):
        found = np.minimum(found, _distances(samples, everything[start : start + MOST]).min(1))
    return float(np.median(found))


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


def _lost_by_pca(everything: Flat, real: Flat, components: int, seed: int) -> float | None:
    if len(everything) < 4 * components:
        return None
    pca = PCA(min(components, real.shape[1]), svd_solver="randomized", random_state=seed).fit(everything)
    return float(np.square(pca.inverse_transform(pca.transform(real)) - real).sum() / _variance(real))
