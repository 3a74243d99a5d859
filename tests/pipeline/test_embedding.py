"""Embeddings in blocks: the means of images, wherever a block ends."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from command_line import images
from medstrata.methods.principal import PrincipalComponents
from medstrata.pipeline.embedding import _by_image, _Rows, write_embeddings
from medstrata.pipeline.fitting import average_rows


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_images_may_lie_in_any_blocks(rows_of_images: list[int], sizes: list[int]) -> None:
    image_of = np.repeat(np.arange(len(rows_of_images)), rows_of_images)
    values = np.random.default_rng(0).normal(size=(len(image_of), 3)).astype(np.float32)
    starts = np.cumsum([0, *(sizes * len(image_of))])
    blocks = [values[start:stop] for start, stop in pairwise(starts) if start < len(values)]
    found = list(_by_image(iter(blocks), image_of))
    np.testing.assert_array_equal(np.concatenate(found), average_rows(image_of, values)[1])


def test_the_columns_are_parted_into_two_files(tmp_path: Path) -> None:
    blocks = [np.arange(10, dtype=np.float32).reshape(2, 5), np.arange(10, 15, dtype=np.float32).reshape(1, 5)]
    write_embeddings(tmp_path, iter(blocks), np.array([0, 1, 1]), 2)
    z, q = np.load(tmp_path / "embeddings.npy"), np.load(tmp_path / "soft_assignments.npy")
    assert z.dtype == q.dtype == np.float32
    assert z.tolist() == [[0, 1, 2], [7.5, 8.5, 9.5]] and q.tolist() == [[3, 4], [10.5, 11.5]]


def pixels_of(out: Path) -> np.ndarray:
    return np.load(out / "pixels.npy", mmap_mode="r")


def test_new_pixels_under_an_old_model_are_read_anew(tmp_path: Path) -> None:
    """A worker keeps model and pixels open from one shard to the next, but not from one run to the next."""
    pixels = images(24)[0][:, None]
    model = PrincipalComponents(3).fit(pixels)
    model.save(tmp_path)
    for token, stored in (("one", pixels), ("another", pixels[::-1])):
        np.save(tmp_path / "new.npy", stored)
        (tmp_path / "new.npy").rename(tmp_path / "pixels.npy")
        (block,) = _Rows(tmp_path, "cpu", pixels_of, token, 24)([0])
        np.testing.assert_array_equal(np.load(io.BytesIO(block))[:, :-3], model.transform(stored))
