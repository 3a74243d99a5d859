"""Reading clusters off an embedding: one piece that all methods share.

On one and the same embedding, k-means on digits finds .66 of the images right and the Leiden partition of the neighbour
graph .96: the last step matters most. A partition alone knows nothing of new images, so a small probabilistic head on
the embedding is learned from it. The head then is the model's assignment: ``predict``, probabilities and maps agree.

Shapes: N embeddings of Z values, K clusters. Every reader is a module: embeddings (n, Z) -> soft assignments (n, K).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from medstrata.errors import FitError
from medstrata.learning.cluster_number import separated_clusters
from medstrata.learning.comm import generator
from medstrata.learning.graph import leiden, shared_neighbour_graph
from medstrata.learning.kmeans import kmeans
from medstrata.learning.self_supervised import HEADS, learn_self_supervised

HIDDEN = 128  # width of the head's one hidden layer
STEPS = (300, 1500)  # of the head's optimiser: fewest and most
PASSES = 40  # over the embeddings, within these bounds
BATCH = 256
SMOOTHING = 0.02  # of the labels that the head learns from, so that its probabilities stay below 1
GRAPH_SAMPLE = 100_000  # larger sets: the neighbours within a random sample of this size; the head assigns the others
MIXTURE_SAMPLE = 20_000
MIXTURE_AXES = 32


@dataclass(frozen=True)
class Reading:
    """``reader``: the assignment; ``facts``: numbers about how it was made."""

    reader: nn.Module
    facts: dict[str, Any]


class Directions(nn.Module):
    """Embeddings (n, Z) -> unit vectors (n, Z) from the mean embedding.

    The length of an embedding says how strongly an image deviates from the mean, its direction how.
    """

    mean: torch.Tensor

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(embedding_size))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, Z) -> unit vectors (n, Z)."""
        return normalize(z - self.mean)


class Head(nn.Module):
    """One hidden layer on directions, then a softmax."""

    def __init__(self, embedding_size: int, n_clusters: int) -> None:
        super().__init__()
        self.directions = Directions(embedding_size)
        self.hidden = nn.Linear(embedding_size, HIDDEN)
        self.output = nn.Linear(HIDDEN, n_clusters)

    def logits(self, directions: torch.Tensor) -> torch.Tensor:
        """Unit vectors (n, Z) -> (n, K)."""
        # Each value of a long unit vector is small; brought to a variance of 1 the layer learns as fast as on others.
        scaled = directions * directions.shape[1] ** 0.5
        return self.output(torch.relu(self.hidden(scaled)))  # type: ignore[no-any-return]

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, Z) -> soft assignments (n, K)."""
        return torch.softmax(self.logits(self.directions(z)), dim=1)


class Prototypes(nn.Module):
    """Directions to the nearest of K prototypes; probabilities of equal round Gaussians about them."""

    prototypes: torch.Tensor
    variance: torch.Tensor

    def __init__(self, embedding_size: int, n_clusters: int) -> None:
        super().__init__()
        self.directions = Directions(embedding_size)
        self.register_buffer("prototypes", torch.zeros(n_clusters, embedding_size))
        self.register_buffer("variance", torch.ones(()))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, Z) -> soft assignments (n, K)."""
        distances = torch.cdist(self.directions(z), self.prototypes).square()
        return torch.softmax(-distances / (2 * self.variance), dim=1)


class Mixture(nn.Module):
    """Responsibilities of a Gaussian mixture on the first principal axes of the embedding."""

    mean: torch.Tensor
    axes: torch.Tensor
    means: torch.Tensor
    whitenings: torch.Tensor
    log_weights: torch.Tensor

    def __init__(self, embedding_size: int, n_clusters: int) -> None:
        super().__init__()
        axes = min(embedding_size, MIXTURE_AXES)
        self.register_buffer("mean", torch.zeros(embedding_size))
        self.register_buffer("axes", torch.zeros(embedding_size, axes))
        self.register_buffer("means", torch.zeros(n_clusters, axes, dtype=torch.float64))
        self.register_buffer("whitenings", torch.zeros(n_clusters, axes, axes, dtype=torch.float64))
        self.register_buffer("log_weights", torch.zeros(n_clusters, dtype=torch.float64))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, Z) -> soft assignments (n, K)."""
        x = ((z - self.mean) @ self.axes).double()
        white = torch.einsum("nkd,kde->nke", x[:, None] - self.means, self.whitenings)
        log_densities = self.whitenings.diagonal(dim1=1, dim2=2).log().sum(1) - 0.5 * white.square().sum(2)
        return torch.softmax(self.log_weights + log_densities, dim=1).float()


READERS: dict[str, type[nn.Module]] = {
    "graph": Head,
    "kmeans": Prototypes,
    "mixture": Mixture,
    "self-supervised": Head,
}


def empty_reader(how: str, embedding_size: int, n_clusters: int) -> nn.Module:
    """Return a reader without values, for those of a model file."""
    return READERS[how](embedding_size, n_clusters)


def read_clusters(z: torch.Tensor, how: str, n_clusters: int | str | None, seed: int, runs: int = 1) -> Reading:
    """Learn the reader ``how`` from embeddings z (N, Z).

    ``n_clusters``: "auto" or None takes ``found_clusters`` ("graph" only).

    ``runs``: of a fusion, embeddings of as many runs side by side.

    Raises
    ------
    FitError : a number of clusters is needed and not given, or there is one image only where two are needed
    """
    z, n_clusters = z.detach(), None if isinstance(n_clusters, str) else n_clusters
    if how == "graph":
        return _read_graph(z, n_clusters, seed, runs)
    if n_clusters is None:
        raise FitError(f'assignment={how!r} needs a number of clusters; n_clusters="auto" goes with "graph".')
    if how != "kmeans" and len(z) < 2:
        raise FitError(f'assignment={how!r} needs at least two images: one has no neighbour. Use "kmeans".')
    if how == "self-supervised":
        heads: list[nn.Module] = [_new_head(z, n_clusters, seed, number) for number in range(HEADS)]
        head, losses = learn_self_supervised(heads, _directions(z)(sample(z, GRAPH_SAMPLE, seed)), seed)
        return Reading(head.requires_grad_(False), {"losses of the heads": [round(loss, 4) for loss in losses]})
    return (_read_kmeans if how == "kmeans" else _read_mixture)(z, n_clusters, seed)


def found_clusters(z: torch.Tensor, seed: int) -> int:
    """Return the number of clusters of embeddings z (N, Z) that ``n_clusters="auto"`` takes.

    It is the measured one (``learning.cluster_number``). Where that tells none it is the number of communities, which
    may divide what is continuous.
    """
    separated = separated_clusters(z.detach().cpu().numpy(), seed)
    return separated if separated > 1 else natural_clusters(z.detach(), seed)


def natural_clusters(z: torch.Tensor, seed: int) -> int:
    """Return the number of communities in the neighbour graph of embeddings z (N, Z)."""
    return int(leiden(_graph(_directions(z)(sample(z, GRAPH_SAMPLE, seed))), None, seed).max()) + 1


def disagreement(labels: list[Any]) -> float:
    """Return 1 - the mean adjusted Rand index over all pairs of ``labels``: 0 = all runs agree, about 1 = by chance."""
    pairs = [adjusted_rand_score(one, two) for one, two in combinations(labels, 2)]
    return float(1 - np.mean(pairs))


def _directions(z: torch.Tensor) -> Directions:
    directions = Directions(z.shape[1]).to(z.device)
    directions.mean = z.mean(0)
    return directions


def sample(z: torch.Tensor, most: int, seed: int) -> torch.Tensor:
    """Return z (N, Z), or ``most`` of its rows at random where it has more."""
    if len(z) <= most:
        return z
    chosen = np.sort(np.random.default_rng(seed).choice(len(z), most, replace=False))
    return z[torch.from_numpy(chosen).to(z.device)]


def _graph(directions: torch.Tensor, runs: int = 1) -> csr_matrix:
    """The runs' graphs added up: neighbours in several runs count more than near ones in a single run."""
    return sum(shared_neighbour_graph(part.cpu().numpy()) for part in directions.chunk(runs, dim=1))


def _read_graph(z: torch.Tensor, n_clusters: int | None, seed: int, runs: int) -> Reading:
    if n_clusters is None:
        n_clusters = found_clusters(z, seed)
    directions = _directions(z)(sample(z, GRAPH_SAMPLE, seed))
    labels = torch.from_numpy(leiden(_graph(directions, runs), n_clusters, seed)).to(z.device)
    head = _new_head(z, int(labels.max()) + 1, seed)
    _learn(head, directions, labels, seed)
    with torch.no_grad():
        found = head.logits(directions).argmax(1)
    agreement = float((found == labels).double().mean())
    return Reading(head, {"images in the graph": len(labels), "agreement of head and graph": round(agreement, 4)})


def _new_head(z: torch.Tensor, n_clusters: int, seed: int, number: int = 0) -> Head:
    head = Head(z.shape[1], n_clusters)
    chance = generator(seed, -7, number)
    for layer in (head.hidden, head.output):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=chance)
        nn.init.zeros_(layer.bias)
    head.directions = _directions(z)
    return head.to(z.device)


def _learn(head: Head, directions: torch.Tensor, labels: torch.Tensor, seed: int) -> None:
    """Learn the partition. A rare cluster is drawn more often than its share, so that it is not passed over."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=1e-4)
    counts = torch.bincount(labels).cpu().double()
    shares = (1 / counts.sqrt())[labels.cpu()]  # between as they are and equal: the sizes are information too
    cumulative = shares.cumsum(0)
    chance = generator(seed, -8)
    batch = min(BATCH, len(labels))
    steps = min(max(PASSES * len(labels) // batch, STEPS[0]), STEPS[1])
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        drawn = torch.rand(batch, generator=chance, dtype=torch.float64) * cumulative[-1]
        index = torch.searchsorted(cumulative, drawn).clamp_max(len(labels) - 1).to(directions.device)
        loss = cross_entropy(head.logits(directions[index]), labels[index], label_smoothing=SMOOTHING)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
    head.requires_grad_(False)


def _read_kmeans(z: torch.Tensor, n_clusters: int, seed: int) -> Reading:
    reader = Prototypes(z.shape[1], n_clusters)
    reader.directions = _directions(z)
    directions = reader.directions(z)
    found = kmeans(directions, n_clusters, generator(seed, -9))
    reader.prototypes = found.centres
    reader.variance = torch.tensor(max(found.inertia / directions.numel(), 1e-6), device=z.device)
    return Reading(reader.to(z.device), {"inertia": round(found.inertia, 3)})


def _read_mixture(z: torch.Tensor, n_clusters: int, seed: int) -> Reading:
    reader = Mixture(z.shape[1], n_clusters)
    some = sample(z, MIXTURE_SAMPLE, seed)
    reader.mean = z.mean(0)
    reader.axes = torch.linalg.svd(some - reader.mean, full_matrices=False).Vh[: reader.axes.shape[1]].T.contiguous()
    x = ((some - reader.mean) @ reader.axes).cpu().double().numpy()
    scale = float(x.var()) or 1.0
    mixture = GaussianMixture(n_clusters, reg_covar=1e-4 * scale, n_init=5, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged, or fewer different vectors than clusters: the watch says so
        mixture.fit(x)
    reader.means = torch.from_numpy(mixture.means_)
    reader.whitenings = torch.from_numpy(mixture.precisions_cholesky_)
    reader.log_weights = torch.from_numpy(mixture.weights_).log()
    return Reading(reader.to(z.device), {"log likelihood": round(float(mixture.lower_bound_), 4)})
