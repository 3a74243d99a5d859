"""Table 1: every cell of a small table written out, and the two files."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medstrata.errors import RunFolderError
from medstrata.evidence.association.clinical import associate
from medstrata.evidence.association.clinical_table import ClinicalTable
from medstrata.evidence.association.columns import TimeToEvent, Variable
from medstrata.evidence.association.table_one import TableOne, markdown, table_one, write_table_one

PATIENTS = np.array([f"p{number}" for number in range(9)])
CLUSTERS = np.array([0, 0, 0, 0, 0, 2, 2, 2, 2])
TABLE = ClinicalTable(
    PATIENTS,
    (
        Variable("age", "numeric", np.array([10.0, 20, 30, 40, 50, 61, 62, 63, np.nan])),
        Variable("si|ze", "categorical", np.array(["s", "s", "l", "l", "", "l", "l", "l", "l"])),
        TimeToEvent(
            "os", np.array([1.0, 2, 3, 4, 5, 6, 7, 8, np.nan]), np.array([1, 1, 0, 0, 0, 1, 0, 0, 0], dtype=bool)
        ),
        Variable("gone", "numeric", np.array([np.nan] * 9)),
    ),
)


@pytest.fixture(scope="module")
def made() -> TableOne:
    return table_one(TABLE, PATIENTS, CLUSTERS, associate(TABLE, PATIENTS, CLUSTERS))


def test_every_cell_of_a_small_table(made: TableOne) -> None:
    assert made.header[:5] == ("", "All", "Cluster 0", "Cluster 2 (small)", "Missing")
    assert made.header[5:] == ("p", "q", "Effect (95 % interval)", "Test")
    cells = {row[0]: row[1:5] for row in made.rows}
    assert cells == {
        "Patients": ("9", "5", "4", ""),
        "age, median [quartiles]": ("45 [27.5, 61.25]", "30 [20, 40]", "62 [61.5, 62.5]", "1"),
        "si|ze, n (%)": ("", "", "", "1"),
        "  l": ("6 (75 %)", "2 (50 %)", "4 (100 %)", ""),
        "  s": ("2 (25 %)", "2 (50 %)", "0 (0 %)", ""),
        "os, events / patients": ("3 / 8", "2 / 5", "1 / 3", "1"),
        "gone, median [quartiles]": ("–", "–", "–", "9"),
    }
    assert made.rows[-1][5:] == ("", "", "", "not tested: all values are missing")
    age = made.rows[1]
    assert age[8] == "Kruskal-Wallis, by permutation"
    assert age[7].startswith("epsilon squared .")
    assert 0 < float(age[5]) <= float(age[6]) <= 1
    assert "q: p corrected for all 3 tests of the table (Benjamini-Hochberg)." in made.notes
    assert "Small: fewer than 5 patients." in made.notes


def test_images_are_not_called_patients(made: TableOne) -> None:
    images = replace(TABLE, unit="image")
    found = associate(images, PATIENTS, CLUSTERS)
    table = table_one(images, PATIENTS, CLUSTERS, found)
    assert found["unit"] == "image" and "patient" not in str([found["associations"], table])
    assert [row[0] for row in table.rows if "mages" in row[0]] == ["Images", "os, events / images"]
    assert [row[1:] for row in table.rows] == [row[1:] for row in made.rows]
    (time,) = [one["sentence"] for one in found["associations"] if one["kind"] == "time to event"]
    assert "3 events in 8 images" in time and "Small: fewer than 5 images." in table.notes


def test_means_where_means_were_tested() -> None:
    values = np.random.default_rng(0).normal(100, 10, 80)
    names, clusters = np.array([f"p{number}" for number in range(80)]), np.arange(80) % 2
    table = ClinicalTable(names, (Variable("age", "numeric", values),))
    made = table_one(table, names, clusters, associate(table, names, clusters))
    first = values[clusters == 0]
    assert made.rows[1][0] == "age, mean (SD)"
    assert made.rows[1][2] == f"{first.mean():.4g} ({first.std(ddof=1):.3g})"
    assert "Small: fewer than 5 patients." not in made.notes


def test_missing_values_that_go_with_the_clusters_are_noted() -> None:
    names, clusters = np.array([f"p{number}" for number in range(60)]), np.arange(60) % 2
    values = np.where((clusters == 0) & (np.arange(60) > 10), np.nan, np.arange(60.0))
    table = ClinicalTable(names, (Variable("lab", "numeric", values),))
    notes = table_one(table, names, clusters, associate(table, names, clusters)).notes
    assert (
        "q: p corrected for all 2 tests of the table (Benjamini-Hochberg); among them 1 of how often a value is "
        "missing (lab), without a p above."
    ) in notes
    assert any(note.startswith("How often lab is missing differs between clusters") for note in notes)


def test_files(made: TableOne, tmp_path: Path) -> None:
    write_table_one(tmp_path, made)
    with open(tmp_path / "table_one.csv", encoding="utf-8", newline="") as file:
        assert [tuple(row) for row in csv.reader(file)] == [made.header, *made.rows]
    lines = (tmp_path / "table_one.md").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("|  | All | Cluster 0 | Cluster 2 (small) | Missing |")
    assert lines[1] == "|" + " --- |" * len(made.header)
    assert any("si\\|ze" in line for line in lines)
    assert {line.replace("\\|", "").count("|") for line in lines[: len(made.rows) + 2]} == {len(made.header) + 1}
    assert set(made.notes) <= set(lines)
    assert markdown(made).endswith("\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table_one.csv", "table_one.md"]


def test_a_folder_that_cannot_be_written(made: TableOne, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError):
        write_table_one(tmp_path / "file", made)
