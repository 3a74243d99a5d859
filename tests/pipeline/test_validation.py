"""Validation of a whole run: what is supported, what is not, what is written, what is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from command_line import images, medstrata
from dicom_factory import dataset, save
from medstrata.evidence.validity.null import SPLITS
from medstrata.evidence.validity.stability import some_patients
from medstrata.pipeline import refits as refits_module
from medstrata.pipeline.validation import _sentences
from validated import edit_plan, finish, finished_run, kept, validated

ID = "PLANTED-77Q"


def test_planted_groups_are_supported(run: Path) -> None:
    found = validated(run, surrogates=19)
    assert found["supported"] is True and found["provisional"] is False
    assert found["sentence"].startswith("All 3 clusters are supported.")
    assert [entry["supported"] for entry in found["clusters"]] == [True] * 3
    assert found["stability"]["refits"] == {"seeds": 3, "patients": 3}
    assert found["null"]["p"] == 0.05 and len(found["null"]["separation"]["surrogates"]) == 19
    assert (found["images"], found["patients"]) == (60, 60)
    assert found["settings"] == {"share_of_patients": 0.8, "splits": SPLITS, "images_in_null": 60}


def test_pure_noise_is_not_supported_and_the_report_says_so_first(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 16, 16), dtype=np.uint8)
    out = finished_run(tmp_path, noise)
    found = validated(out, surrogates=19)
    assert found["supported"] is False and found["sentence"].startswith("No clusters are supported:")
    assert not any(entry["supported"] for entry in found["clusters"])
    page = (out / "report.html").read_text()
    top = page[: page.index("Are these clusters real?</h2>")]
    assert "The clusters are not supported" in top and "none of 3" in top
    card = (out / "model_card.md").read_text()
    assert "No clusters are supported:" in card[card.index("## Metrics") : card.index("## Limits")]
    assert "The clusters are not supported." in card[card.index("## Limits") :]


def test_nineteen_surrogates_are_needed_and_three_refits(run: Path) -> None:
    few = validated(run, refits=2, surrogates=1)
    assert few["supported"] is False
    assert "fewer than three refits of each kind were made" in few["sentence"]
    assert "19 are needed" in few["sentence"]
    assert few["verdict"] == "not fully tested" and few["sentence"].startswith("Not fully tested: ")
    page = (run / "report.html").read_text()
    assert "The clusters are not fully tested" in page and "clusters are not supported" not in page


def test_a_smaller_call_uses_what_is_there(run: Path) -> None:
    whole = validated(run, surrogates=19)
    assert validated(run, refits=1, surrogates=0) == whole
    stages = json.loads((run / "run.json").read_text())["stages"]
    assert (stages["validate"]["refits"], stages["validate"]["surrogates"]) == (3, 19)


def test_refits_measure_how_often_new_patients_are_flagged(tmp_path: Path) -> None:
    """200 patients of three groups that overlap: refits that did not see a patient say whether he seems new."""
    generator = np.random.default_rng(0)
    pixels = generator.normal(100, 40, (200, 8, 8)) + 25 * (np.arange(200) % 3)[:, None, None]
    out = finished_run(tmp_path, pixels.clip(0, 255).astype(np.uint8))
    before = json.loads((out / "calibration.json").read_text())
    answer = medstrata("validate", out, "--refits", 5, "--surrogates", 0)
    after = json.loads((out / "calibration.json").read_text())
    measured = after["novelty"].pop("measured")
    assert before == after and "provisional" not in answer.err
    assert (measured["refits"], measured["images"]) == (5, 5 * 40)
    flagged = []
    for number in range(5):
        stored = np.load(out / "validation" / f"refit-patients-{number}.npz")
        seen = some_patients(np.array(pq.read_table(out / "assignments.parquet")["image_id"]), 0.8, 1001 + number)
        flagged += (stored["novelty_p"][~seen] <= 0.01).tolist()
    assert measured["mean"] == pytest.approx(np.mean(flagged), abs=0.005)  # a mean over patients, not over images
    assert 0 <= measured["low"] <= measured["mean"] <= measured["high"] < 0.1
    said = f"refits flagged {100 * measured['mean']:.1f} % of the images of patients whom they had not seen"
    assert said in (out / "report.html").read_text() and said in (out / "model_card.md").read_text()
    assert said.replace(" %", "%") in answer.err


def test_what_run_writes_is_provisional_and_supports_nothing(planted: Path, tmp_path: Path) -> None:
    found = json.loads((planted / "validation.json").read_text())
    assert (found["provisional"], found["supported"], found["clusters"], found["null"]) == (True, False, [], None)
    assert found["stability"]["refits"] == {"seeds": 0, "patients": 5}
    assert "medstrata validate OUT" in found["sentence"] and found["verdict"] == "not fully tested"
    assert found["n_clusters"] == {
        "used": 3,
        "recommended": None,
        "plausible": [],
        "sentence": "The number of clusters was not looked at yet.",
        "images": 0,
        "curves": {},
    }
    assert found.keys() ^ validated(Path(shutil.copytree(planted, tmp_path / "out")), refits=1).keys() == {
        *("images", "patients")
    }


def test_consensus_is_of_the_refits(run: Path) -> None:
    validated(run)
    table = pq.read_table(run / "validation" / "consensus.parquet")
    assignments = pq.read_table(run / "assignments.parquet")
    assert table.column_names == ["image_id", "cluster", "consensus"]
    assert table["image_id"].to_pylist() == assignments["image_id"].to_pylist()
    assert table["cluster"].to_pylist() == assignments["nearest"].to_pylist()
    assert table["consensus"].to_pylist() == [1.0] * 60
    matrix, clusters = (np.load(run / "validation" / f"consensus_{name}.npy") for name in ("matrix", "clusters"))
    assert np.array_equal(matrix, (clusters[:, None] == clusters[None]).astype(np.float32))


def test_the_report_is_made_again(run: Path) -> None:
    before = (run / "report.html").read_text()
    assert "not tested" in before
    validated(run)
    after = (run / "report.html").read_text()
    assert after != before and "none of 3" in after
    answer = medstrata("report", run)
    assert answer.code == 0 and "report: up to date" in answer.err


def test_run_again_keeps_what_was_validated(run: Path, planted: Path) -> None:
    found = validated(run)
    assert medstrata("run", planted.parent / "images.npz", run).code == 0
    assert json.loads((run / "validation.json").read_text()) == found


def test_stopped_and_continued_gives_the_same_and_fits_nothing_twice(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Path(shutil.copytree(run, tmp_path / "whole"))
    fits: list[int] = []
    fit = refits_module._fitted

    def counted(*arguments: Any) -> Any:
        if len(fits) == stop:
            raise KeyboardInterrupt
        fits.append(1)
        return fit(*arguments)

    monkeypatch.setattr(refits_module, "_fitted", counted)
    stop = 1000
    validated(whole, refits=2, surrogates=2)
    assert len(fits) == 2 * 2 + 2 * (SPLITS + 2)
    fits.clear()
    for after in (3, 9):  # between two refits, and between the two halves of a division
        stop = after
        with pytest.raises(KeyboardInterrupt):
            validated(run, refits=2, surrogates=2)
    assert len(fits) == 9 and json.loads((run / "validation.json").read_text())["provisional"]
    stop = 1000
    validated(run, refits=2, surrogates=2)
    assert len(fits) == 2 * 2 + 2 * (SPLITS + 2) + 1  # of the division that was cut in two, one half again
    assert (run / "validation.json").read_bytes() == (whole / "validation.json").read_bytes()
    assert kept(run) == kept(whole)
    validated(run, refits=2, surrogates=2)
    assert len(fits) == 2 * 2 + 2 * (SPLITS + 2) + 1


def test_labels_are_compared_and_change_nothing(run: Path, tmp_path: Path) -> None:
    truth = np.roll(images(60)[1], 7)  # wrong on purpose
    np.savez(tmp_path / "labels.npz", labels=truth)
    plain = validated(run)
    labelled = validated(Path(shutil.copytree(run, tmp_path / "labelled")), labels=tmp_path / "labels.npz")
    assert plain["labels"] is None and labelled["labels"]["labelled"] == 60
    found = kept(tmp_path / "labelled")
    assert json.loads(found.pop("labels.json")) == labelled["labels"]
    assert {**labelled, "labels": None} == plain and found == kept(run)
    assert validated(tmp_path / "labelled") == labelled, "what an earlier call found is kept"
    page = (tmp_path / "labelled" / "report.html").read_text()
    assert "Agreement with known classes, which no fit has seen" in page


def test_too_few_patients_for_halves_are_told(tmp_path: Path) -> None:
    out = finished_run(tmp_path, images(15)[0])
    answer = medstrata("validate", out, "--refits", 1, "--surrogates", 2)
    assert answer.code == 0
    assert "15 patients are too few for fits on halves of them (at least 20)" in answer.err
    assert json.loads((out / "validation.json").read_text())["null"] is None


def write_patients(folder: Path) -> Path:
    """DICOM of 24 patients, two images each of one of three groups, with planted ids; and a clinical table."""
    pixels, groups = images(48)
    rows = [f"patient_id,age,remark {ID}"]
    order = np.argsort(groups, kind="stable")
    for number, image in enumerate(order.tolist()):
        patient = f"{ID}-{number // 2}"
        values = {"PatientID": patient, "SeriesInstanceUID": f"1.2.{number}", "StudyInstanceUID": f"1.3.{number // 2}"}
        save(dataset(pixels[image].astype(np.uint16), **values, Modality="CR"), folder / "in" / f"{number}.dcm")
    rows += [f"{ID}-{number},{50 + 10 * (number // 8) + number % 3},{ID}" for number in range(24)]
    (folder / "table.csv").write_text("\n".join([*rows, f"{ID}-unknown,3,x"]) + "\n")
    return folder / "in"


def test_an_array_tells_patients_and_a_clinical_table_joins_by_their_ids(tmp_path: Path) -> None:
    """20 patients of three images each: 60 images are 20 patients in everything that counts."""
    pixels, groups = images(60)
    order = np.argsort(groups, kind="stable")
    patients = np.repeat([f"{ID}-{number}" for number in range(20)], 3)
    np.savez(tmp_path / "images.npz", images=pixels[order], patient=patients)
    out = finish(tmp_path / "images.npz", tmp_path / "out")
    ids = pq.read_table(out / "catalog.parquet")["image_id"].to_pylist()
    ages = [50 + 10 * (number // 7) + number % 3 for number in range(20)]
    by_patient = [f"{ID}-{number},{age}" for number, age in enumerate(ages)]
    by_image = [f"{image},{ages[row // 3]}" for row, image in enumerate(ids)]
    for key, rows in (("patient_id", by_patient), ("image_id", by_image)):
        (tmp_path / "table.csv").write_text("\n".join([f"{key},age", *rows]) + "\n")
        answer = medstrata("validate", out, "--refits", 1, "--surrogates", 0, "--clinical", tmp_path / "table.csv")
        assert answer.code == 0 and "patients are not known" not in answer.err
        found = json.loads((out / "validation.json").read_text())
        assert (found["images"], found["patients"], found["confounders"]["unit"]) == (60, 20, "patient")
        clinical = found["associations"]
        assert (clinical["unit"], clinical["patients"], clinical["caution"]) == ("patient", 20, "")
        assert clinical["associations"][0]["n"] == 20 and "age differs between clusters" in answer.err
        assert "the patient, of whom 20 are in the table" in (out / "report.html").read_text()
    files = [path for path in out.rglob("*") if path.is_file() and "private" not in path.relative_to(out).parts]
    for path in files:
        held = path.read_bytes()
        if path.suffix == ".parquet":
            held += repr(pq.read_table(path).to_pylist()).encode()
        assert ID.encode() not in held, path.name


def test_images_of_unknown_patients_are_not_called_patients(run: Path, tmp_path: Path) -> None:
    ids = pq.read_table(run / "catalog.parquet")["image_id"].to_pylist()
    rows = [f"{image},{50 + row % 3 + row % 7 / 10}" for row, image in enumerate(ids)]
    (tmp_path / "table.csv").write_text("\n".join(["image_id,age", *rows]) + "\n")
    answer = medstrata("validate", run, "--refits", 1, "--surrogates", 0, "--clinical", tmp_path / "table.csv")
    caution = "patients are not known: each image counts as one patient, so the tests are too sure where a patient has"
    clinical = json.loads((run / "validation.json").read_text())["associations"]
    assert answer.code == 0 and clinical["unit"] == "image" and caution in clinical["caution"] and caution in answer.err
    page = (run / "report.html").read_text()
    assert caution in page and "<td>Images</td><td>60</td>" in page and "The unit is the image, of which 60 are" in page
    assert "<td>Patients</td>" not in page and "The unit is the patient" not in page


def test_original_ids_of_images_and_table_stay_private(tmp_path: Path) -> None:
    out = finish(write_patients(tmp_path), tmp_path / "out")
    answer = medstrata("validate", out, "--refits", 1, "--surrogates", 1, "--clinical", tmp_path / "table.csv")
    assert answer.code == 0, answer.err
    found = json.loads((out / "validation.json").read_text())
    assert found["patients"] == 24 and found["associations"]["patients"] == 24
    assert "1 row not used: the id is not known to this run" in answer.err
    assert f"1 column not used: all values are the same (remark {ID})" in answer.err
    files = [path for path in out.rglob("*") if path.is_file() and "private" not in path.relative_to(out).parts]
    assert {"model_card.md", "validation.json", "table_one.csv"} <= {path.name for path in files}
    for path in files:
        held = path.read_bytes()
        if path.suffix == ".parquet":
            held += repr(pq.read_table(path).to_pylist()).encode()
        values = held.replace(f"remark {ID}".encode(), b"")  # the name of a column is the user's own
        assert ID.encode() not in values, path.name
    assert ID not in answer.err.replace(f"remark {ID}", "")


def test_the_clinical_table_of_an_earlier_call_is_kept_until_there_is_another(tmp_path: Path) -> None:
    out = finish(write_patients(tmp_path), tmp_path / "out")
    quick = ("--refits", 1, "--surrogates", 0)
    assert medstrata("validate", out, *quick, "--clinical", tmp_path / "table.csv").code == 0
    first = json.loads((out / "validation.json").read_text())["associations"]
    assert first is not None
    answer = medstrata("validate", out, *quick, "--clusters", "2-50")
    assert "the clinical table of the earlier call is kept" in answer.err
    assert "Numbers above 16 were asked for and left out" in answer.err
    assert json.loads((out / "validation.json").read_text())["associations"] == first
    (tmp_path / "other.csv").write_text((tmp_path / "table.csv").read_text().replace("age", "weight"))
    answer = medstrata("validate", out, *quick, "--clinical", tmp_path / "other.csv")
    assert answer.code == 0 and "earlier call is kept" not in answer.err
    second = json.loads((out / "validation.json").read_text())["associations"]
    assert [one["variable"] for one in second["associations"]] == ["weight"]
    edit_plan(out, seed=5)
    assert medstrata("fit", out).code == 0 and medstrata("assign", out).code == 0
    answer = medstrata("validate", out, *quick)
    assert answer.code == 0 and "earlier call is kept" not in answer.err
    assert json.loads((out / "validation.json").read_text())["associations"] is None, "that was another fit"
    assert not (out / "validation" / "table_one.csv").exists()


def test_what_is_not_tested_is_said_with_its_reason_and_the_names_of_columns() -> None:
    names = [f"c{number}" for number in range(8)]
    clinical: dict[str, Any] = {
        "associations": [{"finding": False, "variable": one, "reason": "too few"} for one in ("a", "b")],
        "rows_not_used": {"no id": 1},
        "columns_not_used": {"dates": names, "no name in the header": [""]},
        "remarks": ["age: -999 stands 2 times, taken as missing"],
        "findings": 0,
        "tests": 0,
        "caution": "Patients are not known.",
    }
    result = {"sentence": "S.", "remark": "", "clusters": [], "n_clusters": {"sentence": "N."}, "labels": None}
    result["confounders"] = {"named": []}
    assert _sentences(result | {"associations": clinical}) == [
        "S.",
        "N.",
        "Patients are not known.",
        "nothing in the clinical table could be tested",
        "age: -999 stands 2 times, taken as missing",
        "2 columns not tested: too few (a, b)",
        "1 row not used: no id",
        "8 columns not used: dates (c0, c1, c2, c3, c4 and 3 more)",
        "1 column not used: no name in the header (no name)",
    ]
