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
6. The cluster of an image is argmax_j q_ij: the model's own assignment, not a new k-means.

Deviations
----------
- Stop rule: the authors' code never uses its tolerance and trains 100 epochs; we stop when fewer than ``tolerance``
  of the labels change between two target distributions, as the original DCEC does. ``as_published``: no stop.
- Preprocessing: the authors divide by the set's maximum and set zero voxels to the mean of the others, because their
  lungs are masked. By default we subtract the set's mean image and divide by the deviation that is left: the network
  need not learn what all images share, and a masked-out voxel (in activation maps) becomes the cohort's mean.
- Start: k-means on the directions from the mean embedding rather than on the embeddings, since the length of an
  embedding says how strongly an image deviates from the mean rather than how. ``as_published``: plain k-means.
- A cluster that loses all its images gets a new prototype: the embedding farthest from every prototype. The authors'
  code leaves it empty.
- Decoder: the authors put a LeakyReLU after the last layer, which suits data above zero; we do so in ``as_published``
  only, since centred images have values below zero.
- 2-D: the authors published 3-D code only; our 2-D network is the same with 2-D convolutions.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from medstrata.errors import RunFolderError
from medstrata.learning.batches import Images, blocks
from medstrata.learning.comm import generator
from medstrata.learning.kmeans import kmeans
from medstrata.learning.nets import ConvolutionalAutoencoder, initialise
from medstrata.learning.train import (
    Training,
    batches,
    load_state,
    optimizer_tensors,
    restore_optimizer,
    save_state,
    size_entropy,
)
from medstrata.methods.method import BLOCK, ClusteringMethod, settings_of
from medstrata.run import Progress

WARM_UP, CLUSTERING, INITIAL_WEIGHTS = 1, 2, 3  # name the streams of random numbers drawn from one seed


def soft_assignment(z: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """Equation (1): embeddings (n, Z) and prototypes (K, Z) -> soft assignment (n, K), rows sum to 1."""
    similarity = 1 / (1 + (z[:, None] - prototypes[None]).square().sum(2))
    return similarity / similarity.sum(1, keepdim=True)


def target_distribution(q: torch.Tensor) -> torch.Tensor:
    """Equation (2): soft assignments (N, K) of the whole set -> target distribution (N, K), rows sum to 1."""
    weighted = q.square() / q.sum(0)
    return weighted / weighted.sum(1, keepdim=True)


def clustering_loss(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(P || Q) of equation (3): summed over clusters, averaged over the images of the batch."""
    return nn.functional.kl_div(q.log(), p, reduction="batchmean")


class DCECNetwork(nn.Module):
    """The autoencoder and the prototypes (K, Z)."""

    def __init__(self, autoencoder: ConvolutionalAutoencoder, n_clusters: int) -> None:
        super().__init__()
        self.autoencoder: ConvolutionalAutoencoder = autoencoder
        self.prototypes = nn.Parameter(torch.zeros(n_clusters, autoencoder.embedding.out_features))


class DCEC(ClusteringMethod):
    """Deep convolutional embedded clustering (see the module for the algorithm).

    Parameters
    ----------
    n_clusters : number of clusters K
    embedding_size : Z
    widths : channels of the encoder's stride-2 layers
    clustering_weight : gamma of equation (3)
    preprocessing : "centred" or "published" (``learning.batches.measure``)
    training : epochs, batch size, learning rate, stop rule
    random_state : seed; on a CPU the same seed gives the same labels
    device : "auto", "cpu", "cuda", ...
    """

    network_: DCECNetwork
    _phase: str  # "warm-up", "clustering", "done"
    _epoch: int  # epochs done in this phase
    _optimizer: torch.optim.Optimizer
    _target: torch.Tensor  # P of equation (2), (N, K)
    _labels: torch.Tensor  # (N,) at the last target distribution

    def __init__(
        self,
        n_clusters: int = 8,
        embedding_size: int = 32,
        widths: tuple[int, ...] = (16, 32, 64),
        clustering_weight: float = 0.1,
        preprocessing: str = "centred",
        training: Training = Training(),  # noqa: B008 - frozen
        random_state: int = 0,
        device: str = "auto",
    ) -> None:
        self.n_clusters = n_clusters
        self.embedding_size = embedding_size
        self.widths = widths
        self.clustering_weight = clustering_weight
        self.preprocessing = preprocessing
        self.training = training
        self.random_state = random_state
        self.device = device

    @classmethod
    def as_published(cls, n_clusters: int, random_state: int = 0, device: str = "auto") -> Self:
        """Return DCEC with the settings of the authors' code (Ryan et al.): 100 + 100 epochs, P every 10 epochs."""
        training = Training(
            100, 0, 100, batch_size=32, learning_rate=1e-3, target_interval=10, tolerance=0.0, spherical_start=False
        )
        return cls(n_clusters, 60, (16, 32, 64), 0.1, "published", training, random_state, device)

    def _build(self, image_shape: tuple[int, ...]) -> nn.Module:
        autoencoder = ConvolutionalAutoencoder(
            image_shape, self.widths, self.embedding_size, rectified_output=self.preprocessing == "published"
        )
        network = DCECNetwork(autoencoder, self.n_clusters)
        initialise(autoencoder, generator(self.random_state, INITIAL_WEIGHTS))
        return network

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        return self.network_.autoencoder.features(x)

    def _embed(self, features: torch.Tensor) -> torch.Tensor:
        return self.network_.autoencoder.embed(features)

    def _assign(self, z: torch.Tensor) -> torch.Tensor:
        return soft_assignment(z, self.network_.prototypes)

    # -- training ------------------------------------------------------------------------------------------------
    def _train(self, images: Images, checkpoint: Path | None, progress: Progress) -> None:
        self._resume(images, checkpoint)
        while self._phase == "warm-up" and self._epoch < self.training.warmup_length(len(images)):
            record = self._train_epoch(images, None, WARM_UP)
            self._end_epoch(record, images, checkpoint, progress)
        if self._phase == "warm-up":
            self._start_clustering(images)
        while self._phase == "clustering" and self._epoch < self.training.epochs:
            record = {} if self._epoch % self.training.target_interval else self._refresh_target(images)
            if record.get("label_change", 1.0) < self.training.tolerance:
                self._phase = "done"
                self.history_.append(
                    {"phase": "clustering", "epoch": self._epoch, "stopped": "labels settled", **record}
                )
                break
            record |= self._train_epoch(images, self._target, CLUSTERING)
            self._end_epoch(record, images, checkpoint, progress)

    def _start_clustering(self, images: Images) -> None:
        """Step 2: k-means on all embeddings gives the prototypes; a fresh optimiser."""
        z = torch.cat([self._embed_block(images, part, lambda *_: None) for part in blocks(images, BLOCK)])
        compared = nn.functional.normalize(z - z.mean(0)) if self.training.spherical_start else z.clone()
        found = kmeans(compared, self.n_clusters, generator(self.random_state, CLUSTERING))
        with torch.no_grad():
            for cluster in range(self.n_clusters):
                members = z[found.labels == cluster]  # none where fewer images differ than there are clusters
                self.network_.prototypes[cluster] = (members if len(members) else z).mean(0)
        self._labels = found.labels
        self._optimizer = self._new_optimizer()
        self._phase, self._epoch = "clustering", 0

    def _refresh_target(self, images: Images) -> dict[str, Any]:
        """Steps 3 and 4 over the whole set, in evaluation mode; an empty cluster is repaired first."""
        z = torch.cat([self._embed_block(images, part, lambda *_: None) for part in blocks(images, BLOCK)])
        q = self._assign_all(z)
        repaired = self._repair_empty(z, q.argmax(1))
        if repaired:
            q = self._assign_all(z)
        labels = q.argmax(1)
        change = float((labels != self._labels).double().mean())
        self._target, self._labels = target_distribution(q), labels
        used = int((torch.bincount(labels, minlength=self.n_clusters) > 0).sum())
        record = {"label_change": 1.0 if self._epoch == 0 else change, "clusters_used": used, "repaired": repaired}
        return record | {"size_entropy": size_entropy(labels, self.n_clusters)}

    def _repair_empty(self, z: torch.Tensor, labels: torch.Tensor) -> int:
        """Move the prototype of each empty cluster to the embedding farthest from all prototypes; return how many."""
        counts = torch.bincount(labels, minlength=self.n_clusters)
        empty = torch.nonzero(counts == 0).flatten().tolist()
        for cluster in empty:
            distance = torch.cdist(z, self.network_.prototypes.detach()).min(1).values
            with torch.no_grad():
                self.network_.prototypes[cluster] = z[distance.argmax()]
        return len(empty)

    def _train_epoch(self, images: Images, target: torch.Tensor | None, stream: int) -> dict[str, Any]:
        """One pass over all images in random order; with ``target`` equation (3), without it the MSE alone."""
        self.network_.train()
        total = torch.zeros(2, device=self.device_)
        for index in batches(len(images), self.training.batch_size, self.random_state, stream, self._epoch):
            x = self.tensor(images[index.numpy()])
            z = self.network_.autoencoder.embed(self.network_.autoencoder.features(x))
            reconstruction = nn.functional.mse_loss(self.network_.autoencoder.decode(z), x)
            clustering = torch.zeros((), device=self.device_)
            if target is not None:
                clustering = clustering_loss(target[index.to(self.device_)], self._assign(z))
            self._optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(reconstruction + self.clustering_weight * clustering)
            self._optimizer.step()
            total += torch.stack([reconstruction.detach(), clustering.detach()]) * len(index)
        mse, kl = (total / len(images)).tolist()
        losses = {"loss": mse + self.clustering_weight * kl, "reconstruction_loss": mse}
        return losses if target is None else losses | {"clustering_loss": kl}

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network_.parameters(), lr=self.training.learning_rate, fused=True)

    # -- checkpoints ---------------------------------------------------------------------------------------------
    def _end_epoch(self, record: dict[str, Any], images: Images, checkpoint: Path | None, progress: Progress) -> None:
        self.history_.append({"phase": self._phase, "epoch": self._epoch, **record})
        self._epoch += 1
        warm_up = self._phase == "warm-up"
        planned = self.training.warmup_length(len(images)) if warm_up else self.training.epochs
        progress(f"{self._phase} epochs", self._epoch, planned)
        if checkpoint is None:
            return
        tensors = {f"network.{name}": value for name, value in self.network_.state_dict().items()}
        tensors |= optimizer_tensors(self._optimizer)
        if self._phase == "clustering":
            tensors |= {"target": self._target, "labels": self._labels}
        values = {"phase": self._phase, "epoch": self._epoch, "history": self.history_}
        save_state(checkpoint, tensors, values | {"fingerprint": self._fingerprint(images)})

    def _resume(self, images: Images, checkpoint: Path | None) -> None:
        self._phase, self._epoch = "warm-up", 0
        self._optimizer = self._new_optimizer()
        if checkpoint is None or not checkpoint.exists():
            return
        tensors, values = load_state(checkpoint)
        if values["fingerprint"] != self._fingerprint(images):
            raise RunFolderError(
                f"{checkpoint.name} was written by a fit with other settings or images. Delete it to start anew."
            )
        network = {
            name.removeprefix("network."): tensor for name, tensor in tensors.items() if name.startswith("network.")
        }
        self.network_.load_state_dict(network)
        restore_optimizer(self._optimizer, tensors)
        self._phase, self._epoch, self.history_ = values["phase"], values["epoch"], values["history"]
        if self._phase == "clustering":
            self._target = tensors["target"].to(self.device_)
            self._labels = tensors["labels"].to(self.device_)

    def _fingerprint(self, images: Images) -> dict[str, Any]:
        """What a checkpoint must agree with: every setting but the device, and the images."""
        settings = {name: value for name, value in settings_of(self).items() if name != "device"}
        some = np.ascontiguousarray(images[:: max(1, len(images) // 16)])
        seen = hashlib.sha256(some.tobytes() + self.preprocessing_.offset.numpy().tobytes()).hexdigest()
        return {"settings": settings, "shape": list(images.shape), "images": seen}
