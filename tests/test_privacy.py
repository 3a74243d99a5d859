"""What is planted in names, ids, dates, UIDs and paths appears nowhere in OUT but in OUT/private/."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from command_line import medstrata
from dicom_factory import dataset, save, straight, write_series
from medstrata.evidence.confounders.confounders import find_confounders
from medstrata.evidence.confounders.measures import measure_pixels
from medstrata.evidence.confounders.technical import read_technical
from medstrata.images.vocabulary import is_other

pytestmark = pytest.mark.usefixtures("quick_fits")

NAME, PATIENT, DATE, FOLDER = "Zzyzxowa^Planted", "PLANTED-47K11Z", "19431224", "mrs_zzyzxowa_1943"
UID = "1.2.826.0.1.3680043.8.498.470047"
PLANTED = {
    "PatientName": NAME,
    "PatientID": PATIENT,
    "PatientBirthDate": DATE,
    "StudyDate": DATE,
    "AccessionNumber": PATIENT,
    "InstitutionName": "Zzyzxowa Clinic",
    "ReferringPhysicianName": NAME,
    "StationName": "ZZYZXSTATION",
    "StudyDescription": f"{NAME} {DATE}",
    "SeriesDescription": f"chest {NAME} {PATIENT}",
    "ProtocolName": f"{NAME}",
    "BodyPartExamined": "CHEST",
    "ManufacturerModelName": f"{NAME}",
    "Manufacturer": f"{NAME}",
    "ConvolutionKernel": f"{PATIENT}",
    "ViewPosition": "ZZYZX",
    "ImageComments": f"{NAME}",
    "RescaleIntercept": -3000,
}
SECRETS = [b"zzyzx", b"planted", b"47k11z", DATE.encode(), b"470047", b"private_place"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """OUT of a run over planted series, broken files and planted paths; what it printed."""
    folder = tmp_path_factory.mktemp("x") / "private_place"
    source = folder / FOLDER
    generator = np.random.default_rng(0)
    for patient in range(6):
        values = PLANTED | {"StudyInstanceUID": f"{UID}.{patient}", "SeriesInstanceUID": f"{UID}.{patient}.1"}
        write_series(
            source / f"{FOLDER}_{patient}",
            straight(9, start=-10.0 - patient),
            **(values | {"PatientID": f"{PATIENT}-{patient}", "RescaleIntercept": -5200 + 80 * patient}),
        )
    pixels = generator.integers(0, 99, (16, 16)).astype(np.uint16)
    broken = save(dataset(pixels, **PLANTED, SeriesInstanceUID=f"{UID}.77"), source / f"{NAME}.dcm")
    broken.write_bytes(broken.read_bytes()[:-100])
    (source / f"{NAME}.txt").write_text(NAME)
    plan = ("--clusters", 2, "--goal", "categories")
    answer = medstrata("run", source, folder / "out", *plan)
    assert answer.code == 0, answer.err
    return folder / "out", answer.out, answer.err


def test_nothing_planted_outside_private(run: tuple[Path, str, str], tmp_path: Path) -> None:
    out, _, _ = run
    shutil.copytree(out, tmp_path / "copy", ignore=shutil.ignore_patterns("private"))
    files = [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert len(files) > 15
    for path in files:
        held = path.read_bytes().lower() + str(path.relative_to(tmp_path)).lower().encode()
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            held += repr(pq.read_table(path).to_pylist()).lower().encode()
        assert not [secret for secret in SECRETS if secret in held], path.name


def test_nothing_planted_in_what_is_compared_decided_and_exported(run: tuple[Path, str, str], tmp_path: Path) -> None:
    """Two runs with secret keys of their own, so that images are joined through what is private."""
    import pyarrow.parquet as pq

    out, _, _ = run
    first = out.parent / "first"
    answer = medstrata("run", out.parent / FOLDER, first, "--clusters", 2, "--goal", "categories", "--method", "pca")
    assert answer.code == 0, answer.err
    second = Path(shutil.copytree(out, tmp_path / "second"))
    said = [medstrata("edit", second, "rename", 1, "lungs"), medstrata("compare", first, second)]
    said.append(medstrata("export", second, "--csv", tmp_path / "t.csv", "--json", tmp_path / "t.json"))
    assert [answer.code for answer in said] == [0, 0, 0], said
    assert "SOP instance UID" in said[1].err
    written = [*(second / "comparison").iterdir(), second / "decisions.jsonl", *tmp_path.glob("t.*")]
    assert len(written) == 7
    old_ids = [one.encode() for one in pq.read_table(first / "assignments.parquet")["image_id"].to_pylist()]
    for path in written:
        held = path.read_bytes().lower()
        if path.suffix == ".parquet":
            held += repr(pq.read_table(path).to_pylist()).lower().encode()
        assert not [secret for secret in (*SECRETS, *old_ids) if secret in held], path.name
    assert not [secret for secret in SECRETS for answer in said if secret in answer.err.lower().encode()]


def test_private_has_what_the_user_needs_to_go_back(run: tuple[Path, str, str]) -> None:
    import pyarrow.parquet as pq

    out, _, _ = run
    assert (out / "private").stat().st_mode & 0o777 == 0o700
    rows = pq.read_table(out / "private" / "sources.parquet").to_pylist()
    assert {row["patient_id"] for row in rows if row["patient_id"]} >= {f"{PATIENT}-{n}" for n in range(6)}
    assert all((out.parent / FOLDER / row["file"]).exists() for row in rows)


def test_words_of_no_vocabulary_are_private_and_come_out_as_hashes(run: tuple[Path, str, str]) -> None:
    import pyarrow.parquet as pq

    out, _, _ = run
    rows = pq.read_table(out / "private" / "sources.parquet").to_pylist()
    assert {(row["manufacturer"], row["model"], row["view"], row["kernel"]) for row in rows} >= {
        (NAME, NAME, "ZZYZX", PATIENT)
    }
    images = [row for row in pq.read_table(out / "catalog.parquet").to_pylist() if not row["skipped"]]
    assert images and all(is_other(row[name]) for row in images for name in ("manufacturer", "model", "view", "kernel"))


def test_site_and_date_are_private_and_come_out_as_number_and_rank(run: tuple[Path, str, str]) -> None:
    import pyarrow.parquet as pq

    out, _, _ = run
    rows = pq.read_table(out / "private" / "sources.parquet").to_pylist()
    assert {(row["institution"], row["study_date"]) for row in rows if row["patient_id"]} >= {("Zzyzxowa Clinic", DATE)}
    ids = pq.read_table(out / "assignments.parquet")["image_id"].to_pylist()
    measures = measure_pixels(
        np.load(out / "pixels.npy", mmap_mode="r"), pq.read_table(out / "images.parquet")["image_id"].to_pylist()
    )
    columns = read_technical(out, ids, measures, "subtypes")
    known = {column.key: set(column.values.tolist()) for column in columns if column.key in ("site", "study_date")}
    assert known == {"site": {"site 1"}, "study_date": {1.0}}
    found = find_confounders(columns, np.arange(len(ids)) % 2, ids)
    written = json.dumps([found, [column.values.tolist() for column in columns]]).lower().encode()
    assert not [secret for secret in SECRETS if secret in written]


def test_what_is_said_on_the_way_holds_no_patient_data(run: tuple[Path, str, str]) -> None:
    _, _, said = run
    assert not [secret for secret in SECRETS if secret in said.lower().encode()]
