"""Taking down decisions: what is asked for is checked against the run, and what is refused changes nothing."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import run_folder
from command_line import medstrata
from medstrata.decisions import read_decided
from medstrata.errors import InputError, RunFolderError
from medstrata.pipeline.editing import edit_run

IMAGE = run_folder.planted_2d().ids[4]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A finished run of three clusters."""
    folder = run_folder.write_run_folder(tmp_path / "out", run_folder.planted_2d())
    (folder / "model.safetensors").write_bytes(b"model")
    return folder


def test_each_action_adds_one_line_and_says_what_it_did(out: Path) -> None:
    model = (out / "assignments.parquet").read_bytes()
    assert edit_run(out, "rename", ["2", " ground glass "], who="A. B.", why="seen on all") == (
        "cluster 2 is called “ground glass”"
    )
    assert edit_run(out, "merge", ["2", "0"]) == "clusters 0 and 2 are one"
    assert edit_run(out, "flag", ["1"], why="motion") == "cluster 1 is flagged: motion"
    assert edit_run(out, "flag", [IMAGE], why="mirrored") == "an image is flagged: mirrored"
    decided = read_decided(out)
    assert decided.name(0) == "ground glass" and decided.group(2) == 0
    assert decided.flags(1) == ["motion"] and decided.image_flags() == {IMAGE: ["mirrored"]}
    lines = [json.loads(line) for line in (out / "decisions.jsonl").read_text().splitlines()]
    assert (lines[0]["who"], lines[0]["why"]) == ("A. B.", "seen on all") and lines[0]["when"].endswith("+00:00")
    assert "who" not in lines[1], "nobody is named who does not name himself"
    assert (out / "assignments.parquet").read_bytes() == model


def test_undo_takes_back_one_after_the_other(out: Path) -> None:
    for values in (["0", "1"], ["1", "2"]):
        edit_run(out, "merge", values)
    assert edit_run(out, "undo", []) == "taken back: it no longer holds that clusters 1 and 2 are one"
    assert read_decided(out).members(0) == [0, 1]
    assert edit_run(out, "undo", []) == "taken back: it no longer holds that clusters 0 and 1 are one"
    with pytest.raises(InputError, match="no decision to undo"):
        edit_run(out, "undo", [])
    edit_run(out, "rename", ["0", "a"])
    assert edit_run(out, "undo", []) == "taken back: it no longer holds that cluster 0 is called “a”"


def test_what_is_about_another_fit_is_not_undone(out: Path) -> None:
    edit_run(out, "rename", ["0", "a"])
    (out / "model.safetensors").write_bytes(b"another")
    with pytest.raises(InputError, match="another fit"):
        edit_run(out, "undo", [])


@pytest.mark.parametrize(
    ("action", "values", "why", "said"),
    [
        ("rename", ["3", "a"], "", "numbered 0 to 2"),
        ("rename", ["-1", "a"], "", "numbered 0 to 2"),
        ("rename", ["²", "a"], "", "numbered 0 to 2"),
        ("rename", ["one", "a"], "", "numbered 0 to 2"),
        ("rename", ["1"], "", "its name in quotes"),
        ("rename", ["1", "ground", "glass"], "", "its name in quotes"),
        ("rename", ["1", "  "], "", "name is empty"),
        ("rename", ["1", "a\x1b[31mb"], "", "control or invisible"),
        ("rename", ["1", "a" * 81], "", "81 characters"),
        ("merge", ["1"], "", "two different clusters"),
        ("merge", ["1", "1"], "", "two different clusters"),
        ("merge", [], "", "two different clusters"),
        ("merge", ["1", "7"], "", "numbered 0 to 2"),
        ("flag", ["1"], "", "needs its reason"),
        ("flag", ["1"], "a\nb", "control or invisible"),
        ("flag", ["1", "2"], "a", "one cluster or one image_id"),
        ("flag", ["0123456789abcdef"], "a", "no image of this image_id"),
        ("flag", ["nosuchid"], "a", "no such image and no such cluster.*numbered 0 to 2"),
        ("flag", ["7"], "a", "no such cluster"),
        ("undo", ["1"], "", "takes no number"),
        ("undo", [], "", "no decision to undo"),
    ],
)
def test_what_cannot_be_is_refused(out: Path, action: str, values: list[str], why: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        edit_run(out, action, values, why=why)
    assert not (out / "decisions.jsonl").exists()


def test_merging_what_is_merged_is_refused(out: Path) -> None:
    edit_run(out, "merge", ["0", "1"])
    edit_run(out, "merge", ["1", "2"])
    with pytest.raises(InputError, match="merged already"):
        edit_run(out, "merge", ["2", "0"])


def test_a_folder_that_is_no_run_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no assignments yet"):
        edit_run(tmp_path / "none", "merge", ["0", "1"])
    assert not (tmp_path / "none").exists()


def test_a_line_that_cannot_be_read_stops_the_command_and_stays(out: Path) -> None:
    (out / "decisions.jsonl").write_text("nonsense\n")
    answer = medstrata("edit", out, "undo")
    assert answer.code == 1 and "decisions.jsonl, line 1:" in answer.sentence and "Traceback" not in answer.err
    assert (out / "decisions.jsonl").read_text() == "nonsense\n"
    assert "line 1" in medstrata("export", out, "--csv", out.parent / "a.csv").sentence
    assert medstrata("edit", out, "remove", 1).code == 2


@pytest.fixture
def known(out: Path) -> Path:
    """The run with original ids of its own in private/: one with a hyphen, one short, one of letters."""
    table = pq.read_table(out / "private" / "sources.parquet")
    ids = ["ZZYZX-007", "abc", " Doe^Jane ", "", None] + ["4711"] * (len(table) - 5)
    place = table.column_names.index("patient_id")
    pq.write_table(table.set_column(place, "patient_id", [ids]), out / "private" / "sources.parquet")
    return out


@pytest.mark.parametrize("text", ["as in zzyzx-007, too", "ZZYZX-007", "doe^jane", "(4711)", "scan_4711_b"])
def test_an_original_id_is_refused_and_not_repeated(known: Path, text: str) -> None:
    for action, values, notes in (
        ("rename", ["0", text], {}),
        ("merge", ["0", "1"], {"why": text}),
        ("flag", ["0"], {"why": "motion", "who": text}),
    ):
        with pytest.raises(InputError, match="holds the original id of a patient") as raised:
            edit_run(known, action, values, **notes)
        assert not re.search("zzyzx|4711|jane", str(raised.value), re.IGNORECASE)
    assert not (known / "decisions.jsonl").exists()


@pytest.mark.parametrize("text", ["abc", "ZZYZX-0071", "47110", "Jane", "zzyzx"])
def test_other_words_are_taken(known: Path, text: str) -> None:
    edit_run(known, "rename", ["0", text])


def test_without_private_nothing_is_compared(known: Path) -> None:
    shutil.rmtree(known / "private")
    edit_run(known, "rename", ["0", "ZZYZX-007"])
    assert not (known / "private").exists()
