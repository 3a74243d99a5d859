"""Pointing game and energy on masks whose answer is written out."""

import numpy as np
import pytest

from medstrata.evidence.localisation import energy_share, localised, mask_on_grid, pointing_hit


def test_mask_lands_on_the_voxels_that_hold_it() -> None:
    mask = np.zeros((4, 6, 6), bool)
    mask[1, 2:4, 5] = True  # 2 mm voxels: centres at (2, 4..6, 10) mm
    coarse = np.diag([4.0, 4.0, 4.0, 1.0])
    found = mask_on_grid(mask, np.diag([2.0, 2.0, 2.0, 1.0]), coarse, (2, 3, 3))
    assert np.argwhere(found).tolist() == [[0, 1, 2], [0, 2, 2]]


def test_shifted_and_flipped_affines() -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 1, 2] = True
    flipped = np.array([[-1.0, 0, 0, 2], [0, 1, 0, 10], [0, 0, 1, 0], [0, 0, 0, 1]])
    grid = np.array([[1.0, 0, 0, 0], [0, 1, 0, 10], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert np.argwhere(mask_on_grid(mask, flipped, grid, (3, 3, 3))).tolist() == [[2, 1, 2]]


def test_outside_the_grid_is_left_out() -> None:
    shift = np.eye(4)
    shift[0, 3] = 100.0
    assert not mask_on_grid(np.ones((2, 2, 2), bool), shift, np.eye(4), (3, 3, 3)).any()


def test_pointing_and_energy() -> None:
    activation = np.array([[0.0, 1.0], [3.0, 0.0]])
    mask = np.array([[False, False], [True, False]])
    assert pointing_hit(activation, mask) and not pointing_hit(activation, ~mask)
    assert energy_share(activation, mask) == pytest.approx(0.75)
    assert energy_share(np.zeros((2, 2)), mask) == 0.0 and not pointing_hit(np.zeros((2, 2)), ~mask)


def test_coarse_masks_have_no_holes_on_a_fine_grid() -> None:
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True  # of 3 fine pixels a side
    to_source = np.array([[1 / 3, 0, -1 / 3], [0, 1 / 3, -1 / 3], [0, 0, 1.0]])
    found = mask_on_grid(mask, np.eye(3), to_source, (12, 12))
    expected = np.zeros((12, 12), bool)
    expected[3:9, 3:9] = True
    np.testing.assert_array_equal(found, expected)


def test_every_score_written_out() -> None:
    signed = np.array([[5.0, 4.0, 3.0], [2.0, 1.0, -6.0]])
    mask = np.array([[True, False, True], [False, False, False]])
    distractor = np.array([[False, True, False], [False, False, True]])
    found = localised(signed, mask, distractor)
    assert found["average_precision"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert found["pointing"] == 1 and found["peak_on_distractor"] == 0
    assert found["energy"] == pytest.approx(8 / 15)
    assert found["dice"] == pytest.approx(1 / 2)
    assert found["distractor_share"] == pytest.approx(8 / 12)
    assert found["chance"] == pytest.approx(2 / 6)
    nothing = localised(signed, np.zeros_like(mask))
    assert np.isnan(list(nothing.values())).all(), "an image without a lesion says nothing about its map"
    assert np.isnan(localised(signed, mask)["distractor_share"])
