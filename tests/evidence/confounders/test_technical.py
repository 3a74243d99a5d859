"""Technical columns of a run: which they are, aligned with the images; sites and dates without their values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dicom_factory import dataset, save
from medstrata.errors import RunFolderError
from medstrata.evidence.confounders.columns import LABELS, OTHER_VALUES, TechnicalColumn, common_values
from medstrata.evidence.confounders.confounders import find_confounders
from medstrata.evidence.confounders.measures import MEASURES, measure_pixels
from medstrata.evidence.confounders.technical import (
    CONTENT,
    catalog_rows,
    date_ranks,
    kinds_of,
    read_technical,
    sites,
)
from medstrata.images.catalog import Catalog, scan
from medstrata.images.records import ImageRecord
from medstrata.images.sources import open_source
from medstrata.images.vocabulary import is_other
from medstrata.pipeline.patients import patients_of

SALT = "salt"
CLINICS = ["Zzyzxowa Clinic", "ZZYZXOWA  clinic ", "Other Hospital", ""]
DATES = ["20040119", "19991231", "20040119", ""]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scanned folder of four single images of three patients, of two makers, in files a, b, c and d."""
    source, out = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("out")
    for number, name in enumerate("abcd"):
        values = {
            "PatientID": ["p1", "p1", "p2", ""][number],
            "InstitutionName": CLINICS[number] or None,
            "StudyDate": DATES[number] if number != 2 else "",
            "AcquisitionDate": DATES[number],
            "Manufacturer": "SIEMENS" if number % 2 else "Philips",
            "SliceThickness": 1.0 + number if number else None,
            "BodyPartExamined": "CHEST" if number < 3 else "HEAD",
            "SeriesInstanceUID": f"1.2.{number}",
        }
        save(dataset(np.full((8, 8 + number), number, dtype=np.uint16), **values), source / name)
    scan(open_source(source), SALT).write(out)
    return out


def ids_of(out: Path) -> list[str]:
    """Image ids in the order of the files d, c, b, a."""
    rows = pq.read_table(out / "private" / "sources.parquet").to_pylist()
    return [row["image_id"] for row in sorted(rows, key=lambda row: str(row["file"]), reverse=True)]


def measured(ids: list[str]) -> pa.Table:
    """Measures of images whose brightness is their place in ``ids``, in another order."""
    pixels = np.stack([np.full((1, 4, 4), number, dtype=np.uint8) for number in range(len(ids))])
    return measure_pixels(pixels[::-1], ids[::-1])


def test_every_column_is_aligned_with_the_images(out: Path) -> None:
    ids = ids_of(out)
    found = {column.key: column for column in read_technical(out, ids, measured(ids), "categories")}
    assert set(found) == set(LABELS) - set(CONTENT)
    assert {key for key, column in found.items() if column.origin == "pixels"} == set(MEASURES)
    assert found["manufacturer"].values.tolist() == ["Siemens", "Philips", "Siemens", "Philips"]
    np.testing.assert_array_equal(found["slice_thickness"].values, [4, 3, 2, np.nan])
    assert found["columns"].values.tolist() == [11, 10, 9, 8]
    assert found["site"].values.tolist() == ["", "site 2", "site 1", "site 1"]
    np.testing.assert_array_equal(found["study_date"].values, [np.nan, 2, 1, 2])
    np.testing.assert_allclose(found["mean_intensity"].values, np.arange(4) / 255)


def test_planted_makers_that_are_in_no_vocabulary_are_found(tmp_path: Path) -> None:
    """Two makers, models and kernels that no vocabulary has make two clusters; a third column is the same for all."""
    clusters = np.arange(40) % 2
    for number, cluster in enumerate(clusters.tolist()):
        values = {
            "Manufacturer": f"Zzyzxowa Scanner {'AB'[cluster]}",
            "ManufacturerModelName": f"Zzyzx {cluster}",
            "ConvolutionKernel": "ZZYZX",
            "ViewPosition": f"ZZYZX{cluster}",
            "PatientID": f"p{number}",
            "SeriesInstanceUID": f"1.2.{number}",
        }
        save(dataset(np.full((8, 8), 7, dtype=np.uint16), **values), tmp_path / "in" / f"{number:02d}")
    catalog = scan(open_source(tmp_path / "in"), SALT)
    catalog.write(tmp_path / "out")
    assert "zzyzx" not in str(catalog.table.to_pylist()).lower()
    assert {(row["manufacturer"], row["model"]) for row in catalog.sources.to_pylist()} == {
        ("Zzyzxowa Scanner A", "Zzyzx 0"),
        ("Zzyzxowa Scanner B", "Zzyzx 1"),
    }
    ids = catalog.table["image_id"].to_pylist()
    columns = read_technical(tmp_path / "out", ids, measured(ids), "subtypes")
    header = [column for column in columns if column.origin == "header"]
    (kind,) = (found := find_confounders(header, clusters, ids))["kinds"]
    assert {entry["column"]: entry["effect"] for entry in kind["associations"]} == pytest.approx(
        {"manufacturer": 1, "model": 1, "view": 1}, abs=0.02
    )
    assert {entry["column"]: entry["reason"] for entry in kind["untested"]}["kernel"] == "all values are the same"
    assert kinds_of(catalog.table, "categories") == ["CT"] * 40
    makers = catalog.table["manufacturer"].to_pylist()
    assert all(is_other(maker) for maker in makers) and makers[0] != makers[1]
    for cluster in (0, 1):
        assert found["sentences"][cluster] == (
            f"Cluster {cluster} is mostly images of the manufacturer '{makers[cluster]}', whose name stands in "
            "private/ alone (100 % of it, 0 % elsewhere)."
        )


def test_what_images_show_is_technical_for_subtypes_and_a_kind_for_categories(out: Path) -> None:
    ids = ids_of(out)
    found = {column.key: column for column in read_technical(out, ids, measured(ids), "subtypes")}
    assert set(found) == set(LABELS)
    assert found["body_part"].values.tolist() == ["head", "chest", "chest", "chest"]
    headers = catalog_rows(out, ids)
    assert kinds_of(headers, "categories") == ["CT head", "CT chest", "CT chest", "CT chest"]
    assert kinds_of(headers, "subtypes") == [""] * 4
    patients = patients_of(out, ids)
    assert [int(name) for name in patients] == [0, 1, 2, 2]


def test_institution_and_date_are_in_private_alone(out: Path) -> None:
    rows = sorted(pq.read_table(out / "private" / "sources.parquet").to_pylist(), key=lambda row: str(row["file"]))
    assert [row["institution"] for row in rows] == [name.strip() for name in CLINICS]
    assert [row["study_date"] for row in rows] == DATES
    table = pq.read_table(out / "catalog.parquet")
    assert not [secret for secret in ("zzyzx", "hospital", *DATES[:2]) if secret in str(table.to_pylist()).lower()]


def test_a_folder_from_before_and_one_without_private(out: Path, tmp_path: Path) -> None:
    ids, whole = ids_of(out), Catalog.read(out)
    old = Catalog(whole.table, whole.sources.drop_columns(["institution", "study_date"]))
    old.write(tmp_path / "old")
    frame = Catalog.read(tmp_path / "old").frames_of(ids[1])[0]
    assert (frame.file, frame.institution, frame.study_date) == ("c", "", "")
    (tmp_path / "shared").mkdir()
    pq.write_table(whole.table, tmp_path / "shared" / "catalog.parquet")
    for name in ("old", "shared"):
        keys = {column.key for column in read_technical(tmp_path / name, ids, measured(ids), "categories")}
        assert keys == set(LABELS) - set(CONTENT) - {"site", "study_date"}


def test_what_is_missing_is_said_without_ids(out: Path, tmp_path: Path) -> None:
    ids = ids_of(out)
    with pytest.raises(RunFolderError, match="missing or cannot be read"):
        read_technical(tmp_path, ids, measured(ids), "categories")
    for asked, table in (([*ids, "feed"], measured(ids)), (ids, measured(ids[1:]))):
        with pytest.raises(RunFolderError, match=r"1 of . images are not in") as caught:
            read_technical(out, asked, table, "categories")
        assert not [name for name in (*ids, "feed") if name in str(caught.value)]


def test_sites_by_size_and_dates_by_rank() -> None:
    assert sites(["b", "A", " a ", "", "C", "a"]).tolist() == ["site 2", "site 1", "site 1", "", "site 3", "site 1"]
    days = ["20200301", "2020.02.29", "x", "20200301", "", "20200230"]
    np.testing.assert_array_equal(date_ranks(days), [2, 1, np.nan, 2, np.nan, np.nan])


def test_every_header_column_is_one_of_the_catalog() -> None:
    fields = set(ImageRecord.__dataclass_fields__) | {"site", "study_date", *MEASURES}
    assert set(LABELS) <= fields


def test_values_to_speak_of() -> None:
    thickness = TechnicalColumn("slice_thickness", "header", np.array([1.0, 1.00001, 2.5, np.nan]))
    texts = thickness.as_text()
    assert texts is not None and texts.tolist() == ["1 mm", "1 mm", "2.5 mm", ""]
    assert TechnicalColumn("rows", "header", np.arange(11.0)).as_text() is None
    assert TechnicalColumn("study_date", "header", np.array([1.0, 2.0])).as_text() is None
    many = common_values([f"v{n}" for n in range(40)] + [f"v{n}" for n in range(30)] + [""])
    assert many[:30].tolist() == [f"v{n}" for n in range(30)]
    assert set(many[30:40].tolist()) == {OTHER_VALUES} and many[-1] == ""
