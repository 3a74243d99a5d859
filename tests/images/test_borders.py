"""Padding at the borders is found, and the grid laid over what is left."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medstrata.images import grid
from medstrata.images.borders import content_axes, content_box


def padded(height: int, width: int, top: int, left: int, value: float, shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    """One image of noise between .4 and .6 in a frame of ``value``."""
    images = np.full((1, 1, *shape), value, np.float32)
    noise = np.random.default_rng(0).uniform(0.4, 0.6, (height, width))
    images[0, 0, top : top + height, left : left + width] = noise
    return images


@given(
    height=st.integers(8, 40), width=st.integers(8, 60), place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    value=st.sampled_from([0.0, 1.0]),
)  # fmt: skip
def test_the_padding_is_what_is_cut_off(height: int, width: int, place: tuple[float, float], value: float) -> None:
    top, left = int(place[0] * (40 - height)), int(place[1] * (60 - width))
    rows, columns = content_box(padded(height, width, top, left, value))
    assert (rows.start, rows.stop, columns.start, columns.stop) == (top, top + height, left, left + width)


def test_a_letter_and_noise_in_the_padding_are_no_content() -> None:
    images = padded(20, 20, 10, 20, 0.0)
    images += np.random.default_rng(1).uniform(0, 0.02, images.shape).astype(np.float32)
    images[0, 0, 2, 3] = 1.0
    assert content_box(images) == (slice(10, 30), slice(20, 40))


def test_content_in_one_corner_does_not_count_as_the_padding() -> None:
    assert content_box(padded(20, 20, 0, 0, 0.0)) == (slice(0, 20), slice(0, 20))


def test_slices_of_one_volume_keep_one_box() -> None:
    images = np.concatenate([padded(10, 10, 5, 5, 0.0), padded(10, 10, 20, 40, 0.0)])
    assert content_box(images) == (slice(5, 30), slice(5, 50))


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_an_image_without_content_is_kept_whole(value: float) -> None:
    assert content_box(np.full((1, 1, 20, 30), value, np.float32)) == (slice(0, 20), slice(0, 30))
    assert content_box(padded(4, 30, 10, 10, value * 1.8)) == (slice(0, 40), slice(0, 60))


def test_the_grid_covers_the_content_and_leads_back_to_it() -> None:
    images = np.zeros((1, 1, 40, 60), np.float32)
    images[0, 0, 8:24, 10:42] = 1.0
    placed, crop = grid.place_2d(images, content_axes(images, (32, 32)))
    assert placed.min() > 0.7  # the outermost samples may blend with the padding
    assert placed[0, 0, 1:-1, 1:-1].min() == 1.0
    assert crop == [0.5, 1.0, 7.75, 10.0]
    back = grid.to_source_2d(placed[0, 0], crop, (40, 60))
    np.testing.assert_array_equal(back > 0.4, images[0, 0] > 0)
