"""Random numbers of the parts of a batch are those of the batch."""

from __future__ import annotations

import pytest
import torch

from medstrata.learning.augment import AUGMENTATIONS, augment
from medstrata.learning.chance import BatchGenerator, batch_size, integers, normal, uniform
from medstrata.learning.comm import Comm, generator


def parts(count: int, world: int) -> list[tuple[slice, BatchGenerator]]:
    shares = [Comm(rank, world).share(count) for rank in range(world)]
    return [(share, BatchGenerator.of(generator(5), count, share)) for share in shares]


def test_parts_make_up_the_whole() -> None:
    for share, chance in parts(7, 3):
        whole, size = generator(5), share.stop - share.start
        for _ in range(2):  # the next numbers too
            assert torch.equal(uniform((size, 3), chance), torch.rand(7, 3, generator=whole)[share])
            assert torch.equal(normal((size,), chance), torch.randn(7, generator=whole)[share])
            assert torch.equal(integers(9, (size, 2), chance), torch.randint(9, (7, 2), generator=whole)[share])
        assert batch_size(size, chance) == 7
    assert batch_size(7, generator(0)) == 7


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
@pytest.mark.parametrize("shape", [(7, 3, 12, 12), (5, 1, 6, 8, 8)])
def test_views_of_parts_are_those_of_the_batch(name: str, shape: tuple[int, ...]) -> None:
    images, chance = torch.randn(shape, generator=generator(0)), generator(5)
    whole = [augment(images, AUGMENTATIONS[name], chance) for _ in range(2)]
    for share, own in parts(shape[0], 2):
        for view in whole:
            assert torch.allclose(augment(images[share], AUGMENTATIONS[name], own), view[share], atol=1e-5)
