"""Principal components of the pixels: the baseline without training that a deep clustering has to be held against.

Clusters are read off the components by k-means, by a Gaussian mixture, or off the neighbour graph
(``learning.reading``). All take seconds; the graph of the pixels is a strong baseline on images that are aligned.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import nn

from medstrata.learning.batches import Images
from medstrata.learning.fitting import Fit
from medstrata.learning.train import Training
from medstrata.methods.method import ClusteringMethod

SAMPLE = 20_000  # larger sets are measured on a random sample of this size
SAMPLE_BYTES = 1 << 30  # of the sample in float32: large volumes make it smaller


class Projection(nn.Module):
    """``axes`` (Z, pixels): flattened centred images -> principal components."""

    axes: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("axes", torch.zeros(0, 0))


class PrincipalComponents(ClusteringMethod):
    """Principal components, then k-means, a mixture, or the neighbour graph.

    Parameters
    ----------
    n_clusters : number of clusters K, or "auto" (graph only)
    components : number of principal components Z
    assignment : "graph", "kmeans" or "mixture"
    random_state : seed
    device : "auto", "cpu", "cuda", ...
    """

    ASSIGNMENTS: ClassVar[tuple[str, ...]] = ("graph", "kmeans", "mixture")
    has_maps = False  # the feature maps are the pixels themselves
    training = Training(0, 0, 0)  # nothing is trained; it says how images are centred

    def __init__(
        self,
        n_clusters: int | str = 8,
        components: int = 50,
        assignment: str = "graph",
        random_state: int = 0,
        device: str = "auto",
    ) -> None:
        self.n_clusters = n_clusters
        self.components = components
        self.assignment = assignment
        self.random_state = random_state
        self.device = device

    def _build(self, image_shape: tuple[int, ...]) -> nn.Module:
        return Projection()

    def _train(self, images: Images, fit: Fit) -> None:
        most = max(2, min(SAMPLE, SAMPLE_BYTES // (4 * int(np.prod(images.shape[1:])))))
        rows = np.arange(len(images))
        if len(images) > most:
            rows = np.sort(np.random.default_rng(self.random_state).choice(len(images), most, replace=False))
        flat = self.tensor(images[rows]).flatten(1).cpu().numpy()
        pca = PCA(min(self.components, *flat.shape), svd_solver="randomized", random_state=self.random_state)
        self.network_.axes = torch.from_numpy(pca.fit(flat).components_.astype(np.float32)).to(self.device_)

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def _embed(self, features: torch.Tensor) -> torch.Tensor:
        axes: torch.Tensor = self.network_.axes
        return features.flatten(1) @ axes.T
