"""DCEC: deep convolutional embedded clustering, in 2-D and 3-D, as in CLAM.

    Ryan, Carlson, Butler, Fingerlin, Maier, Xing: Cluster activation mapping with application to computed tomography
    scans of the lung. J. Med. Imaging 9(2):026001, 2022. arXiv:2010.04794. The clustering is that of
    Guo, Liu, Zhu, Yin: Deep clustering with convolutional autoencoders. ICONIP 2017.

Algorithm
---------
1. Warm-up: a convolutional autoencoder z = e(x), x' = d(z) is trained with the mean squared error MSE(x, x').
2. k-means on the embeddings of all images gives the prototypes mu_1 .. mu_K.
3. Soft assignment of image i to cluster j (Student's t with one degree of freedom):
       q_ij = (1 + |z_i - mu_j|^2)^-1 / sum_j' (1 + |z_i - mu_j'|^2)^-1                                          (1)
4. Target distribution, over the whole set: sharpens q and weighs every cluster by its size:
       p_ij = (q_ij^2 / f_j) / sum_j' (q_ij'^2 / f_j'),    f_j = sum_i q_ij                                      (2)
5. Network and prototypes are trained together on
       L = gamma KL(P || Q) + MSE(x, x'),   KL(P || Q) = 1/N sum_i sum_j p_ij log(p_ij / q_ij)                   (3)
   and P is computed again every ``target_interval`` epochs, until few labels change.
6. The cluster of an image is argmax_j q_ij: the model's own assignment, not a new k-means (``assignment="own"``).

Deviations
----------
- Stop rule: the authors' code never uses its tolerance and trains 100 epochs; we stop when fewer than ``tolerance``
  of the labels change between two target distributions, as the original DCEC does. ``as_published``: no stop.
- Preprocessing: the authors divide by the set's maximum and set zero voxels to the mean of the others, because their
  lungs are masked. By default we subtract the set's mean image and divide by the deviation that is left: the network
  need not learn what all images share, and a masked-out voxel (in activation maps) becomes the cohort's mean.
- gamma is .01, the authors' .1: on digits and clothes clusters read off the graph then are better (accuracy .94 instead
  of .90, .63 instead of .58), and ``own`` ones hardly change (.53 and .56, .50 and .50). ``as_published``: .1, as
  the plan takes on volumes (``images.planning``).
- Start: k-means on the directions from the mean embedding rather than on the embeddings, since the length of an
  embedding says how strongly an image deviates from the mean rather than how. ``as_published``: plain k-means.
- A cluster that loses all its images gets a new prototype: the embedding farthest from every prototype. The authors'
  code leaves it empty; ``as_published`` repairs it too.
- The first k-means has 20 starts from k-means++, the authors' 100; in ``as_published`` too.
- Decoder: the authors put a LeakyReLU after the last layer, which suits data above zero; we do so in ``as_published``
  only, since centred images have values below zero.
- 2-D: the authors published 3-D code only; our 2-D network is the same with 2-D convolutions.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import nn

from medstrata.learning.batches import Images
from medstrata.learning.checkpoints import Tensors
from medstrata.learning.comm import generator
from medstrata.learning.fitting import Batch, Fit, Phase
from medstrata.learning.nets import INITIAL_WEIGHTS, Architecture, Decoder, Encoder, Layers, initialise
from medstrata.learning.self_training import clustering_loss, refresh_target, soft_assignment, start_prototypes
from medstrata.learning.train import Training
from medstrata.methods.clusters import clusters_asked
from medstrata.methods.method import ClusteringMethod

LAYERS = Layers(kernel=4, batch_norm=False, leak=0.1)


class DCECNetwork(nn.Module):
    """Encoder, decoder and prototypes (K, Z)."""

    def __init__(self, image_shape: tuple[int, ...], architecture: Architecture, rectified: bool) -> None:
        """``rectified``: LeakyReLU after the last layer of the decoder."""
        super().__init__()
        widths, size = architecture.widths, architecture.embedding_size
        self.encoder = Encoder(image_shape, widths, size, LAYERS)
        self.decoder = Decoder(image_shape, widths, size, LAYERS)
        self.output = nn.LeakyReLU(LAYERS.leak) if rectified else nn.Identity()
        self.prototypes = nn.Parameter(torch.zeros(0, size))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Embedding (n, Z) -> reconstruction (n, C, ...)."""
        return self.output(self.decoder(nn.functional.leaky_relu(z, LAYERS.leak)))  # type: ignore[no-any-return]


class DCEC(ClusteringMethod):
    """Deep convolutional embedded clustering (see the module for the algorithm).

    Parameters
    ----------
    n_clusters : number of clusters K, or "auto"
    clustering_weight : gamma of equation (3)
    assignment : "own", or "graph": clusters read off the neighbour graph of the embedding (``learning.reading``)
    architecture : channels of the stride-2 layers, embedding size
    training : epochs, batch size, learning rate, stop rule
    random_state : seed; on a CPU the same seed gives the same labels
    device : "auto", "cpu", "cuda", ...
    """

    WITHOUT_EFFECT: ClassVar[tuple[str, ...]] = ("augmentation",)

    def __init__(
        self,
        n_clusters: int | str = 8,
        clustering_weight: float = 0.01,
        assignment: str = "graph",
        architecture: Architecture = Architecture(),  # noqa: B008 - frozen
        training: Training = Training(),  # noqa: B008 - frozen
        random_state: int = 0,
        device: str = "auto",
    ) -> None:
        self.n_clusters = n_clusters
        self.clustering_weight = clustering_weight
        self.assignment = assignment
        self.architecture = architecture
        self.training = training
        self.random_state = random_state
        self.device = device

    @classmethod
    def as_published(cls, n_clusters: int, random_state: int = 0, device: str = "auto") -> Self:
        """Return DCEC with the settings of the authors' code (Ryan et al.): 100 + 100 epochs, P every 10 epochs."""
        training = Training(
            100,
            0,
            100,
            batch_size=32,
            target_interval=10,
            tolerance=0.0,
            spherical_start=False,
            preprocessing="published",
        )
        return cls(n_clusters, 0.1, "own", Architecture((16, 32, 64), 60), training, random_state, device)

    def _build(self, image_shape: tuple[int, ...]) -> nn.Module:
        network = DCECNetwork(image_shape, self.architecture, rectified=self.training.preprocessing == "published")
        initialise(network, generator(self.random_state, INITIAL_WEIGHTS))
        return network

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.network_.encoder.features(x)
        return features

    def _embed(self, features: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = self.network_.encoder.embed(features)
        return z

    def _assign(self, z: torch.Tensor) -> torch.Tensor:
        return soft_assignment(z, self.network_.prototypes)

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
        fit.run(Phase("warm-up", warm_up, self._reconstruction_loss))
        fit.run(Phase("clustering", self.training.epochs, joint_loss, start, refresh))

    def _reconstruction_loss(self, batch: Batch) -> Tensors:
        """Step 1: MSE(x, x')."""
        return {"loss": nn.functional.mse_loss(self.network_.decode(self.network_.encoder(batch.x)), batch.x)}

    def _joint_loss(self, batch: Batch, target: torch.Tensor) -> Tensors:
        """Equation (3)."""
        z = self.network_.encoder(batch.x)
        reconstruction = nn.functional.mse_loss(self.network_.decode(z), batch.x)
        clustering = clustering_loss(target, self._assign(z))
        loss = reconstruction + self.clustering_weight * clustering
        return {"loss": loss, "reconstruction_loss": reconstruction, "clustering_loss": clustering}
