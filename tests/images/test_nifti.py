"""NIfTI: the file's own grid transposed, its geometry in mm, and a reason for every file that is no image."""

from __future__ import annotations

import gzip
import io
import logging
import struct
import tarfile
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medstrata.errors import FileProblem
from medstrata.images import nifti
from medstrata.images.records import FrameSource, ImageRecord, Pixels, SkippedFile
from medstrata.images.sources import open_source

X, Y, Z = 5, 4, 3
DATA = np.arange(X * Y * Z, dtype=np.int16).reshape(X, Y, Z)
AFFINE = np.array([[-2.0, 0, 0, 10], [0, 3, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]])


def written(path: Path, data: np.ndarray = DATA, affine: np.ndarray | None = AFFINE, **fields: object) -> Path:
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    for field, value in fields.items():
        image.header[field] = value
    nibabel.save(image, path)
    return path


def patched(path: Path, offset: int, layout: str, *values: float) -> Path:
    """Change a field of a little-endian NIfTI-1 header on disk, past nibabel's checks."""
    raw = bytearray(path.read_bytes())
    struct.pack_into("<" + layout, raw, offset, *values)
    path.write_bytes(raw)
    return path


def header(path: Path, name: str = "") -> ImageRecord:
    (record,) = nifti.read_headers(open_source(path), name or path.name)
    assert isinstance(record, ImageRecord), record
    return record


def skipped(path: Path) -> str:
    (found,) = nifti.read_headers(open_source(path), path.name)
    assert isinstance(found, SkippedFile)
    with pytest.raises(FileProblem, match=found.code):
        pixels(path)
    return found.code


def pixels(path: Path, slices: list[int] | None = None) -> Pixels:
    return nifti.read_pixels(open_source(path), [FrameSource(path.name)], slices)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_volume_written_out(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"volume{suffix}")
    record = header(path)
    assert (record.unit, record.format, record.frames) == ("series", "nifti", [FrameSource(path.name)])
    assert (record.slices, record.rows, record.columns, record.channels, record.bits) == (Z, Y, X, 1, 16)
    assert (record.spacing_slices, record.spacing_rows, record.spacing_columns) == (4, 3, 2)
    assert (record.orientation, record.geometry, record.geometry_note) == ("axial", "regular", "")
    assert (record.modality, record.series_class, record.value_low, record.value_high) == ("", "", None, None)
    result = pixels(path)
    np.testing.assert_array_equal(result.array, DATA.transpose(2, 1, 0)[None])
    assert result.array.dtype == np.float32
    assert result.spacing == (4, 3, 2)
    assert (result.units, result.notes) == ("stored", [])
    assert result.decoder.startswith("nibabel ")
    assert result.affine is not None
    for d, h, w in [(0, 0, 0), (2, 1, 4), (1, 3, 2)]:  # the same voxel lies at the same place of the patient
        np.testing.assert_allclose(result.affine @ (d, h, w, 1), AFFINE @ (w, h, d, 1))


def test_the_array_goes_back_onto_the_sources_grid(tmp_path: Path) -> None:
    result = pixels(written(tmp_path / "v.nii"))
    assert result.affine is not None
    back = nibabel.Nifti1Image(result.array[0].transpose(2, 1, 0), result.affine[:, [2, 1, 0, 3]])
    np.testing.assert_array_equal(back.get_fdata(), DATA)
    np.testing.assert_array_equal(back.affine, AFFINE)


@pytest.mark.parametrize("packed", [False, True])
def test_slices_are_read_in_the_order_asked_for(tmp_path: Path, packed: bool) -> None:
    path = written(tmp_path / ("v.nii.gz" if packed else "v.nii"))
    for slices in ([1], [0, 2], [2, 0, 0]):
        np.testing.assert_array_equal(pixels(path, slices).array[0], DATA.transpose(2, 1, 0)[slices])


def test_content_counts_not_the_suffix_and_a_zip_is_read_in_place(tmp_path: Path) -> None:
    path = written(tmp_path / "v.nii.gz").rename(tmp_path / "v")
    np.testing.assert_array_equal(pixels(path).array[0], DATA.transpose(2, 1, 0))
    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, "a/v")
        archive.write(written(tmp_path / "w.nii"), "w.nii")
    source = open_source(tmp_path / "in.zip")
    for name in ("a/v", "w.nii"):
        (record,) = nifti.read_headers(source, name)
        assert isinstance(record, ImageRecord)
        result = nifti.read_pixels(source, record.frames, [2, 1])
        np.testing.assert_array_equal(result.array[0], DATA.transpose(2, 1, 0)[[2, 1]])


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8", "u2", "i8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_types_and_byte_orders(tmp_path: Path, dtype: str, order: str) -> None:
    data = DATA.astype(np.dtype(dtype))
    image = nibabel.Nifti1Image(data, AFFINE, dtype=data.dtype)
    swapped = nibabel.Nifti1Image(data, AFFINE, image.header.as_byteswapped(order), dtype=data.dtype)
    nibabel.save(swapped, tmp_path / "v.nii")
    assert header(tmp_path / "v.nii").bits == data.dtype.itemsize * 8
    np.testing.assert_array_equal(pixels(tmp_path / "v.nii").array[0], DATA.transpose(2, 1, 0))


def test_nifti_2(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti2Image(DATA, AFFINE), tmp_path / "v.nii")
    assert header(tmp_path / "v.nii").slices == Z
    np.testing.assert_array_equal(pixels(tmp_path / "v.nii").array[0], DATA.transpose(2, 1, 0))


def test_slope_and_intercept(tmp_path: Path) -> None:
    path = patched(written(tmp_path / "v.nii"), 112, "ff", 0.5, -1024)
    np.testing.assert_array_equal(pixels(path).array[0], DATA.transpose(2, 1, 0) * 0.5 - 1024)
    for slope, intercept in ((float("nan"), 0.0), (float("inf"), 1.0), (1.0, float("nan"))):
        result = pixels(patched(path, 112, "ff", slope, intercept))
        np.testing.assert_array_equal(result.array[0], DATA.transpose(2, 1, 0))
        assert "used as stored" in result.notes[0]
        assert "used as stored" in header(path).geometry_note
    np.testing.assert_array_equal(pixels(patched(path, 112, "ff", 0, 7)).array[0], DATA.transpose(2, 1, 0))


def test_large_integers_are_scaled_before_they_are_rounded(tmp_path: Path) -> None:
    data = np.full((X, Y, Z), 2**24 + 1, np.int32)
    path = patched(written(tmp_path / "v.nii", data), 112, "ff", 1.0, -(2.0**24))
    assert np.unique(pixels(path).array).tolist() == [1]


def test_two_dimensions(tmp_path: Path) -> None:
    for number, data in enumerate((DATA[:, :, 0], DATA[:, :, :1])):
        path = written(tmp_path / f"{number}.nii", data)
        record = header(path)
        assert (record.unit, record.slices, record.rows, record.columns, record.geometry) == (
            "image",
            1,
            Y,
            X,
            "single",
        )
        assert record.spacing_slices is None
        np.testing.assert_array_equal(pixels(path).array, DATA[:, :, 0].T[None])
        assert pixels(path).spacing == (3, 2)


def test_the_first_volume_of_a_series_over_time(tmp_path: Path) -> None:
    path = written(tmp_path / "v.nii.gz", np.stack([DATA, DATA + 100], axis=-1))
    assert header(path).slices == Z
    assert header(path).geometry_note == "The first of 2 volumes is read."
    np.testing.assert_array_equal(pixels(path).array[0], DATA.transpose(2, 1, 0))
    np.testing.assert_array_equal(pixels(path, [1]).array[0], DATA.transpose(2, 1, 0)[[1]])


def test_colour(tmp_path: Path) -> None:
    rgb = np.zeros((X, Y, Z), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["R"], rgb["G"], rgb["B"] = DATA, DATA + 1, DATA + 2
    path = written(tmp_path / "v.nii", rgb)
    assert (header(path).channels, header(path).bits, header(path).photometric) == (3, 8, "RGB")
    expected = np.stack([DATA, DATA + 1, DATA + 2]).transpose(0, 3, 2, 1)
    np.testing.assert_array_equal(pixels(path).array, expected)


@pytest.mark.parametrize(
    ("columns", "name"),
    [((0, 1, 2), "axial"), ((0, 2, 1), "coronal"), ((1, 2, 0), "sagittal"), ((2, 1, 0), "sagittal")],
)
def test_orientation(tmp_path: Path, columns: tuple[int, ...], name: str) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, columns]
    assert header(written(tmp_path / "v.nii", affine=affine)).orientation == name


def test_oblique(tmp_path: Path) -> None:
    turn = np.deg2rad(44)
    affine = np.eye(4)
    affine[1:3, 1:3] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    assert header(written(tmp_path / "v.nii", affine=affine)).orientation == "oblique"


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000), ("micron", 0.001), ("mm", 1), ("unknown", 1)])
def test_units_become_mm(tmp_path: Path, unit: str, factor: float) -> None:
    image = nibabel.Nifti1Image(DATA, AFFINE)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "v.nii")
    result = pixels(tmp_path / "v.nii")
    assert result.spacing == pytest.approx((4 * factor, 3 * factor, 2 * factor))
    assert result.affine is not None
    np.testing.assert_allclose(result.affine[:3, 3], AFFINE[:3, 3] * factor)


def forms(path: Path, sform: np.ndarray | None, qform: np.ndarray | None) -> Path:
    image = nibabel.Nifti1Image(DATA, None)
    image.header.set_sform(sform, 1 if sform is not None else 0)
    image.header.set_qform(qform, 1 if qform is not None else 0)
    nibabel.save(image, path)
    return path


def test_which_form_counts(tmp_path: Path) -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 5
    result = pixels(forms(tmp_path / "both.nii", AFFINE, moved))
    assert result.affine is not None
    assert result.affine[0, 3] == 10
    assert result.notes == ["sform and qform differ by up to 5.0 mm and 0.0 degrees; the sform is used."]
    result = pixels(forms(tmp_path / "q.nii", None, moved))
    assert result.affine is not None
    assert (result.affine[0, 3], result.notes) == (15, [])
    assert header(tmp_path / "q.nii").spacing_slices == 4
    moved[0, 3] = 10.5  # within the tolerance
    assert pixels(forms(tmp_path / "close.nii", AFFINE, moved)).notes == []


def test_no_form_means_no_orientation(tmp_path: Path) -> None:
    path = patched(forms(tmp_path / "n.nii", None, None), 80, "fff", 2, 3, 4)  # pixdim[1:4]
    record, result = header(path), pixels(path)
    assert (record.orientation, record.spacing_slices, record.spacing_columns) == ("", 4, 2)
    assert record.geometry_note == "The header gives no orientation."
    assert (result.affine, result.spacing) == (None, (4, 3, 2))


def test_unusable_forms(tmp_path: Path) -> None:
    path = forms(tmp_path / "s.nii", AFFINE, AFFINE)
    patched(path, 280, "12f", *AFFINE[0], *AFFINE[0], *AFFINE[2])  # srow_y = srow_x: singular
    result = pixels(path)
    assert result.affine is not None
    np.testing.assert_allclose(result.affine[:, [2, 1, 0, 3]], AFFINE)
    assert result.notes == ["The sform in the header cannot be used."]
    patched(path, 256, "fff", 1.0, 1.0, 1.0)  # a quaternion longer than 1
    assert pixels(path).affine is None
    patched(path, 280, "12f", *[float("nan")] * 12)
    assert pixels(path).notes == [
        "The sform in the header cannot be used.",
        "The qform in the header cannot be used.",
        "The header gives no orientation.",
    ]


def test_shear_is_noted(tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[1, 2] = 1.0
    path = forms(tmp_path / "v.nii", affine, None)
    assert "right angles" in header(path).geometry_note


@pytest.mark.parametrize(
    ("name", "modality", "series_class"),
    [
        ("sub-01/anat/sub-01_T1w.nii.gz", "MR", "t1"),
        ("sub-01_T2w.nii", "MR", "t2"),
        ("sub-01_task-rest_bold.nii", "MR", "bold"),
        ("sub-01_FLAIR.nii", "MR", "flair"),
        ("sub-01_dwi.nii", "MR", "dwi"),
        ("s001_ct.nii.gz", "CT", ""),
        ("ct.nii", "", ""),
        ("T1w_smith.nii", "", ""),
        ("sub_ct/scan.nii", "", ""),
    ],
)
def test_what_the_file_name_says(tmp_path: Path, name: str, modality: str, series_class: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    written(tmp_path / name)
    record = header(tmp_path, name)
    assert (record.modality, record.series_class) == (modality, series_class)
    result = nifti.read_pixels(open_source(tmp_path), [FrameSource(name)])
    assert result.units == ("HU" if modality == "CT" else "stored")


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    data = DATA.astype(np.float32)
    data[0, 0, 0], data[1, 1, 1] = np.nan, np.inf
    result = pixels(written(tmp_path / "v.nii", data))
    assert result.array[0, 0, 0, 0] == result.array[0, 1, 1, 1] == 0
    assert result.array[0, 2, 3, 4] == DATA[4, 3, 2]
    assert result.notes == ["Voxels that are not numbers (NaN or infinite) were set to 0."]
    hounsfield = pixels(written(tmp_path / "v_ct.nii", data - 1000))  # where 0 is soft tissue
    lowest = np.nanmin(np.where(np.isfinite(data), data, np.nan)) - 1000
    assert hounsfield.array[0, 0, 0, 0] == hounsfield.array[0, 1, 1, 1] == lowest
    assert hounsfield.notes == [f"Voxels that are not numbers (NaN or infinite) were set to {lowest:g}."]
    with pytest.raises(FileProblem, match="not_finite"):
        pixels(written(tmp_path / "n.nii", np.full((X, Y, Z), np.nan, np.float32)))


def test_files_that_are_left_out(tmp_path: Path) -> None:
    assert skipped(written(tmp_path / "label.nii", intent_code=1002)) == "label_map"
    assert skipped(written(tmp_path / "complex.nii", DATA.astype(np.complex64))) == "data_type"
    assert skipped(written(tmp_path / "line.nii", DATA[:, :1, :1])) == "no_image"
    vectors = np.zeros((X, Y, Z, 1, 3), np.float32)
    assert skipped(written(tmp_path / "vector.nii", vectors)) == "vector_data"
    assert skipped(patched(written(tmp_path / "pair.nii"), 344, "4s", b"ni1\0")) == "nifti_pair"
    huge = patched(written(tmp_path / "huge.nii"), 40, "4h", 3, 30_000, 30_000, 30_000)
    assert skipped(huge) == "too_large"


@pytest.mark.parametrize(
    ("keep", "suffix"), [(100, ".nii"), (350, ".nii"), (400, ".nii"), (350, ".nii.gz"), (400, ".nii.gz")]
)
def test_truncated(tmp_path: Path, keep: int, suffix: str) -> None:
    path = written(tmp_path / "v.nii")
    raw = path.read_bytes()[:keep]
    if suffix == ".nii.gz":
        path = tmp_path / "v.nii.gz"
        path.write_bytes(gzip.compress(raw))
    else:
        path.write_bytes(raw)
    with pytest.raises(FileProblem) as caught:
        pixels(path)
    assert caught.value.code == "truncated"


def test_gzip_cut_short(tmp_path: Path) -> None:
    path = written(tmp_path / "v.nii.gz", np.random.default_rng(0).integers(0, 999, (30, 30, 9)).astype(np.int16))
    path.write_bytes(path.read_bytes()[:5000])
    assert header(path).slices == 9
    with pytest.raises(FileProblem, match="truncated"):
        pixels(path)


def test_no_file_name_reaches_a_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path / "SMITH_JOHN.nii")
    patched(path, 76, "f", 5.0)  # pixdim[0] must be 1 or -1
    with caplog.at_level(logging.DEBUG):
        header(path)
        pixels(path)
    assert "SMITH" not in caplog.text


@given(st.data())
def test_damage_gives_a_file_problem_or_an_image_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    buffer = io.BytesIO()
    image = nibabel.Nifti1Image(DATA, AFFINE)
    image.to_stream(buffer)
    raw = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(4, 351))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "x.nii"
    path.write_bytes(raw[: data.draw(st.integers(352, len(raw)))])
    source = open_source(path)
    try:
        for record in nifti.read_headers(source, path.name):
            if isinstance(record, ImageRecord):
                result = nifti.read_pixels(source, record.frames)
                assert np.isfinite(result.array).all()
    except FileProblem as problem:
        assert problem.sentence


def reference(path: Path) -> nibabel.Nifti1Image:
    image = nibabel.load(path)
    assert isinstance(image, nibabel.Nifti1Image)
    return image


def check_against_nibabel(path: Path, orientation: str) -> None:
    image = reference(path)
    volume = np.asarray(image.dataobj[..., 0] if image.ndim == 4 else image.dataobj)
    record, result = header(path), pixels(path)
    assert (record.columns, record.rows, record.slices) == volume.shape
    assert record.orientation == orientation
    assert result.affine is not None
    np.testing.assert_allclose(result.affine[:, [2, 1, 0, 3]], image.affine, atol=1e-4)
    np.testing.assert_allclose(result.spacing, nibabel.affines.voxel_sizes(image.affine)[::-1], rtol=1e-5)
    expected = np.nan_to_num(volume.astype(np.float32), nan=0)
    np.testing.assert_allclose(result.array[0], expected.transpose(2, 1, 0), rtol=1e-6)
    middle = volume.shape[2] // 2
    np.testing.assert_array_equal(pixels(path, [middle]).array[0, 0], result.array[0, middle])


def test_real_files_against_nibabel(data_dir: Path, tmp_path: Path) -> None:
    if not (data_dir / "nifti_samples.tar").is_file():
        pytest.skip("nifti_samples.tar is absent")
    with tarfile.open(data_dir / "nifti_samples.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    paths = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert len(paths) == 8
    for path in paths:
        check_against_nibabel(path, "axial")
    assert "first of 10 volumes" in header(next(path for path in paths if "pcasl" in path.name)).geometry_note


def test_real_lung_ct_in_hounsfield_units(data_dir: Path) -> None:
    path = data_dir / "lung_ct_hu" / "A0001_s2_kernelL_ct.nii.gz"
    if not path.is_file():
        pytest.skip("lung_ct_hu is absent")
    check_against_nibabel(path, "axial")
    record, result = header(path), pixels(path, [32])
    assert (record.modality, record.slices, record.spacing_slices) == ("CT", 64, 5)
    assert result.units == "HU"
    assert -1100 < np.percentile(result.array, 5) < -800  # air
    assert result.array.max() > 200  # bone
