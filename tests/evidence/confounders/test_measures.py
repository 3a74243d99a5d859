"""Measures of pixels: against naive references on small arrays, monotone in blur and noise, and on real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.ndimage import gaussian_filter

from medstrata.evidence.confounders import measures
from medstrata.evidence.confounders.columns import TechnicalColumn
from medstrata.evidence.confounders.confounders import find_confounders
from medstrata.evidence.confounders.measures import (
    LEVELS,
    MEASURES,
    coverage,
    margin,
    measure_pixels,
    noise_level,
    sharpness,
)


def scene(count: int, side: int = 32, seed: int = 0) -> np.ndarray:
    """Smooth structures and a little noise: float (count, side, side) in 0..255."""
    generator = np.random.default_rng(seed)
    smooth = gaussian_filter(generator.normal(size=(count, side, side)), (0, 2.5, 2.5))
    smooth = 128 + 25 * smooth / smooth.std((1, 2), keepdims=True)
    return np.asarray(smooth + generator.normal(0, 3, smooth.shape))


def stored(images: np.ndarray) -> np.ndarray:
    return images.clip(0, 255).round().astype(np.uint8)[:, None]


def of(images: np.ndarray, name: str) -> np.ndarray:
    pixels = stored(images)
    return np.asarray(measure_pixels(pixels, [str(n) for n in range(len(pixels))])[name].to_numpy())


def naive_margin(image: np.ndarray) -> np.ndarray:
    """Walk inwards from every edge pixel of a 2-D image while the value is that of most corners."""
    corners = sorted(image[[0, 0, -1, -1], [0, -1, 0, -1]].tolist())
    value = max(corners, key=lambda corner: (corners.count(corner), -corner))
    found = np.zeros(image.shape, dtype=bool)
    for turned, marks in ((image, found), (image.T, found.T)):
        for line, mark in zip(turned, marks, strict=True):
            for places in (range(len(line)), range(len(line) - 1, -1, -1)):
                for place in places:
                    if line[place] != value:
                        break
                    mark[place] = True
    return found


SMALL = arrays.arrays(np.uint8, st.tuples(st.just(1), st.integers(3, 6), st.integers(3, 6)), elements=st.integers(0, 3))


@given(SMALL)
@settings(max_examples=60, deadline=None)
def test_margin_is_a_walk_from_the_edges(block: np.ndarray) -> None:
    np.testing.assert_array_equal(margin(block.astype(np.float32))[0], naive_margin(block[0]))


@given(SMALL)
@settings(max_examples=60, deadline=None)
def test_sharpness_and_noise_by_loops(block: np.ndarray) -> None:
    grey = block.astype(np.float32) / 3
    image, padded = grey[0].astype(np.float64), naive_margin(block[0])
    steps, residuals = [], []
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            if j and not padded[i, j] and not padded[i, j - 1]:
                steps.append(abs(image[i, j] - image[i, j - 1]))
            if 0 < i < image.shape[0] - 1 and 0 < j < image.shape[1] - 1 and not padded[i, j]:
                window = image[i - 1 : i + 2, j - 1 : j + 2]
                residuals.append(abs((window * [[1, -2, 1], [-2, 4, -2], [1, -2, 1]]).sum()))
    inside = image[~padded]
    expected = np.mean(steps) / inside.std() if steps and inside.std() > 1e-6 else 0.0
    assert sharpness(grey, margin(grey))[0] == pytest.approx(expected, abs=1e-4)
    level = np.median(residuals) / 0.67449 / 6 if residuals else 0.0
    assert noise_level(grey, margin(grey))[0] == pytest.approx(level, abs=1e-5)


@given(SMALL)
@settings(max_examples=60, deadline=None)
def test_coverage_is_otsu_by_trying_every_threshold(block: np.ndarray) -> None:
    flat = block.ravel().astype(np.float64)
    if flat.min() == flat.max():
        assert coverage(block.astype(np.float32))[0] == 0
        return
    levels = ((flat - flat.min()) / (flat.max() - flat.min()) * (LEVELS - 1)).round()
    scores = []
    for threshold in range(LEVELS - 1):
        below, above = levels[levels <= threshold], levels[levels > threshold]
        scores.append(len(below) * len(above) * (below.mean() - above.mean()) ** 2)
    best = {round(float((levels > t).mean()), 9) for t, score in enumerate(scores) if score >= max(scores) * (1 - 1e-9)}
    assert round(float(coverage(block.astype(np.float32))[0]), 9) in best


def test_a_whole_answer() -> None:
    """A square of 4 x 4 in a black frame, its right half brighter by 51."""
    image = np.zeros((1, 1, 8, 8), dtype=np.uint8)
    image[0, 0, 2:6, 2:6] = [102, 102, 153, 153]
    row = measure_pixels(image, ["a"]).to_pylist()[0]
    assert row.pop("image_id") == "a"
    assert row == pytest.approx(
        {
            "sharpness": (0.2 / 3) / 0.1,  # one of three steps is 0.2; the standard deviation is 0.1
            "noise": 0.1 / 0.6744897502 / 6,  # residuals: eight are 0, four 0.2, two 0.4, two 0.6
            "padding": 0.75,
            "coverage": 0.25,
            "mean_intensity": 0.125,
            "intensity_spread": float(np.concatenate([np.zeros(48), np.repeat([0.4, 0.6], 8)]).std()),
        }
    )


def test_noise_is_measured_in_grey_values_and_rises() -> None:
    generator = np.random.default_rng(1)
    levels = [0.0, 4.0, 8.0, 16.0]
    found = [of(np.full((20, 64, 64), 128.0) + generator.normal(0, level, (20, 64, 64)), "noise") for level in levels]
    assert found[0].max() == 0
    for level, measured in zip(levels[1:], found[1:], strict=True):
        assert measured.mean() == pytest.approx(level / 255, rel=0.05)
    images = scene(20)
    rising = [of(images + generator.normal(0, level, images.shape), "noise").mean() for level in levels]
    assert (np.diff(rising) > 0).all()


def test_sharpness_falls_with_every_blur_of_every_image_and_contrast_changes_nothing() -> None:
    images = scene(20)
    found = [of(gaussian_filter(images, (0, width, width)), "sharpness") for width in (0, 0.5, 1, 2)]
    assert (np.diff(found, axis=0) < 0).all()
    weak = 128 + 0.5 * (images - 128)
    np.testing.assert_allclose(of(weak, "sharpness"), found[0], rtol=0.02)


def test_padding_moves_neither_sharpness_nor_noise() -> None:
    images = scene(5)
    padded = np.pad(images, ((0, 0), (16, 16), (16, 16)))
    assert of(padded, "padding") == pytest.approx(np.full(5, 0.75), abs=0.001)
    assert of(images, "padding").max() < 0.02
    np.testing.assert_allclose(of(padded, "sharpness"), of(images, "sharpness"), rtol=0.03)


def test_volumes_16_bits_channels_and_slices_of_one_image() -> None:
    images = stored(scene(6)).astype(np.uint16) * 257
    assert of(scene(6), "sharpness") == pytest.approx(measure_pixels(images, list("abcdef"))["sharpness"].to_numpy())
    volume = measure_pixels(images.reshape(2, 1, 3, 32, 32), ["a", "b"])
    assert volume["mean_intensity"].to_pylist() == pytest.approx((images / 65535).reshape(2, -1).mean(1).tolist())
    colours = np.repeat(images, 3, axis=1)
    assert measure_pixels(colours, list("abcdef")).to_pydict() == measure_pixels(images, list("abcdef")).to_pydict()
    single = {name: measure_pixels(images, list("abcdef"))[name].to_numpy() for name in MEASURES}
    table = measure_pixels(images, ["z", "b", "z", "a", "b", "z"])
    assert table["image_id"].to_pylist() == ["z", "b", "a"]
    for name in MEASURES:
        expected = [single[name][[0, 2, 5]].mean(), single[name][[1, 4]].mean(), single[name][3]]
        assert table[name].to_pylist() == pytest.approx(expected)


def test_blocks_change_nothing_and_a_mapped_file_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, names = stored(scene(9)), [str(n) for n in range(9)]
    whole = measure_pixels(images, names)
    np.save(tmp_path / "pixels.npy", images)
    monkeypatch.setattr(measures, "BLOCK_BYTES", 3 * 4 * 32 * 32)
    assert measure_pixels(np.load(tmp_path / "pixels.npy", mmap_mode="r"), names).equals(whole)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2), (1, 2, 8), (2, 1, 1, 3)])
def test_images_too_small_for_a_measure_give_numbers(shape: tuple[int, ...]) -> None:
    row = measure_pixels(np.zeros((1, *shape), dtype=np.uint8), ["a"]).to_pylist()[0]
    assert all(np.isfinite(row[name]) for name in MEASURES) and row["sharpness"] == row["noise"] == 0


def test_pneumoniamnist_is_told_by_its_sharpness(data_dir: Path) -> None:
    file = data_dir / "pneumoniamnist_trainval.npz"
    if not file.exists():
        pytest.skip("pneumoniamnist_trainval.npz is absent")
    with np.load(file) as data:
        pixels, labels = data["images"][:, None], data["labels"]
    ids = [str(n) for n in range(len(pixels))]
    table = measure_pixels(pixels, ids)
    columns = [TechnicalColumn(name, "pixels", table[name].to_numpy()) for name in MEASURES]
    found = find_confounders(columns, labels, ids)
    assert {(entry["column"], entry["cluster"], entry["origin"]) for entry in found["named"]} == {
        ("sharpness", 0, "pixels"),
        ("sharpness", 1, "pixels"),
    }
    strongest = found["kinds"][0]["associations"][0]
    assert strongest["column"] == "sharpness" and 0.82 <= strongest["balanced_accuracy"] <= 0.87
    assert found["kinds"][0]["pixels"]["balanced_accuracy"] >= 0.86
    assert (
        found["sentences"][1]
        == "Cluster 1 holds mostly images that are blurred (sharpness: AUC 0.91 against the rest)."
    )
