"""Within-batch normalisation against a naive reference, and the container of images in batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medstrata.errors import FitError
from medstrata.learning.adjustment import LARGEST_FACTOR, Adjustment, InBatches, apart, learn_adjustment


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (90, 4) of three batches with means and scales of their own, some of unknown batches."""
    generator = np.random.default_rng(seed)
    numbers = np.arange(90) % 4 - 1
    z = generator.normal(size=(90, 4)) * (1.5 + numbers)[:, None] + 10 * numbers[:, None]
    return z.astype(np.float32), numbers


def naive(z: np.ndarray, numbers: np.ndarray, count: int) -> np.ndarray:
    """The docstring of the module, one value at a time."""
    z, known = z.astype(np.float64), numbers >= 0
    result = z.copy()
    for column in range(z.shape[1]):
        squares = 0.0
        for number in range(count):
            own = z[numbers == number, column]
            squares += float(((own - own.mean()) ** 2).sum())
        scale = np.sqrt(squares / known.sum())
        for number in range(count):
            own = z[numbers == number, column]
            result[numbers == number, column] = (own - own.mean()) / own.std() * scale + z[known, column].mean()
    return result


def test_it_is_the_naive_reference_and_unknown_batches_are_left_as_they_are() -> None:
    z, numbers = planted()
    adjusted = learn_adjustment(torch.from_numpy(z), numbers, 3)(torch.from_numpy(z), numbers).numpy()
    assert np.allclose(adjusted, naive(z, numbers, 3), atol=1e-4)
    assert np.array_equal(adjusted[numbers < 0], z[numbers < 0])


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_batches_have_one_mean_and_scale_and_the_mean_of_all_stays(seed: int) -> None:
    z, numbers = planted(seed)
    adjusted = learn_adjustment(torch.from_numpy(z), numbers, 3)(torch.from_numpy(z), numbers).numpy()
    for number in range(3):
        assert np.allclose(adjusted[numbers == number].mean(0), z[numbers >= 0].mean(0), atol=1e-3)
        assert np.allclose(adjusted[numbers == number].std(0), adjusted[numbers == 0].std(0), rtol=1e-3)


def test_without_numbers_every_image_is_of_an_unknown_batch() -> None:
    z, numbers = planted()
    adjustment = learn_adjustment(torch.from_numpy(z), numbers, 3)
    assert torch.equal(adjustment(torch.from_numpy(z)), torch.from_numpy(z))


def test_one_batch_changes_nothing_but_rounding() -> None:
    z, _ = planted()
    numbers = np.zeros(90, np.int64)
    adjusted = learn_adjustment(torch.from_numpy(z), numbers, 1)(torch.from_numpy(z), numbers)
    assert np.allclose(adjusted.numpy(), z, atol=1e-5)


def test_batches_of_one_image_or_none_are_left_and_constant_values_are_not_stretched_without_end() -> None:
    z = torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0], [9.0, 1.0]])
    adjustment = learn_adjustment(z, np.array([0, 0, 0, 1]), 3)
    assert torch.equal(adjustment.factors[1:3], torch.ones(2, 2)) and not adjustment.shifts[1:3].any()
    assert torch.isfinite(adjustment.factors).all() and torch.equal(adjustment.factors[:, 1], torch.ones(4))
    flat = torch.cat([torch.full((5, 1), 3.0), torch.arange(5.0)[:, None]])
    assert float(learn_adjustment(flat, np.repeat([0, 1], 5), 2).factors[0]) == LARGEST_FACTOR
    assert torch.equal(learn_adjustment(z, np.full(4, -1), 2).factors, Adjustment(2, 2).factors)


def test_rows_of_images_in_batches() -> None:
    images = np.arange(24).reshape(6, 1, 2, 2)
    X = InBatches(images, np.array([0, 1, -1, 0, 1, 1]), 2)
    some = X[np.array([False, True, True, False, False, True])]
    assert len(X) == 6 and len(some) == 3 and some.count == 2
    assert np.array_equal(some.images, images[[1, 2, 5]]) and some.numbers.tolist() == [1, -1, 1]
    taken, batches = apart(X, lambda array: array + 1)
    assert batches is X and np.array_equal(taken, images + 1)
    assert apart(images, lambda array: array)[1] is None


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ([0, 1], "2 batches were given for 3 images"),
        ([0, 2, 1], "0 to 1"),
        ([0, -2, 1], "-1"),
        ([0.0, 1.0, 1.0], "whole"),
    ],
)
def test_bad_batches_are_told(numbers: list[float], sentence: str) -> None:
    with pytest.raises(FitError, match=sentence):
        InBatches(np.zeros((3, 4, 4)), np.array(numbers), 2)
