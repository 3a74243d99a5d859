"""Random changes of images: against a loop over single images, places computed by hand, and what must always hold."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm
from scipy.ndimage import gaussian_filter1d, map_coordinates, zoom

from medstrata.errors import FitError
from medstrata.images.augmentation_rule import REASONS
from medstrata.learning import augment as module
from medstrata.learning.augment import AUGMENTATIONS, CONTROL_POINTS, Augmentation, augment, sampling_places
from medstrata.learning.comm import generator

EVERYTHING = Augmentation(20, 0.2, 0.2, 0.1, 0.03, 0.5, (-1, -2), True, 1.0, 0.2, 0.2, 0.2, 0.1)
SHAPES = [(5, 1, 12, 12), (5, 3, 9, 14), (1, 1, 8, 8), (4, 1, 6, 8, 8), (1, 2, 5, 7, 6)]


def images(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed))


def blob(*place: int, sides: tuple[int, ...] = (9, 9)) -> torch.Tensor:
    x = torch.zeros(1, 1, *sides)
    x[(0, 0, *place)] = 1
    return x


def place_of(x: torch.Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(x.argmax()), tuple(x.shape)))[1:]


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_changes_by_default_and_the_result_is_new(shape: tuple[int, ...]) -> None:
    x = images(shape)
    out = augment(x, Augmentation(), generator(1))
    assert torch.equal(out, x) and out.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["everything", *AUGMENTATIONS])
def test_replay_and_not_in_place(shape: tuple[int, ...], name: str) -> None:
    how = EVERYTHING if name == "everything" else AUGMENTATIONS[name]
    x = images(shape)
    before = x.clone()
    first, second = augment(x, how, generator(3)), augment(x, how, generator(3))
    assert torch.equal(first, second) and torch.equal(x, before)
    assert first.shape == x.shape and first.dtype == torch.float32 and bool(torch.isfinite(first).all())
    source = generator(3)
    assert torch.equal(augment(x, how, source), first)
    assert name == "none" or not torch.equal(augment(x, how, source), first)  # the state has moved on


def test_global_random_numbers_are_left_alone() -> None:
    state = torch.random.get_rng_state()
    augment(images((3, 3, 8, 8)), EVERYTHING, generator(0))
    assert torch.equal(torch.random.get_rng_state(), state)


# -- places computed by hand -------------------------------------------------------------------------------------------
def planted(monkeypatch: pytest.MonkeyPatch, *numbers: float) -> None:
    """Let ``_uniform`` return ``bound * number`` for each call in turn: centre, shift, angle, scale, elastic."""
    queue = list(numbers)
    monkeypatch.setattr(module, "_uniform", lambda shape, bound, _: torch.full(tuple(shape), bound * queue.pop(0)))


def test_a_shift_of_a_third_moves_a_blob_by_three_of_nine_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, 0, -1, 0, 0, 0)
    out = augment(blob(4, 2), Augmentation(shift=1 / 3), generator(0))
    assert place_of(out) == (0, 7, 5) and float(out.max()) == pytest.approx(1, abs=1e-5)
    planted(monkeypatch, 0, -1, 0, 0, 0)
    out = augment(blob(1, 4, 2, sides=(3, 9, 9)), Augmentation(shift=1 / 3), generator(0))
    assert place_of(out) == (0, 2, 7, 5)  # one of three slices


def test_a_rotation_by_90_degrees_moves_a_blob_to_the_next_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """About the centre (4, 4) the blob at (4, 7) comes to (1, 4) or (7, 4), after the sign of the plane drawn."""
    planted(monkeypatch, 0, 0, 1, 0, 0)
    out = augment(blob(4, 7), Augmentation(rotation=90), generator(0))
    assert place_of(out) in {(0, 1, 4), (0, 7, 4)} and float(out.max()) == pytest.approx(1, abs=1e-4)


def test_a_rotation_is_one_of_pixels_in_images_that_are_not_square(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, 0, 0, 1, 0, 0)
    out = augment(blob(4, 10, sides=(9, 17)), Augmentation(rotation=90), generator(0))
    assert place_of(out) in {(0, 2, 8), (0, 6, 8)}  # 2 pixels beside the centre (4, 8) -> 2 above or below


def test_a_larger_scale_moves_a_blob_outwards(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, 0, 0, 0, -1, 0)
    out = augment(blob(4, 6), Augmentation(scale=math.log(2)), generator(0))
    assert place_of(out) == (0, 4, 8)  # from 2 to 4 pixels beside the centre


def test_a_crop_of_a_quarter_shows_one_corner_at_twice_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, -1, 0, 0, 0, 0)
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: torch.ones(*shape))
    x = torch.arange(8.0).expand(1, 1, 8, 8)
    out = augment(x, Augmentation(crop=0.25), generator(0))
    assert out[0, 0, 5].tolist() == pytest.approx([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25], abs=1e-5)


@pytest.mark.parametrize(("flips", "axes"), [((-1,), [-1]), ((-2,), [-2]), ((-1, -2), [-1, -2]), ((-3,), [-3])])
def test_flips_along_the_axes_named_only(flips: tuple[int, ...], axes: list[int]) -> None:
    x = images((40, 1, 5, 6, 7) if -3 in flips else (40, 1, 6, 7))
    out = augment(x, Augmentation(flips=flips), generator(0))
    variants = [x.flip(axes[:number]) if number else x for number in range(len(axes) + 1)]
    variants += [x.flip(axes[1:])] if len(axes) > 1 else []
    found = torch.stack([(out - one).abs().flatten(1).amax(1) < 1e-4 for one in variants])
    assert bool(found.any(0).all()) and bool(found.any(1).all())  # nothing else, and each of them


def test_quarter_turns() -> None:
    x = images((40, 1, 3, 6, 6))
    out = augment(x, Augmentation(quarter_turns=True), generator(0))
    found = torch.stack([(out - x.rot90(k, (-2, -1))).abs().flatten(1).amax(1) < 1e-4 for k in range(4)])
    assert bool(found.any(0).all()) and bool(found.any(1).all())
    x = images((40, 1, 4, 6))  # not square: half turns
    out = augment(x, Augmentation(quarter_turns=True), generator(0))
    found = torch.stack([(out - x.rot90(k, (-2, -1))).abs().flatten(1).amax(1) < 1e-4 for k in (0, 2)])
    assert bool(found.any(0).all()) and bool(found.any(1).all())


def test_outside_the_border_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, 0, -1, 0, 0, 0)
    x = images((1, 1, 8, 8))
    out = augment(x, Augmentation(shift=0.25), generator(0))
    assert torch.allclose(out[..., 2:, 2:], x[..., :6, :6], atol=1e-4)
    assert torch.allclose(out[..., 2:, 0], x[..., :6, 0], atol=1e-4)


# -- naive references --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES)
def test_moving_equals_a_loop_of_scipy(shape: tuple[int, ...]) -> None:
    """Control points spread by ``ndimage.zoom``, each image sampled by ``map_coordinates``."""
    how = Augmentation(20, 0.2, 0.2, 0.1, 0.03, 0.5, (-1,), True)
    x, sides = images(shape), shape[2:]
    places = sampling_places(how, len(x), sides, generator(5)).numpy()
    out = augment(x, how, generator(5)).numpy()
    for image, place, result in zip(x.numpy(), places, out, strict=True):
        at = []
        for number, side in enumerate(reversed(sides)):  # x, y, z
            factors = [side / CONTROL_POINTS for side in sides]
            at.append(((zoom(place[..., number], factors, order=1, grid_mode=False) + 1) * side - 1) / 2)
        for channel, expected in zip(image, result, strict=True):
            np.testing.assert_allclose(map_coordinates(channel, at[::-1], order=1, mode="nearest"), expected, atol=1e-3)


@pytest.mark.parametrize("sides", [(10, 10), (8, 12), (6, 8, 10)])
def test_the_affine_part_equals_the_formula(sides: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """In pixels from the centre: q = expm(angle) (1 + shear) p / e^u + shift, every number at its largest."""
    planted(monkeypatch, 0, 1, 1, 1, 1, 0)
    d = len(sides)
    how = Augmentation(rotation=30, scale=0.3, shear=0.1, shift=0.2)
    monkeypatch.setattr(torch, "randn", lambda *shape, generator: torch.ones(*shape))
    found = sampling_places(how, 1, sides, generator(0))[0].numpy()
    upper = np.triu(np.ones((d, d)), 1)
    turning = math.radians(30) / math.sqrt(d * (d - 1) / 2) * upper
    matrix = expm(turning - turning.T) @ (np.eye(d) + 0.1 * upper) * math.exp(0.3)
    side = np.array(sides[::-1])
    for index in np.ndindex(*found.shape[:-1]):
        p = (np.array(index[::-1]) / 4 - 0.5) * (side - 1)
        np.testing.assert_allclose(found[index], (matrix @ p + 0.2 * side) / (side / 2), atol=1e-5)


def test_rotations_in_three_dimensions_are_rotations_about_axes_of_all_directions() -> None:
    matrix = module._linear_map(Augmentation(rotation=20), 500, (8, 8, 8), generator(0))
    assert torch.allclose(matrix @ matrix.transpose(1, 2), torch.eye(3).expand(500, 3, 3), atol=1e-5)
    angles = torch.rad2deg(torch.acos(((matrix.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1)))
    assert 19 < float(angles.max()) <= 20.01 and float(angles.mean()) == pytest.approx(10, abs=1)
    axes = torch.stack([(matrix - matrix.transpose(1, 2))[:, i, j] for i, j in ((0, 1), (0, 2), (1, 2))])
    shares = axes.square().sum(1) / axes.square().sum()
    assert float(shares.min()) > 0.25


@pytest.mark.parametrize("shape", [(30, 2, 9, 11), (30, 1, 5, 6, 7)])
def test_blur_equals_a_loop_of_scipy_on_about_half_of_the_images(shape: tuple[int, ...]) -> None:
    x, source = images(shape), generator(7)
    out = augment(x, Augmentation(blur=1.5), generator(7)).numpy()
    deviations = 1.5 * torch.rand(30, generator=source)
    chosen = torch.rand(30, generator=source) < 0.5
    assert 8 < int(chosen.sum()) < 22
    for image, deviation, soft, result in zip(x.numpy(), deviations.tolist(), chosen.tolist(), out, strict=True):
        expected = image
        for axis in range(1, image.ndim) if soft else ():
            expected = gaussian_filter1d(expected, deviation, axis, mode="nearest", radius=3)
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_blur_may_choose_no_image() -> None:
    x = images((1, 1, 6, 6))
    outs = [augment(x, Augmentation(blur=1.0), generator(seed)) for seed in range(10)]
    same = [torch.equal(out, x) for out in outs]
    assert True in same and False in same
    assert all(out.data_ptr() != x.data_ptr() for out in outs)


def test_contrast_brightness_and_colour_equal_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, 1, 1, -1)
    x = images((2, 3, 4, 5))
    out = augment(x, Augmentation(contrast=0.3, brightness=0.2, colour=0.1), generator(0))
    for image, result in zip(x, out, strict=True):
        assert torch.allclose(result, image.mean() + math.exp(0.3) * (image - image.mean()) + 0.2 - 0.1, atol=1e-5)


def test_colour_moves_each_channel_by_itself_and_leaves_grey_images_alone() -> None:
    x = images((50, 3, 4, 4))
    moved = augment(x, Augmentation(colour=0.5), generator(0)) - x
    assert torch.allclose(moved, moved[..., :1, :1].expand_as(moved), atol=1e-5)
    assert 0.4 < float(moved.abs().max()) <= 0.5 + 1e-5 and float((moved[:, 0] - moved[:, 1]).std()) > 0.1
    grey = x[:, :1]
    assert torch.equal(augment(grey, Augmentation(colour=0.5), generator(0)), grey)


def test_noise_is_normal_and_differs_from_image_to_image() -> None:
    x = torch.zeros(64, 1, 32, 32)
    noise = augment(x, Augmentation(noise=0.2), generator(0))
    assert float(noise.mean()) == pytest.approx(0, abs=0.005) and float(noise.std()) == pytest.approx(0.2, rel=0.02)
    assert float((noise.abs() > 0.4).float().mean()) == pytest.approx(0.0455, abs=0.006)
    assert float(torch.corrcoef(noise.flatten(1)).fill_diagonal_(0).abs().max()) < 0.25
    assert float(augment(x[:1], Augmentation(noise=0.2), generator(0)).std()) == pytest.approx(0.2, rel=0.1)


# -- invariants --------------------------------------------------------------------------------------------------------
AMOUNT = st.floats(0, 0.5)
ANY = st.builds(
    Augmentation,
    rotation=st.floats(0, 180),
    scale=AMOUNT,
    shear=AMOUNT,
    shift=AMOUNT,
    elastic=st.floats(0, 0.1),
    crop=st.floats(0.05, 1),
    flips=st.sampled_from([(), (-1,), (-2, -1)]),
    quarter_turns=st.booleans(),
    blur=st.floats(0, 3),
    contrast=AMOUNT,
    brightness=AMOUNT,
    colour=AMOUNT,
    noise=AMOUNT,
)


@given(ANY, st.integers(1, 4), st.sampled_from([1, 3]), st.lists(st.integers(1, 9), min_size=2, max_size=3))
@settings(max_examples=80, deadline=None)
def test_shape_and_finite_values_whatever_the_settings(how: Augmentation, n: int, channels: int, sides: Any) -> None:
    x = images((n, channels, *sides))
    out = augment(x, how, generator(0))
    assert out.shape == x.shape and bool(torch.isfinite(out).all())


@given(ANY, st.floats(-3, 3), st.booleans())
@settings(max_examples=40, deadline=None)
def test_moving_and_blur_neither_make_nor_lose_values(how: Augmentation, value: float, volume: bool) -> None:
    how = dataclasses.replace(how, contrast=0, brightness=0, colour=0, noise=0)
    shape = (3, 1, 5, 6, 6) if volume else (3, 1, 6, 7)
    assert torch.allclose(augment(torch.full(shape, value), how, generator(0)), torch.tensor(value), atol=1e-4)
    x = images(shape)
    out = augment(x, how, generator(0))
    assert float(out.max()) <= float(x.max()) + 1e-4 and float(out.min()) >= float(x.min()) - 1e-4


@pytest.mark.parametrize(
    "values", [{"crop": 0}, {"crop": 1.1}, {"noise": -0.1}, {"shift": math.nan}, {"scale": math.inf}, {"flips": (0,)}]
)
def test_impossible_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(FitError, match=next(iter(values)) if "crop" in values or "flips" in values else "positive"):
        Augmentation(**values)


def test_flips_along_an_axis_that_is_not_there() -> None:
    with pytest.raises(FitError, match="only 2 spatial axes"):
        augment(images((2, 1, 4, 4)), Augmentation(flips=(-3,)), generator(0))


# -- presets -----------------------------------------------------------------------------------------------------------
def test_what_the_plan_may_choose_is_there() -> None:
    assert set(REASONS) == set(AUGMENTATIONS) - {"none", "digits"}


def test_presets_keep_what_matters() -> None:
    mixed = AUGMENTATIONS["mixed"]
    for name in ("radiograph", "mr", "ultrasound", "ct"):
        how = AUGMENTATIONS[name]
        assert not how.flips and not how.quarter_turns and how.crop == 1 and not how.elastic and not how.colour
        for amount in ("rotation", "scale", "shift", "blur", "brightness", "noise"):
            assert getattr(mixed, amount) <= getattr(how, amount)
    assert AUGMENTATIONS["ct"].contrast <= 0.05 and AUGMENTATIONS["ct"].brightness == 0
    assert not AUGMENTATIONS["digits"].flips and AUGMENTATIONS["objects"].flips == (-1,)
    assert all(AUGMENTATIONS[name].quarter_turns for name in ("microscopy", "skin"))
