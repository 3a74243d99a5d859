"""What every training loop shares: settings, the order of batches, checkpoints, the collapse watch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from medstrata.errors import RunFolderError
from medstrata.learning.comm import generator
from medstrata.run import atomic


@dataclass(frozen=True)
class Training:
    """How long and how fast to train.

    ``warmup_epochs`` and ``warmup_steps``: epochs of the autoencoder alone, more of them where a small set would make
    fewer steps of the optimiser; ``epochs``: at most so many with the clustering objective;
    ``target_interval``: epochs between two target distributions; ``tolerance``: stop when a smaller share of labels
    changes between two target distributions (0: never). ``spherical_start``: whether the k-means that finds the first
    prototypes compares directions from the mean embedding (True) or distances.
    """

    warmup_epochs: int = 30
    warmup_steps: int = 500
    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 1e-3
    target_interval: int = 1
    tolerance: float = 0.001
    spherical_start: bool = True

    def warmup_length(self, count: int) -> int:
        """Return the number of warm-up epochs for ``count`` images."""
        steps_of_an_epoch = -(-count // self.batch_size)
        return max(self.warmup_epochs, -(-self.warmup_steps // steps_of_an_epoch))


def batches(count: int, batch_size: int, *seeds: int) -> Iterator[torch.Tensor]:
    """Yield a random permutation of ``range(count)`` in batches; the same seeds give the same batches."""
    yield from torch.randperm(count, generator=generator(*seeds)).split(batch_size)


def size_entropy(labels: torch.Tensor, n_clusters: int) -> float:
    """Return the entropy of the cluster sizes over its maximum log K: 1 = equal sizes, 0 = everything in one."""
    if n_clusters == 1:
        return 1.0
    shares = torch.bincount(labels, minlength=n_clusters).double() / len(labels)
    return float(-(shares[shares > 0] * shares[shares > 0].log()).sum() / torch.tensor(float(n_clusters)).log())


def collapse_warning(labels: torch.Tensor, n_clusters: int) -> str:
    """Say in words that a clustering is collapsing, or "" where it is not."""
    counts = torch.bincount(labels, minlength=n_clusters)
    used, largest = int((counts > 0).sum()), float(counts.max()) / len(labels)
    if used < n_clusters:
        return (
            f"Only {used} of the {n_clusters} clusters asked for hold any image: the clustering has partly collapsed."
        )
    if n_clusters > 1 and largest > 0.9:
        return f"One cluster holds {largest:.0%} of all images: the clustering is close to collapse."
    return ""


def save_state(path: Path, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
    """Write tensors and JSON values into one safetensors file, atomically."""
    # The bytes are written by us, not by safetensors, so that a full disk is an OSError as everywhere.
    with atomic(path) as part:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        part.write_bytes(save(contiguous, metadata={"json": json.dumps(values)}))


def load_state(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what ``save_state`` wrote. Nothing in the file is ever executed.

    Raises
    ------
    RunFolderError : the file is damaged or is something else
    """
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads((file.metadata() or {})["json"])
            return {name: file.get_tensor(name) for name in file.keys()}, values  # noqa: SIM118 - no mapping
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise RunFolderError(
            f"{path.name} is damaged or not ours. Delete it and run the same command again."
        ) from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Flatten an optimizer's state to named tensors."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{index}.{key}": value for index, entry in state.items() for key, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Put the tensors of ``optimizer_tensors`` back."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
