"""Random numbers of a batch, one row per image: the same whether one process has the batch or several its parts."""

from __future__ import annotations

import torch


class BatchGenerator(torch.Generator):
    """The random numbers of a batch of ``size`` images, of which this process has those at ``part``.

    Rows are drawn for the whole batch and those of the part are kept.
    """

    size: int
    part: slice

    @classmethod
    def of(cls, source: torch.Generator, size: int, part: slice) -> BatchGenerator:
        """Go on from the state of ``source``."""
        generator = cls()
        generator.set_state(source.get_state())
        generator.size, generator.part = size, part
        return generator


def batch_size(rows: int, generator: torch.Generator) -> int:
    """Return how many images the whole batch has; ``rows``: those of this process."""
    return generator.size if isinstance(generator, BatchGenerator) else rows


def _part(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return rows[generator.part] if isinstance(generator, BatchGenerator) else rows


def uniform(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return numbers from 0 to 1, ``shape`` with the images of this process first."""
    return _part(torch.rand(batch_size(shape[0], generator), *shape[1:], generator=generator), generator)


def normal(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return standard normal numbers, ``shape`` with the images of this process first."""
    return _part(torch.randn(batch_size(shape[0], generator), *shape[1:], generator=generator), generator)


def integers(high: int, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return whole numbers from 0 to ``high`` - 1, ``shape`` with the images of this process first."""
    return _part(torch.randint(high, (batch_size(shape[0], generator), *shape[1:]), generator=generator), generator)
