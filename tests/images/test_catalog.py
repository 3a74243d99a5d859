"""From files to the catalog: every file is a row, images have keyed ids, and nothing original leaves ``private``."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import os
import pickle
import stat
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from medstrata.errors import FileProblem, InputError, RunFolderError
from medstrata.images import readers
from medstrata.images.catalog import SOURCES_SCHEMA, TABLE_SCHEMA, Catalog, keyed_hash, read_pixels, scan, sniff
from medstrata.images.records import FrameSource
from medstrata.images.sources import open_source
from medstrata.images.workers import Serial

SALT = "00" * 32
GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)
SERIES, STUDY = generate_uid(), generate_uid()


def dicom_slice(path: Path, height: float, value: int) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = SERIES, STUDY
    dataset.PatientID, dataset.PatientName, dataset.Modality = "ID-4711", "SMITH^JOHN", "CT"
    dataset.Rows, dataset.Columns, dataset.PixelSpacing = 8, 8, [2, 3]
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, height], [1, 0, 0, 0, 1, 0]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1000
    dataset.PixelData = np.full((8, 8), value, np.int16).tobytes()
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of everything; suffixes lie on purpose."""
    root = tmp_path_factory.mktemp("mixed")
    (root / "ct").mkdir()
    for number, height in enumerate((10, 0, 5)):
        dicom_slice(root / "ct" / f"{number}", height, 100 * number)
    Image.fromarray(GREY).save(root / "a.dcm", "png")
    Image.fromarray(GREY).save(root / "b.jpg")
    Image.fromarray(GREY).save(root / "c.tif")
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 4), np.int16), np.eye(4)), root / "d.nii.gz")
    np.savez(root / "e.npz", images=np.stack([GREY, GREY]), labels=np.arange(2))
    np.save(root / "e2.npy", np.zeros((2, 8, 8), complex))
    (root / "f.txt").write_text("SMITH JOHN was here")
    (root / "g.zip").write_bytes(b"PK\x03\x04" + b"\0" * 60)
    (root / "h.gz").write_bytes(gzip.compress(b"text"))
    (root / "i.png").write_bytes(b"")
    (root / "j.gif").write_bytes(b"GIF89a" + b"\0" * 40)
    (root / "k.png").write_bytes(b"\x89PNG\r\n\x1a\n junk")
    (root / ".DS_Store").write_bytes(b"x")
    with tarfile.open(root / "l", "w") as archive:
        archive.add(root / "f.txt", "f.txt")
    return root


EXPECTED = [  # first file, frame, unit, format, skipped
    (".DS_Store", 0, "", "", "system_file"),
    ("a.dcm", 0, "image", "png", ""),
    ("b.jpg", 0, "image", "jpeg", ""),
    ("c.tif", 0, "image", "tiff", ""),
    ("ct/1", 0, "series", "dicom", ""),
    ("d.nii.gz", 0, "series", "nifti", ""),
    ("e.npz", 0, "image", "array", ""),
    ("e.npz", 1, "image", "array", ""),
    ("e2.npy", 0, "", "", "data_type"),
    ("f.txt", 0, "", "", "unknown_format"),
    ("g.zip", 0, "", "", "archive_inside"),
    ("h.gz", 0, "", "", "archive_inside"),
    ("i.png", 0, "", "", "empty_file"),
    ("j.gif", 0, "", "", "unknown_format"),
    ("k.png", 0, "", "", "damaged"),
    ("l", 0, "", "", "archive_inside"),
]


def rows_of(catalog: Catalog) -> list[tuple[object, ...]]:
    firsts = {row["image_id"]: row for row in reversed(catalog.sources.to_pylist())}
    return [
        (
            firsts[row["image_id"]]["file"],
            firsts[row["image_id"]]["frame"],
            row["unit"],
            row["format"],
            row["skipped"],
        )
        for row in catalog.table.to_pylist()
    ]


def test_a_mixed_folder_row_by_row(mixed: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    catalog = scan(open_source(mixed), SALT, 1, lambda *call: calls.append(call))
    assert rows_of(catalog) == EXPECTED
    assert calls[-1] == ("scan", 16, 16)
    assert catalog.table.schema == TABLE_SCHEMA
    assert catalog.sources.schema == SOURCES_SCHEMA
    assert catalog.images().num_rows == 7
    ids = catalog.table["image_id"].to_pylist()
    assert len(set(ids)) == len(ids) == len(EXPECTED)
    assert all(row["reason"] for row in catalog.table.to_pylist() if row["skipped"])


def test_a_zip_gives_the_same_catalog_as_its_folder(mixed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(mixed.rglob("*"), reverse=True):
            if path.is_file():
                archive.write(path, path.relative_to(mixed))
    packed, plain = open_source(tmp_path / "in.zip"), open_source(mixed)
    catalog = scan(packed, SALT)
    assert catalog.table == scan(plain, SALT).table
    for row in catalog.images().to_pylist():
        frames = catalog.frames_of(row["image_id"])
        one, other = (read_pixels(source, row["format"], frames) for source in (packed, plain))
        np.testing.assert_array_equal(one.array, other.array)


def test_processes_do_not_change_the_catalog(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medstrata.images.catalog.FILES_IN_THIS_PROCESS", 0)
    monkeypatch.setattr("medstrata.images.catalog.FILES_PER_SHARD", 3)
    alone, together = scan(open_source(mixed), SALT, 1), scan(open_source(mixed), SALT, 2)
    assert (alone.table, alone.sources) == (together.table, together.sources)


def test_a_pool_is_started_for_many_files_only(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def processes(workers: int) -> Serial:
        asked.append(workers)
        return Serial()

    monkeypatch.setattr("medstrata.images.catalog.in_processes", processes)
    files = sum(entry.problem is None for entry in open_source(mixed).listing())
    for most in (files, files - 1):
        monkeypatch.setattr("medstrata.images.catalog.FILES_IN_THIS_PROCESS", most)
        scan(open_source(mixed), SALT, 2)
    assert asked == [2]


def test_ids_are_keyed_hashes_of_the_sources(mixed: Path) -> None:
    catalog = scan(open_source(mixed), SALT)
    series = next(row for row in catalog.table.to_pylist() if row["format"] == "dicom")
    frames = catalog.frames_of(series["image_id"])
    assert [frame.file for frame in frames] == ["ct/1", "ct/2", "ct/0"]  # along the normal: 0, 5, 10 mm

    def expected(text: str, digits: int) -> str:
        return hmac.new(SALT.encode(), text.encode(), hashlib.sha256).hexdigest()[:digits]

    assert series["image_id"] == expected("ct/1#0\nct/2#0\nct/0#0", 16)
    assert series["patient"] == expected("ID-4711", 12)
    assert series["study"] == expected(STUDY, 12)
    assert (frames[0].patient_id, frames[0].study_uid, frames[0].series_uid) == ("ID-4711", STUDY, SERIES)
    png = next(row for row in catalog.table.to_pylist() if row["format"] == "png")
    assert (png["patient"], png["study"]) == ("", "")
    other = scan(open_source(mixed), "11" * 32).table["image_id"].to_pylist()
    assert not set(other) & set(catalog.table["image_id"].to_pylist())
    assert keyed_hash(SALT, "") == ""


def test_a_record_comes_back_whole(mixed: Path) -> None:
    catalog = scan(open_source(mixed), SALT)
    series = next(row for row in catalog.table.to_pylist() if row["format"] == "dicom")
    record = catalog.record(series["image_id"])
    assert (record.slices, record.rows, record.spacing_rows, record.spacing_slices) == (3, 8, 2, 5)
    assert record.frames == catalog.frames_of(series["image_id"])
    assert (record.field_strength, record.modality, record.geometry) == (None, "CT", "regular")
    with pytest.raises(KeyError):
        catalog.record("0" * 16)


def test_pixels_of_every_image(mixed: Path) -> None:
    source = open_source(mixed)
    catalog = scan(source, SALT)
    by_format = {row["format"]: row["image_id"] for row in catalog.images().to_pylist()}
    series = read_pixels(source, "dicom", catalog.frames_of(by_format["dicom"]))
    assert series.array[0, :, 0, 0].tolist() == [-900, -800, -1000]
    assert series.units == "HU"
    for name in ("png", "tiff", "array"):
        np.testing.assert_array_equal(read_pixels(source, name, catalog.frames_of(by_format[name])).array[0], GREY)
    volume = read_pixels(source, "nifti", catalog.frames_of(by_format["nifti"]), [1, 2])
    assert volume.array.shape == (1, 2, 8, 8)


def test_written_and_read_again(mixed: Path, tmp_path: Path) -> None:
    catalog = scan(open_source(mixed), SALT)
    catalog.write(tmp_path / "out")
    again = Catalog.read(tmp_path / "out")
    assert (again.table, again.sources) == (catalog.table, catalog.sources)
    assert stat.S_IMODE((tmp_path / "out" / "private").stat().st_mode) == 0o700
    public = (tmp_path / "out" / "catalog.parquet").read_bytes()
    for secret in ("SMITH", "ID-4711", STUDY, SERIES, "ct/0", "f.txt", str(mixed)):
        assert secret.encode() not in public
        assert secret not in str(catalog.table.to_pydict())
    (tmp_path / "out" / "catalog.parquet").write_bytes(public[:100])
    for folder in ("out", "elsewhere"):
        with pytest.raises(RunFolderError, match="Run the scan again"):
            Catalog.read(tmp_path / folder)


def test_one_file_as_input(mixed: Path, tmp_path: Path) -> None:
    assert rows_of(scan(open_source(mixed / "e.npz"), SALT)) == [
        ("e.npz", 0, "image", "array", ""),
        ("e.npz", 1, "image", "array", ""),
    ]
    with pytest.raises(InputError, match="neither integers nor real numbers"):
        scan(open_source(mixed / "e2.npy"), SALT)
    np.savez(tmp_path / "x.npz", x=np.stack([GREY, GREY]))
    with pytest.raises(InputError, match="under the key 'images'"):
        scan(open_source(tmp_path / "x.npz"), SALT)


def test_a_reader_that_fails_costs_one_row(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("patient SMITH")

    monkeypatch.setattr(readers, "_module", lambda _: SimpleNamespace(read_headers=fail, read_pixels=fail))
    catalog = scan(open_source(mixed), SALT)
    rows = [row for row in catalog.table.to_pylist() if row["skipped"] == "unreadable"]
    assert len(rows) == 10
    assert {row["reason"] for row in rows} == {"The file could not be read (ZeroDivisionError); it may be damaged."}
    with pytest.raises(FileProblem, match="unreadable") as caught:
        read_pixels(open_source(mixed), "png", [FrameSource("a.dcm")])
    assert "SMITH" not in str(caught.value)


def test_a_file_that_may_not_be_read_or_fails_is_a_row(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(mixed)
    open_file = type(source).open

    def guarded(self: object, name: str) -> object:
        if name == "a.dcm":
            raise source.explain(PermissionError(13, "Permission denied"))
        if name == "b.jpg":
            raise OSError(5, "Input/output error")
        return open_file(source, name)

    monkeypatch.setattr(type(source), "open", guarded)
    codes = {row[0]: row[4] for row in rows_of(scan(source, SALT))}
    assert (codes["a.dcm"], codes["b.jpg"], codes["c.tif"]) == ("no_permission", "read_failed", "")


def test_input_that_goes_during_the_scan(tmp_path: Path) -> None:
    root = tmp_path / "input"
    root.mkdir()
    for number in range(3):
        Image.fromarray(GREY).save(root / f"{number}.png")
    source = open_source(root)

    def leave(what: str, done: int, total: int) -> None:
        if done == 1:
            root.rename(tmp_path / "gone")

    with pytest.raises(InputError, match="no longer reachable"):
        scan(source, SALT, 1, leave)


def die(source: object, entries: list[object]) -> list[object]:
    if "b.jpg" in str(entries):
        os._exit(1)
    return [[] for _ in entries]


@pytest.mark.skipif(sys.platform == "win32", reason="worker processes are started as on POSIX")
def test_a_decoder_that_crashes_costs_one_row(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medstrata.images.catalog._headers", die)
    monkeypatch.setattr("medstrata.images.catalog.FILES_IN_THIS_PROCESS", 0)
    monkeypatch.setattr("medstrata.images.catalog.FILES_PER_SHARD", 2)
    codes = {row[0]: row[4] for row in rows_of(scan(open_source(mixed), SALT, 2))}
    assert codes == {".DS_Store": "system_file", "b.jpg": "decoder_crashed"}


def test_many_files_take_linear_time(tmp_path: Path) -> None:
    def seconds(count: int) -> float:
        with zipfile.ZipFile(tmp_path / f"{count}.zip", "w") as archive:
            for number in range(count):
                archive.writestr(f"{number:06}.txt", "x")
        source = open_source(tmp_path / f"{count}.zip")
        begin = time.process_time()
        catalog = scan(pickle.loads(pickle.dumps(source)), SALT)
        for image_id in catalog.table["image_id"].to_pylist():
            catalog.frames_of(image_id)
        assert catalog.table.num_rows == count
        return time.process_time() - begin

    seconds(10)
    few, many = max(seconds(400) for _ in range(3)), min(seconds(3200) for _ in range(3))  # pauses are no growth
    assert many < 8 * few * 3, "quadratic time would be 64 times as much"


def test_empty_tables_keep_their_types() -> None:
    assert TABLE_SCHEMA.field("rows").type == pa.int64()
    assert TABLE_SCHEMA.field("spacing_rows").type == pa.float64()
    assert TABLE_SCHEMA.names[0] == "image_id"
    assert "frames" not in TABLE_SCHEMA.names


# ----------------------------------------------------------------------------------------------------- sniff


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\0" * 128 + b"DICM", "dicom"),
        (b"II*\0" + b"\0" * 124 + b"DICM", "dicom"),  # a DICOM file that is a TIFF too
        (b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100", "dicom"),
        (b"\x08\x00\x05\x00\x0a\x00\x00\x00ISO_IR 100\x08\x00", "dicom"),
        (b"\x00\x08\x00\x05CS\x00\x0aISO_IR 100", "dicom"),
        (b"\x02\x00\x00\x00UL\x04\x00\xc0\x00\x00\x00\x02\x00\x01\x00OB", "dicom"),
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"BM" + b"\0" * 12 + b"\x28\0\0\0", "bmp"),
        (b"BMI table of patients and more text", ""),
        (b"MM\0*", "tiff"),
        (b"II+\0", "tiff"),
        (b"\x93NUMPY\x01\x00", "npy"),
        (b"PK\x03\x04" + b"\0" * 22 + b"\x0a\x00\x00\x00images.npy", "npz"),
        (b"PK\x03\x04" + b"\0" * 22 + b"\x05\x00\x00\x00a.png", "zip"),
        (b"PK\x05\x06" + b"\0" * 18, "zip"),
        ((348).to_bytes(4, "little") + b"\0" * 340 + b"n+1\0", "nifti"),
        ((348).to_bytes(4, "big") + b"\0" * 340 + b"n+1\0", "nifti"),
        ((540).to_bytes(4, "little") + b"n+2\0\r\n\x1a\n", "nifti"),
        (gzip.compress((348).to_bytes(4, "little") + b"\0" * 340 + b"n+1\0", mtime=0), "nifti"),
        ((348).to_bytes(4, "little") + b"\0" * 344, ""),  # Analyze: no orientation, not read
        (gzip.compress(b"text", mtime=0), "archive"),
        (b"7z\xbc\xaf\x27\x1c", "archive"),
        (b"\0" * 257 + b"ustar\0", "archive"),
        (b"", ""),
        (b"name,age\nSMITH,50\n", ""),
    ],
)
def test_sniff_by_content(start: bytes, kind: str) -> None:
    assert sniff(start) == kind


@given(st.binary(max_size=600))
def test_sniff_takes_any_bytes(start: bytes) -> None:
    assert isinstance(sniff(start), str)


def test_real_dicom_files_are_all_rows(data_dir: Path, tmp_path: Path) -> None:
    if not (data_dir / "dicom_robustness.tar.gz").is_file():
        pytest.skip("dicom_robustness.tar.gz is absent")
    with tarfile.open(data_dir / "dicom_robustness.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    source = open_source(tmp_path)
    catalog = scan(source, SALT)
    listed = {entry.name for entry in source.listing()}
    assert {row["file"] for row in catalog.sources.to_pylist()} == listed
    codes = catalog.table["skipped"].to_pylist()
    assert codes.count("") > 50
    assert codes.count("unreadable") == 0
