"""Every file of a set of 281 odd, damaged and unusual files, compared with what pydicom alone said of them."""

from __future__ import annotations

import csv
import tarfile
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pydicom.uid import UID

from dicom_factory import headers
from medstrata.errors import FileProblem
from medstrata.images.dicom import FrameHeader, read_headers
from medstrata.images.dicom_pixels import read_pixels
from medstrata.images.geometry import group_series
from medstrata.images.records import ImageRecord, Pixels, SkippedFile
from medstrata.images.sources import Source, open_source

TEST_FILES = "pydicom/test_files/"

# Files whose pixels the manifest's decoders (a GPL one among them) could read and ours cannot, and the other way round.
NOT_DECODED = {
    TEST_FILES + "JPGExtended.dcm": "12-bit JPEG, which no permissive decoder reads correctly",
}
DECODED_TOO = {
    "pydicom-data/parametric_map_float.dcm": ("pydicom", (128, 128)),  # the manifest looked for PixelData alone
    "pydicom-data/parametric_map_double_float.dcm": ("pydicom", (128, 128)),
}
FAILS_IN_BOTH = {  # code
    TEST_FILES + "JPEG-lossy.dcm": "decode_failed",
    TEST_FILES + "JPEG2000-embedded-sequence-delimiter.dcm": "decode_failed",
    TEST_FILES + "MR_truncated.dcm": "truncated",
    TEST_FILES + "meta_missing_tsyntax.dcm": "incomplete_header",
    TEST_FILES + "nested_priv_SQ.dcm": "incomplete_header",
    TEST_FILES + "badVR.dcm": "radiotherapy",
    "pydicom-data/liver_deflate.dcm": "segmentation",
}
LEFT_OUT_ON_PURPOSE = {"segmentation", "radiotherapy", "whole_slide"}  # they have pixels, which are no images for us
COLOUR = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "PALETTE COLOR"}


@dataclass(frozen=True)
class Row:
    """One line of the manifest."""

    path: str
    modality: str
    transfer_syntax: str
    shape: tuple[int, ...] | None
    pixel_error: str
    dicom: bool


@pytest.fixture(scope="module")
def folder(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("robustness")
    with tarfile.open(data_dir / "dicom_robustness.tar.gz") as archive:
        archive.extractall(target, filter="data")
    return target


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[Row]:
    with (folder / "MANIFEST.tsv").open(encoding="utf-8", newline="") as file:
        found = []
        for line in csv.DictReader(file, delimiter="\t"):
            shape = line["pixel_shape(pydicom 3.0+pylibjpeg)"].strip("()").replace(" ", "")
            found.append(
                Row(
                    line["path"],
                    line["Modality"] if line["Modality"] != "None" else "",
                    line["transfer_syntax"],
                    tuple(int(part) for part in shape.split(",") if part) or None,
                    line["pixel_error"],
                    not line["not_dicom"],
                )
            )
    assert len(found) == 281
    return found


@pytest.fixture(scope="module")
def source(folder: Path) -> Source:
    return open_source(folder)


@pytest.fixture(scope="module")
def scanned(source: Source, rows: list[Row]) -> dict[str, list[FrameHeader | SkippedFile]]:
    return {row.path: read_headers(source, row.path) for row in rows}


def code_of(found: list[FrameHeader | SkippedFile]) -> str:
    return found[0].code if isinstance(found[0], SkippedFile) else ""


@cache
def pixels_of(source: Source, frames: tuple[FrameHeader, ...]) -> Pixels | FileProblem:
    try:
        return read_pixels(source, [frame.source for frame in frames])
    except FileProblem as problem:
        return problem


def decoded(source: Source, found: list[FrameHeader | SkippedFile]) -> Pixels | FileProblem | None:
    frames = tuple(frame for frame in found if isinstance(frame, FrameHeader))
    return pixels_of(source, frames) if frames else None


def test_every_file_gives_frames_or_one_reason(scanned: dict[str, list[FrameHeader | SkippedFile]]) -> None:
    for path, found in scanned.items():
        kinds = {type(row) for row in found}
        assert len(kinds) == 1 and (kinds == {FrameHeader} or len(found) == 1), path
        if isinstance(found[0], SkippedFile):
            assert found[0].code and found[0].reason.endswith("."), path


def test_how_many_files_are_left_out_and_why(scanned: dict[str, list[FrameHeader | SkippedFile]]) -> None:
    assert Counter(map(code_of, scanned.values())) == {
        "": 143,
        "no_pixels": 67,
        "segmentation": 18,
        "not_dicom": 15,
        "radiotherapy": 12,
        "whole_slide": 8,
        "dicomdir": 8,
        "structured_report": 5,
        "incomplete_header": 2,
        "annotation": 1,
        "truncated": 1,
        "waveform": 1,
    }


def test_what_is_dicom_and_what_it_says(rows: list[Row], scanned: dict[str, list[FrameHeader | SkippedFile]]) -> None:
    for row in rows:
        found = scanned[row.path][0]
        assert (code_of(scanned[row.path]) != "not_dicom") == row.dicom, row.path
        if not row.dicom:
            continue
        assert found.modality == row.modality, row.path
        if row.transfer_syntax != "None":
            name = UID(found.transfer_syntax).name if found.transfer_syntax else ""
            assert row.transfer_syntax in (name, str(found.transfer_syntax)), row.path


def test_what_has_pixels(rows: list[Row], scanned: dict[str, list[FrameHeader | SkippedFile]]) -> None:
    for row in rows:
        code = code_of(scanned[row.path])
        has_pixels = row.shape is not None or row.pixel_error != "" or row.path in DECODED_TOO
        if has_pixels:
            assert code in LEFT_OUT_ON_PURPOSE | {"", "truncated", "incomplete_header"}, row.path
        else:
            assert code != "" and code not in ("truncated", "incomplete_header", "unreadable"), row.path


def test_pixels_have_the_shape_of_the_manifest(
    source: Source, rows: list[Row], scanned: dict[str, list[FrameHeader | SkippedFile]]
) -> None:
    compared = 0
    for row in rows:
        found = scanned[row.path]
        result = decoded(source, found)
        if row.shape is None or row.path in NOT_DECODED or code_of(found) in LEFT_OUT_ON_PURPOSE:
            continue
        assert isinstance(result, Pixels), (row.path, result)
        first = found[0]
        assert isinstance(first, FrameHeader)
        colour = first.photometric in COLOUR
        samples = row.shape[-1] == 3 and colour and first.photometric != "PALETTE COLOR"
        spatial = row.shape[:-1] if samples else row.shape
        if len(spatial) == 3 and len(found) == 1:
            spatial = spatial[1:]
        assert result.array.shape == (3 if colour else 1, *spatial), row.path
        assert np.isfinite(result.array).all() and result.decoder, row.path
        compared += 1
    assert compared == 138


def test_what_cannot_be_decoded_is_explained(
    source: Source, rows: list[Row], scanned: dict[str, list[FrameHeader | SkippedFile]]
) -> None:
    failed = {}
    for row in rows:
        result = decoded(source, scanned[row.path])
        if isinstance(result, FileProblem):
            assert "transfer" not in result.code and row.path not in result.sentence
            failed[row.path] = result.code
        elif row.pixel_error:
            failed[row.path] = code_of(scanned[row.path])
    assert failed == FAILS_IN_BOTH | dict.fromkeys(NOT_DECODED, "decode_failed")


@pytest.mark.parametrize("path", sorted(DECODED_TOO))
def test_more_is_decoded_than_the_manifest_says(
    source: Source, scanned: dict[str, list[FrameHeader | SkippedFile]], path: str
) -> None:
    decoder, shape = DECODED_TOO[path]
    result = decoded(source, scanned[path])
    assert isinstance(result, Pixels)
    assert result.decoder.startswith(decoder + " ") and result.array.shape == (1, *shape)
    assert 0 <= result.array.min() < result.array.max() <= 1  # a map of probabilities


def test_which_decoder_reads_how_many(source: Source, scanned: dict[str, list[FrameHeader | SkippedFile]]) -> None:
    results = [decoded(source, found) for found in scanned.values()]
    counts = Counter(result.decoder.split()[0] for result in results if isinstance(result, Pixels))
    assert counts == {
        "pydicom": 96,
        "pillow": 13,
        "pylibjpeg-openjpeg": 12,
        "pylibjpeg-rle": 10,
        "pyjpegls": 8,
        "python-gdcm": 1,
    }


@pytest.mark.parametrize(
    ("compressed", "plain", "tolerance"),
    [
        ("MR_small_RLE", "MR_small", 0),
        ("MR_small_jp2klossless", "MR_small", 0),
        ("MR_small_jpeg_ls_lossless", "MR_small", 0),
        ("MR_small_bigendian", "MR_small", 0),
        ("MR_small_implicit", "MR_small", 0),
        ("MR_small_padded", "MR_small", 0),
        ("SC_rgb_jpeg_gdcm", "SC_rgb_rle", 0),
        ("SC_rgb_dcmtk_+eb+cr", "SC_rgb_rle", 5),
        ("SC_rgb_jpeg_dcmtk", "SC_rgb_rle", 8),
        ("SC_ybr_full_422_uncompressed", "SC_rgb_dcmtk_+eb+cy+s2", 5),
    ],
)
def test_every_syntax_gives_the_same_picture(
    source: Source,
    scanned: dict[str, list[FrameHeader | SkippedFile]],
    compressed: str,
    plain: str,
    tolerance: float,
) -> None:
    one, other = (decoded(source, scanned[f"{TEST_FILES}{name}.dcm"]) for name in (compressed, plain))
    assert isinstance(one, Pixels) and isinstance(other, Pixels)
    assert np.abs(one.array - other.array).max() <= tolerance


def test_series_of_the_set(scanned: dict[str, list[FrameHeader | SkippedFile]]) -> None:
    frames = [frame for found in scanned.values() for frame in found if isinstance(frame, FrameHeader)]
    records = [record for record in group_series(frames) if isinstance(record, ImageRecord)]
    series = {record.frames[0].file.split("/")[0]: record for record in records if record.unit == "series"}
    assert series["torchio"].slices == 17 and series["torchio"].geometry == "regular"
    geometries = Counter((record.unit, record.geometry) for record in records if record.slices > 1)
    assert geometries == {
        ("series", "regular"): 2,
        ("series", "uneven"): 1,  # CT2: three parts of a trauma scan, 200 mm apart
        ("image", "none"): 4,  # files of several frames without positions, without their copies
    }


# --- a real series ---


@pytest.fixture(scope="module")
def lung(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("lung")
    with tarfile.open(data_dir / "lung_ct_hu" / "A0001_s3_kernelB_dicom.tar.gz") as archive:
        archive.extractall(target, filter="data")
    return target


def test_lung_series_against_its_nifti(lung: Path, data_dir: Path) -> None:
    frames = [found for found in headers(lung) if isinstance(found, FrameHeader)]
    (record,) = group_series(frames)
    assert isinstance(record, ImageRecord)
    assert (record.unit, record.slices, record.geometry, record.orientation) == ("series", 20, "regular", "axial")
    assert (record.modality, record.manufacturer, record.kernel) == ("CT", "Philips", "b")
    pixels = read_pixels(open_source(lung), record.frames)
    assert pixels.units == "HU" and pixels.array.shape == (1, 20, 512, 512)
    assert pixels.array.min() == -1024 and 1000 < pixels.array.max() < 3100
    image: Any = nibabel.load(data_dir / "lung_ct_hu" / "A0001_s3_kernelB_ct.nii.gz")
    affine = np.asarray(image.affine)
    assert pixels.affine is not None
    # the NIfTI has voxel axes (L, P, S), 2x2 means of the rows and columns, and all slices
    assert np.allclose(pixels.affine[:3, 2], affine[:3, 0] / 2, atol=1e-4)
    assert np.allclose(pixels.affine[:3, 1], affine[:3, 1] / 2, atol=1e-4)
    assert np.allclose(pixels.affine[:3, 0], affine[:3, 2], atol=1e-4)
    centre_of_four = pixels.affine @ [0, 0.5, 0.5, 1]
    first = np.linalg.solve(affine, centre_of_four)[:3]
    assert np.allclose(first, np.round(first), atol=1e-3)
    start = round(float(first[2]))
    theirs = np.asarray(image.dataobj)[:, :, start : start + 20].transpose(2, 1, 0)
    means = pixels.array[0].reshape(20, 256, 2, 256, 2).mean((2, 4))
    assert np.abs(means - theirs).max() <= 1
