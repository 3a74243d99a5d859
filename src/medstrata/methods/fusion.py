"""Fusion: several cheap runs of one method read as one embedding. The recipe behind ``method="auto"``.

Runs that differ in their seed alone make different mistakes. Their embeddings, each brought to directions, are put side
by side; their neighbour graphs are added and clusters read off the sum (``learning.reading``). Their disagreement, 1 -
the mean adjusted Rand index of the runs' clusters, costs nothing more and says how far chance decides.

The runs are of DeepMCAT (``methods.deepmcat``): of the methods of this package the one whose graph is best on digits
and MedNIST (on clothes all are level, on volumes it fails). This is a fixed recipe; nothing is chosen by looking at the
images.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import normalize

from medstrata.learning.batches import Images
from medstrata.learning.fitting import Fit
from medstrata.learning.nets import Architecture
from medstrata.learning.reading import disagreement, read_clusters
from medstrata.learning.train import Training
from medstrata.methods.deepmcat import DeepMCAT
from medstrata.methods.method import ClusteringMethod


class Fusion(ClusteringMethod):
    """Fusion of several runs of DeepMCAT (see the module).

    Parameters
    ----------
    n_clusters : number of clusters K, or "auto"
    runs : how many, at least 1
    assignment : "graph", the only one
    architecture, training : of each run
    random_state : seed
    device : "auto", "cpu", "cuda", ...
    """

    ASSIGNMENTS: ClassVar[tuple[str, ...]] = ("graph",)
    WITHOUT_EFFECT = DeepMCAT.WITHOUT_EFFECT

    def __init__(
        self,
        n_clusters: int | str = 8,
        runs: int = 2,
        assignment: str = "graph",
        architecture: Architecture = DeepMCAT().architecture,  # noqa: B008 - frozen
        training: Training = DeepMCAT().training,  # noqa: B008 - frozen
        random_state: int = 0,
        device: str = "auto",
    ) -> None:
        self.n_clusters = n_clusters
        self.runs = runs
        self.assignment = assignment
        self.architecture = architecture
        self.training = training
        self.random_state = random_state
        self.device = device

    def _build(self, image_shape: tuple[int, ...]) -> nn.Module:
        self._members = []
        for seed in range(self.random_state * self.runs, (self.random_state + 1) * self.runs):
            member = DeepMCAT(self.n_clusters, architecture=self.architecture, training=self.training)
            member.set_params(random_state=seed, device=self.device)._prepare(image_shape, self.preprocessing_)
            self._members.append(member)
        return nn.ModuleList(member.network_ for member in self._members)

    def _train(self, images: Images, fit: Fit) -> None:
        for number, member in enumerate(self._members):
            file = fit.checkpoint and run_checkpoint(fit.checkpoint, number)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of one run's own clusters: they are not the result
                member.fit(images, checkpoint=file, progress=fit.progress, comm=fit.comm)
            self.history_.extend({"run": number, **record} for record in member.history_)
        self.network_ = nn.ModuleList(member.network_ for member in self._members)

    def _read(self, z: torch.Tensor) -> None:
        super()._read(z)
        if self.runs > 1:
            self.reading_["disagreement"] = disagreement(self._labels_of_runs(z))

    def _labels_of_runs(self, z: torch.Tensor) -> list[NDArray[np.int64]]:
        """Return the clusters (N,) of each run alone; read again where batches were adjusted for since."""
        if self.adjustment_ is None:
            return [member.labels_ for member in self._members]
        parts = z.chunk(self.runs, dim=1)
        readers = [read_clusters(part, "graph", self.n_clusters_, self.random_state).reader for part in parts]
        return [reader(part).argmax(1).cpu().numpy() for reader, part in zip(readers, parts, strict=True)]

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([member._features(x) for member in self._members], dim=1)

    def _embed(self, features: torch.Tensor) -> torch.Tensor:
        parts = zip(self._members, features.chunk(self.runs, dim=1), strict=True)
        return torch.cat([normalize(member._embed(part)) for member, part in parts], dim=1)


def run_checkpoint(checkpoint: Path, number: int) -> Path:
    """Return the file of one run beside the fit's own checkpoint file."""
    return checkpoint.with_name(f"{checkpoint.stem}-run{number}{checkpoint.suffix}")
