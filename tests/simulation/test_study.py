"""The simulated study: readable DICOM whose voxels and truth agree."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest

from medstrata.errors import PlanError, RunFolderError
from medstrata.simulation.phantom import Lesion
from medstrata.simulation.study import Group, Study, simulate_arrays, simulate_study

SMALL = Study(
    patients=5,
    groups=(Group("clear", ()), Group("nodule", (Lesion("right upper lobe", 22, 40),))),
    shape=(16, 32, 40),
    spacing=(18.0, 10.5, 8.4),
    noise=10.0,
    distractor=True,
    seed=4,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "deep" / "study"
    simulate_study(out, SMALL)
    return out


def truth(study: Path) -> Path:
    return study.with_name("study-truth")


def datasets(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(file) for file in sorted(folder.iterdir())]


def by_height(folder: Path) -> list[pydicom.Dataset]:
    return sorted(datasets(folder), key=lambda d: float(d.ImagePositionPatient[2]))


def rows(study: Path) -> list[dict[str, str]]:
    with open(truth(study) / "labels.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_files_hold_the_very_voxels_of_the_arrays(study: Path) -> None:
    volumes, labels, masks = simulate_arrays(SMALL)
    assert volumes.shape == (5, 1, 16, 32, 40)
    assert volumes.dtype == np.int16
    assert masks.shape == (5, 16, 32, 40)
    assert labels.tolist() == SMALL.labels().tolist()
    for number in range(5):
        series = by_height(study / f"phantom_{number:03d}")
        hu = np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in series])
        assert np.array_equal(hu, volumes[number, 0])
        mask = nib.load(truth(study) / f"lesion_phantom_{number:03d}.nii.gz").get_fdata()
        assert np.array_equal(mask.transpose(2, 1, 0), masks[number])


def test_highdicom_reads_a_series_and_the_mask_lies_on_its_grid(study: Path) -> None:
    number = int(np.flatnonzero(SMALL.labels() == 1)[0])
    series = datasets(study / f"phantom_{number:03d}")
    volume = highdicom.get_volume_from_series(series)
    assert volume.spacing == pytest.approx((18.0, 10.5, 8.4))
    mask = nib.load(truth(study) / f"lesion_phantom_{number:03d}.nii.gz")
    voxels = np.argwhere(mask.get_fdata() > 0)
    ras = nib.affines.apply_affine(mask.affine, voxels)
    index = np.rint(nib.affines.apply_affine(np.linalg.inv(volume.affine), ras * [-1, -1, 1])).astype(int)
    hu = volume.array[tuple(index.T)]
    assert np.array_equal(hu, simulate_arrays(SMALL)[0][number, 0][tuple(voxels.T[::-1])])
    assert hu.max() == pytest.approx(40, abs=40)
    lung = np.median(volume.array[(volume.array < -600) & (volume.array > -950)])
    assert np.median(hu) > lung + 300  # at this voxel size most of a nodule is edge
    back = nib.affines.apply_affine(volume.affine, index) * [-1, -1, 1]
    assert back == pytest.approx(ras, abs=1e-3)
    assert (ras[:, 0] > mask.affine[0, 3] - 340 / 2).all()  # right of the middle: larger x in RAS


def test_the_distractor_lies_where_its_mask_says(study: Path) -> None:
    for number in range(5):
        mask = nib.load(truth(study) / f"distractor_phantom_{number:03d}.nii.gz").get_fdata().transpose(2, 1, 0) > 0
        hu = np.stack([d.pixel_array - 1024.0 for d in by_height(study / f"phantom_{number:03d}")])
        assert mask.any()
        assert hu[mask].max() == hu.max() > 1000


def test_names_and_instance_numbers_do_not_tell_the_position(study: Path) -> None:
    in_order = 0
    for folder in sorted(study.iterdir()):
        series = datasets(folder)
        heights = [float(d.ImagePositionPatient[2]) for d in series]
        assert heights != sorted(heights)
        assert sorted(int(d.InstanceNumber) for d in series) == list(range(1, 17))
        in_order += [d.InstanceNumber for d in by_height(folder)] == list(range(1, 17))
    assert in_order < 5


def test_headers_say_what_a_reader_needs(study: Path) -> None:
    seen = set()
    for folder in sorted(study.iterdir()):
        series = datasets(folder)
        first = series[0]
        assert first.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
        assert first.SOPClassUID == pydicom.uid.CTImageStorage
        assert (first.Modality, first.BodyPartExamined, first.BurnedInAnnotation) == ("CT", "CHEST", "NO")
        assert (first.Rows, first.Columns, first.PixelRepresentation) == (32, 40, 0)
        assert [float(v) for v in first.PixelSpacing] == [10.5, 8.4]
        assert {d.SeriesInstanceUID for d in series} == {first.SeriesInstanceUID}
        for d in series:
            assert d.file_meta.MediaStorageSOPInstanceUID == d.SOPInstanceUID
        uids = {d.SOPInstanceUID for d in series} | {first.SeriesInstanceUID, first.StudyInstanceUID}
        assert len(uids) == len(series) + 2
        assert all(uid.is_valid and uid.startswith("1.2.826.0.1.3680043.8.498.") for uid in uids)
        assert not uids & seen
        seen |= uids | {first.PatientID}
    assert sum(str(uid).startswith("PHANTOM") for uid in seen) == 5


def test_labels_name_every_file_once_and_groups_every_patient(study: Path) -> None:
    files = {file.relative_to(study).as_posix() for file in study.rglob("*.dcm")}
    labels = {row["file"]: row["label"] for row in rows(study)}
    assert set(labels) == files
    assert len(rows(study)) == len(files) == 5 * 16
    groups = json.loads((truth(study) / "groups.json").read_text())
    assert [len(group["patients"]) for group in groups["groups"]] == [3, 2]
    assert groups["groups"][1]["lesions"][0]["intensity"] == 40
    assert groups["study"]["seed"] == 4
    for group in groups["groups"]:
        for patient in group["patients"]:
            assert {label for file, label in labels.items() if file.startswith(patient)} == {group["name"]}


def test_the_same_study_gives_identical_bytes_and_another_seed_others(study: Path, tmp_path: Path) -> None:
    def contents(folder: Path) -> dict[str, bytes]:
        return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    simulate_study(tmp_path / "again", SMALL)
    assert contents(tmp_path / "again") == contents(study)
    assert contents(tmp_path / "again-truth") == contents(truth(study))
    other = simulate_arrays(Study(patients=2, groups=SMALL.groups, shape=SMALL.shape, spacing=SMALL.spacing, seed=5))
    assert not np.array_equal(other[0][0], simulate_arrays(SMALL)[0][0])


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(RunFolderError, match="not an empty folder"):
        simulate_study(tmp_path, SMALL)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(RunFolderError, match="not an empty folder"):
        simulate_study(tmp_path / "mine.txt", SMALL)
    (tmp_path / "new-truth").mkdir()
    (tmp_path / "new-truth" / "old.csv").write_text("keep")
    with pytest.raises(RunFolderError, match="new-truth"):
        simulate_study(tmp_path / "new", SMALL)
    assert not (tmp_path / "new").exists()


def test_an_empty_folder_is_used_and_progress_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    told: list[tuple[str, int, int]] = []
    one = Study(patients=1, groups=(Group("clear", ()),), shape=(16, 32, 32), spacing=(18.0, 10.5, 10.5))
    simulate_study(tmp_path / "empty", one, lambda *step: told.append(step))
    assert told == [("simulate", 0, 1), ("simulate", 1, 1)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "empty-truth"]
    assert len(list((tmp_path / "empty" / "phantom_000").iterdir())) == 16


def test_a_failed_study_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="too coarse"):
        simulate_study(tmp_path / "study", Study(shape=(8, 8, 8), spacing=(3.0, 3.0, 3.0)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [{"patients": 2}, {"groups": ()}, {"shape": (4, 96, 96)}, {"noise": -1.0}, {"seed": -1}]
)
def test_impossible_studies_are_refused(wrong: dict) -> None:
    with pytest.raises(PlanError):
        Study(**wrong)


def test_groups_are_of_equal_size_and_in_no_order() -> None:
    labels = Study().labels()
    assert np.bincount(labels).tolist() == [20, 20, 20]
    assert labels.tolist() != sorted(labels)
    assert labels.tolist() != [i % 3 for i in range(60)]
