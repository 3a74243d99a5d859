"""The voxels of a simulated patient: what is planted is known, and nothing else differs."""

from __future__ import annotations

import numpy as np
import pytest

from medstrata.errors import PlanError
from medstrata.simulation.anatomy import Grid, ellipsoid, paint_tube, patient_grid, smooth_field, soft
from medstrata.simulation.phantom import HIGHEST_HU, LOWEST_HU, PLACES, Lesion, make_phantom, phantom_volume

SHAPE, SPACING = (24, 48, 48), (12.0, 7.0, 7.0)
BALL = Lesion("right upper lobe", 20, 30)


def small(*lesions: Lesion, seed: int = 0, noise: float = 0.0, distractor: bool = False):
    return make_phantom(lesions, np.random.default_rng(seed), SHAPE, SPACING, noise, distractor)


def fine_grid() -> Grid:
    axis = np.arange(-20, 21, dtype=np.float32)
    return Grid(axis[:, None, None], axis[None, :, None], axis[None, None, :], edge=1.0)


@pytest.mark.parametrize("texture", ["hazy", "solid", "honeycomb"])
def test_a_patient_with_and_without_lesion_differs_in_the_mask_only(texture: str) -> None:
    with_lesion = small(Lesion("lower lobes", 35, -400, 2, texture), seed=3, noise=20)
    without = small(seed=3, noise=20)
    changed = with_lesion.volume != without.volume
    assert with_lesion.lesion.any()
    assert not without.lesion.any()
    assert not changed[~with_lesion.lesion].any()
    assert changed[with_lesion.lesion].mean() > 0.95
    assert np.array_equal(with_lesion.lungs, without.lungs)


def test_the_distractor_changes_its_voxels_only_and_lies_outside_the_lungs() -> None:
    with_object, without = small(BALL, distractor=True), small(BALL)
    changed = with_object.volume != without.volume
    assert np.array_equal(changed, with_object.distractor)
    assert with_object.volume[changed].max() > 1500
    assert not (with_object.distractor & with_object.lungs).any()
    assert np.array_equal(with_object.lesion, without.lesion)


def test_the_distractor_lies_elsewhere_in_every_patient() -> None:
    middles = [np.argwhere(small(seed=s, distractor=True).distractor).mean(axis=0) for s in range(4)]
    assert min(np.abs(a - b).max() for i, a in enumerate(middles) for b in middles[:i]) > 1


def test_a_solid_lesion_has_its_intensity_its_size_and_its_place() -> None:
    phantom = make_phantom([BALL], np.random.default_rng(1), noise=0)
    assert np.median(phantom.volume[phantom.lesion]) == pytest.approx(30, abs=1)
    voxel_volume = 6.0 * 3.5 * 3.5
    radius = (3 / (4 * np.pi) * phantom.lesion.sum() * voxel_volume) ** (1 / 3)
    assert 20 * 0.6 < radius < 20 * 1.5
    height, _, width = np.argwhere(phantom.lesion).mean(axis=0)
    assert width < 48  # columns run to the patient's left, so the right lung has the low ones
    assert height > np.argwhere(phantom.lungs)[:, 0].mean()


def test_places_lie_where_their_names_say() -> None:
    def middle(place: str) -> np.ndarray:
        return np.mean([np.argwhere(small(Lesion(place, 15, 0), seed=s).lesion).mean(axis=0) for s in range(3)], axis=0)

    lungs = np.argwhere(small().lungs)
    halfway = (lungs.min(axis=0) + lungs.max(axis=0)) / 2
    assert middle("lower lobes")[0] < halfway[0] < middle("upper lobes")[0]
    assert middle("lower lobes")[1] > halfway[1]
    assert middle("left periphery")[2] > halfway[2] > middle("right upper lobe")[2]


def test_several_lesions_alternate_between_the_sides() -> None:
    mask = small(Lesion("lower lobes", 18, -500, 2)).lesion
    assert mask[:, :, :24].any()
    assert mask[:, :, 24:].any()


def test_the_anatomy_has_the_densities_of_a_chest() -> None:
    phantom = small()
    volume, lungs = phantom.volume, phantom.lungs
    assert volume[:, 0, 0] == pytest.approx(-1000)
    assert -900 < np.median(volume[lungs]) < -780
    assert 2.0 < lungs.sum() * np.prod(SPACING) / 1e6 < 6.0  # litres
    body = volume[~lungs & (volume > -300)]
    assert -110 < body.min() + 200 < 400
    assert np.mean((body > 0) & (body < 100)) > 0.3  # muscle, blood, liver
    assert np.mean((body > -130) & (body < -60)) > 0.05  # fat
    assert np.mean(body > 200) > 0.02  # bone
    assert volume.min() >= LOWEST_HU
    assert volume.max() <= HIGHEST_HU


def test_noise_has_the_asked_deviation_and_neighbours_in_a_slice_share_it() -> None:
    noise = small(seed=5, noise=15).volume - small(seed=5).volume
    inside = noise[:, 20:28, 20:28]  # in the body, where nothing is clipped
    assert inside.std() == pytest.approx(15, rel=0.1)
    along_row = np.corrcoef(inside[..., 1:].ravel(), inside[..., :-1].ravel())[0, 1]
    along_slices = np.corrcoef(inside[1:].ravel(), inside[:-1].ravel())[0, 1]
    assert along_row > 0.2
    assert abs(along_slices) < 0.15


def test_the_same_seed_gives_the_same_patient_and_the_next_call_another() -> None:
    rng = np.random.default_rng(7)
    first, second = (phantom_volume([BALL], rng, SHAPE, SPACING) for _ in range(2))
    again = phantom_volume([BALL], np.random.default_rng(7), SHAPE, SPACING)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], second[0])
    assert first[0].dtype == np.float32
    assert first[0].shape == first[1].shape == SHAPE


@pytest.mark.parametrize(
    "wrong",
    [{"place": "spleen"}, {"texture": "striped"}, {"radius": 0}, {"count": 0}],
)
def test_impossible_lesions_are_refused(wrong: dict) -> None:
    with pytest.raises(PlanError):
        Lesion(**({"place": "anywhere", "radius": 10, "intensity": 0} | wrong))


def test_a_grid_too_coarse_for_a_place_is_refused() -> None:
    with pytest.raises(PlanError, match="too coarse"):
        make_phantom([BALL], np.random.default_rng(0), (8, 8, 8), (3.0, 3.0, 3.0))


def test_every_place_can_be_filled() -> None:
    for place in PLACES:
        assert small(Lesion(place, 15, 0)).lesion.any(), place


def test_soft_is_the_share_of_a_voxel_inside_a_plane() -> None:
    distance = np.array([-3, -1, -0.5, 0, 0.5, 1, 3], np.float32)
    assert soft(distance, 2.0).tolist() == [1, 1, 0.75, 0.5, 0.25, 0, 0]


def test_ellipsoid_is_a_sphere_where_its_radii_are_equal() -> None:
    grid = fine_grid()
    exact = np.sqrt((grid.x - 2) ** 2 + (grid.y + 3) ** 2 + grid.z**2) - 9
    assert ellipsoid(grid, (2, -3, 0), (9, 9, 9), turn=40) == pytest.approx(exact, abs=1e-4)


def test_a_turned_ellipsoid_points_from_the_right_front_to_the_left_back() -> None:
    inside = ellipsoid(fine_grid(), (0, 0, 0), (15, 4, 4), turn=45) < 0
    assert inside[20, 27, 27]
    assert inside[20, 13, 13]
    assert not inside[20, 13, 27]


def test_a_tube_has_the_volume_of_its_cylinder_and_two_round_ends() -> None:
    grid = fine_grid()
    cover = np.zeros(grid.shape, np.float32)
    paint_tube(cover, grid, ((-8.0, 0.0, 0.0), (8.0, 0.0, 0.0)), (5.0, 5.0))
    assert cover.sum() == pytest.approx(np.pi * 25 * 16 + 4 / 3 * np.pi * 125, rel=0.02)
    assert cover[20, 20, 20] == 1
    assert cover[20, 20, 0] == 0


def test_a_smooth_field_has_unit_deviation_and_no_steps() -> None:
    grid = patient_grid(np.random.default_rng(0), (30, 60, 60), (6.0, 3.5, 3.5), 0.0)
    field = smooth_field(np.random.default_rng(1), grid, 30)
    assert field.shape == (30, 60, 60)
    assert field.mean() == pytest.approx(0, abs=0.3)
    assert field.std() == pytest.approx(1, abs=0.25)
    assert np.abs(np.diff(field, axis=2)).max() < 1.2
