"""Contrastive autoencoder: reconstruction and a contrastive loss, then prototypes that condition the decoder.

    Ferrante, Boccato, Spasov, Duggento, Toschi: Contrastive learning for unsupervised medical image clustering and
    reconstruction. NLDL 2023. arXiv:2209.12005. Code (by the same authors, of the same month): matteoferrante/VAESIM,
    AESIMCLR.py, commit 2203a15.

Algorithm
---------
Encoder h = e(x), decoder x' = d(h, c), projection p = g(h), prototypes b_1 .. b_K.

1. Warm-up on two augmented views x1, x2 of each image:
       L = NTXent(p1, p2) + lambda [MSE(x1', x1) + MSE(x2', x2)],      c = 1 / K                                   (1)
       NTXent = mean over the 2 n views i of  -log exp(s(i, j) / T) / sum_{a != i} exp(s(i, a) / T)                (2)
   where j is the other view of the same image and s the cosine of two projections.
2. k-means on the h of all images gives the prototypes; with ``n_clusters="auto"``, K is the elbow of its inertia.
3. Clustering: soft assignment c = softmax(s(h, b) / tau), the decoder is conditioned on it, and
       L = MSE(x1', x1) + MSE(x2', x2),     b_k <- (1 - r) b_k + r mean of the batch's h with argmax c = k         (3)
4. The decoder alone goes on learning MSE(x', x) of the images as they are; their embeddings do not change any more.
5. The cluster of an image is argmax_k c_k (``assignment="own"``). With "graph" and ``n_clusters="auto"`` K is found
   anew (``learning.reading.found_clusters``); the elbow's number is that of the prototypes only.
6. ``sample(n, k)``: h from a Gaussian over cluster k, decoded with its own c; kept if the model assigns it to k.

Deviations
----------
- The decoder is conditioned on c as the paper intends: c selects a mixture of K learned vectors that is added to h. The
  authors' code computes a condition map and then does not use it.
- Clustering phase: the code computes the contrastive term and leaves it out; then nothing keeps the embedding from
  forgetting it. By default it stays, with the weights of (1). ``contrastive=0`` in ``Objective`` does as the code does.
- Prototypes: the code replaces them by the mean of every batch (r = 1) and compares by scalar products, which favours
  long prototypes; we average (r = 0.1) and compare directions. ``as_published``: as the code, tau = 1.
- One space: the code maps clusters to labels in the projection but assigns in h. We assign in h everywhere.
- Labels: the code names clusters by a vote of training labels; here no label is read.
- Encoder: kernel 3, BatchNorm, ReLU by default; ``as_published``: kernel 4, widths 32, 64, 128, D = 50, no pooling. The
  code's decoder starts from a single channel; ours mirrors the encoder, and so takes colour and 3-D.
- Step 4 is ours: a decoder that has seen augmented views only loses more of an image than it must.
- Reconstruction: of the first view only, doubled: the two have the same distribution, and decoding is what costs.
- Preprocessing: minus the set's mean value, not its mean image. An image that is moved would carry the shadow of the
  mean image along and tell by it how far (on digits, k-means on h, a trial by an earlier version: .80, with it .38).
- ``as_published`` keeps what is ours where the code's layer is an accident or a detail: the decoder stays conditioned,
  the projection is ours (the code: D - 2D - 2D - D without BatchNorm), ReLU for GELU, no sigmoid after the decoder.
- Temperature T, batch size, epochs, learning rate and augmentations were not published; they are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import normalize

from medstrata.learning.augment import AUGMENTATIONS, augment
from medstrata.learning.batches import Images
from medstrata.learning.checkpoints import Tensors
from medstrata.learning.comm import ALONE, Comm, generator
from medstrata.learning.fitting import STOPPED, Batch, Fit, Phase, Record
from medstrata.learning.kmeans import elbow
from medstrata.learning.nets import INITIAL_WEIGHTS, Architecture, Decoder, Encoder, Layers, initialise
from medstrata.learning.ranges import check_whole
from medstrata.learning.sampling import ClusterGaussians
from medstrata.learning.self_training import start_prototypes
from medstrata.learning.train import Training, cluster_sizes, label_change
from medstrata.methods import generative
from medstrata.methods.method import ClusteringMethod
from medstrata.methods.settings import check_fitted


@dataclass(frozen=True)
class Objective:
    """``reconstruction``: lambda of (1); ``contrastive``: weight of (2) in the clustering phase, 0 as in the code.

    ``temperature``: T of (2); ``sharpness``: tau of step 3; ``rate``: r of (3); ``directions``: assign by cosine (True)
    or by scalar product; ``decoding``: epochs of step 4 as a share of those of step 1.
    """

    reconstruction: float = 0.1
    contrastive: float = 1.0
    temperature: float = 0.3
    sharpness: float = 0.1
    rate: float = 0.1
    directions: bool = True
    decoding: float = 0.5


def contrastive_loss(first: torch.Tensor, second: torch.Tensor, temperature: float, comm: Comm = ALONE) -> torch.Tensor:
    """Equation (2): projections (n, P) of the two views -> scalar.

    Where several processes have parts of a batch, i runs over the views of this one, a over those of all.
    """
    first, second = normalize(first), normalize(second)
    everyone = torch.cat([comm.gather_with_gradient(first), comm.gather_with_gradient(second)])
    number = torch.arange(len(everyone), device=first.device).view(2, -1)[:, comm.share(len(everyone) // 2)].flatten()
    similarity = torch.cat([first, second]) @ everyone.T / temperature
    similarity[torch.arange(len(number)), number] = -torch.inf
    return nn.functional.cross_entropy(similarity, number.roll(len(first)))


class ContrastiveNetwork(nn.Module):
    """Encoder, projection, decoder, prototypes (K, Z), conditions (K, Z), the clusters' Gaussians."""

    def __init__(self, image_shape: tuple[int, ...], architecture: Architecture, layers: Layers) -> None:
        super().__init__()
        widths, size = architecture.widths, architecture.embedding_size
        self.encoder = Encoder(image_shape, widths, size, layers)
        self.decoder = Decoder(image_shape, widths, size, layers)
        self.projection = nn.Sequential(
            nn.Linear(size, size), nn.BatchNorm1d(size), nn.ReLU(), nn.Linear(size, max(2, size // 2))
        )
        self.conditions = nn.Parameter(torch.zeros(0, size))
        self.gaussians = ClusterGaussians(size)
        self.prototypes: torch.Tensor
        self.register_buffer("prototypes", torch.zeros(0, size))

    def decode(self, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Embedding (n, Z) and soft assignment (n, K) -> images (n, C, ...). K = 0 while warming up."""
        return self.decoder(h + c @ self.conditions)  # type: ignore[no-any-return]


class ContrastiveAutoencoder(ClusteringMethod):
    """Contrastive autoencoder with prototypes (see the module for the algorithm).

    Parameters
    ----------
    n_clusters : number of clusters K, or "auto"
    objective : weights of the losses, temperatures, how prototypes move
    assignment : "own", or "graph": clusters read off the neighbour graph of h
    architecture : channels of the stride-2 layers, embedding size Z
    training : epochs, batch size, learning rate, augmentation
    random_state : seed; on a CPU the same seed gives the same labels
    device : "auto", "cpu", "cuda", ...
    """

    def __init__(
        self,
        n_clusters: int | str = 8,
        objective: Objective = Objective(),
        assignment: str = "graph",
        architecture: Architecture = Architecture((16, 32, 64), 128),  # noqa: B008 - frozen
        training: Training = Training(  # noqa: B008 - frozen
            12, 400, 5, 256, 2e-3, 0.01, "cosine", tolerance=0.0, preprocessing="scaled", augmentation="mixed"
        ),
        random_state: int = 0,
        device: str = "auto",
    ) -> None:
        self.n_clusters = n_clusters
        self.objective = objective
        self.assignment = assignment
        self.architecture = architecture
        self.training = training
        self.random_state = random_state
        self.device = device

    @classmethod
    def as_published(cls, n_clusters: int | str, random_state: int = 0, device: str = "auto") -> Self:
        """Return the settings of the authors' code; what it does not say (epochs, batches) is ours."""
        objective = Objective(0.1, 0.0, temperature=0.5, sharpness=1.0, rate=1.0, directions=False, decoding=0.0)
        training = Training(
            30, 0, 10, 256, 1e-3, tolerance=0.0, spherical_start=False, preprocessing="unit", augmentation="radiograph"
        )
        return cls(n_clusters, objective, "own", Architecture((32, 64, 128), 50), training, random_state, device)

    def reconstruct(self, X: Any) -> NDArray[np.float32]:
        """Return the reconstructions (N, C, ...), in the units of ``X``."""
        return generative.reconstruct(self, X, self._decode)

    def sample(self, count: int, cluster: int, random_state: int = 0) -> NDArray[np.float32]:
        """Draw ``count`` new images (count, C, ...) of ``cluster``, in the units of the training images.

        Raises
        ------
        FitError : not fitted, no such cluster, or an empty one
        """
        return generative.sample(self, count, cluster, random_state, self._decode)

    def walk(self, first: int, second: int, steps: int = 8) -> NDArray[np.float32]:
        """Return images (steps, C, ...) along the straight line between the mean embeddings of two clusters.

        Raises
        ------
        FitError : not fitted, no such cluster, an empty one, or fewer than 2 steps
        """
        check_fitted(self)
        check_whole("steps", steps, 2)
        means = self.network_.gaussians.means
        for cluster in (first, second):
            check_whole("cluster", cluster)
            self.network_.gaussians.check(cluster)
        return generative.decode_images(
            self, torch.lerp(means[first], means[second], torch.linspace(0, 1, steps)[:, None].to(means)), self._decode
        )

    def _decode(self, h: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = self.network_.decode(h, self._assign(h))
        return images

    def _build(self, image_shape: tuple[int, ...]) -> nn.Module:
        published = self.training.preprocessing == "unit"
        network = ContrastiveNetwork(image_shape, self.architecture, Layers(4 if published else 3, True, 0.0))
        initialise(network, generator(self.random_state, INITIAL_WEIGHTS), "he")
        return network

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.network_.encoder.features(x)
        return features

    def _embed(self, features: torch.Tensor) -> torch.Tensor:
        h: torch.Tensor = self.network_.encoder.embed(features)
        return h

    def _assign(self, z: torch.Tensor) -> torch.Tensor:
        """Step 3: the soft assignment c (n, K)."""
        prototypes = self.network_.prototypes
        if self.objective.directions:
            z, prototypes = normalize(z), normalize(prototypes)
        return torch.softmax(z @ prototypes.T / self.objective.sharpness, dim=1)

    def _read(self, z: torch.Tensor) -> None:
        super()._read(z)
        self.network_.gaussians.measure(z, torch.from_numpy(self.labels_).to(z.device), self.n_clusters_)

    # -- training ------------------------------------------------------------------------------------------------
    def _train(self, images: Images, fit: Fit) -> None:
        def start() -> None:
            z = self._embed_all(fit.share)
            n_clusters = elbow(z, fit.random(-2), fit.comm) if isinstance(self.n_clusters, str) else self.n_clusters
            self.network_.prototypes = start_prototypes(z, n_clusters, fit)
            self.network_.conditions = nn.Parameter(torch.zeros_like(self.network_.prototypes))

        warm_up = self.training.warmup_length(len(images))
        fit.run(Phase("warm-up", warm_up, self._warm_up_loss))
        fit.run(Phase("clustering", self.training.epochs, self._loss, start, lambda epoch: self._watch(fit, epoch)))
        fit.run(Phase("decoding", round(self.objective.decoding * warm_up), self._decoding_loss))

    def _warm_up_loss(self, batch: Batch) -> Tensors:
        """Equation (1)."""
        return self._losses(batch, contrastive=1.0, reconstruction=self.objective.reconstruction)

    def _loss(self, batch: Batch) -> Tensors:
        """Equation (3), beside the contrastive term that keeps the embedding."""
        kept = self.objective.contrastive
        return self._losses(batch, kept, self.objective.reconstruction if kept else 1.0)

    def _decoding_loss(self, batch: Batch) -> Tensors:
        """Step 4."""
        network = self.network_
        network.eval()  # the embeddings must stay as they are
        network.decoder.train()
        with torch.no_grad():
            h = network.encoder(batch.x)
            c = self._assign(h)
        return {"loss": nn.functional.mse_loss(network.decode(h, c), batch.x)}

    def _losses(self, batch: Batch, contrastive: float, reconstruction: float) -> Tensors:
        network, how = self.network_, AUGMENTATIONS[self.training.augmentation]
        views = torch.cat([augment(batch.x, how, batch.generator), augment(batch.x, how, batch.generator)])
        h = network.encoder(views)
        c = self._assign(h)
        first, second = network.projection(h).chunk(2)
        seen = slice(0, len(batch.x))  # both views have one distribution: the first stands for both, at half the cost
        losses = {"reconstruction_loss": 2 * nn.functional.mse_loss(network.decode(h[seen], c[seen]), views[seen])}
        loss = reconstruction * losses["reconstruction_loss"]
        if contrastive:
            losses["contrastive_loss"] = contrastive_loss(first, second, self.objective.temperature, batch.comm)
            loss = loss + contrastive * losses["contrastive_loss"]
        self._move_prototypes(h.detach(), c.detach(), batch.comm)
        return {"loss": loss, **losses}

    def _move_prototypes(self, h: torch.Tensor, c: torch.Tensor, comm: Comm) -> None:
        """The prototypes' rule of equation (3); a cluster without an image in the batch keeps its prototype."""
        n_clusters = c.shape[1]
        member = nn.functional.one_hot(c.argmax(1), n_clusters).to(h) if n_clusters else c
        counts = comm.total(member.sum(0))[:, None]
        means = comm.total(member.T @ h) / counts.clamp_min(1)
        moved = torch.lerp(self.network_.prototypes, means, self.objective.rate)
        self.network_.prototypes = torch.where(counts > 0, moved, self.network_.prototypes)

    def _watch(self, fit: Fit, epoch: int) -> Record:
        """Compare the labels of all images with those of the last refresh; stop when they have settled."""
        if epoch % self.training.target_interval:
            return {}
        labels = self._assign_all(self._embed_all(fit.share)).argmax(1)
        change = 1.0 if epoch == 0 else label_change(labels, fit.of_images["labels"], fit.comm)
        fit.of_images["labels"] = labels
        record = {"label_change": change} | cluster_sizes(labels, len(self.network_.prototypes), fit.comm)
        return record | ({STOPPED: "labels settled"} if change < self.training.tolerance else {})
