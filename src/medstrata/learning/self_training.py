"""Self-training of prototypes: what DCEC and DVC share (DEC: Xie, Girshick, Farhadi, ICML 2016).

Shapes: N images, Z embedding size, K clusters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from medstrata.learning.fitting import STOPPED, Fit
from medstrata.learning.kmeans import kmeans
from medstrata.learning.train import size_entropy


def soft_assignment(z: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """Student's t with one degree of freedom: embeddings (n, Z), prototypes (K, Z) -> (n, K), rows sum to 1.

    q_ij = (1 + |z_i - mu_j|^2)^-1 / sum_j' (1 + |z_i - mu_j'|^2)^-1
    """
    similarity = 1 / (1 + (z[:, None] - prototypes[None]).square().sum(2))
    return similarity / similarity.sum(1, keepdim=True)


def target_distribution(q: torch.Tensor) -> torch.Tensor:
    """Soft assignments (N, K) of the whole set -> target distribution (N, K), rows sum to 1.

    p_ij = (q_ij^2 / f_j) / sum_j' (q_ij'^2 / f_j'), f_j = sum_i q_ij
    """
    weighted = q.square() / q.sum(0)
    return weighted / weighted.sum(1, keepdim=True)


def clustering_loss(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(P || Q): summed over clusters, averaged over the images of the batch."""
    return nn.functional.kl_div(q.log(), p, reduction="batchmean")


def start_prototypes(z: torch.Tensor, n_clusters: int, fit: Fit) -> torch.Tensor:
    """Return prototypes (K, Z): the clusters' means after k-means on all embeddings z (N, Z).

    With ``training.spherical_start`` the k-means compares directions from the mean embedding: the length of an
    embedding says how strongly an image deviates from the mean rather than how.
    """
    compared = nn.functional.normalize(z - z.mean(0)) if fit.training.spherical_start else z
    labels = kmeans(compared, n_clusters, fit.random(-1)).labels
    fit.kept["labels"] = labels
    means = [z[labels == cluster] for cluster in range(n_clusters)]
    # A cluster has no member where fewer images differ than there are clusters.
    return torch.stack([(members if len(members) else z).mean(0) for members in means])


def refresh_target(fit: Fit, epoch: int, z: torch.Tensor, prototypes: nn.Parameter) -> dict[str, Any]:
    """Compute P over the whole set's embeddings z (N, Z) into ``fit.kept``; return what to record.

    Empty clusters are repaired first. The phase stops when fewer labels change than ``training.tolerance``.
    """
    if epoch % fit.training.target_interval:
        return {}
    repaired = _repair_empty(z, prototypes)
    q = assign_all(z, prototypes)
    labels, n_clusters = q.argmax(1), len(prototypes)
    change = 1.0 if epoch == 0 else float((labels != fit.kept["labels"]).double().mean())
    fit.kept |= {"target": target_distribution(q), "labels": labels}
    record = {"label_change": change, "clusters_used": len(labels.unique()), "repaired": repaired}
    record["size_entropy"] = size_entropy(labels, n_clusters)
    return record | ({STOPPED: "labels settled"} if change < fit.training.tolerance else {})


def assign_all(z: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """Return the soft assignments (N, K) of all embeddings, in blocks, without gradients."""
    with torch.no_grad():
        return torch.cat([soft_assignment(part, prototypes) for part in z.split(1 << 14)])


def _repair_empty(z: torch.Tensor, prototypes: nn.Parameter) -> int:
    """Move the prototype of each empty cluster to the embedding farthest from all prototypes; return how many."""
    counts = torch.bincount(assign_all(z, prototypes).argmax(1), minlength=len(prototypes))
    empty = torch.nonzero(counts == 0).flatten().tolist()
    for cluster in empty:
        distance = torch.cdist(z, prototypes.detach()).min(1).values
        with torch.no_grad():
            prototypes[cluster] = z[distance.argmax()]
    return len(empty)
