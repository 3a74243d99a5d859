"""Training settings, the order of batches, and the watch for collapse."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from medstrata.errors import FitError
from medstrata.learning.comm import Comm
from medstrata.learning.ranges import check_number, check_whole

SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class Training:
    """How long and how fast to train, and on what the network sees. A method's signature says its own defaults.

    To change one setting of a method and keep the others: ``replace(DeepMCAT().training, epochs=3)``, by ``replace`` of
    ``dataclasses``. ``Training(epochs=3)`` has the defaults below, which are DCEC's, without augmentation.

    ``warmup_epochs`` and ``warmup_steps``: epochs without the clustering objective, more of them where a small set
    would make fewer steps of the optimiser; ``epochs``: at most so many with the clustering objective;
    ``schedule``: "constant", or "cosine": a linear rise over a twentieth of the phase, then half a cosine to zero;
    ``target_interval``: epochs between two target distributions or sets of pseudo-labels; ``tolerance``: stop when a
    smaller share of labels changes between two of them (0: never);
    ``spherical_start``: whether the k-means that finds the first prototypes compares directions from the mean embedding
    (True) or distances; ``preprocessing``: "centred", "scaled", "published" or "unit" (``learning.batches.measure``);
    ``augmentation``: a name in ``learning.augment.AUGMENTATIONS``. "published" is what the code of DCEC
    does, "unit" that of the contrastive autoencoder; there they bring its last layer, or its kernels, along.

    Raises
    ------
    FitError : a number below its smallest value, an unknown schedule
    """

    warmup_epochs: int = 20
    warmup_steps: int = 500
    epochs: int = 15
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "constant"
    target_interval: int = 1
    tolerance: float = 0.001
    spherical_start: bool = True
    preprocessing: str = "centred"
    augmentation: str = "none"

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise FitError(f"schedule is {self.schedule!r}, but must be one of: {', '.join(SCHEDULES)}.")
        least = {"batch_size": 2, "target_interval": 1}  # a batch of one image has no spread
        for name in ("warmup_epochs", "warmup_steps", "epochs", *least):
            check_whole(name, getattr(self, name), least.get(name, 0))
        for name in ("learning_rate", "weight_decay", "tolerance"):
            check_number(name, getattr(self, name), above_zero=name == "learning_rate")

    def warmup_length(self, count: int) -> int:
        """Return the number of warm-up epochs for ``count`` images."""
        steps_of_an_epoch = -(-count // self.batch_size)
        return max(self.warmup_epochs, -(-self.warmup_steps // steps_of_an_epoch))

    def rate(self, done: float) -> float:
        """Return the learning rate when the share ``done`` (0..1) of a phase has passed."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * min(done / 0.05, 1.0) * 0.5 * (1 + math.cos(math.pi * done))


def batches(order: torch.Tensor, batch_size: int, processes: int = 1) -> Iterator[torch.Tensor]:
    """Yield ``order`` (n,) in batches; a last batch of one image joins the one before, for BatchNorm's sake.

    So does one of fewer images than ``processes``, since each has a part of every batch.
    """
    parts = list(order.split(batch_size))
    if len(parts) > 1 and len(parts[-1]) < max(2, processes):
        parts[-2:] = [torch.cat(parts[-2:])]
    yield from parts


def cluster_sizes(labels: torch.Tensor, n_clusters: int, comm: Comm) -> dict[str, Any]:
    """Return what to record of ``labels`` (n,) of all processes' images: ``clusters_used`` and ``size_entropy``."""
    counts = comm.total(torch.bincount(labels, minlength=n_clusters))
    return {"clusters_used": int((counts > 0).sum()), "size_entropy": size_entropy(counts)}


def label_change(labels: torch.Tensor, before: torch.Tensor, comm: Comm) -> float:
    """Return the share of all processes' images whose labels (n,) are not those of ``before`` (n,)."""
    return float(comm.total((labels != before).sum())) / comm.count(labels)


def size_entropy(counts: torch.Tensor) -> float:
    """Return the entropy of the cluster sizes (K,) over its maximum log K: 1 = equal sizes, 0 = everything in one."""
    n_clusters = len(counts)
    if n_clusters == 1:
        return 1.0
    shares = counts.double() / counts.sum()
    return float(-(shares[shares > 0] * shares[shares > 0].log()).sum() / math.log(n_clusters))


def collapse_warning(labels: torch.Tensor, n_clusters: int) -> str:
    """Say in words that a clustering is collapsing, or "" where it is not."""
    counts = torch.bincount(labels, minlength=n_clusters)
    used, largest = int((counts > 0).sum()), float(counts.max()) / len(labels)
    if used < n_clusters:
        return (
            f"Only {used} of the {n_clusters} clusters asked for hold any image: the clustering has partly collapsed."
        )
    if n_clusters > 1 and largest > 0.9:
        return f"One cluster holds {largest:.0%} of all images: the clustering is close to collapse."
    return ""
