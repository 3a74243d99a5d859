"""Intensity rules against their formulas, pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medstrata.errors import FileProblem
from medstrata.images import intensity
from medstrata.images.records import Pixels


def naive(value: float, low: float, high: float) -> float:
    return 0.0 if high <= low else min(1.0, max(0.0, (value - low) / (high - low)))


def row(**values: Any) -> dict[str, Any]:
    return {"modality": "", "bits": 16, "channels": 1, "body_part": "", "format": "dicom"} | values


@given(st.lists(st.floats(-3000, 3000, width=32), min_size=1, max_size=30), st.floats(-1500, 0), st.floats(1, 2000))
@settings(max_examples=100, deadline=None)
def test_window_follows_the_formula(values: list[float], low: float, high: float) -> None:
    array = np.array(values, dtype=np.float32).reshape(1, 1, -1)
    rule = {"rule": "window", "low": low, "high": high, "units": "HU"}
    found = intensity.normalise(Pixels(array, units="HU"), rule)
    np.testing.assert_allclose(found.ravel(), [naive(v, low, high) for v in values], atol=2e-6)
    assert found.dtype == np.float32


def test_percentiles_of_all() -> None:
    array = np.random.default_rng(0).normal(size=(1, 30, 40)).astype(np.float32)
    low, high = np.percentile(array, 1), np.percentile(array, 99)
    found = intensity.normalise(Pixels(array), {"rule": "percentile", "low": 1, "high": 99, "of": "all"})
    np.testing.assert_allclose(found, np.clip((array - low) / (high - low), 0, 1), atol=1e-6)


def test_foreground_scale_does_not_depend_on_the_share_of_background() -> None:
    rng = np.random.default_rng(1)
    tissue = rng.uniform(400, 600, (1, 40, 40)).astype(np.float32)
    rule = intensity.FOREGROUND_PERCENTILES
    scaled = []
    for margin in (10, 40):
        array = np.zeros((1, 40 + 2 * margin, 40 + 2 * margin), dtype=np.float32)
        array[:, margin:-margin, margin:-margin] = tissue
        found = intensity.normalise(Pixels(array), rule)
        assert found[0, 0, 0] == 0.0
        scaled.append(found[:, margin:-margin, margin:-margin])
    np.testing.assert_allclose(scaled[0], scaled[1], atol=1e-6)
    expected = tissue / np.percentile(tissue, 99)  # low is the background, 0
    np.testing.assert_allclose(scaled[0], np.clip(expected, 0, 1), atol=1e-5)


def test_eight_bits_come_back_unchanged() -> None:
    array = np.arange(256, dtype=np.float32).reshape(1, 16, 16)
    found = intensity.normalise(Pixels(array), {"rule": "range", "low": 0, "high": 255})
    np.testing.assert_array_equal(np.rint(found * 255), array)


def test_range_without_numbers_is_the_images_own() -> None:
    array = np.array([[[-2.0, 0.0, 6.0]]], dtype=np.float32)
    found = intensity.normalise(Pixels(array), {"rule": "range", "low": None, "high": None})
    np.testing.assert_allclose(found, [[[0.0, 0.25, 1.0]]])


@pytest.mark.parametrize(
    "rule",
    [
        {"rule": "range", "low": None, "high": None},
        {"rule": "percentile", "low": 1, "high": 99, "of": "all"},
        intensity.FOREGROUND_PERCENTILES,
    ],
)
def test_constant_image_becomes_zeros(rule: dict[str, Any]) -> None:
    found = intensity.normalise(Pixels(np.full((1, 8, 8), 7.0, dtype=np.float32)), rule)
    np.testing.assert_array_equal(found, np.zeros((1, 8, 8)))


def test_percentiles_of_an_almost_empty_image_fall_back_on_its_range() -> None:
    array = np.zeros((1, 40, 40), dtype=np.float32)
    array[0, 3, 4] = 50.0
    found = intensity.normalise(Pixels(array), {"rule": "percentile", "low": 1, "high": 99, "of": "all"})
    assert found[0, 3, 4] == 1.0
    assert found.sum() == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_pixels_are_counted(bad: float) -> None:
    array = np.zeros((1, 4, 5), dtype=np.float32)
    array[0, 1, :3] = bad
    with pytest.raises(FileProblem, match="not_finite: 3 of 20 pixels"):
        intensity.normalise(Pixels(array), {"rule": "range", "low": 0, "high": 1})


def test_no_pixels_at_all() -> None:
    with pytest.raises(FileProblem, match="no_pixels"):
        intensity.normalise(Pixels(np.zeros((1, 0, 5), dtype=np.float32)), intensity.FOREGROUND_PERCENTILES)


def test_window_in_other_units_falls_back_and_says_so() -> None:
    array = np.random.default_rng(2).uniform(0, 4000, (1, 20, 20)).astype(np.float32)
    pixels = Pixels(array, units="stored")
    found = intensity.normalise(pixels, intensity.rule_for("CT chest", None, None))
    np.testing.assert_allclose(found, intensity.normalise(Pixels(array), intensity.FOREGROUND_PERCENTILES))
    assert pixels.notes == ["Values are not in HU: scaled by percentiles instead of the window."]
    without_units = {"rule": "window", "low": 0, "high": 4000}  # a window of the user's own holds for any units
    np.testing.assert_allclose(intensity.normalise(Pixels(array), without_units), array / 4000, atol=1e-6)


def test_large_images_are_measured_on_a_sub_grid() -> None:
    array = np.random.default_rng(3).normal(size=(1, 3000, 3000)).astype(np.float32)
    low, high, _ = intensity.bounds(array, {"rule": "percentile", "low": 1, "high": 99, "of": "all"})
    assert low == pytest.approx(np.percentile(array, 1), abs=0.02)
    assert high == pytest.approx(np.percentile(array, 99), abs=0.02)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"modality": "CT", "body_part": "chest"}, "CT chest"),
        ({"modality": "CT", "body_part": "head"}, "CT head"),
        ({"modality": "CT", "body_part": "headneck"}, "CT"),
        ({"modality": "CT", "body_part": "forehead"}, "CT"),
        ({"modality": "CT", "body_part": "abdomen"}, "CT abdomen"),
        ({"modality": "CT", "body_part": "abdomenpelvis"}, "CT abdomen"),
        ({"modality": "CT", "body_part": "chestabdomen"}, "CT"),
        ({"modality": "CT"}, "CT"),
        ({"modality": "CT", "channels": 3, "bits": 8}, "8-bit"),
        ({"modality": "MR", "bits": 8}, "MR"),
        ({"modality": "PT"}, "PT"),
        ({"modality": "DX", "bits": 12}, "X-ray"),
        ({"modality": "US", "bits": 8}, "8-bit"),
        ({"format": "nifti", "bits": 8}, "NIfTI"),
        ({"format": "png", "bits": 8, "channels": 3}, "8-bit"),
        ({"format": "array", "bits": 32}, "array"),
        ({"format": "png"}, "other"),
    ],
)
def test_class_of_a_catalog_row(values: dict[str, Any], expected: str) -> None:
    assert intensity.intensity_class(row(**values)) == expected


def test_rule_of_each_class() -> None:
    assert intensity.rule_for("CT head", None, None) == {"rule": "window", "low": 0.0, "high": 80.0, "units": "HU"}
    assert intensity.rule_for("CT chest", None, None)["low"] == -1000.0
    assert intensity.rule_for("8-bit", 0.0, 200.0) == {"rule": "range", "low": 0.0, "high": 255.0}
    assert intensity.rule_for("8-bit", 0.0, 1.0) == {"rule": "range", "low": 0.0, "high": 1.0}
    assert intensity.rule_for("array", -1.5, 3.0) == {"rule": "range", "low": -1.5, "high": 3.0}
    assert intensity.rule_for("X-ray", 0.0, 4095.0) == {"rule": "percentile", "low": 1, "high": 99, "of": "all"}
    assert intensity.describe_rule(intensity.rule_for("CT", None, None)) == "window -1000..1000 HU"


def test_channels() -> None:
    colour = np.random.default_rng(4).random((3, 4, 5)).astype(np.float32)
    grey = intensity.to_channels(colour, 1)
    np.testing.assert_allclose(grey[0], 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2], rtol=1e-5)
    np.testing.assert_array_equal(intensity.to_channels(grey, 3), np.stack([grey[0]] * 3))
    assert intensity.to_channels(colour, 3) is colour
