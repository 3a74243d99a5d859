"""What the report says of technical and clinical associations, from files as the pipeline writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import run_folder
from medstrata.pipeline.associating import clinical_associations, technical_associations
from medstrata.report.attention import Checks, all_clear, findings
from medstrata.report.confounded import AssociationRow, Technical, read_clinical, read_technical
from medstrata.report.facts import gather_facts
from medstrata.report.folder import read_run_folder
from medstrata.report.methods_evidence import clinical_text
from medstrata.report.page import render


def scanned(out: Path, vendors: list[str]) -> dict[str, Any]:
    """Write a run of three clusters of which ``vendors`` (160,) made the images, and return its confounders."""
    study = run_folder.planted_2d((40, 60, 60))
    study.headers = {"manufacturer": vendors}  # nothing else tells the clusters apart
    study.goal = "subtypes"
    run_folder.write_run_folder(out, study)
    return {"confounders": technical_associations(out)}


def scanner_finding(out: Path, found: dict[str, Any], goal: str = "subtypes") -> Any:
    run = read_run_folder(out)
    listed = findings(gather_facts(run), {"goal": goal}, Checks(technical=read_technical(found)))
    return next((one for one in listed if one.kind == "scanner"), None)


def test_a_cluster_that_is_a_scanner_is_called_that(tmp_path: Path) -> None:
    found = scanned(tmp_path / "out", ["Vendor A"] * 40 + ["Vendor B"] * 60 + ["Vendor C"] * 60)
    finding = scanner_finding(tmp_path / "out", found)
    assert finding.serious
    assert "Vendor A" in finding.text and "Cluster 0" in finding.text
    assert "between scanners, not between patients" in finding.text


def test_of_several_kinds_each_row_says_which() -> None:
    entry = {"label": "bits", "origin": "header", "q": 0.5, "effect": None, "test": "", "missing": 0}
    accuracy = {"balanced_accuracy": 0.25, "chance": 0.5}
    kinds = [
        {"kind": name, "associations": [entry], "headers": accuracy, "pixels": pixels}
        for name, pixels in (("CT head", None), ("CR hand", accuracy))
    ]
    found = read_technical({"confounders": {"kinds": kinds, "named": []}})
    assert found is not None
    assert [row.name for row in found.headers] == ["bits (CT head)", "bits (CR hand)"]
    assert found.predictions[0].endswith("of 0.25 for CT head (by chance 0.50) and 0.25 for CR hand (by chance 0.50).")
    assert found.predictions[1].startswith("From sharpness, noise, padding and brightness alone")
    single = read_technical({"confounders": {"kinds": [kinds[0] | {"kind": ""}], "named": []}})
    assert single is not None and single.headers[0].name == "bits"
    assert single.predictions[0].endswith("of 0.25 (by chance 0.50).")


def test_scanners_that_are_everywhere_are_no_finding(tmp_path: Path) -> None:
    found = scanned(tmp_path / "out", ["Vendor A", "Vendor B"] * 80)
    assert scanner_finding(tmp_path / "out", found) is None
    technical = read_technical(found)
    assert technical is not None and technical.headers[0].name == "manufacturer" and not technical.headers[0].finding


def test_a_scanner_that_is_commoner_in_a_cluster_is_mentioned(tmp_path: Path) -> None:
    vendors = np.where(np.random.default_rng(0).random(160) < np.repeat([0.85, 0.3, 0.3], [40, 60, 60]), "A", "B")
    found = scanned(tmp_path / "out", vendors.tolist())
    finding = scanner_finding(tmp_path / "out", found)
    assert not finding.serious and "manufacturer (Cramér's V" in finding.text


def test_images_are_not_called_patients_where_these_are_not_known(tmp_path: Path) -> None:
    out = tmp_path / "out"
    study = run_folder.planted_2d((60, 60))
    run_folder.write_run_folder(out, study)
    catalog = pq.read_table(out / "catalog.parquet")
    ids, known = catalog["image_id"].to_pylist()[:120], catalog["patient"].to_pylist()
    np.save(out / "soft_assignments.npy", np.eye(2, dtype=np.float32)[study.labels])
    rows = [f"{image},{40 + 20 * int(label)}" for image, label in zip(ids, study.labels, strict=True)]
    (tmp_path / "table.csv").write_text("image_id,age\n" + "\n".join(rows) + "\n")
    told = {}
    for name, patients in (
        ("none", [""] * len(known)),
        ("some", ["", "", *[f"p{row}" for row in range(2, len(known))]]),
    ):
        at = catalog.column_names.index("patient")
        pq.write_table(catalog.set_column(at, "patient", [patients]), out / "catalog.parquet")
        found = {"associations": clinical_associations(out, tmp_path / "table.csv", out / "validation")}
        clinical = read_clinical(found, out / "validation")
        assert (
            clinical is not None
            and found["associations"]["caution"] in (out / "validation" / "table_one.md").read_text()
        )
        told[name] = (found["associations"]["unit"], clinical.table[1][:2], clinical.summary, clinical_text(found))
    caution = "so the tests are too sure where a patient has several."
    assert told["none"][:2] == ("image", ["Images", "120"])
    assert told["none"][2].endswith(
        f"The unit is the image, of which 120 are in the table. The patients are not known: each image counts as one "
        f"patient, {caution}"
    )
    assert "Clinical data of 120 images were compared" in told["none"][3] and caution in told["none"][3]
    assert told["some"][:2] == ("patient", ["Patients", "120"])
    assert told["some"][2].endswith(f"The patients of 2 images are not known: each counts as one patient, {caution}")


def pixel_finding(found: dict[str, Any], out: Path) -> Any:
    run = read_run_folder(out)
    checks = Checks(technical=read_technical(found))
    return next((one for one in findings(gather_facts(run), {}, checks) if one.kind == "pixels"), None)


def test_a_cluster_that_a_pixel_measure_tells_is_named_at_first_and_nothing_is_all_clear(tmp_path: Path) -> None:
    out = tmp_path / "out"
    study = run_folder.planted_2d((40, 60, 60))
    study.pixels[:40, :, :, :5] = study.pixels[:40, :, :, 11:] = 0  # the first cluster is padded
    study.headers["manufacturer"] = ["Vendor A", "Vendor B"] * 80
    run_folder.write_run_folder(out, study)
    found = {"confounders": technical_associations(out)}
    finding = pixel_finding(found, out)
    told = [one for one in found["confounders"]["named"] if one["origin"] == "pixels"]
    assert not finding.serious and told[0]["cluster"] == 0 and told[0]["severity"] == "strong"
    assert finding.text.startswith(told[0]["short"])
    assert "may be what the images show, or how they were made" in finding.text
    write_validation(out, **found)
    page = render(read_run_folder(out))
    first = page[page.index("What to look at first") : page.index("Are these clusters real?")]
    assert told[0]["short"] in first and "None of the automatic checks" not in first
    technical = page[page.index('id="technical"') :]
    assert technical.index(told[0]["sentence"]) < technical.index("<details>"), "not in what is folded up"


def test_only_the_first_sentences_stand_at_the_top(tmp_path: Path) -> None:
    out = run_folder.write_run_folder(tmp_path / "out", run_folder.planted_2d((40, 40)))
    for count, last in (
        (4, "Cluster 3 is dark."),
        (5, "There is 1 more such cluster."),
        (7, "are 3 more such clusters."),
    ):
        named = [
            {
                "cluster": k,
                "origin": "pixels",
                "short": f"Cluster {k} is dark.",
                "sentence": f"Cluster {k} is dark (1).",
            }
            for k in range(count)
        ]
        text = pixel_finding({"confounders": {"kinds": [], "named": named}}, out).text
        assert f"{last} This may be" in text and "Cluster 4" not in text


def test_all_clear_says_what_was_looked_at() -> None:
    row = AssociationRow("noise", "", "", "", False)
    with_headers = Technical([], [], [row], [row], [], [])
    assert "no cluster that follows the scanner, none that sharpness" in all_clear(Checks(technical=with_headers))
    for technical in (None, Technical([], [], [], [], [], [])):
        text = all_clear(Checks(technical=technical))
        assert "follows the scanner" not in text and "none that sharpness" not in text
        assert "The headers do not tell the scanner, so that could not be checked." in text


def write_validation(out: Path, **found: Any) -> None:
    """Write validation.json of a run that was validated and supports all of it."""
    whole = {"provisional": False, "supported": True, "sentence": "Both.", "clusters": [], "null": None}
    (out / "validation.json").write_text(json.dumps(whole | {"stability": run_folder.NO_STABILITY} | found))


def test_clinical_table_on_the_page(tmp_path: Path) -> None:
    out = tmp_path / "out"
    study = run_folder.planted_2d((60, 60))
    run_folder.write_run_folder(out, study)
    patients = pq.read_table(out / "catalog.parquet")["patient"].to_pylist()[:120]
    ages = {patient: 40 + 20 * int(label) for patient, label in zip(patients, study.labels, strict=True)}
    lines = [f"{patient},{age},{len(patient) % 2}" for patient, age in ages.items()]
    (tmp_path / "table.csv").write_text("patient,age,constant\n" + "\n".join(lines) + "\n")
    np.save(out / "soft_assignments.npy", np.eye(2, dtype=np.float32)[study.labels])
    found = {"associations": clinical_associations(out, tmp_path / "table.csv", out / "validation")}
    clinical = read_clinical(found, out / "validation")
    assert clinical is not None
    assert clinical.sentences[0].startswith("age differs between clusters")
    assert (found["associations"]["unit"], found["associations"]["caution"]) == ("patient", "")
    assert clinical.table[0][1] == "All" and clinical.table[1][1] == "40"  # patients of three images each
    assert any("constant" in columns for _, columns in clinical.unused)
    named = read_clinical(found, out / "validation", {1: "a <b>", 7: "no such"})
    assert named is not None and named.table[0][2:] == ["Cluster 0", "1: a <b>"]
    write_validation(out, **found)
    page = render(read_run_folder(out))
    assert "age differs between clusters" in page and run_folder.SECRET not in page
    assert "Do the clusters go along with the clinical table?" in page


def test_no_finding_is_no_result(tmp_path: Path) -> None:
    associations = {
        "associations": [],
        "tests": 9,
        "findings": 0,
        "level": 0.05,
        "patients": 72,
        "sizes": {"0": 60, "1": 12},
        "mixed": 0,
        "rows_not_used": {},
        "columns_not_used": {},
    }
    clinical = read_clinical({"associations": associations}, tmp_path)
    assert clinical is not None
    assert clinical.summary.startswith("No difference between the clusters was found by 9 tests")
    assert "72 patients, 12 of them in the smallest cluster, may be too few to find it." in clinical.summary
    found = read_clinical({"associations": associations | {"findings": 2}}, tmp_path)
    assert found is not None and found.summary.startswith("2 of 9 tests are findings, of which at most 5 %")
    assert "too few" not in found.summary
