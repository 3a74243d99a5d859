"""adjust_for from DICOM files to the comparison of before and after, and what is said of batches."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from command_line import images, medstrata
from dicom_factory import dataset, save
from medstrata.evidence.metrics import score
from medstrata.images.plan import load_plan
from medstrata.pipeline.adjusting import FEWEST_PATIENTS, in_batches, judge_adjustment, prepare_batches

MAKERS = ["SIEMENS", "Philips", "GE MEDICAL SYSTEMS", "Canon"]
GROUPS = 2
CLINIC = "Zzyzxowa Clinic"
IN_HU = {"RescaleSlope": 1, "RescaleIntercept": 0}


def write_study(folder: Path, makers: list[str], first: int = 0, **values: Any) -> np.ndarray:
    """One CT image of a patient per entry of ``makers``; the second maker's are brighter and of less contrast."""
    pixels, groups = images(len(makers), GROUPS, side=32)
    for number, (image, maker) in enumerate(zip(pixels, makers, strict=True)):
        stored = image.astype(np.float64) * 3 - 700
        stored = (stored if maker == MAKERS[0] else 0.35 * stored + 200).astype(np.int16)
        elements: dict[str, Any] = {
            "PatientID": f"planted-{first + number}",
            "Manufacturer": maker,
            "InstitutionName": CLINIC,
            **IN_HU,
        }
        elements |= {"StudyInstanceUID": f"1.2.{first + number}", "SeriesInstanceUID": f"1.2.{first + number}.1"}
        save(dataset(stored, **elements, **values), folder / f"{number:03d}")
    return groups


def truth(out: Path, groups: np.ndarray) -> np.ndarray:
    """The groups in the order of assignments.parquet."""
    sources = pq.read_table(out / "private" / "sources.parquet").to_pylist()
    group_of = {row["image_id"]: groups[int(row["file"])] for row in sources}
    ids = pq.read_table(out / "assignments.parquet")["image_id"].to_pylist()
    return np.array([group_of[image_id] for image_id in ids])


def clusters(out: Path) -> np.ndarray:
    return np.asarray(pq.read_table(out / "assignments.parquet")["nearest"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, str]:
    """A folder with INPUT ``in``, the runs ``before`` and ``after``; the groups; what ``after`` said."""
    folder = tmp_path_factory.mktemp("adjusting")
    groups = write_study(folder / "in", [MAKERS[number // GROUPS % 2] for number in range(48)])
    plan = ("--clusters", GROUPS, "--method", "pca")
    answer = medstrata("run", folder / "in", folder / "before", *plan)
    assert answer.code == 0, answer.err
    answer = medstrata("run", folder / "in", folder / "after", *plan, "--adjust-for", "manufacturer")
    assert answer.code == 0, answer.err
    return folder, groups, answer.err


def test_the_planted_groups_come_back(runs: tuple[Path, np.ndarray, str]) -> None:
    folder, groups, said = runs
    scores = [score(truth(folder / name, groups), clusters(folder / name))["accuracy"] for name in ("before", "after")]
    assert scores[0] < 0.6 and scores[1] == 1
    assert "Adjusted for manufacturer: Cramér's V of batches and clusters is" in said and "valid only if" in said
    facts = json.loads((folder / "after" / "adjustment.json").read_text())
    assert facts["columns"] == ["manufacturer"] and facts["count"] == 2
    assert [(one["number"], one["images"], one["patients"]) for one in facts["batches"]] == [(0, 24, 24), (1, 24, 24)]
    assert facts["before"] > 0.5 and facts["after"] < 0.1
    table = pq.read_table(folder / "after" / "batches.parquet")
    assert table.column_names == ["image_id", "batch", "number", "why"] and set(table["why"].to_pylist()) == {""}
    assert not (folder / "before" / "adjustment.json").exists()
    page = (folder / "after" / "report.html").read_text()
    assert "What was removed before clusters were looked for" in page and "valid only if every group" in page
    assert "What was removed" not in (folder / "before" / "report.html").read_text()


def test_compare_lists_adjust_for_among_the_changed_settings(runs: tuple[Path, np.ndarray, str]) -> None:
    folder, _, _ = runs
    assert medstrata("compare", folder / "before", folder / "after").code == 0
    found = json.loads((folder / "after" / "comparison" / "compare.json").read_text())
    assert found["plan"] == [{"key": "adjust_for", "first": "none", "second": "manufacturer"}]


def test_new_images_are_adjusted_by_their_own_batch_and_unseen_ones_are_counted(
    runs: tuple[Path, np.ndarray, str], tmp_path: Path
) -> None:
    folder, _, _ = runs
    makers = [MAKERS[number // GROUPS % 2] for number in range(12)] + [MAKERS[2]] * 3
    groups = write_study(tmp_path / "in", makers, first=900)
    answer = medstrata("assign", folder / "after", tmp_path / "in", tmp_path / "out")
    assert answer.code == 0, answer.err
    assert "3 images of 15 are of batches that were not in the fit" in answer.err
    found, known = clusters(tmp_path / "out"), truth(tmp_path / "out", groups)
    assert score(known[:12], found[:12])["accuracy"] == 1
    table = pq.read_table(tmp_path / "out" / "batches.parquet")
    assert table["number"].to_pylist()[12:] == [-1] * 3 and -1 not in table["number"].to_pylist()[:12]
    assert ["not in the fit" in why or "no image" in why for why in table["why"].to_pylist()] == [False] * 12 + [
        True
    ] * 3
    assert "3 images of 15" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.timeout(300)
def test_validate_refits_within_batches(runs: tuple[Path, np.ndarray, str], tmp_path: Path) -> None:
    """Without batches the refits would find the scanners and support nothing."""
    folder, _, _ = runs
    shutil.copytree(folder / "after", tmp_path / "out")
    answer = medstrata("validate", tmp_path / "out", "--refits", 2, "--surrogates", 4)
    assert answer.code == 0, answer.err
    found = json.loads((tmp_path / "out" / "validation.json").read_text())
    assert found["stability"]["seeds"]["ari"]["mean"] == 1 and found["stability"]["patients"]["ari"]["mean"] > 0.9
    found_again = found["null"]["replication"]
    assert found_again["real"] > 0.9 > min(found_again["surrogates"])  # of so few images some come out alike by chance


def test_only_the_fit_is_done_again_when_the_key_is_edited(runs: tuple[Path, np.ndarray, str], tmp_path: Path) -> None:
    folder, _, _ = runs
    shutil.copytree(folder / "after", tmp_path / "out")
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    (tmp_path / "out" / "plan.json").write_text(json.dumps(plan | {"adjust_for": []}))
    answer = medstrata("run", folder / "in", tmp_path / "out")
    assert answer.code == 0 and "decode: up to date" in answer.err and "fit: up to date" not in answer.err
    assert not [name for name in ("adjustment.json", "batches.parquet") if (tmp_path / "out" / name).exists()]
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / "before" / name).read_bytes()


def test_what_cannot_be_done_is_one_sentence(runs: tuple[Path, np.ndarray, str], tmp_path: Path) -> None:
    folder, _, _ = runs
    answer = medstrata("run", folder / "in", tmp_path / "out", "--adjust-for", "scanner")
    assert answer.code == 1 and "told by 'scanner'. The columns are: site" in answer.sentence
    shutil.copytree(folder / "after", tmp_path / "own")
    plan = json.loads((tmp_path / "own" / "plan.json").read_text())
    plan |= {"method": "dcec", "settings": {"assignment": "own"}}
    (tmp_path / "own" / "plan.json").write_text(json.dumps(plan))
    answer = medstrata("run", folder / "in", tmp_path / "own")
    assert answer.code == 1 and "adjust_for is set" in answer.sentence and 'assignment="graph"' in answer.sentence


def prepared(
    folder: Path, out: Path, makers: list[str], columns: list[str], fitted: np.ndarray | None = None
) -> dict[str, Any]:
    """``adjustment.json`` of a copy of a run whose images are of other makers."""
    shutil.copytree(folder / "after", out)
    table = pq.read_table(out / "catalog.parquet")
    at = table.column_names.index("manufacturer")
    pq.write_table(table.set_column(at, "manufacturer", [makers]), out / "catalog.parquet")
    plan = load_plan(out / "plan.json")
    plan.adjust_for[:] = columns
    prepare_batches(out, plan, np.ones(len(makers), np.bool_) if fitted is None else fitted)
    found: dict[str, Any] = json.loads((out / "adjustment.json").read_text())
    return found


def test_patients_count_that_the_model_is_fitted_on(runs: tuple[Path, np.ndarray, str], tmp_path: Path) -> None:
    """Of 20 images of b only 8 are drawn for the fit: too few to learn a mean and a scale from."""
    makers = ["a"] * 28 + ["b"] * 20
    fitted = np.arange(48) < 36
    found = prepared(runs[0], tmp_path / "out", makers, ["manufacturer"], fitted)
    assert [(one["values"], one["number"], one["patients"]) for one in found["batches"]] == [
        (["a"], 0, 28),
        (["b"], -1, 8),
    ]


def test_small_batches_are_pooled_and_unknown_is_a_batch(runs: tuple[Path, np.ndarray, str], tmp_path: Path) -> None:
    makers = ["a"] * 20 + [""] * 16 + ["b"] * 9 + ["c"] * 3
    found = prepared(runs[0], tmp_path / "out", makers, ["manufacturer"])
    assert {one["values"][0]: one["number"] for one in found["batches"]} == {"": 0, "a": 1, "b": 2, "c": 2}
    assert found["count"] == 3
    assert found["sentences"] == [
        f"12 images are of batches of fewer than {FEWEST_PATIENTS} patients, which are pooled to one."
    ]
    table = pq.read_table(tmp_path / "out" / "batches.parquet").to_pylist()
    assert [row["batch"] for row in table[19:21]] == ["a", "unknown"]
    assert [bool(row["why"]) for row in table] == [False] * 36 + [True] * 12


def test_few_patients_even_together_are_left_as_they_are(runs: tuple[Path, np.ndarray, str], tmp_path: Path) -> None:
    found = prepared(runs[0], tmp_path / "out", ["a"] * 20 + ["b"] * 20 + ["c"] * 8, ["manufacturer"])
    assert {one["values"][0]: one["number"] for one in found["batches"]} == {"a": 0, "b": 1, "c": -1}
    assert "8 images" in found["sentences"][0] and "left as they are" in found["sentences"][0]
    pixels = np.load(tmp_path / "out" / "pixels.npy")
    X: Any = in_batches(tmp_path / "out", pixels)
    assert X.count == 2 and X.numbers.tolist() == [0] * 20 + [1] * 20 + [-1] * 8


def test_a_single_batch_is_said_and_changes_nothing(runs: tuple[Path, np.ndarray, str], tmp_path: Path) -> None:
    folder, _, _ = runs
    answer = medstrata(
        *("run", folder / "in", tmp_path / "out", "--clusters", GROUPS, "--method", "pca"),
        *("--adjust-for", "modality", "--adjust-for", "site"),
    )
    assert answer.code == 0 and "adjust_for changes nothing: by modality and site" in answer.err
    same = (tmp_path / "out" / "model.safetensors").read_bytes() == (
        folder / "before" / "model.safetensors"
    ).read_bytes()
    assert same and "adjust_for changes nothing" in (tmp_path / "out" / "report.html").read_text()
    for path in (tmp_path / "out").glob("*.*"):  # the site is in there as a keyed hash alone
        held = path.read_bytes().lower()
        assert b"zzyzx" not in held and (path.suffix != ".parquet" or "zzyzx" not in repr(pq.read_table(path)).lower())


def test_a_batch_that_is_one_cluster_is_warned_of(tmp_path: Path) -> None:
    """The second maker has images of one group only; its technique changes nothing."""
    groups = write_study(tmp_path / "in", [MAKERS[0]] * 48)
    for number in np.flatnonzero(groups == 1):
        pixels = images(48, GROUPS, side=32)[0][number].astype(np.int16) * 3 - 700
        values = {
            **IN_HU,
            "Manufacturer": MAKERS[1],
            "PatientID": f"planted-{number}",
            "SeriesInstanceUID": f"1.2.{number}.1",
        }
        save(dataset(pixels, **values), tmp_path / "in" / f"{number:03d}")
    plan = ("--clusters", GROUPS, "--method", "pca", "--adjust-for", "manufacturer")
    answer = medstrata("run", tmp_path / "in", tmp_path / "out", *plan)
    assert answer.code == 0, answer.err
    assert "Before, 100% of the images of batch" in answer.err and "removed a true difference" in answer.err


def test_batches_that_stay_in_the_clusters_are_said(runs: tuple[Path, np.ndarray, str], tmp_path: Path) -> None:
    shutil.copytree(runs[0] / "after", tmp_path / "out")
    X: Any = in_batches(tmp_path / "out", np.load(tmp_path / "out" / "pixels.npy"))
    method: Any = SimpleNamespace(unadjusted_labels_=X.numbers, labels_=X.numbers)
    assert any("did not remove it" in sentence for sentence in judge_adjustment(tmp_path / "out", method, X))
    assert not any("did not remove it" in sentence for sentence in runs[2].splitlines())
