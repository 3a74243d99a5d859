"""Frozen features: vectors that exist already, or a network that is on disk already; only a clustering is learned.

``FrozenFeatures().fit(vectors)`` clusters saved vectors (N, Z); ``FrozenFeatures(module=network).fit(images)`` runs any
``torch.nn.Module`` that takes images (n, C, ...) with values from 0 to 1 and returns vectors (n, Z) or feature maps
(n, F, ...), which are averaged over their places. The module is put into evaluation mode and onto the device, and stays
so; its values are never changed, saved or fetched: a model file holds the head and a fingerprint of the module, and
``load(path, module=network)`` takes the same module only.

Clusters are read off the vectors by k-means, a mixture, the neighbour graph, or a self-supervised head
(``learning.reading``).
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from medstrata.errors import FitError
from medstrata.learning.batches import Images, as_images
from medstrata.learning.fitting import Fit
from medstrata.learning.train import Training
from medstrata.methods.method import ClusteringMethod


class FrozenFeatures(ClusteringMethod):
    """Clusters of the vectors of a network that is not trained (see the module).

    "graph", "kmeans" and "self-supervised" compare directions from the mean vector, not distances: right for the long
    vectors of networks, wrong for few values, such as a map in 2-D, or clusters in one line. There take "mixture".

    Parameters
    ----------
    n_clusters : number of clusters K, or "auto" (graph only)
    module : network of images, or None where ``X`` are vectors (N, Z)
    assignment : "graph", "kmeans", "mixture" or "self-supervised"
    random_state : seed
    device : "auto", "cpu", "cuda", ...
    """

    ASSIGNMENTS: ClassVar[tuple[str, ...]] = ("graph", "kmeans", "mixture", "self-supervised")

    def __init__(
        self,
        n_clusters: int | str = 8,
        module: nn.Module | None = None,
        assignment: str = "graph",
        random_state: int = 0,
        device: str = "auto",
    ) -> None:
        self.n_clusters = n_clusters
        self.module = module
        self.assignment = assignment
        self.random_state = random_state
        self.device = device

    @property
    def training(self) -> Training:  # type: ignore[override]
        """Nothing is trained; it says how images are scaled: 0 to 1 for a module, centred for vectors."""
        return Training(0, 0, 0, preprocessing="centred" if self.module is None else "unit")

    @property
    def has_maps(self) -> bool:  # type: ignore[override]
        """Vectors have no places."""
        return self.module is not None

    def feature_maps(self, x: torch.Tensor) -> torch.Tensor:
        """As in every method.

        Raises
        ------
        FitError : the features are vectors and have no places
        """
        maps = super().feature_maps(x)
        if self.module is None or maps.ndim < 3:
            raise FitError(
                "These features are vectors without places, so there are no feature maps. For maps give module=, a "
                "network of images; where it returns vectors, only rules that work on the images themselves explain "
                "it, such as IntegratedGradients()."
            )
        return maps

    def _as_images(self, X: Any) -> Images:
        if self.module is not None:
            return as_images(X)
        vectors = np.asarray(X)
        if vectors.ndim != 2:
            raise FitError(f"Features must be vectors (N, Z), not {vectors.shape}. Or give module= for images.")
        return as_images(vectors[:, :, None, None])

    def _build(self, image_shape: tuple[int, ...]) -> nn.Module:
        if self.module is None:
            return nn.Identity()
        if not isinstance(self.module, nn.Module):
            raise FitError(f"module must be a torch.nn.Module, not {self.module!r}. Load the network first.")
        self.fingerprint_ = fingerprint(self.module)
        return self.module

    def _train(self, images: Images, fit: Fit) -> None:
        """Nothing to train."""

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        try:
            features: torch.Tensor = self.network_(x)
        except RuntimeError as error:
            raise FitError(
                f"The module does not take images {tuple(x.shape[1:])} ({str(error).splitlines()[0]}). Give images as "
                "it wants them, such as three equal channels for grey ones, or wrap it in a module that brings them so."
            ) from error
        if not isinstance(features, torch.Tensor) or features.ndim not in (2, x.ndim):
            found = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
            raise FitError(
                f"The module returns {found}, but must return one tensor: vectors (n, Z), or feature maps (n, F, ...) "
                "with as many axes as the images. Wrap it; of a transformer's tokens (n, T, Z) take the first or the "
                "mean."
            )
        return features.float()

    def _embed(self, features: torch.Tensor) -> torch.Tensor:
        return features.flatten(2).mean(2) if features.ndim > 2 else features


def fingerprint(module: nn.Module) -> str:
    """Return a checksum of a module's layers, as it prints itself, and of its parameters and buffers."""
    # Layers without values, and strides, make another network of the same values. Addresses change with every start.
    checksum = hashlib.sha256(re.sub(r" at 0x[0-9a-fA-F]+", "", repr(module)).encode())
    for name, value in module.state_dict().items():
        checksum.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        checksum.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return checksum.hexdigest()
