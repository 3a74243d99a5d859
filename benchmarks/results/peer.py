"""Cluster images with one of the peers: a script for the peers' own environment, which imports nothing of medstrata.

    benchmarks/.peers/bin/python benchmarks/results/peer.py NAME IMAGES.npy K SEED LABELS.npy [--epochs E]

NAME is DEC, IDEC or VaDE (ClustPy's classes with ClustPy's defaults: 100 epochs of pretraining, 150 of clustering,
batches of 256, network 500-500-2000-10), UMAP+HDBSCAN (finds its own number of clusters, K is ignored) or UMAP+GMM.
IMAGES are (N, ...) numbers of any kind; every peer sees them as rows, scaled to 0..1 over the whole set. Each runs on
one thread. LABELS become (N,) int64. One line of JSON is printed: ``cpu_seconds`` of the whole process, imports
included, and ``version`` of the packages.
"""

# ruff: noqa: E402  (the number of threads must be set before the libraries are imported)
from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

import argparse
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

CLUSTPY = ("DEC", "IDEC", "VaDE")
PACKAGES = dict.fromkeys(CLUSTPY, ("clustpy",)) | {
    "UMAP+HDBSCAN": ("umap-learn", "hdbscan"),
    "UMAP+GMM": ("umap-learn", "scikit-learn"),
}


def import_clustpy() -> Any:
    """Import ``clustpy.deep`` without torchvision.

    ClustPy imports torchvision at the top of its modules, but DEC, IDEC and VaDE on rows of numbers never call it:
    only its image augmentation does, and its ResNet autoencoder names two of torchvision's classes in type hints.
    Installing torchvision for that would tie the environment to one build of torch. So empty modules with those two
    names stand in while ClustPy is imported, and are taken away again: whoever asks for torchvision later still
    finds that it is not there.
    """
    api = ModuleType("torchvision.models._api")
    vars(api).update(Weights=type("Weights", (), {}), WeightsEnum=type("WeightsEnum", (), {}))
    stand_ins = {"torchvision": ModuleType("torchvision"), "torchvision.models": ModuleType("torchvision.models")}
    stand_ins[api.__name__] = api
    sys.modules.update(stand_ins)
    try:
        import clustpy.deep  # type: ignore[import-not-found]
    finally:
        for name in stand_ins:
            del sys.modules[name]
    return clustpy.deep


def clustpy_labels(name: str, rows: Any, n_clusters: int, seed: int, epochs: int | None) -> Any:
    deep = import_clustpy()
    import torch

    torch.set_num_threads(1)
    quick = {} if epochs is None else {"pretrain_epochs": epochs, "clustering_epochs": epochs}
    model = getattr(deep, name)(n_clusters, random_state=seed, device=torch.device("cpu"), **quick)
    return model.fit_predict(rows)


def umap_embedding(rows: Any, seed: int) -> Any:
    """Ten dimensions and no minimal distance, as UMAP's documentation advises for clustering."""
    import umap  # type: ignore[import-not-found]

    return umap.UMAP(n_components=10, min_dist=0.0, n_neighbors=30, random_state=seed, n_jobs=1).fit_transform(rows)


def hdbscan_labels(rows: Any, n_clusters: int, seed: int) -> Any:
    """Clusters of at least a hundredth of the images; noise goes to the cluster of its nearest clustered image."""
    del n_clusters
    import hdbscan  # type: ignore[import-not-found]
    from sklearn.neighbors import KNeighborsClassifier

    embedding = umap_embedding(rows, seed)
    labels = hdbscan.HDBSCAN(min_cluster_size=max(2, len(rows) // 100), core_dist_n_jobs=1).fit_predict(embedding)
    noise = labels < 0
    if noise.all():
        return np.zeros(len(rows), np.int64)
    if noise.any():
        nearest = KNeighborsClassifier(1).fit(embedding[~noise], labels[~noise])
        labels[noise] = nearest.predict(embedding[noise])
    return labels


def gmm_labels(rows: Any, n_clusters: int, seed: int) -> Any:
    """Ten restarts, as is usual for k-means."""
    from sklearn.mixture import GaussianMixture

    return GaussianMixture(n_clusters, n_init=10, random_state=seed).fit_predict(umap_embedding(rows, seed))


def scaled_rows(images: Any) -> Any:
    """Return images (N, ...) as float32 rows (N, pixels) between 0 and 1."""
    rows = images.reshape(len(images), -1).astype(np.float32)
    low, high = rows.min(), rows.max()
    return (rows - low) / max(high - low, np.finfo(np.float32).tiny)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=PACKAGES)
    parser.add_argument("images", type=Path)
    parser.add_argument("k", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--epochs", type=int, help="of both phases of DEC, IDEC and VaDE: only to see that they run")
    given = parser.parse_args()
    rows = scaled_rows(np.load(given.images))
    if given.name in CLUSTPY:
        labels = clustpy_labels(given.name, rows, given.k, given.seed, given.epochs)
    else:
        labels = {"UMAP+HDBSCAN": hdbscan_labels, "UMAP+GMM": gmm_labels}[given.name](rows, given.k, given.seed)
    unfinished = given.labels.with_name(given.labels.name + ".part")
    with open(unfinished, "wb") as file:
        np.save(file, np.asarray(labels, np.int64))
    unfinished.replace(given.labels)
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES[given.name])
    print(json.dumps({"cpu_seconds": round(time.process_time(), 2), "version": versions}))


if __name__ == "__main__":
    main()
