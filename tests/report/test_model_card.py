"""The model card: its headings, its numbers, and nothing that tells a patient, a site or a date."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from test_methods_text import CALIBRATION, CONFOUNDERS
from test_source_run import SOURCE
from test_validity import VALIDATED

import run_folder
from medstrata.report.page import write_report

HEADINGS = [
    "Intended use",
    "Images fitted on",
    "Factors",
    "Metrics",
    "Limits",
    "Methods and settings",
    "References",
    "Use on new images",
]


def card_of(out: Path, **files: Any) -> str:
    """The model card of a planted run with these JSON files beside it."""
    run_folder.write_run_folder(out, run_folder.planted_2d((20, 20)))
    for name, values in files.items():
        (out / f"{name}.json").write_text(json.dumps(values))
    write_report(out)
    return (out / "model_card.md").read_text(encoding="utf-8")


def part(card: str, heading: str) -> str:
    """What stands below a heading."""
    return card.split(f"## {heading}\n")[1].split("\n## ")[0]


def test_a_run_that_was_not_validated(tmp_path: Path) -> None:
    card = card_of(tmp_path / "out")
    assert card.startswith("# Model card: 2 clusters by medstrata 0.1.0\n")
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == HEADINGS
    assert "Research use only, not a medical device." in part(card, "Intended use")
    assert "- Whether the clusters are real was not tested." in part(card, "Metrics")
    assert "- Probabilities are not calibrated." in part(card, "Metrics")
    assert "was not tested" in part(card, "Factors")


def test_counts_of_the_images(tmp_path: Path) -> None:
    assert part(card_of(tmp_path / "out"), "Images fitted on").strip().splitlines() == [
        "- 40 images; 3 files and images left out",
        "- 14 patients; 0 images whose patient is unknown",
        "- modality: CT 20, MR 20",
        "- body part: chest 20, head 20",
        "- manufacturer: Vendor A 20, Vendor B 20",
    ]


def test_verdicts_calibration_and_factors(tmp_path: Path) -> None:
    interval = {"mean": 0.02, "low": 0.01, "high": 0.03}
    learned = CALIBRATION["fit"] | {"error_after": interval, "agreement": {"mean": 0.9}}  # type: ignore[operator]
    named = [{"origin": "header", "sentence": "Cluster 1 is mostly kernel LUNG.", "balanced_accuracy": 0.9}]
    confounders = CONFOUNDERS | {"named": named, "sentences": [named[0]["sentence"]], "kinds": []}
    validation = VALIDATED | {"supported": False, "sentence": "No clusters are supported: noise."}
    card = card_of(
        tmp_path / "out",
        validation=validation | {"confounders": confounders},
        calibration=CALIBRATION | {"fit": learned},
    )
    metrics = part(card, "Metrics")
    assert "- No clusters are supported: noise." in metrics and "- Cluster 1." in metrics
    assert "calibration error 0.020 (95 % interval 0.010 to 0.030)" in metrics
    assert "Novelty flag: nominal rate of false alarms 1 %" in metrics
    assert "- Cluster 1 is mostly kernel LUNG." in part(card, "Factors")
    assert "The clusters are not supported. No clusters are supported: noise." in part(card, "Limits")


def test_new_images_have_the_verdict_of_the_run_of_the_model(tmp_path: Path) -> None:
    drift = {"drift": False, "sentence": "No drift."}
    card = card_of(tmp_path / "out", drift=drift, source_validation=SOURCE)
    assert "- In the run of the model: 1 of 2 clusters is supported. No gap." in part(card, "Metrics")
    assert "- In the run of the model: Cluster 1 is mostly A (90 %)." in part(card, "Factors")
    unknown = card_of(tmp_path / "unknown", drift=drift)
    assert "- In the run of the model: not validated." in part(unknown, "Metrics")


def test_nothing_of_patients_sites_or_dates(tmp_path: Path) -> None:
    card = card_of(tmp_path / "out")
    ids = run_folder.planted_2d((20, 20)).ids
    for secret in (run_folder.SECRET, "1.2.840", "2025-03-04", str(tmp_path), *ids):
        assert secret not in card


def test_values_of_headers_cannot_be_markup(tmp_path: Path) -> None:
    study = run_folder.planted_2d((10, 10))
    study.headers["manufacturer"] = ["<script>x</script>\n# Big"] * 10 + [""] * 10
    out = run_folder.write_run_folder(tmp_path / "out", study)
    write_report(out)
    card = (out / "model_card.md").read_text(encoding="utf-8")
    assert "<script" not in card and "\n# Big" not in card
    assert "- manufacturer: scriptx/script Big 10, unknown 10" in card


def test_the_report_lists_it_and_writes_it_the_same_again(tmp_path: Path) -> None:
    first = card_of(tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<code>model_card.md</code>" in page and 'id="paper"' in page
    write_report(tmp_path / "out")
    assert (tmp_path / "out" / "model_card.md").read_text(encoding="utf-8") == first
    assert not list((tmp_path / "out").glob("*.part"))
