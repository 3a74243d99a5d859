"""Self-training of prototypes: what DCEC and DVC share (DEC: Xie, Girshick, Farhadi, ICML 2016).

Shapes: N images, Z embedding size, K clusters. Where several processes fit together, N are the rows of this one, and
sums are over those of all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from medstrata.learning.comm import ALONE, Comm
from medstrata.learning.fitting import STOPPED, Fit
from medstrata.learning.kmeans import kmeans, mean_over_all
from medstrata.learning.train import cluster_sizes, label_change


def soft_assignment(z: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """Student's t with one degree of freedom: embeddings (n, Z), prototypes (K, Z) -> (n, K), rows sum to 1.

    q_ij = (1 + |z_i - mu_j|^2)^-1 / sum_j' (1 + |z_i - mu_j'|^2)^-1
    """
    similarity = 1 / (1 + (z[:, None] - prototypes[None]).square().sum(2))
    return similarity / similarity.sum(1, keepdim=True)


def target_distribution(q: torch.Tensor, comm: Comm = ALONE) -> torch.Tensor:
    """Soft assignments (N, K) of the whole set -> target distribution (N, K), rows sum to 1.

    p_ij = (q_ij^2 / f_j) / sum_j' (q_ij'^2 / f_j'), f_j = sum_i q_ij
    """
    weighted = q.square() / comm.total(q.sum(0))
    return weighted / weighted.sum(1, keepdim=True)


def clustering_loss(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(P || Q): summed over clusters, averaged over the images of the batch."""
    return nn.functional.kl_div(q.log(), p, reduction="batchmean")


def start_prototypes(z: torch.Tensor, n_clusters: int, fit: Fit) -> torch.Tensor:
    """Return prototypes (K, Z): the clusters' means after k-means on all embeddings z (N, Z).

    With ``training.spherical_start`` the k-means compares directions from the mean embedding: the length of an
    embedding says how strongly an image deviates from the mean rather than how.
    """
    comm = fit.comm
    mean = mean_over_all(z, comm)
    compared = nn.functional.normalize(z - mean) if fit.training.spherical_start else z
    labels = kmeans(compared, n_clusters, fit.random(-1), comm=comm).labels
    fit.of_images["labels"] = labels
    members = [z[labels == cluster] for cluster in range(n_clusters)]
    counts = comm.total(torch.bincount(labels, minlength=n_clusters))
    sums = comm.total(torch.stack([of_cluster.sum(0) for of_cluster in members]))
    # A cluster has no member where fewer images differ than there are clusters.
    return torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], mean)


def refresh_target(fit: Fit, epoch: int, z: torch.Tensor, prototypes: nn.Parameter) -> dict[str, Any]:
    """Compute P over the whole set's embeddings z (N, Z) into ``fit.of_images``; return what to record.

    Empty clusters are repaired first. The phase stops when fewer labels change than ``training.tolerance``.
    """
    if epoch % fit.training.target_interval:
        return {}
    repaired = _repair_empty(z, prototypes, fit.comm)
    q = assign_all(z, prototypes)
    labels = q.argmax(1)
    change = 1.0 if epoch == 0 else label_change(labels, fit.of_images["labels"], fit.comm)
    fit.of_images |= {"target": target_distribution(q, fit.comm), "labels": labels}
    sizes = cluster_sizes(labels, len(prototypes), fit.comm)
    record = {"label_change": change, "clusters_used": sizes["clusters_used"], "repaired": repaired}
    record["size_entropy"] = sizes["size_entropy"]
    return record | ({STOPPED: "labels settled"} if change < fit.training.tolerance else {})


def assign_all(z: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """Return the soft assignments (N, K) of all embeddings, in blocks, without gradients."""
    with torch.no_grad():
        return torch.cat([soft_assignment(part, prototypes) for part in z.split(1 << 14)])


def _repair_empty(z: torch.Tensor, prototypes: nn.Parameter, comm: Comm) -> int:
    """Move the prototype of each empty cluster to the embedding farthest from all prototypes; return how many."""
    counts = comm.total(torch.bincount(assign_all(z, prototypes).argmax(1), minlength=len(prototypes)))
    empty = torch.nonzero(counts == 0).flatten().tolist()
    for cluster in empty:
        distance = torch.cdist(z, prototypes.detach()).min(1).values
        own = distance.argmax()
        farthest = comm.gather(distance[own][None]).argmax()
        with torch.no_grad():
            prototypes[cluster] = comm.gather(z[own][None])[farthest]
    return len(empty)
