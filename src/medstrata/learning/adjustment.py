"""Within-batch normalisation: each batch of images has its own mean and scale of the embedding, and loses them.

A batch is what was made in one way, such as by the scanners of one manufacturer. Embeddings of all batches are brought
to the mean of all images and to the standard deviation within batches, value by value; this is the location and scale
model of Johnson, Li and Rabinovic, Biostatistics 8, 2007, without its shrinkage. Whatever else makes batches differ in
mean and scale is removed too, the mix of groups among it: it is valid where every group is in every batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medstrata.errors import FitError
from medstrata.learning.batches import Images

UNKNOWN = -1  # the number of an image whose batch the model does not know
LARGEST_FACTOR = 10.0  # by which a value that hardly varies within a batch is stretched


@dataclass(frozen=True)
class InBatches:
    """Images or vectors (N, ...) with the ``numbers`` (N,) of their batches, 0 to ``count`` - 1, -1 for unknown ones.

    Methods take it in place of the images alone. Rows are taken as from an array.

    Raises
    ------
    FitError : not one number per image, or a number outside that range
    """

    images: NDArray[Any]
    numbers: NDArray[np.int64]
    count: int

    def __post_init__(self) -> None:
        if not isinstance(self.numbers, np.ndarray) or self.numbers.dtype.kind not in "iu":
            raise FitError("The numbers of batches must be an array of whole numbers, such as int64.")
        if len(self.images) != len(self.numbers):
            raise FitError(f"{len(self.numbers)} batches were given for {len(self.images)} images. Give one per image.")
        if len(self.numbers) and not UNKNOWN <= int(self.numbers.min()) <= int(self.numbers.max()) < self.count:
            raise FitError(f"Batches have numbers from 0 to {self.count - 1}, or -1 where the batch is not known.")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Any) -> InBatches:
        return InBatches(self.images[rows], self.numbers[rows], self.count)


def apart(X: Any, as_images: Callable[[Any], Images]) -> tuple[Images, InBatches | None]:
    """Return ``as_images`` of the images in ``X``, and ``X`` itself where it says their batches."""
    return (as_images(X.images), X) if isinstance(X, InBatches) else (as_images(X), None)


class Adjustment(nn.Module):
    """Embeddings (n, Z) -> adjusted embeddings (n, Z): ``factors`` times z plus ``shifts``, (B + 1, Z) both.

    One row for each of B batches. The last row is for images of an unknown batch: the mean over all batches, which
    leaves them as they are.
    """

    factors: torch.Tensor
    shifts: torch.Tensor

    def __init__(self, count: int, embedding_size: int) -> None:
        super().__init__()
        self.register_buffer("factors", torch.ones(count + 1, embedding_size))
        self.register_buffer("shifts", torch.zeros(count + 1, embedding_size))

    def forward(self, z: torch.Tensor, numbers: NDArray[np.int64] | None = None) -> torch.Tensor:
        """``numbers`` (n,): the batch of each row of z (n, Z), -1 for unknown; None: the last row for all."""
        rows = torch.tensor([UNKNOWN]) if numbers is None else torch.from_numpy(numbers)
        rows = rows.to(self.factors.device)
        return self.factors[rows] * z + self.shifts[rows]


def learn_adjustment(z: torch.Tensor, numbers: NDArray[np.int64], count: int) -> Adjustment:
    """Learn from embeddings z (N, Z) of batches ``numbers`` (N,) how to bring ``count`` batches to a common place.

    The common mean is that of all images of known batches, the common scale the root of their mean squared distance
    from the means of their batches. A batch of fewer than two images, as a subset may have, is left as it is.
    """
    adjustment = Adjustment(count, z.shape[1]).to(z.device)
    number = torch.from_numpy(numbers).to(z.device)
    if not bool((number >= 0).any()):
        return adjustment
    mean = z[number >= 0].mean(0)
    parts = {of: z[number == of] for of in range(count)}
    squares = torch.stack([(part - part.mean(0)).square().sum(0) for part in parts.values() if len(part)]).sum(0)
    scale = (squares / (number >= 0).sum()).sqrt()
    for of, part in parts.items():
        if len(part) > 1:
            own = (part - part.mean(0)).square().mean(0).sqrt()
            factor = torch.where(scale > 0, scale / own.clamp_min(1e-30), 1.0).clamp_max(LARGEST_FACTOR)
            adjustment.factors[of] = factor
            adjustment.shifts[of] = mean - factor * part.mean(0)
    return adjustment
