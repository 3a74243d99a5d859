"""DVC: deep variational clustering: a variational autoencoder, then self-training of its latent space.

    Soleymani, Eslami, Elze, Bischl, Rezaei: Deep variational clustering framework for self-labeling of large-scale
    medical images. SPIE Medical Imaging 2022. arXiv:2109.10777. Code: csfarzin/DVC, commit f2436d0.

Algorithm
---------
D pixels, Z latent variables. The encoder gives mean m(x) and log variance s(x) of q(z|x), the decoder x' = d(z).

1. Warm-up: a variational autoencoder on z = m + exp(s / 2) e, e ~ N(0, I):
       L = R(x, x') + w KL(q(z|x) || N(0, I)),   KL = 1/2 sum_z (exp s + m^2 - 1 - s)                             (1)
   R is the negative log likelihood per pixel: squared error for centred images, cross-entropy for images from 0 to 1;
   w makes (1) the negative evidence lower bound over a constant (2 v / D, or 1 / D; v: variance of the pixels' noise).
2. k-means on the latent means of all images gives the prototypes mu_j.
3. Soft assignment q_ij: Student's t of the latent means; target distribution p_ij over the whole set
   (``learning.self_training``).
4. Fine-tuning, P computed again every ``target_interval`` epochs, until few labels change:
       L = R(x, x') + gamma KL(P || Q) + beta w KL(q(z|x) || N(0, I))                                              (2)
5. The cluster of an image is argmax_j q_ij (``assignment="own"``).
6. ``sample(n, c)``: z from a Gaussian over the latent means of cluster c, decoded; kept if the model assigns it to c.

Deviations
----------
- Latent means wherever an image is assigned: the authors' code uses sampled z for k-means, Q, P and the labels, so that
  labels are random and the stop rule may never fire.
- The prior while fine-tuning: the code drops it, and nothing then keeps the posterior's variance from vanishing.
  ``beta=0`` does as the code does; by default it stays.
- KL(P || Q) is summed over clusters and averaged over images; the code averages over both, which makes its weight
  .1 / K. ``as_published`` has that weight, the default that for ten clusters.
- Evaluation mode whenever the whole set is assigned: the code leaves BatchNorm in training mode.
- Decoder: transposed convolutions without the encoder's pooling indices, which some of the code's networks use: with
  them a reconstruction is not a function of z, and nothing could be sampled.
- Reconstruction: squared error on centred images by default, as everywhere in this package; ``as_published`` has
  cross-entropy on images from 0 to 1. Per-pixel scale in both phases: the code changes it by D in between.
- Network: four halvings with 6, 16, 32, 64 channels in ``as_published`` (as the code's ``cvae_cifar``, which cannot run
  on its own 28 x 28 images; ours keeps odd sides), 3-D as in 2-D.
- Empty clusters are repaired, and the first k-means compares directions, as in DCEC (``as_published``: repaired too).
- ``as_published`` warms up for 100 epochs: the code may stop before, when its loss has not fallen for 20 epochs.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medstrata.errors import FitError
from medstrata.learning.batches import Images
from medstrata.learning.chance import normal
from medstrata.learning.checkpoints import Tensors
from medstrata.learning.comm import generator
from medstrata.learning.fitting import Batch, Fit, Phase
from medstrata.learning.nets import INITIAL_WEIGHTS, Architecture, Decoder, Encoder, Layers, initialise
from medstrata.learning.sampling import ClusterGaussians
from medstrata.learning.self_training import clustering_loss, refresh_target, soft_assignment, start_prototypes
from medstrata.learning.train import Training
from medstrata.methods import generative
from medstrata.methods.clusters import clusters_asked
from medstrata.methods.method import ClusteringMethod

LAYERS = Layers(kernel=4, batch_norm=True, leak=0.0)
NOISE = 0.1  # v: variance of the pixels' noise, as a share of the variance of centred images
LOG_VARIANCES = 12.0  # log variances are held between plus and minus this, so that exp never overflows


def divergence_from_prior(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """KL(N(mean, exp log_variance) || N(0, I)) of (n, Z) each: summed over Z, averaged over n."""
    return 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(1).mean()


class DVCNetwork(nn.Module):
    """Encoder of mean and log variance, decoder, prototypes (K, Z), the clusters' Gaussians."""

    def __init__(self, image_shape: tuple[int, ...], architecture: Architecture, bernoulli: bool) -> None:
        """``bernoulli``: images from 0 to 1, cross-entropy; otherwise centred images, squared error."""
        super().__init__()
        widths, size = architecture.widths, architecture.embedding_size
        self.encoder = Encoder(image_shape, widths, 2 * size, LAYERS)
        self.decoder = Decoder(image_shape, widths, size, LAYERS)
        self.prototypes = nn.Parameter(torch.zeros(0, size))
        self.gaussians = ClusterGaussians(size)
        self.bernoulli = bernoulli
        self.prior_scale = (1.0 if bernoulli else 2 * NOISE) / math.prod(image_shape)  # w of equation (1)

    def latent(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Feature maps -> mean and log variance of q(z|x), (n, Z) each."""
        mean, log_variance = self.encoder.embed(features).chunk(2, dim=1)
        return mean, log_variance.clamp(-LOG_VARIANCES, LOG_VARIANCES)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Latent variables (n, Z) -> images (n, C, ...)."""
        return torch.sigmoid(self.decoder(z)) if self.bernoulli else self.decoder(z)

    def reconstruction_loss(self, z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """R of equation (1), averaged over pixels and images."""
        if self.bernoulli:
            return nn.functional.binary_cross_entropy_with_logits(self.decoder(z), x)
        return nn.functional.mse_loss(self.decoder(z), x)


class DVC(ClusteringMethod):
    """Deep variational clustering (see the module for the algorithm).

    Parameters
    ----------
    n_clusters : number of clusters K, or "auto"
    clustering_weight : gamma of equation (2)
    beta : weight of the prior while fine-tuning; 0 as in the authors' code
    assignment : "own", or "graph": clusters read off the neighbour graph of the latent means
    architecture : channels of the stride-2 layers, number of latent variables Z
    training : epochs, batch size, learning rate, stop rule
    random_state : seed; on a CPU the same seed gives the same labels
    device : "auto", "cpu", "cuda", ...
    """

    WITHOUT_EFFECT: ClassVar[tuple[str, ...]] = ("augmentation",)

    def __init__(
        self,
        n_clusters: int | str = 8,
        clustering_weight: float = 0.01,
        beta: float = 1.0,
        assignment: str = "graph",
        architecture: Architecture = Architecture(),  # noqa: B008 - frozen
        training: Training = Training(),  # noqa: B008 - frozen
        random_state: int = 0,
        device: str = "auto",
    ) -> None:
        self.n_clusters = n_clusters
        self.clustering_weight = clustering_weight
        self.beta = beta
        self.assignment = assignment
        self.architecture = architecture
        self.training = training
        self.random_state = random_state
        self.device = device

    @classmethod
    def as_published(cls, n_clusters: int, random_state: int = 0, device: str = "auto") -> Self:
        """Return DVC with the settings of the authors' code: Z = 10, no prior while fine-tuning, weight 0.1 / K.

        Raises
        ------
        FitError : ``n_clusters`` is no number, and the weight depends on it
        """
        if isinstance(n_clusters, str):
            raise FitError("As published, DVC weighs its loss by 0.1 / K: give n_clusters as a number.")
        training = Training(100, 0, 20, batch_size=256, spherical_start=False, preprocessing="unit")
        architecture = Architecture((6, 16, 32, 64), 10)
        return cls(n_clusters, 0.1 / n_clusters, 0.0, "own", architecture, training, random_state, device)

    def reconstruct(self, X: Any) -> NDArray[np.float32]:
        """Return the reconstructions (N, C, ...) of the latent means, in the units of ``X``."""
        return generative.reconstruct(self, X, self._decode)

    def sample(self, count: int, cluster: int, random_state: int = 0) -> NDArray[np.float32]:
        """Draw ``count`` new images (count, C, ...) of ``cluster``, in the units of the training images.

        Raises
        ------
        FitError : not fitted, no such cluster, or an empty one
        """
        return generative.sample(self, count, cluster, random_state, self._decode)

    def _decode(self, z: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = self.network_.decode(z)
        return images

    def _build(self, image_shape: tuple[int, ...]) -> nn.Module:
        network = DVCNetwork(image_shape, self.architecture, bernoulli=self.training.preprocessing == "unit")
        initialise(network, generator(self.random_state, INITIAL_WEIGHTS))
        return network

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.network_.encoder.features(x)
        return features

    def _embed(self, features: torch.Tensor) -> torch.Tensor:
        mean: torch.Tensor = self.network_.latent(features)[0]
        return mean

    def _assign(self, z: torch.Tensor) -> torch.Tensor:
        return soft_assignment(z, self.network_.prototypes)

    def _read(self, z: torch.Tensor) -> None:
        super()._read(z)
        self.network_.gaussians.measure(z, torch.from_numpy(self.labels_).to(z.device), self.n_clusters_)

    # -- training ------------------------------------------------------------------------------------------------
    def _train(self, images: Images, fit: Fit) -> None:
        def start() -> None:
            z = self._embed_all(fit.share)
            self.network_.prototypes = nn.Parameter(start_prototypes(z, clusters_asked(self, z, fit.comm), fit))

        def refresh(epoch: int) -> dict[str, Any]:
            return refresh_target(fit, epoch, self._embed_all(fit.share), self.network_.prototypes)

        def joint_loss(batch: Batch) -> Tensors:
            return self._joint_loss(batch, fit.rows("target", batch))

        warm_up = self.training.warmup_length(len(images))
        fit.run(Phase("warm-up", warm_up, lambda batch: self._lower_bound(batch, 1.0)[0]))
        fit.run(Phase("clustering", self.training.epochs, joint_loss, start, refresh))

    def _joint_loss(self, batch: Batch, target: torch.Tensor) -> Tensors:
        """Equation (2)."""
        losses, mean = self._lower_bound(batch, self.beta)
        clustering = clustering_loss(target, self._assign(mean))
        loss = losses["loss"] + self.clustering_weight * clustering
        return {**losses, "loss": loss, "clustering_loss": clustering}

    def _lower_bound(self, batch: Batch, beta: float) -> tuple[Tensors, torch.Tensor]:
        """Equation (1), its prior weighted by ``beta``; and the latent means (n, Z)."""
        network = self.network_
        mean, log_variance = network.latent(network.encoder.features(batch.x))
        noise = normal(mean.shape, batch.generator).to(mean.device)
        reconstruction = network.reconstruction_loss(mean + noise * (log_variance / 2).exp(), batch.x)
        prior = divergence_from_prior(mean, log_variance)
        loss = reconstruction + beta * network.prior_scale * prior
        return {"loss": loss, "reconstruction_loss": reconstruction, "prior_loss": prior}, mean
