"""DeepMCAT: a residual network learns to tell apart the clusters of its own embeddings; many clusters, merged to few.

    Kart, Bai, Glocker, Rueckert: DeepMCAT: large-scale deep clustering for medical image categorization.
    DALI at MICCAI 2021, LNCS 13003:259-267. arXiv:2110.00109. No code was published.

What the paper's abstract says: no labels; end-to-end training; for class-balanced and imbalanced large sets; cluster
purity above 0.99. Everything else here is our reading, in the manner of DeepCluster-v2 (Caron et al. 2020,
arXiv:2006.09882), so that there is no ``as_published``.

Algorithm
---------
Encoder h = e(x), a residual network; projection v = p(h) / |p(h)|. Heads 1 .. H with M_1 .. M_H prototypes each.

1. Warm-up: NT-Xent of the projections of two augmented views (``methods.contrastive``, equation 2).
2. Before each epoch: spherical k-means of the memory bank once per head, from random members, gives the prototypes c
   and the pseudo-labels y. The bank holds each image's mean projection of the epoch before; no extra pass is made.
3. One epoch on images drawn so that each pseudo-label of one head, chosen at random, comes equally often:
       L = mean over heads and crops of  cross-entropy(c v / T, y)                                                 (1)
   Crops: two views, and one smaller crop at half the resolution (multi-crop).
4. In the end the embeddings of all images are whitened, z = (h - m) W, and spherical k-means finds M prototypes, M
   several times K. Soft assignment to prototypes: r = softmax(cos(z, c) / T).
5. Prototypes a and b are merged, the closest pair first, until K are left; S is the set of the images nearest to one:
       s(a, b) = (weight of the edges of the neighbour graph of z between S_a and S_b) / (|S_a| |S_b|)             (2)
   The assignment of an image to a cluster is the sum of r over the cluster's prototypes (``assignment="own"``).
   Merging along the graph keeps purity: two kinds that lie close but do not touch are not joined. (A trial
   by an earlier version: on digits .90 right, against .80 when the pair is merged that shares most of r.)

Deviations
----------
- From DeepCluster-v2: the warm-up (in a trial by an earlier version, 10,000 digits: .92 by the graph, without it .89);
  pseudo-labels drawn uniformly, as in the first DeepCluster, for imbalanced sets; images that were not drawn keep their
  place in the bank and come first the next time; the bank holds the mean of two views, there one crop for each head in
  turn; AdamW instead of SGD with LARC, since batches are small.
- Whitening (shrunk by Ledoit and Wolf, for small sets): few directions carry most of the variance of h and say little.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf
from torch import nn
from torch.nn.functional import avg_pool2d, avg_pool3d, cross_entropy, normalize

from medstrata.learning.augment import AUGMENTATIONS, augment
from medstrata.learning.batches import Images
from medstrata.learning.checkpoints import Tensors
from medstrata.learning.comm import generator
from medstrata.learning.fitting import Batch, Fit, Phase, Record
from medstrata.learning.graph import merge, shared_neighbour_graph
from medstrata.learning.kmeans import spherical_kmeans
from medstrata.learning.nets import INITIAL_WEIGHTS, Architecture, initialise
from medstrata.learning.reading import GRAPH_SAMPLE, sample
from medstrata.learning.resnet import ResNet
from medstrata.learning.train import Training, cluster_sizes
from medstrata.methods.clusters import clusters_asked
from medstrata.methods.contrastive import contrastive_loss
from medstrata.methods.method import ClusteringMethod

WARM_UP_TEMPERATURE = 0.3
SMALL_CROP = 0.3  # smallest share of an image's area that the small crop shows
RESTARTS = 10  # of the last k-means
FINAL_PROTOTYPES = -20  # names the stream of random numbers of the last k-means


class DeepMCATNetwork(nn.Module):
    """Encoder, projection, whitening, prototypes (M, Z) and the cluster that each of them belongs to (M, K)."""

    mean: torch.Tensor
    whitening: torch.Tensor
    prototypes: torch.Tensor
    membership: torch.Tensor

    def __init__(self, image_shape: tuple[int, ...], architecture: Architecture) -> None:
        super().__init__()
        width = architecture.widths[-1]
        self.encoder = ResNet(image_shape, architecture.widths)
        self.projection = nn.Sequential(
            nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, architecture.embedding_size)
        )
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("whitening", torch.eye(width))
        self.register_buffer("prototypes", torch.zeros(0, width))
        self.register_buffer("membership", torch.zeros(0, 0))

    def project(self, h: torch.Tensor) -> torch.Tensor:
        """Encoded images h (n, F) -> projections v (n, P) of length 1."""
        return normalize(self.projection(h))

    def nearness(self, z: torch.Tensor, temperature: float) -> torch.Tensor:
        """Step 4: embeddings (n, Z) -> soft assignments to prototypes r (n, M)."""
        return torch.softmax(normalize(z) @ self.prototypes.T / temperature, dim=1)


class DeepMCAT(ClusteringMethod):
    """DeepMCAT (see the module for the algorithm).

    Parameters
    ----------
    n_clusters : number of clusters K, or "auto"
    prototypes : for each head, how many times K its prototypes are
    temperature : T of (1) and of step 4
    assignment : "own", or "graph": clusters read off the neighbour graph of the whitened embeddings
    architecture : channels of the residual blocks, size of the projection
    training : epochs, batch size, learning rate, augmentation
    random_state : seed; on a CPU the same seed gives the same labels
    device : "auto", "cpu", "cuda", ...
    """

    WITHOUT_EFFECT: ClassVar[tuple[str, ...]] = ("tolerance", "spherical_start")

    def __init__(
        self,
        n_clusters: int | str = 8,
        prototypes: tuple[int, ...] = (5, 5, 5),
        temperature: float = 0.1,
        assignment: str = "graph",
        architecture: Architecture = Architecture((32, 64, 128), 64),  # noqa: B008 - frozen
        training: Training = Training(  # noqa: B008 - frozen
            4, 200, 6, 256, 2e-3, 0.01, "cosine", tolerance=0.0, preprocessing="scaled", augmentation="mixed"
        ),
        random_state: int = 0,
        device: str = "auto",
    ) -> None:
        self.n_clusters = n_clusters
        self.prototypes = prototypes
        self.temperature = temperature
        self.assignment = assignment
        self.architecture = architecture
        self.training = training
        self.random_state = random_state
        self.device = device

    def _build(self, image_shape: tuple[int, ...]) -> nn.Module:
        network = DeepMCATNetwork(image_shape, self.architecture)
        initialise(network, generator(self.random_state, INITIAL_WEIGHTS), "he")
        return network

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.network_.encoder.features(x)
        return features

    def _embed(self, features: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = (self.network_.encoder.embed(features) - self.network_.mean) @ self.network_.whitening
        return z

    def _assign(self, z: torch.Tensor) -> torch.Tensor:
        q: torch.Tensor = self.network_.nearness(z, self.temperature) @ self.network_.membership
        return q

    def _read(self, z: torch.Tensor) -> None:
        """Steps 4 and 5, then as every method."""
        n_clusters = clusters_asked(self, z)
        count = min(max(self.prototypes) * n_clusters, len(z))
        chance = generator(self.random_state, FINAL_PROTOTYPES)
        self.network_.prototypes = spherical_kmeans(normalize(z), count, chance, RESTARTS)[0]
        self.network_.membership = self._merge(z, n_clusters)
        super()._read(z)

    def _merge(self, z: torch.Tensor, n_clusters: int) -> torch.Tensor:
        """Equation (2): which cluster each prototype belongs to, 0 or 1, (M, K)."""
        directions = normalize(sample(z, GRAPH_SAMPLE, self.random_state))
        nearest = (directions @ self.network_.prototypes.T).argmax(1).cpu().numpy()
        used, labels = np.unique(nearest, return_inverse=True)
        cluster_of_image = merge(shared_neighbour_graph(directions.cpu().numpy()), labels, n_clusters)
        membership = torch.zeros(len(self.network_.prototypes), n_clusters)
        membership[nearest, cluster_of_image] = 1
        unused = np.setdiff1d(np.arange(len(membership)), used)
        if len(unused):  # no image of the graph's sample is nearest to these: they go where the nearest used one goes
            similarity = self.network_.prototypes[unused] @ self.network_.prototypes[used].T
            membership[unused] = membership[used[similarity.argmax(1).cpu().numpy()]]
        return membership.to(z.device)

    # -- training ------------------------------------------------------------------------------------------------
    def _train(self, images: Images, fit: Fit) -> None:
        def start() -> None:
            h = self._embed_all(fit.share)
            n_clusters = clusters_asked(self, h, fit.comm)
            with torch.no_grad():
                bank = torch.cat([self.network_.project(part) for part in h.split(1 << 14)])
            waiting = torch.zeros(len(h), dtype=torch.int64, device=h.device)
            fit.of_images |= {"bank": bank, "seen": torch.zeros_like(bank), "waiting": waiting}
            fit.kept["sizes"] = torch.tensor([min(times * n_clusters, len(images)) for times in self.prototypes])

        def order(chance: torch.Generator) -> torch.Tensor:
            labels, waiting = (fit.comm.gather(fit.of_images[name]) for name in ("labels", "waiting"))
            return uniform_order(labels, waiting, chance)

        warm_up = self.training.warmup_length(len(images))
        fit.run(Phase("warm-up", warm_up, self._warm_up_loss))
        fit.run(
            Phase(
                "clustering",
                self.training.epochs,
                lambda batch: self._loss(batch, fit),
                start,
                lambda epoch: self._new_pseudo_labels(fit, epoch),
                order,
            )
        )
        h = fit.comm.gather(self._embed_all(fit.share))
        self.network_.mean, self.network_.whitening = (found.to(h) for found in fit.comm.first(lambda: whitening(h)))

    def _views(self, batch: Batch) -> torch.Tensor:
        how = AUGMENTATIONS[self.training.augmentation]
        return torch.cat([augment(batch.x, how, batch.generator) for _ in range(2)])

    def _warm_up_loss(self, batch: Batch) -> Tensors:
        first, second = self.network_.project(self.network_.encoder(self._views(batch))).chunk(2)
        return {"loss": contrastive_loss(first, second, WARM_UP_TEMPERATURE, batch.comm)}

    def _loss(self, batch: Batch, fit: Fit) -> Tensors:
        """Equation (1); the views' projections go into the memory bank of the next epoch."""
        how = dataclasses.replace(AUGMENTATIONS[self.training.augmentation], crop=SMALL_CROP)
        pool = avg_pool2d if batch.x.ndim == 4 else avg_pool3d
        small = pool(augment(batch.x, how, batch.generator), 2, ceil_mode=True)
        network = self.network_
        v = network.project(torch.cat([network.encoder(self._views(batch)), network.encoder(small)]))
        first, second, _ = v.detach().chunk(3)
        fit.add("seen", batch, first + second)
        return {"loss": pseudo_label_loss(v, fit.rows("labels", batch), fit.kept, self.temperature)}

    def _new_pseudo_labels(self, fit: Fit, epoch: int) -> Record:
        """Step 2."""
        kept = fit.of_images
        drawn = kept["seen"].square().sum(1) > 0
        kept["bank"] = torch.where(drawn[:, None], normalize(kept["seen"]), kept["bank"])
        kept["waiting"] = torch.where(drawn, 0, kept["waiting"] + 1)
        kept["seen"] = torch.zeros_like(kept["seen"])
        if epoch % self.training.target_interval:
            return {}
        chance, sizes = fit.random(-1), fit.kept["sizes"].tolist()
        heads = [spherical_kmeans(kept["bank"], size, chance, comm=fit.comm) for size in sizes]
        fit.kept["prototypes"] = torch.cat([prototypes for prototypes, _ in heads])
        kept["labels"] = torch.stack([labels for _, labels in heads], dim=1)
        return cluster_sizes(kept["labels"][:, 0], sizes[0], fit.comm)


def whitening(h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Step 4: the mean m (Z,) and the matrix W (Z, Z) that whitens encoded images h (N, Z)."""
    covariance = torch.from_numpy(ledoit_wolf(h.cpu().double().numpy())[0])
    values, vectors = torch.linalg.eigh(covariance)
    floor = values[-1].clamp_min(1e-30) * 1e-9
    return h.mean(0), (vectors * values.clamp_min(floor).rsqrt()).to(h)


def pseudo_label_loss(v: torch.Tensor, labels: torch.Tensor, kept: Tensors, temperature: float) -> torch.Tensor:
    """Equation (1): projections v (crops x n, P), crop by crop, of images with pseudo-labels (n, H) -> scalar.

    ``kept``: prototypes of all heads (sum of M, P), their numbers ``sizes`` (H,).
    """
    labels = labels.repeat(len(v) // len(labels), 1)
    logits = (v @ kept["prototypes"].T / temperature).split(kept["sizes"].tolist(), dim=1)
    return torch.stack([cross_entropy(part, labels[:, head]) for head, part in enumerate(logits)]).mean()


def uniform_order(labels: torch.Tensor, waiting: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Draw N images, as many of each pseudo-label of one head: ``labels`` (N, H) -> (N,).

    Of a pseudo-label with more images than its share, those that have waited longest (``waiting`` (N,), epochs) come;
    of one with fewer, all come several times.
    """
    labels, waiting = labels.cpu(), waiting.cpu()
    head = int(torch.randint(labels.shape[1], (1,), generator=chance))
    turn = torch.randperm(len(labels), generator=chance)
    turn = turn[waiting[turn].argsort(descending=True, stable=True)]
    members = [turn[labels[turn, head] == label] for label in labels[:, head].unique()]
    share = -(-len(labels) // len(members))
    drawn = torch.cat([of_label.repeat(-(-share // len(of_label)))[:share] for of_label in members])
    return drawn[torch.randperm(len(drawn), generator=chance)[: len(labels)]]
