"""What the clusters go along with (``validation.json``): technical data of images, clinical data of patients."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medstrata.evidence.association.clinical import MISSING_VALUES
from medstrata.evidence.association.clinical_table import IMAGE, PATIENT
from medstrata.report.survival_figure import survival_figure
from medstrata.report.wording import count, listing, percent, things

STRONG = 0.3  # effect size from which a header that names no cluster is worth a finding all the same
SHOWN_ROWS = 40


@dataclass(frozen=True)
class AssociationRow:
    """One tested column: texts of the effect with its interval, of the corrected p-value, and of the test."""

    name: str
    effect: str
    q: str
    test: str
    finding: bool
    missing: int = 0


@dataclass(frozen=True)
class Named:
    """A cluster that technical data tell from the others: in ``short`` words, and in a ``sentence`` with numbers."""

    short: str
    sentence: str


@dataclass(frozen=True)
class Technical:
    """``named``: clusters that headers tell from the others; ``pixels``: that pixel measures tell.

    ``headers``, ``measures``: rows of the two kinds; ``strongest``: header rows with a large effect.
    """

    named: list[Named]
    pixels: list[Named]
    headers: list[AssociationRow]
    measures: list[AssociationRow]
    strongest: list[AssociationRow]
    predictions: list[str]


@dataclass(frozen=True)
class Clinical:
    """``sentences`` of the findings; ``table``: Table 1 as rows of cells, its header first; ``tests``: one row each.

    ``figures``: name and data URI.
    """

    sentences: list[str]
    summary: str
    table: list[list[str]]
    tests: list[AssociationRow]
    unused: list[tuple[str, str]]
    figures: list[tuple[str, str]] = field(default_factory=list)


def read_technical(found: Mapping[str, Any] | None) -> Technical | None:
    """Return what the report shows of ``confounders`` in ``validation.json``, None where it is not there."""
    if not found or not (confounders := found.get("confounders")):
        return None
    several = len(confounders["kinds"]) > 1
    entries = [
        entry | {"label": f"{entry['label']} ({kind['kind']})"} if several else entry
        for kind in confounders["kinds"]
        for entry in kind["associations"]
    ]
    rows = {origin: [_row(entry) for entry in entries if entry["origin"] == origin] for origin in ("header", "pixels")}
    named = {origin: named_of(confounders["named"], origin) for origin in rows}
    strong = [
        _row(entry)
        for entry in entries
        if entry["origin"] == "header" and entry["q"] < 0.05 and entry["effect"] >= STRONG
    ]
    predictions = _predictions(confounders["kinds"])
    return Technical(named["header"], named["pixels"], rows["header"], rows["pixels"], strong, predictions)


def named_of(entries: Iterable[Mapping[str, Any]], origin: str) -> list[Named]:
    """Return the clusters that data of one origin tell ("header" or "pixels")."""
    own = [entry for entry in entries if entry["origin"] == origin]
    return [Named(entry.get("short") or entry["sentence"], entry["sentence"]) for entry in own]  # older runs: no short


def _row(entry: Mapping[str, Any]) -> AssociationRow:
    effect = ""
    if entry["effect"] is not None:
        effect = f"{entry['effect_name']} {entry['effect']:.2f} ({entry['low']:.2f} to {entry['high']:.2f})"
    q = "< .001" if entry["q"] < 0.001 else f"{entry['q']:.3f}"
    return AssociationRow(entry["label"], effect, q, entry["test"], entry["q"] < 0.05, entry["missing"])


def _predictions(kinds: Iterable[Mapping[str, Any]]) -> list[str]:
    """Say how well the technical data tell the clusters of each kind of image."""
    names = {"headers": "the headers alone", "pixels": "sharpness, noise, padding and brightness alone"}
    texts = []
    for key, words in names.items():
        parts = [_prediction(kind["kind"], result) for kind in kinds if (result := kind[key])]
        if parts:
            accuracy = "a balanced accuracy, cross-validated by patient, of"
            texts.append(f"From {words} a linear rule tells the cluster with {accuracy} {listing(parts)}.")
    return texts


def _prediction(kind: str, result: Mapping[str, float]) -> str:
    of = f" for {kind}" if kind else ""
    return f"{result['balanced_accuracy']:.2f}{of} (by chance {result['chance']:.2f})"


def read_clinical(
    found: Mapping[str, Any] | None, folder: Path, names: Mapping[int, str] = MappingProxyType({})
) -> Clinical | None:
    """Return what the report shows of ``associations`` in ``validation.json``; ``folder`` holds ``table_one.csv``.

    ``names``: of clusters that a person named.
    """
    if not found or not (associations := found.get("associations")):
        return None
    entries = associations["associations"]
    summary = _summary(associations)
    summary += "".join(f" {remark}." for remark in associations.get("remarks", []))
    rows = {reason: things(number, "rows") for reason, number in associations["rows_not_used"].items()}
    columns = {reason: ", ".join(names[:12]) for reason, names in associations["columns_not_used"].items()}
    file = folder / "table_one.csv"
    table = list(csv.reader(file.read_text(encoding="utf-8").splitlines())) if file.is_file() else []
    units = f"{associations.get('unit', PATIENT)}s"
    figures = [
        (entry["variable"], survival_figure(entry["curves"], units, names)) for entry in entries if entry.get("curves")
    ]
    sentences = [entry["sentence"] for entry in entries if entry["finding"]]
    tests = [_row({**entry, "label": _tested(entry)}) for entry in entries if entry["test"]]
    groups = [row[: _columns(table[0])] for row in table[: SHOWN_ROWS + 1]]
    groups[:1] = [[_heading(cell, names) for cell in row] for row in groups[:1]]
    return Clinical(sentences, summary, groups, tests[:SHOWN_ROWS], [*rows.items(), *columns.items()], figures)


def _summary(associations: Mapping[str, Any]) -> str:
    """Say how many tests found a difference, and of whom; that none was found is not that there is none."""
    tests, amount = things(associations["tests"], "tests"), count(associations["patients"])
    unit = associations.get("unit", PATIENT)  # older files name none
    level = percent(associations["level"])
    if associations["findings"]:
        text = (
            f"{count(associations['findings'])} of {tests} are findings, of which at most {level} are expected to be "
            "false (Benjamini-Hochberg over all tests)."
        )
    else:
        smallest = min(associations["sizes"].values(), default=0)
        text = (
            f"No difference between the clusters was found by {tests} (Benjamini-Hochberg over all tests, {level}). "
            f"That does not show that there is none: {amount} {unit}s, {count(smallest)} of them in the smallest "
            "cluster, may be too few to find it. The intervals of the effects below say how large it may be."
        )
    text += f" The unit is the {unit}, of {'which' if unit == IMAGE else 'whom'} {amount} are in the table."
    if associations["mixed"]:
        text += f" {count(associations['mixed'])} have images in several clusters and count where most of theirs are."
    return " ".join(filter(None, (text, associations.get("caution", ""))))


def _tested(entry: Mapping[str, Any]) -> str:
    return f"{entry['variable']}, {entry['kind']}" if entry["kind"] == MISSING_VALUES else str(entry["variable"])


def _heading(cell: str, names: Mapping[int, str]) -> str:
    """Return a heading of Table 1, "Cluster 3" with the name that a person gave."""
    found = re.match(r"Cluster (\d+)", cell)
    name = names.get(int(found[1]), "") if found else ""
    return f"{found[1]}: {name}{cell[found.end() :]}" if found and name else cell


def _columns(header: list[str]) -> int:
    """Return how many columns of Table 1 describe the groups: what follows is in the table of tests."""
    return header.index("Missing") if "Missing" in header else len(header)
