"""The rows of the table: what is fitted for one cell, and how it is scored. Labels enter here, after the fit."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from importlib import import_module
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.preprocessing import StandardScaler

from benchmarks.results import generative, supervised
from benchmarks.results.balanced import BalancedDeepMCAT
from benchmarks.results.label_free import label_free
from benchmarks.results.peers import PEERS, peer_labels
from benchmarks.results.sets import DEVELOPED_ON, Images, data_folder, load
from benchmarks.results.sharpness import sharpness
from benchmarks.results.whole_run import whole_run
from medstrata.evidence.metrics import contingency, score
from medstrata.images.planning import BATCH_SIZES, OF_VOLUMES, choose_method
from medstrata.learning.reading import read_clusters
from medstrata.methods import METHODS
from medstrata.methods.frozen import FrozenFeatures
from medstrata.methods.method import ClusteringMethod
from medstrata.methods.settings import make_method

Cell = dict[str, Any]
PAPERS = ("dcec", "dvc", "contrastive", "deepmcat")
PUBLISHED = ("dcec", "dvc", "contrastive")
BASELINES = {"pca-kmeans": "kmeans", "pca-mixture": "mixture", "pixel-graph": "graph"}
OF_THE_PAPERS = ("ham10000", "pneumonia")  # which DVC's and the contrastive autoencoder's authors used themselves
OVER = 3  # times K, for purity

ROWS = (
    *BASELINES,
    "sizes-kmeans",
    "frozen",
    "sharpness-kmeans",
    *PAPERS,
    "auto",
    "run",
    *(f"{name}-no-objective" for name in PAPERS),
    "deepmcat-balanced",
    *(f"{name}-as-published" for name in PUBLISHED),
    *(f"{name}-split" for name in (*BASELINES, *PAPERS)),
    "supervised-split",
    *(f"peer-{name}" for name in PEERS),
)


def belongs(data: str, row: str, seed: int) -> bool:
    """Whether a cell belongs into the table: what is compared within one run has one seed, the slow peers one set.

    All 60,000 digits, of which mnist-10k is a part, have what costs little three times, trained methods once, and
    nothing that is compared within one run. The objective off, the authors' settings (the slowest) and frozen features
    have the sets that methods were developed on and two of the papers'; UMAP + GMM on other sets one trial.
    """
    developed_on = data in DEVELOPED_ON and data != "archive"  # there only how images are laid out was chosen
    within_one_run = row.endswith(("-as-published", "-split", "-no-objective")) or row == "frozen"
    if (within_one_run or row in ("peer-IDEC", "peer-VaDE")) and seed > 0:  # these two: over their limit at seed 0
        return False
    if within_one_run and data == "mnist-60k":
        return False
    if row == "deepmcat-balanced":
        return seed == 0 and data in ("mnist-10k", "fashion", "mednist", "mednist-imbalanced")
    if data == "mnist-60k" and seed > 0 and row in (*PAPERS, "auto"):
        return False
    if row == "auto" and data in ("archive", "archive-imbalanced", "adrenal-3d") and seed > 1:
        return False  # the same as the rows ``run`` and ``dcec``, which have three trials
    if within_one_run and not row.endswith("-split") and not (developed_on or data in OF_THE_PAPERS):
        return False
    if row.startswith("peer-UMAP"):
        elsewhere = row == "peer-UMAP+GMM" and seed == 0
        return data != "mnist-60k" and not data.endswith("-3d") and (developed_on or elsewhere)
    if row.startswith("peer-"):
        return data == "mnist-10k"
    if row in ("run", "sizes-kmeans"):
        return data.startswith("archive")
    return data.startswith("pneumonia") if row == "sharpness-kmeans" else True


def fill(data: str, row: str, seed: int, limit_seconds: int) -> Cell:
    """Fit one row on one set and return its scores, CPU seconds and facts."""
    if row == "run":
        return {
            "data": data,
            "row": row,
            "seed": seed,
            "finished": True,
            **whole_run(data_folder(), data == "archive", seed),
        }
    images = load(data, seed)
    cell: Cell = {"data": data, "row": row, "seed": seed, "images": len(images.labels), "classes": images.n_classes}
    warnings.simplefilter("ignore", UserWarning)  # collapse is in the scores
    name, _, kind = row.partition("-")
    if name == "peer":
        labels, seconds = peer_labels(kind, images.images, images.n_classes, seed, limit_seconds)
        found: Cell = {} if labels is None else {"own": dict(score(images.labels, labels))}
        return cell | {"cpu_seconds": seconds, "finished": labels is not None, "scores": found}
    started = time.process_time()
    if row == "supervised-split":
        scores: Cell = dict(supervised.scores(images, seed))
    elif row.endswith("-split"):
        scores = _out_of_sample(images, row.removesuffix("-split"), seed)
    elif row == "sizes-kmeans":
        scores = {"own": dict(score(images.labels, _by(images.sizes, images.n_classes, seed)))}
    elif row == "sharpness-kmeans":
        scores = {"own": dict(score(images.labels, _by(sharpness(images.images)[:, None], images.n_classes, seed)))}
    elif row in BASELINES:
        return cell | _baseline(images, BASELINES[row], seed)
    elif row == "frozen":
        return cell | _frozen(images, seed)
    else:
        return cell | _trained(images, name, kind, seed)
    return cell | {"cpu_seconds": time.process_time() - started, "finished": True, "scores": scores}


def method_for(images: Images, name: str, seed: int, kind: str = "") -> ClusteringMethod:
    """Construct a method as the plan would for these images; ``kind``: "" or what a row's name ends in."""
    dimensions = images.images.ndim - 2
    if name == "auto":
        name = choose_method(len(images.labels), dimensions)[0]
    if kind == "as-published":
        module, cls = METHODS[name].split(":")
        published: ClusteringMethod = getattr(import_module(module), cls).as_published(images.n_classes, seed)
        if published.training.augmentation != "none":  # which one was not published: the set's own, as for ours
            published.set_params(training=replace(published.training, augmentation=images.augmentation))
        return published
    settings: dict[str, Any] = {"n_clusters": images.n_classes, "random_state": seed}
    if name in BASELINES:
        return make_method("pca", settings | {"assignment": BASELINES[name]})
    settings |= OF_VOLUMES.get(name, {}) if dimensions == 3 else {}
    steps = BATCH_SIZES[dimensions]
    batch = next(size for most, size in steps if most is None or len(images.labels) < most)
    training: dict[str, Any] = {"batch_size": batch}
    if make_method(name, {}).training.augmentation != "none":
        training["augmentation"] = images.augmentation
    if kind == "no-objective" and name in ("dcec", "dvc"):
        settings["clustering_weight"] = 0.0
    elif kind == "no-objective":  # as long a training, all of it without prototypes
        usual = make_method(name, {"training": training}).training
        training |= {"warmup_epochs": usual.warmup_length(len(images.labels)) + usual.epochs, "warmup_steps": 0}
        training["epochs"] = 0
    model = make_method(name, settings | {"training": training})
    return BalancedDeepMCAT(**model.get_params(deep=False)) if kind == "balanced" else model


def _by(values: NDArray[Any] | None, n_clusters: int, seed: int) -> NDArray[np.int64]:
    """Cluster a few simple values of each image: a method that finds no more has not looked at what they show."""
    scaled = StandardScaler().fit_transform(values)
    labels: NDArray[np.int64] = KMeans(n_clusters, n_init=10, random_state=seed).fit_predict(scaled)
    return labels


def _baseline(images: Images, how: str, seed: int) -> Cell:
    model = make_method("pca", {"n_clusters": images.n_classes, "assignment": how, "random_state": seed})
    started = time.process_time()
    model.fit(images.images)
    seconds = time.process_time() - started
    z = torch.from_numpy(model.transform(images.images))
    scores = {
        "graph" if how == "graph" else "own": dict(score(images.labels, model.labels_)),
        "3K": dict(score(images.labels, _read(z, how, OVER * images.n_classes, seed))),
    }
    return {"cpu_seconds": seconds, "finished": True, "scores": scores}


def _frozen(images: Images, seed: int) -> Cell:
    """Vectors of an encoder that is not trained any more, read in the ways that FrozenFeatures knows."""
    started = time.process_time()
    vectors = method_for(images, "contrastive", seed).fit(images.images).transform(images.images)
    scores = {}
    for how in ("kmeans", "graph", "self-supervised"):
        model = FrozenFeatures(images.n_classes, assignment=how, random_state=seed).fit(vectors)
        scores[how] = dict(score(images.labels, model.labels_))
    return {"cpu_seconds": time.process_time() - started, "finished": True, "scores": scores}


def _trained(images: Images, name: str, kind: str, seed: int) -> Cell:
    if kind == "as-published":  # their code expects values from 0 on, of which 0 is the background
        images = replace(images, images=images.images - images.images.min())
    model = method_for(images, name, seed, kind)
    embedded: list[torch.Tensor] = []
    embed = model._embed_all

    def remembered(*given: Any) -> torch.Tensor:
        embedded.append(embed(*given))
        return embedded[-1]

    with patch.object(model, "_embed_all", remembered):
        started = time.process_time()
        model.fit(images.images)
        seconds = time.process_time() - started
    facts: Cell = {"epochs": len(model.history_), "reading": model.reading_, "warnings": list(model.warnings_)}
    z = torch.from_numpy(model.transform(images.images)).to(model.device_)
    facts["label-free"] = label_free(images.images, z, model.labels_)
    if name in generative.GENERATIVE:
        # The first time that a fit embeds all images is when its clustering phase begins.
        facts["generative"] = generative.measure(model, images.images, embedded[0].cpu().numpy(), seed)
    scores = readings(model, z, images, seed)  # last: other readings number the clusters that are sampled anew
    return {"cpu_seconds": seconds, "finished": True, "scores": scores, **facts}


def readings(model: ClusteringMethod, z: torch.Tensor, images: Images, seed: int) -> Cell:
    """Score one fitted network by its own assignment, by the graph, by k-means, and by the graph at 3 K."""
    k, found, runs = images.n_classes, {}, model.runs
    by_graph = model.labels_ if model.assignment == "graph" else _read(z, "graph", k, seed, runs)
    found["graph"] = dict(score(images.labels, by_graph))
    found["kmeans"] = dict(score(images.labels, _read(z, "kmeans", k, seed)))
    found["3K"] = dict(score(images.labels, _read(z, "graph", OVER * k, seed, runs)))
    if "own" in model.ASSIGNMENTS:
        found["own"] = dict(score(images.labels, _own(model, z, k)))
    if hasattr(model, "prototypes"):  # DeepMCAT: the number of its own clusters is free
        found["own 3K"] = dict(score(images.labels, _own(model, z, OVER * k)))
    return found


def _own(model: ClusteringMethod, z: torch.Tensor, n_clusters: int) -> NDArray[np.int64]:
    """Labels by the model's own prototypes, from the very same network."""
    before = {"assignment": model.assignment, "n_clusters": model.n_clusters}
    kept = model.reader_, model.labels_, model.n_clusters_
    model.set_params(assignment="own", n_clusters=n_clusters)
    model.reader_ = None
    model._read(z)
    labels = model.labels_
    model.set_params(**before)
    model.reader_, model.labels_, model.n_clusters_ = kept
    return labels


def _read(z: torch.Tensor, how: str, n_clusters: int, seed: int, runs: int = 1) -> NDArray[np.int64]:
    n_clusters = min(n_clusters, len(z))
    labels: NDArray[np.int64] = read_clusters(z, how, n_clusters, seed, runs).reader(z).argmax(1).cpu().numpy()
    return labels


def _out_of_sample(images: Images, name: str, seed: int) -> Cell:
    """Fit on a training part, ``predict`` the rest: scored alone, and with clusters named on the training part."""
    training, rest = images.split(seed)
    model = method_for(training, name, seed).fit(training.images)
    predicted = model.predict(rest.images)
    found = {"rest": dict(score(rest.labels, predicted)), "named": _named(training, model.labels_, rest, predicted)}
    found["probe"] = supervised.probe(model.transform, training, rest)
    return found


def _named(training: Images, fitted: NDArray[Any], rest: Images, predicted: NDArray[Any]) -> dict[str, float]:
    """Name each cluster by the majority of its training images, then score the rest as a classifier."""
    table, _, _ = contingency(training.labels, fitted)
    classes, clusters = np.unique(training.labels), np.unique(fitted)
    names = dict(zip(clusters.tolist(), classes[table.argmax(0)].tolist(), strict=True))
    named = np.array([names.get(cluster, -1) for cluster in predicted.tolist()])
    right = named == rest.labels
    present = np.unique(rest.labels)
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean([right[rest.labels == label].mean() for label in present])),
    }
