"""Drawing embeddings of a cluster: one Gaussian per cluster over its members' embeddings."""

from __future__ import annotations

import torch
from sklearn.covariance import ledoit_wolf
from torch import nn

from medstrata.errors import FitError


class ClusterGaussians(nn.Module):
    """Mean (K, Z) and factor F (K, Z, Z), F F^T = covariance, of the members' embeddings; ``sizes`` (K,) of clusters.

    Covariances are shrunk (Ledoit and Wolf 2004), so that clusters with few members have one too.
    """

    means: torch.Tensor
    factors: torch.Tensor
    sizes: torch.Tensor

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(0, embedding_size))
        self.register_buffer("factors", torch.zeros(0, embedding_size, embedding_size))
        self.register_buffer("sizes", torch.zeros(0, dtype=torch.int64))

    def measure(self, z: torch.Tensor, labels: torch.Tensor, n_clusters: int) -> None:
        """Measure the clusters of embeddings z (N, Z) with ``labels`` (N,)."""
        means, factors = [], []
        for cluster in range(n_clusters):
            members = z[labels == cluster].double().cpu()
            center = members.mean(0) if len(members) else z.double().cpu().mean(0)
            covariance = torch.zeros(z.shape[1], z.shape[1], dtype=torch.float64)
            if len(members) > 1:
                covariance = torch.from_numpy(ledoit_wolf(members.numpy())[0])
            values, vectors = torch.linalg.eigh(covariance)
            means.append(center)
            factors.append(vectors * values.clamp_min(0).sqrt())
        self.means = torch.stack(means).float().to(z.device)
        self.factors = torch.stack(factors).float().to(z.device)
        self.sizes = torch.bincount(labels, minlength=n_clusters).to(z.device)

    def check(self, cluster: int) -> None:
        """Raise FitError where there is no such cluster, or an empty one."""
        if not 0 <= cluster < len(self.means):
            raise FitError(f"There is no cluster {cluster}: the model has clusters 0 to {len(self.means) - 1}.")
        if not self.sizes[cluster]:
            raise FitError(f"Cluster {cluster} holds no training image: nothing can be drawn from it.")

    def draw(self, count: int, cluster: int, generator: torch.Generator) -> torch.Tensor:
        """Return ``count`` embeddings (count, Z) of ``cluster``.

        Raises
        ------
        FitError : no such cluster, or an empty one
        """
        self.check(cluster)
        noise = torch.randn(count, self.means.shape[1], generator=generator).to(self.means.device)
        return self.means[cluster] + noise @ self.factors[cluster].T
