from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dicom_factory as factory
from dicom_factory import dataset, records, save, straight, uid, write_series
from medstrata.images.dicom import FrameHeader, Plane
from medstrata.images.dicom_pixels import read_pixels
from medstrata.images.geometry import group_series, series_affine, stack_geometry
from medstrata.images.records import ImageRecord, SkippedFile
from medstrata.images.sources import open_source

SCRAMBLED = [4, 1, 6, 3, 2, 5]
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)  # coronal, turned about the long axis; normal (-0.6, 0.8, 0)


def planes(positions: list[tuple[float, float, float]]) -> list[Plane]:
    return [Plane(position, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)) for position in positions]


def only(found: list[ImageRecord]) -> ImageRecord:
    assert len(found) == 1
    return found[0]


# --- regular series ---


@pytest.mark.parametrize("orientation", [factory.AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_regular_series_agrees_with_highdicom(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    normal = np.cross(orientation[:3], orientation[3:])
    positions = [tuple(np.array([-20.0, 30.0, 5.0]) + 2.5 * number * normal) for number in range(6)]
    paths = write_series(tmp_path, positions, SCRAMBLED, orientation)
    record = only(records(tmp_path))
    pixels = read_pixels(open_source(tmp_path), record.frames)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in paths])
    theirs = volume.get_closest_patient_orientation(), np.asarray(volume.array), np.asarray(volume.affine)
    array, affine = theirs[1], theirs[2]
    if np.dot(affine[:3, 0], normal) < 0:  # it may count slices from the other end
        affine = affine @ np.array([[-1, 0, 0, len(array) - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        array = array[::-1]
    assert np.array_equal(pixels.array[0], array)
    assert pixels.affine is not None
    assert np.allclose(pixels.affine, FLIP @ affine)
    assert (record.unit, record.geometry, record.geometry_note, record.slices) == ("series", "regular", "", 6)


def test_affine_is_what_is_written_out_here(tmp_path: Path) -> None:
    write_series(tmp_path, straight(4), [3, 1, 4, 2])
    record = only(records(tmp_path))
    pixels = read_pixels(open_source(tmp_path), record.frames)
    assert pixels.affine is not None
    # rows go down the patient's back (+y in DICOM = posterior = -y in RAS), columns to the left (-x in RAS)
    assert np.allclose(pixels.affine, np.array([[0, 0, -0.6, 20], [0, -0.7, 0, -30], [2.5, 0, 0, -10], [0, 0, 0, 1]]))
    assert pixels.spacing == (2.5, 0.7, 0.6)
    assert (record.spacing_slices, record.spacing_rows, record.spacing_columns) == (2.5, 0.7, 0.6)
    assert (record.slice_thickness, record.orientation) == (9.0, "axial")  # thickness is never the spacing


@given(order=st.permutations(range(6)))
def test_order_of_files_and_instance_numbers_do_not_matter(order: list[int]) -> None:
    found = stack_geometry(planes([straight(6)[index] for index in order]))
    assert [order[index] for index in found.order] == list(range(6))
    assert found.geometry == "regular" and found.spacing == pytest.approx(2.5)


def test_rounded_positions_are_regular_with_the_mean_step() -> None:
    steps = np.cumsum([0, 1.2, 1.3] + [1.2, 1.3] * 20)
    found = stack_geometry(planes([(0.0, 0.0, float(step)) for step in steps]))
    assert found.geometry == "regular" and found.spacing == pytest.approx(1.25)


# --- series that are not regular ---


def test_missing_slices_are_named(tmp_path: Path) -> None:
    positions = straight(8)
    write_series(tmp_path, [position for number, position in enumerate(positions) if number not in (2, 5)])
    record = only(records(tmp_path))
    assert record.geometry == "missing_slice"
    assert record.geometry_note == "2 slices are missing at -5, 2.5 mm along the slice normal."
    assert record.spacing_slices == 2.5
    pixels = read_pixels(open_source(tmp_path), record.frames)
    assert pixels.affine is None and pixels.spacing == (2.5, 0.7, 0.6) and pixels.array.shape == (1, 6, 6, 5)


def test_missing_slice_of_three() -> None:
    found = stack_geometry(planes([(0.0, 0.0, 0.0), (0.0, 0.0, 15.0), (0.0, 0.0, 5.0)]))
    assert (found.geometry, found.spacing) == ("missing_slice", 5.0)
    assert found.note == "1 slice is missing at 10 mm along the slice normal."


@pytest.mark.parametrize("gone", [1, 100, 298])
def test_one_missing_slice_of_many_is_seen_everywhere(gone: int) -> None:
    positions = [position for number, position in enumerate(straight(300, 0.5)) if number != gone]
    assert stack_geometry(planes(positions)).geometry == "missing_slice"
    assert series_affine(planes(positions), (1.0, 1.0)) is None


def test_duplicate_positions_are_named(tmp_path: Path) -> None:
    write_series(tmp_path, [*straight(5), (-20.0, 30.0, -5.0)])
    record = only(records(tmp_path))
    assert record.geometry == "duplicate_position"
    assert record.geometry_note == "Several slices lie at -5 mm along the slice normal."


def test_tilt_is_named_with_its_angle_and_keeps_its_affine(tmp_path: Path) -> None:
    shift = 2.5 * np.tan(np.radians(15))
    write_series(tmp_path, [(-20.0, 30.0 + shift * n, 2.5 * n) for n in range(6)])
    record = only(records(tmp_path))
    assert record.geometry == "tilted" and record.spacing_slices == pytest.approx(2.5)
    assert record.geometry_note == "The slices are stacked at 15.0 degrees to their normal (gantry tilt)."
    pixels = read_pixels(open_source(tmp_path), record.frames)
    assert pixels.affine is not None and np.allclose(pixels.affine[:3, 0], [0, -shift, 2.5])


def test_uneven_steps_are_named() -> None:
    found = stack_geometry(planes([(0.0, 0.0, height) for height in (0.0, 2.0, 5.0, 6.3, 11.0)]))
    assert found.geometry == "uneven"
    assert found.note == "Steps between slices vary from 1.3 to 4.7 mm."


def test_slice_shifted_within_its_plane_is_uneven() -> None:
    positions = straight(5)
    positions[2] = (-18.0, *positions[2][1:])
    assert stack_geometry(planes(positions)).geometry == "uneven"


@pytest.mark.parametrize("fault", ["missing", "duplicate", "tilted", "uneven"])
def test_highdicom_refuses_what_is_not_regular_here(tmp_path: Path, fault: str) -> None:
    positions = {
        "missing": [*straight(3), *straight(3, start=0.0)],
        "duplicate": [*straight(4), straight(4)[1]],
        "tilted": [(0.0, 1.5 * number, 2.5 * number) for number in range(5)],
        "uneven": [(0.0, 0.0, height) for height in (0.0, 2.0, 5.0, 6.3, 11.0)],
    }[fault]
    paths = write_series(tmp_path, positions)
    assert only(records(tmp_path)).geometry != "regular"
    with warnings.catch_warnings(), pytest.raises(ValueError):
        warnings.simplefilter("ignore")
        highdicom.get_volume_from_series([pydicom.dcmread(path) for path in paths])


@given(
    heights=st.lists(st.floats(-500, 500, allow_nan=False), min_size=1, max_size=12),
    spacing=st.floats(0.1, 5),
)
def test_any_stack_gets_a_geometry_and_an_honest_affine(heights: list[float], spacing: float) -> None:
    stack = planes([(0.0, 0.0, height) for height in heights])
    found = stack_geometry(stack)
    assert sorted(found.order) == list(range(len(heights)))
    ordered = [stack[index] for index in found.order]
    affine = series_affine(ordered, (spacing, spacing))
    assert (affine is not None) or found.geometry not in ("regular", "single")
    if affine is not None and len(ordered) > 1:  # every voxel is nearer to its own slice than to any other
        step = affine[2, 0]
        for index, plane in enumerate(ordered):
            assert abs((affine @ [index, 0, 0, 1])[2] - plane.position[2]) <= 0.25 * step + 1e-6


# --- telling frames of one series apart ---


def test_two_series_are_never_mixed(tmp_path: Path) -> None:
    write_series(tmp_path / "a", straight(3))
    write_series(tmp_path / "a", straight(4), [11, 12, 13, 14], SeriesInstanceUID=factory.uid("other"))
    assert sorted(record.slices for record in records(tmp_path)) == [3, 4]


def test_localizers_split_off(tmp_path: Path) -> None:
    write_series(tmp_path, straight(5), ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])
    write_series(tmp_path, [(0, 0, 0)], [99], OBLIQUE, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(tmp_path, [(0, 0, 3.3)], [98], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    found = {(record.unit, record.slices, record.series_class, record.orientation) for record in records(tmp_path)}
    assert found == {
        ("series", 5, "", "axial"),
        ("image", 1, "localizer", "coronal"),
        ("image", 1, "localizer", "axial"),
    }


@pytest.mark.parametrize(
    "values",
    [
        {"EchoTime": 4.6},
        {"DiffusionBValue": 1000.0},
        {"TemporalPositionIdentifier": 2},
        {"TriggerTime": 55.0},
        {"AcquisitionNumber": 2},
        {"AcquisitionTime": "120001"},
        {"ImageType": ["ORIGINAL", "PRIMARY", "P"]},
        {"PixelSpacing": [0.9, 0.9]},
        {"Rows": 5, "Columns": 6},
    ],
    ids=lambda values: next(iter(values)),
)
def test_two_volumes_in_one_series_are_told_apart(tmp_path: Path, values: dict[str, Any]) -> None:
    first: dict[str, Any] = {
        "EchoTime": 2.3,
        "DiffusionBValue": 0.0,
        "TemporalPositionIdentifier": 1,
        "TriggerTime": 10.0,
        "AcquisitionNumber": 1,
        "AcquisitionTime": "120000",
        "ImageType": ["ORIGINAL", "PRIMARY", "M"],
    }
    keyword = next(iter(values))
    write_series(tmp_path, straight(4), **{keyword: first[keyword]} if keyword in first else {})
    write_series(tmp_path, straight(4), [11, 12, 13, 14], **values)
    assert [(record.slices, record.geometry) for record in records(tmp_path)] == [(4, "regular")] * 2


def test_phases_are_ranked_within_each_slice(tmp_path: Path) -> None:
    """In gated scans the delay of one phase differs a little from slice to slice."""
    for phase in range(3):
        for number, position in enumerate(straight(4)):
            delay = 100.0 * phase + 3.0 * number
            write_series(tmp_path, [position], [10 * phase + number], TriggerTime=delay, InstanceNumber=1)
    found = records(tmp_path)
    assert [(record.slices, record.geometry) for record in found] == [(4, "regular")] * 3
    assert [frame.file[:3] for frame in found[1].frames] == ["010", "011", "012", "013"]


def test_trigger_times_do_not_split_a_plain_volume(tmp_path: Path) -> None:
    for number, position in enumerate(straight(4)):
        write_series(tmp_path, [position], [number], TriggerTime=float(number), AcquisitionTime=f"12000{number}")
    assert only(records(tmp_path)).geometry == "regular"


def test_same_instance_twice_is_a_duplicate_file(tmp_path: Path) -> None:
    write_series(tmp_path / "one", straight(3), SOPInstanceUID=factory.uid("same"))
    paths = write_series(tmp_path / "two", straight(3), SOPInstanceUID=factory.uid("same"))
    paths[0].rename(tmp_path / "two" / "copy")
    frames = [frame for frame in factory.headers(tmp_path) if isinstance(frame, FrameHeader)]
    found = group_series(frames)
    skipped = [row for row in found if isinstance(row, SkippedFile)]
    assert [row.code for row in skipped] == ["duplicate_file"] * 3
    assert {row.file.split("/")[0] for row in skipped} == {"two"}
    assert only([row for row in found if isinstance(row, ImageRecord)]).slices == 3


def test_files_without_position_are_images_of_their_own(tmp_path: Path) -> None:
    for number in range(3):
        found = factory.dataset(factory.slice_pixels(number), Modality="DX", PixelSpacing=[0.1, 0.1])
        factory.save(found, tmp_path / str(number))
    images = records(tmp_path)
    assert [(r.unit, r.slices, r.geometry, r.spacing_rows) for r in images] == [("image", 1, "none", 0.1)] * 3


def test_nonsense_orientation_is_no_geometry(tmp_path: Path) -> None:
    write_series(tmp_path, straight(2), orientation=(0, 0, 0, 0, 0, 0))
    assert [record.geometry for record in records(tmp_path)] == ["none", "none"]


# --- multi-frame files ---


def test_enhanced_file_is_a_volume_in_order_of_position(tmp_path: Path) -> None:
    factory.save(factory.enhanced_mr([5.0, -5.0, 0.0, 10.0]), tmp_path / "enhanced")
    record = only(records(tmp_path))
    assert [frame.frame for frame in record.frames] == [1, 2, 0, 3]
    assert (record.unit, record.geometry, record.spacing_slices) == ("series", "regular", 5.0)
    assert (record.spacing_rows, record.spacing_columns, record.slice_thickness) == (0.7, 0.6, 9.0)


def test_echoes_of_an_enhanced_file_are_two_volumes(tmp_path: Path) -> None:
    factory.save(factory.enhanced_mr([0.0, 5.0, 10.0], [2.3, 4.6]), tmp_path / "enhanced")
    found = records(tmp_path)
    assert [[frame.frame for frame in record.frames] for record in found] == [[0, 1, 2], [3, 4, 5]]


def test_frames_over_time_are_one_image(tmp_path: Path) -> None:
    factory.save(factory.cine(7), tmp_path / "cine")
    record = only(records(tmp_path))
    assert (record.unit, record.slices, record.geometry) == ("image", 7, "none")
    assert "not slices" in record.geometry_note
    assert [frame.frame for frame in record.frames] == list(range(7))


def test_frames_of_a_file_at_one_place_are_one_image(tmp_path: Path) -> None:
    factory.save(factory.enhanced_mr([5.0, 5.0, 5.0]), tmp_path / "enhanced")
    record = only(records(tmp_path))
    assert (record.unit, record.slices, record.geometry) == ("image", 3, "none")


def test_one_instance_uid_for_all_files_of_different_series_is_no_duplicate(tmp_path: Path) -> None:
    for number in range(3):
        pixels = np.full((6, 5), number, np.int16)
        values = {"SOPInstanceUID": uid("same"), "SeriesInstanceUID": uid(f"series {number}")}
        save(dataset(pixels, **values), tmp_path / f"{number}.dcm")
    found = records(tmp_path)
    assert [record.unit for record in found] == ["image"] * 3
