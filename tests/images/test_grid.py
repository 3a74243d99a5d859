"""The common grid: every sample against the written formula, every position against millimetres."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medstrata.errors import FileProblem
from medstrata.images import grid


def naive_axis(values: np.ndarray, axis: grid.AxisMap) -> np.ndarray:
    """The formula at the top of grid.py, sample by sample."""
    out = np.zeros(axis.size)
    for i in range(axis.size):
        x = axis.scale * i + axis.offset
        if not -0.5 <= x <= len(values) - 0.5:
            continue
        w = [max(0.0, 1.0 - abs(x - j) / max(1.0, abs(axis.scale))) for j in range(len(values))]
        out[i] = sum(wj * v for wj, v in zip(w, values, strict=True)) / sum(w)
    return out


def rotation(seed: int, limit: float) -> np.ndarray:
    a, b, c = np.random.default_rng(seed).uniform(-limit, limit, 3)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return x @ y @ z


def affine_for(directions: np.ndarray, spacing: tuple[float, float, float], origin: tuple[float, float, float]):
    affine = np.eye(4)
    affine[:3, :3] = directions @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


SPL = np.array([[0, 0, -1], [0, -1, 0], [1, 0, 0]], dtype=float)  # columns: D towards S, H towards P, W towards L


def blob(shape: tuple[int, ...], centre: np.ndarray, affine: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian of ``sigma`` mm around ``centre`` (RAS mm)."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    position = index @ affine[:3, :3].T + affine[:3, 3]
    return np.exp(-((position - centre) ** 2).sum(-1) / (2 * sigma**2)).astype(np.float32)


def centre_of_mass(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    index = np.stack(np.meshgrid(*(np.arange(n) for n in volume.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    weight = volume.reshape(-1).astype(float)
    return (weight @ index / weight.sum()) @ affine[:3, :3].T + affine[:3, 3]


@given(
    values=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12),
    scale=st.floats(0.2, 5).flatmap(lambda s: st.sampled_from([s, -s])),
    offset=st.floats(-4, 12),
    size=st.integers(1, 10),
)
@settings(max_examples=200, deadline=None)
def test_one_axis_follows_the_formula(values: list[float], scale: float, offset: float, size: int) -> None:
    axis = grid.AxisMap(scale, offset, size)
    found = grid.resample(np.array(values, dtype=np.float32), [axis])
    position = scale * np.arange(size) + offset
    clear = np.min(np.abs(position[:, None] - np.array([-0.5, len(values) - 0.5])), axis=1) > 1e-5  # not on the border
    np.testing.assert_allclose(found[clear], naive_axis(np.array(values), axis)[clear], atol=2e-6)


@pytest.mark.parametrize(("source", "side"), [((50, 50), 32), ((16, 16), 32), ((41, 41), 16), ((128, 128), 64)])
def test_filling_a_square_grid_is_pillows_bilinear_resize(source: tuple[int, int], side: int) -> None:
    image = np.random.default_rng(0).random(source).astype(np.float32)
    reference = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
    found, crop = grid.to_grid_2d(image[None], (side, side))
    np.testing.assert_allclose(found[0], reference, atol=1e-5)
    scale = source[0] / side
    np.testing.assert_allclose(crop, [scale, scale, (scale - 1) / 2, (scale - 1) / 2], atol=1e-9)


def test_images_that_fit_are_copied_value_by_value() -> None:
    images = np.random.default_rng(1).random((3, 1, 28, 27)).astype(np.float32)
    found, crop = grid.to_grid_2d(images, (32, 32), (1.0, 1.0))
    assert crop == [1.0, 1.0, -2.0, -3.0]
    np.testing.assert_array_equal(found[:, :, 2:30, 3:30], images)
    assert found.sum() == pytest.approx(images.sum(), rel=1e-5)  # and nothing anywhere else


def test_aspect_is_kept_in_millimetres() -> None:
    image = np.ones((1, 40, 40), dtype=np.float32)  # 40 mm high, 80 mm wide
    found, crop = grid.to_grid_2d(image, (32, 32), None, (1.0, 2.0))
    assert crop[0] == pytest.approx(2.5)
    assert crop[1] == pytest.approx(1.25)
    assert found[0, :, 16].sum() == 16  # half of the height is filled
    assert found[0, 16, :].sum() == 32


def test_step_in_millimetres_holds_for_every_image() -> None:
    coarse, crop_coarse = grid.to_grid_2d(np.ones((1, 20, 20), dtype=np.float32), (64, 64), (1.0, 1.0), (2.0, 2.0))
    fine, crop_fine = grid.to_grid_2d(np.ones((1, 80, 80), dtype=np.float32), (64, 64), (1.0, 1.0), (0.5, 0.5))
    assert crop_coarse[:2] == [0.5, 0.5]
    assert crop_fine[:2] == [2.0, 2.0]
    np.testing.assert_array_equal(coarse, fine)  # both are a square of 40 mm
    assert coarse.sum() == 40 * 40


def test_a_slice_is_turned_towards_left_and_posterior() -> None:
    image = np.arange(16 * 16, dtype=np.float32).reshape(1, 16, 16)
    ras = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=float)  # h to A, w to R
    found, crop = grid.to_grid_2d(image, (16, 16), None, None, ras)
    assert crop == [-1.0, -1.0, 15.0, 15.0]
    np.testing.assert_array_equal(found[0], image[0, ::-1, ::-1])
    shown = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=float)
    np.testing.assert_array_equal(grid.to_grid_2d(image, (16, 16), None, None, shown)[0], image)


@given(
    shape=st.tuples(st.integers(16, 90), st.integers(16, 90)),
    spacing=st.tuples(st.floats(0.5, 2), st.floats(0.5, 2)),
    turned=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_two_dimensions_there_and_back(shape: tuple[int, int], spacing: tuple[float, float], turned: bool) -> None:
    affine = np.diag([1.0, 1.0 if turned else -1.0, 1.0 if turned else -1.0, 1.0])[[2, 1, 0, 3]]
    row, column = shape[0] * 0.4, shape[1] * 0.55
    y, x = np.mgrid[: shape[0], : shape[1]]
    sigma = max(shape) / 10
    image = np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * sigma**2)).astype(np.float32)
    gridded, crop = grid.to_grid_2d(image[None], (32, 32), None, spacing, affine)
    peak = np.unravel_index(np.argmax(gridded[0]), (32, 32))
    assert abs(crop[0] * peak[0] + crop[2] - row) <= abs(crop[0]) * 0.75
    assert abs(crop[1] * peak[1] + crop[3] - column) <= abs(crop[1]) * 0.75
    back = grid.to_source_2d(gridded[0], crop, shape)
    assert back.shape == shape
    weight = back.sum()
    assert abs((back * y).sum() / weight - (image * y).sum() / image.sum()) < 0.5 * abs(crop[0])
    assert abs((back * x).sum() / weight - (image * x).sum() / image.sum()) < 0.5 * abs(crop[1])


@given(seed=st.integers(0, 10_000), flips=st.tuples(*[st.booleans()] * 3), order=st.permutations([0, 1, 2]))
@settings(max_examples=30, deadline=None)
def test_a_blob_keeps_its_place_in_millimetres(seed: int, flips: tuple[bool, ...], order: list[int]) -> None:
    rng = np.random.default_rng(seed)
    spacing = tuple(rng.uniform(0.8, 3.0, 3))
    shape = tuple(int(n) for n in rng.integers(24, 48, 3))
    directions = (rotation(seed, 0.5) @ SPL)[:, order] * np.where(flips, -1.0, 1.0)
    affine = affine_for(directions, spacing, tuple(rng.uniform(-100, 100, 3)))
    middle = affine[:3, :3] @ (np.array(shape) - 1) / 2 + affine[:3, 3]
    centre = middle + rng.uniform(-5, 5, 3)
    step = 3.0
    volume = blob(shape, centre, affine, 4.0)
    gridded, grid_affine = grid.to_grid_3d(volume[None], (32, 32, 32), (step,) * 3, affine)
    assert grid_affine is not None
    np.testing.assert_allclose(np.linalg.norm(grid_affine[:3, :3], axis=0), step, rtol=1e-6)
    assert nib.aff2axcodes(grid_affine) == ("S", "P", "L")
    assert np.linalg.norm(centre_of_mass(gridded[0], grid_affine) - centre) < 0.5 * step
    back = grid.to_source(gridded[0], grid_affine, affine, shape)
    assert back.shape == shape
    assert np.linalg.norm(centre_of_mass(back, affine) - centre) < 0.5 * step


@pytest.mark.parametrize("code", ["LAS", "RPI", "PSR", "SPL", "AIL"])
def test_turned_copies_of_a_volume_give_the_same_grid(code: str) -> None:
    rng = np.random.default_rng(3)
    array = rng.random((20, 24, 30)).astype(np.float32)  # in nibabel's own order X, Y, Z
    image = nib.Nifti1Image(array, affine_for(rotation(4, 0.2), (1.5, 1.0, 2.5), (7.0, -3.0, 11.0)))
    change = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(code))
    )
    copy = image.as_reoriented(change)
    results = [
        grid.to_grid_3d(np.asarray(i.dataobj, dtype=np.float32)[None], (32, 24, 24), (2.0,) * 3, i.affine)
        for i in (image, copy)
    ]
    np.testing.assert_allclose(results[0][0], results[1][0], atol=1e-6)
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-6)


def test_matching_grid_copies_a_volume_and_maps_back_exactly() -> None:
    affine = affine_for(SPL, (2.0, 2.0, 2.0), (1.0, 2.0, 3.0))
    volume = np.random.default_rng(5).random((1, 20, 24, 28)).astype(np.float32)
    gridded, grid_affine = grid.to_grid_3d(volume, (24, 24, 32), (2.0,) * 3, affine)
    np.testing.assert_array_equal(gridded[0, 2:22, :, 2:30], volume[0])
    assert grid_affine is not None
    np.testing.assert_array_equal(grid.to_source(gridded[0], grid_affine, affine, volume.shape[1:]), volume[0])


def test_what_the_grid_does_not_cover_is_zero_in_the_source() -> None:
    affine = affine_for(SPL, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    ones = np.ones((1, 40, 16, 16), dtype=np.float32)
    gridded, grid_affine = grid.to_grid_3d(ones, (16, 16, 16), (1.0,) * 3, affine)
    assert grid_affine is not None
    back = grid.to_source(gridded[0], grid_affine, affine, (40, 16, 16))
    assert back[12:28].min() == 1.0
    assert back[:12].max() == back[28:].max() == 0.0


def test_volume_without_geometry_keeps_its_axes() -> None:
    volume = np.random.default_rng(6).random((1, 16, 20, 24)).astype(np.float32)
    gridded, grid_affine = grid.to_grid_3d(volume, (16, 24, 24), (1.0,) * 3)
    assert grid_affine is None
    np.testing.assert_array_equal(gridded[:, :, 2:22, :], volume)


def test_channels_are_resampled_alike() -> None:
    volume = np.random.default_rng(7).random((3, 18, 20, 22)).astype(np.float32)
    affine = affine_for(rotation(8, 0.4), (1.0, 2.0, 1.5), (0, 0, 0))
    together, _ = grid.to_grid_3d(volume, (16, 16, 16), None, affine)
    for channel in range(3):
        alone, _ = grid.to_grid_3d(volume[channel : channel + 1], (16, 16, 16), None, affine)
        np.testing.assert_allclose(together[channel], alone[0], atol=1e-6)


def test_unusable_geometry_is_a_problem_of_the_file() -> None:
    volume = np.ones((1, 8, 8, 8), dtype=np.float32)
    flat = np.diag([1.0, 1.0, 0.0, 1.0])
    with pytest.raises(FileProblem, match="bad_geometry"):
        grid.to_grid_3d(volume, (16, 16, 16), None, flat)
    with pytest.raises(FileProblem, match="bad_spacing"):
        grid.to_grid_2d(volume[0], (16, 16), None, (0.0, 1.0))


def test_a_grid_of_another_volume_is_refused() -> None:
    first, second = affine_for(SPL, (1, 1, 1), (0, 0, 0)), affine_for(rotation(9, 0.5) @ SPL, (1, 1, 1), (0, 0, 0))
    with pytest.raises(ValueError, match="different volumes"):
        grid.to_source(np.ones((8, 8, 8), dtype=np.float32), first, second, (8, 8, 8))
