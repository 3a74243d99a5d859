"""The clusters of a trained method: one of the processes that fit together reads them, the others take them over."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from medstrata.learning.adjustment import InBatches
from medstrata.learning.checkpoints import Tensors, module_tensors, restore_module
from medstrata.learning.comm import ALONE, Comm
from medstrata.learning.reading import found_clusters
from medstrata.learning.train import collapse_warning
from medstrata.methods.adjusting import learn_batches

if TYPE_CHECKING:
    from medstrata.methods.method import ClusteringMethod

READ = (  # the attributes of a method that reading the clusters sets
    *("labels_", "n_clusters_", "embedding_size_", "reader_", "reading_"),
    *("adjustment_", "unadjusted_labels_", "warnings_"),
)


def clusters_asked(method: ClusteringMethod, z: torch.Tensor, comm: Comm = ALONE) -> int:
    """Return K: as asked for, or with "auto" as the embeddings z (n, Z) of all processes say."""
    if not isinstance(method.n_clusters, str):
        return method.n_clusters
    everyone = comm.gather(z)
    return comm.first(lambda: found_clusters(everyone, method.random_state))


def read_clusters_of(method: ClusteringMethod, z: torch.Tensor, batches: InBatches | None, comm: Comm) -> None:
    """Read the clusters of ``method`` off the embeddings z (N, Z) of all images; every process ends with the same."""
    tensors, values = comm.first(lambda: _reading(method, z, batches))
    if comm.rank:
        restore_module("network", method.network_, tensors)
        for name, value in values.items():
            setattr(method, name, value)
    for module in (method.reader_, method.adjustment_):
        if module is not None:
            module.to(method.device_)


def _reading(method: ClusteringMethod, z: torch.Tensor, batches: InBatches | None) -> tuple[Tensors, dict[str, Any]]:
    """Read them in this process; return what that has changed: the network's tensors, and attributes."""
    method._read(learn_batches(method, z, batches))
    if sentence := collapse_warning(torch.from_numpy(method.labels_), method.n_clusters_):
        method.warnings_.append(sentence)
        warnings.warn(sentence, stacklevel=5)
    attributes = {name: vars(method)[name] for name in READ if name in vars(method)}
    return module_tensors("network", method.network_), attributes
