"""The nearest of many centres for each of many vectors, block by block: the inner loop of k-means.

Shapes: n vectors of Z values, K centres. On a processor the time goes into memory, not into arithmetic, so that what is
written is read again while it is still in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch.linalg import vecdot

BLOCK = 1 << 13  # vectors that are read at once
IN_CACHE = 1 << 18  # distances that are held at once


@dataclass(frozen=True)
class Blocks:
    """``count`` vectors (count, Z) less ``offset`` (Z,), brought into memory by ``read``: a slice or row numbers."""

    read: Callable[[Any], torch.Tensor]
    count: int
    offset: torch.Tensor | float = 0.0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: Any) -> torch.Tensor:
        return self.read(rows) - self.offset

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield one block after the other, each in the memory of the one before it."""
        memory: torch.Tensor | None = None
        for number in range(number_of_blocks(self.count)):
            block = self.read(self._rows(number))
            memory = torch.empty_like(block) if memory is None else memory  # the first block is the largest
            yield torch.sub(block, self.offset, out=memory[: len(block)])

    @cached_property
    def squares(self) -> torch.Tensor:
        """Squared lengths (count,)."""
        return torch.cat([vecdot(block, block) for block in self])

    def block(self, number: int) -> torch.Tensor:
        """Return block ``number``, empty after the last."""
        return self[self._rows(number)]

    def _rows(self, number: int) -> slice:
        return slice(number * BLOCK, min((number + 1) * BLOCK, max(self.count, number * BLOCK)))


def number_of_blocks(count: int) -> int:
    """Return in how many blocks ``count`` vectors are read."""
    return -(-count // BLOCK)


def nearest(vectors: torch.Tensor, centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest centre's index (n,) and squared distance (n,) for each vector of a block."""
    labels, halves = lowest(vectors, centres, centres.square().sum(1) / 2)
    return labels, (vecdot(vectors, vectors) + 2 * halves).clamp_min(0)


def most_alike(directions: torch.Tensor, prototypes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the most alike prototype's index (n,) and the cosine (n,) for each unit vector (n, Z)."""
    labels, opposite = lowest(directions, prototypes, prototypes.new_zeros(len(prototypes)))
    return labels, -opposite


def lowest(vectors: torch.Tensor, centres: torch.Tensor, offsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the column (n,) and the value (n,) of the lowest number in each row of offsets - vectors @ centres.T.

    With offsets |c|^2 / 2 that is |v - c|^2 / 2 without |v|^2 / 2, which is the same for every centre.
    """
    rows = max(1, IN_CACHE // len(centres)) if vectors.device.type == "cpu" else max(1, len(vectors))
    values = vectors.new_empty(min(rows, len(vectors)), len(centres))
    labels = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
    lowest = vectors.new_empty(len(vectors))
    for start in range(0, len(vectors), rows):
        here = slice(start, start + rows)
        block = vectors[here]
        found = torch.addmm(offsets, block, centres.T, alpha=-1, out=values[: len(block)])
        labels[here] = _smallest(found)
        lowest[here] = found.gather(1, labels[here, None])[:, 0]
    return labels, lowest


def _smallest(values: torch.Tensor) -> torch.Tensor:
    """Return the column (n,) of the smallest number in each row of ``values`` (n, K)."""
    # numpy's search takes a fifth of the time of torch's on a processor
    return torch.from_numpy(values.numpy().argmin(1)) if values.device.type == "cpu" else values.argmin(1)


def sums_by_label(vectors: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    """Return the sum (count, Z) of the vectors (n, Z) that have each label."""
    if vectors.device.type != "cpu":
        return vectors.new_zeros(count, vectors.shape[1]).index_add_(0, labels, vectors)
    # As a product with the sparse one-hot matrix of labels: a quarter of the time of index_add_.
    starts = np.arange(len(labels) + 1)
    one_hot = csr_matrix((np.ones(len(labels), vectors.numpy().dtype), labels.numpy(), starts), (len(labels), count))
    return torch.from_numpy(one_hot.T @ vectors.numpy())
