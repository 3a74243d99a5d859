"""The table of a run with what was decided, as CSV, Parquet and JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import run_folder
from command_line import medstrata
from medstrata.errors import RunFolderError
from medstrata.pipeline.editing import edit_run
from medstrata.pipeline.export_table import check_tables, decided_table, write_tables

COLUMNS = ["image_id", "patient", "cluster", "decided_cluster", "decided_name"]
LATER = ["calibrated", "novelty_p", "novel", "fitted"]
COLUMNS += ["probability", "calibrated", "margin", "typicality", "novelty", "novelty_p", "novel", "fitted"]
COLUMNS += ["flagged", "flag_reason"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run of 12, 9 and 15 images and one rejected; clusters 0 and 2 are one."""
    study = run_folder.planted_2d()
    study.labels[-1] = -1
    folder = run_folder.write_run_folder(tmp_path / "out", study)
    (folder / "model.safetensors").write_bytes(b"model")
    calibrated = {"calibrated": [0.5] * 35 + [None], "novelty_p": [0.25] * 36, "novel": [False] * 35 + [True]}
    calibrated["fitted"] = [True] * 36
    table = pq.read_table(folder / "assignments.parquet")
    for name, values in calibrated.items():
        table = table.append_column(name, [values])
    pq.write_table(table, folder / "assignments.parquet")
    edit_run(folder, "merge", ["0", "2"])
    edit_run(folder, "rename", ["2", 'a, "b"; ü'])
    edit_run(folder, "flag", ["1"], why="motion")
    edit_run(folder, "flag", [study.ids[12]], why="mirrored")
    edit_run(folder, "flag", [study.ids[35]], why="odd")
    return folder


def test_the_whole_table(out: Path) -> None:
    table = decided_table(out)
    assert table.column_names == COLUMNS
    rows = table.to_pylist()
    assert [row["cluster"] for row in rows] == [0] * 12 + [1] * 9 + [2] * 14 + [-1]
    assert [row["decided_cluster"] for row in rows] == [0] * 12 + [1] * 9 + [0] * 14 + [-1]
    assert [row["decided_name"] for row in rows] == ['a, "b"; ü'] * 12 + [""] * 9 + ['a, "b"; ü'] * 14 + [""]
    assert [row["flagged"] for row in rows] == [False] * 12 + [True] * 9 + [False] * 14 + [True]
    assert rows[12]["flag_reason"] == "motion; mirrored" and rows[13]["flag_reason"] == "motion"
    assert [row["patient"] for row in rows] == [f"{index // 3:012x}" for index in range(36)], "joins a clinical table"
    assert table["probability"] == pq.read_table(out / "assignments.parquet")["probability"]


def test_the_three_files_say_the_same(out: Path, tmp_path: Path) -> None:
    files = {kind: tmp_path / f"t.{kind}" for kind in ("csv", "parquet", "json")}
    assert write_tables(out, files) == 36
    table = decided_table(out)
    assert pq.read_table(files["parquet"]) == table
    stored = json.loads(files["json"].read_text())
    with open(files["csv"], newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [list(line) for line in lines[:1]] == [COLUMNS]
    for row, one, line in zip(table.to_pylist(), stored, lines, strict=True):
        for name in COLUMNS:
            expected = pytest.approx(row[name], abs=1e-6) if isinstance(row[name], float) else row[name]
            assert one[name] == expected
            assert line[name] == ("" if one[name] is None else str(one[name]))


def test_a_run_of_an_earlier_version_has_the_columns_that_it_has(out: Path) -> None:
    table = pq.read_table(out / "assignments.parquet").drop_columns(LATER)
    pq.write_table(table, out / "assignments.parquet")
    (out / "catalog.parquet").unlink()
    found = decided_table(out)
    assert found.column_names == [one for one in COLUMNS if one not in LATER]
    assert found["patient"].null_count == 36


def test_numbers_that_are_not_known_are_empty(out: Path, tmp_path: Path) -> None:
    table = pq.read_table(out / "assignments.parquet")
    at = table.column_names.index("typicality")
    pq.write_table(table.set_column(at, "typicality", [[float("nan")] * 36]), out / "assignments.parquet")
    write_tables(out, {"json": tmp_path / "t.json", "csv": tmp_path / "t.csv"})
    assert json.loads((tmp_path / "t.json").read_text())[0]["typicality"] is None
    assert next(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))["typicality"] == ""


def test_nothing_is_overwritten_and_nothing_written_into_a_run(out: Path, tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("mine")
    with pytest.raises(RunFolderError, match="exists already"):
        check_tables(out, {"csv": tmp_path / "there.csv"})
    with pytest.raises(RunFolderError, match="inside OUT"):
        check_tables(out, {"csv": out / "t.csv"})
    answer = medstrata("export", out, "--folders", tmp_path / "f", "--csv", tmp_path / "there.csv")
    assert answer.code == 1 and not (tmp_path / "f").exists(), "all is checked before anything is written"
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_command(out: Path, tmp_path: Path) -> None:
    assert medstrata("export", out).code == 2
    assert medstrata("export", out, "--csv", tmp_path / "t.csv", "--copy").code == 2
    answer = medstrata("export", out, "--csv", tmp_path / "t.csv", "--json", tmp_path / "t.json")
    assert answer.code == 0 and "a table of 36 images" in answer.err
    assert answer.out.split() == [str(tmp_path / "t.csv"), str(tmp_path / "t.json")]
    for path in tmp_path.glob("t.*"):
        assert run_folder.SECRET not in path.read_text()


def test_a_run_without_its_private_folder_still_has_its_table(out: Path, tmp_path: Path) -> None:
    for file in (out / "private").iterdir():
        file.unlink()
    (out / "private").rmdir()
    assert medstrata("export", out, "--parquet", tmp_path / "t.parquet").code == 0
    assert not (out / "private").exists()
