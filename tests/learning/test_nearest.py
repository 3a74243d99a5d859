"""The inner loop of k-means against the sums written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medstrata.learning import nearest as nearest_module
from medstrata.learning.nearest import Blocks, most_alike, nearest, number_of_blocks, sums_by_label


@pytest.mark.parametrize("numbers_at_once", [1, 12, 1 << 18])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearest_is_the_naive_distance(
    numbers_at_once: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest_module, "IN_CACHE", numbers_at_once)
    random = torch.Generator().manual_seed(0)
    x, c = torch.randn(50, 3, generator=random, dtype=dtype), torch.randn(4, 3, generator=random, dtype=dtype)
    labels, distances = nearest(x, c)
    naive = torch.tensor([[float(((a - b) ** 2).sum()) for b in c] for a in x], dtype=dtype)
    assert torch.equal(labels, naive.argmin(1)) and torch.allclose(distances, naive.min(1).values, atol=1e-5)


def test_of_no_vectors_none_has_a_nearest() -> None:
    labels, distances = nearest(torch.empty(0, 3), torch.zeros(4, 3))
    assert labels.shape == distances.shape == (0,)


def test_most_alike_is_the_largest_cosine() -> None:
    x, c = torch.tensor([[0.6, 0.8], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    labels, cosines = most_alike(x, c)
    assert labels.tolist() == [1, 0] and cosines.tolist() == pytest.approx([0.8, 1.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_by_label_are_sums(dtype: torch.dtype) -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=dtype)
    sums = sums_by_label(x, torch.tensor([2, 0, 2]), 4)
    assert sums.dtype == dtype and sums.tolist() == [[3, 4], [0, 0], [6, 8], [0, 0]]


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (4, [4]), (5, [4, 1])])
def test_blocks_are_centred_and_whole(count: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_module, "BLOCK", 4)
    x = torch.arange(2.0 * count).reshape(count, 2)
    blocks = Blocks(x.__getitem__, count, torch.tensor([1.0, 0.0]))
    expected = x.numpy() - np.array([1, 0])
    read = [block.numpy().copy() for block in blocks]
    assert [len(block) for block in read] == sizes and number_of_blocks(count) == len(sizes)
    if count:
        assert np.array_equal(np.concatenate(read), expected)
        assert np.array_equal(blocks.squares.numpy(), (expected**2).sum(1))
        assert np.array_equal(blocks[torch.tensor([count - 1])].numpy(), expected[-1:])
