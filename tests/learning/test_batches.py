"""Shapes, checks and preprocessing of image arrays."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from medstrata.errors import FitError
from medstrata.learning import batches
from medstrata.learning.batches import Images, as_images, blocks, in_blocks, measure
from medstrata.run import no_progress

CPU = torch.device("cpu")


def test_shapes_are_viewed_not_copied() -> None:
    x = np.zeros((5, 4, 4), np.uint8)
    assert as_images(x).shape == (5, 1, 4, 4) and np.shares_memory(as_images(x), x)
    assert as_images(np.zeros((2, 3, 4, 4, 4))).shape == (2, 3, 4, 4, 4)
    assert as_images(np.zeros((2, 4, 4), bool)).dtype == np.uint8


def test_what_would_be_lost_or_mistaken_is_told() -> None:
    hidden = np.ma.masked_less(np.full((3, 4, 4), -9.0), -1)
    with pytest.raises(FitError, match="would lose their mask"):
        as_images(hidden)
    assert as_images(np.ma.array(np.zeros((3, 4, 4)))).shape == (3, 1, 4, 4), "nothing is masked"
    with pytest.raises(FitError, match="several sizes"):
        as_images([np.zeros((4, 4)), np.zeros((5, 4))])
    with pytest.warns(UserWarning, match=r"taken as 2-D images of 16 channels. Volumes are \(N, 1, D, H, W\)"):
        as_images(np.zeros((2, 16, 16, 16)))


def test_blocks_cover_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BLOCK_BYTES", 4 * 16 * 3)
    found = np.concatenate([np.arange(part.start, part.stop) for part in blocks(np.zeros((10, 1, 4, 4)))])
    assert found.tolist() == list(range(10))


def test_embeddings_of_blocks_are_not_kept_one_by_one() -> None:
    """Each would pin the larger tensors that were freed around it: 1.8 GB more on 50,000 images of 64 x 64."""
    alive: list[weakref.ref[torch.Tensor]] = []

    def embed(some: Images) -> torch.Tensor:
        assert sum(one() is not None for one in alive) <= 1
        z = torch.from_numpy(some.reshape(len(some), -1) * 2.0)
        alive.append(weakref.ref(z))
        return z

    images = np.arange(10.0).reshape(10, 1, 1, 1)
    assert in_blocks(images, 3, embed, no_progress).tolist() == [[2.0 * i] for i in range(10)]
    assert len(alive) == 4


def test_centred_gives_mean_0_and_deviation_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BLOCK_BYTES", 4 * 64 * 7)
    x = np.random.default_rng(0).integers(0, 4096, (50, 1, 8, 8)).astype(np.uint16)
    seen = measure(x, "centred")(x, CPU)
    assert float(seen.mean()) == pytest.approx(0, abs=1e-4) and float(seen.std()) == pytest.approx(1, abs=1e-3)


def test_published_divides_by_the_maximum_and_fills_the_background() -> None:
    x = np.array([[[0, 2], [4, 10]], [[0, 0], [4, 4]]], np.float32)[:, None]
    seen = measure(x, "published")(x, CPU)
    mean = (2 + 4 + 10 + 4 + 4) / 5 / 10
    assert seen[0, 0].flatten().tolist() == pytest.approx([mean, 0.2, 0.4, 1.0])
    assert seen[1, 0].flatten().tolist() == pytest.approx([mean, mean, 0.4, 0.4])


def test_constant_images_of_different_values_are_allowed() -> None:
    x = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 4, 4), np.uint8)
    assert torch.isfinite(measure(x, "centred")(x, CPU)).all()


def test_first_bad_image_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BLOCK_BYTES", 4 * 16 * 2)
    x = np.random.default_rng(0).random((9, 1, 4, 4))
    x[7, 0, 1, 1] = np.nan
    with pytest.raises(FitError, match="Image 7"):
        measure(x, "centred")


def test_read_only_memory_maps_give_no_warning(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((4, 1, 8, 8)).astype(np.float32))
    images = as_images(np.load(tmp_path / "x.npy", mmap_mode="r"))
    x = measure(images, "scaled")(images[:2], torch.device("cpu"))
    before = np.array(images[:2])
    x.zero_()
    assert np.array_equal(images[:2], before)
