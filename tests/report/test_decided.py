"""What people decided, on the page: beside the model's clusters, marked as theirs, escaped."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import run_folder
from medstrata.errors import RunFolderError
from medstrata.pipeline.editing import edit_run
from medstrata.report.decided import list_decided
from medstrata.report.facts import gather_facts
from medstrata.report.folder import read_run_folder
from medstrata.report.page import write_report

FILE_ROW = (
    '<tr><td class="keep"><code>decisions.jsonl</code></td>'
    "<td>what people decided about the clusters: names, merges, flags, with who, when and why</td></tr>\n"
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = run_folder.write_run_folder(tmp_path / "out", run_folder.planted_2d())
    (folder / "model.safetensors").write_bytes(b"model")
    return folder


def test_nothing_decided_leaves_the_page_as_it_was(out: Path) -> None:
    html = write_report(out).read_text()
    first = re.findall(r'data-kind="(\w+)"', html)
    edit_run(out, "flag", ["1"], why="motion")
    assert re.findall(r'data-kind="(\w+)"', write_report(out).read_text()) == [*first, "flagged"]
    edit_run(out, "undo", [])
    assert write_report(out).read_text().replace(FILE_ROW, "") == html
    assert "What a person decided" not in html and "decided by a person" not in html


def test_names_merges_flags_and_who_said_so(out: Path) -> None:
    edit_run(out, "rename", ["2", "<b>a/b</b>"], who="A. B.", why="<i>why</i>")
    edit_run(out, "merge", ["0", "2"])
    edit_run(out, "flag", ["1"], why="motion & noise")
    edit_run(out, "flag", [run_folder.planted_2d().ids[0]], why="mirrored")
    run = read_run_folder(out)
    found = list_decided(run, gather_facts(run))
    assert [(mark.members, mark.name, mark.size) for mark in found.clusters] == [
        ([0, 2], "<b>a/b</b>", 27),
        ([1], "", 9),
    ]
    assert found.marks[2] == found.marks[0] and found.marks[1].flags == ["motion & noise"]
    html = write_report(out).read_text()
    assert "&lt;b&gt;a/b&lt;/b&gt;" in html and "&lt;i&gt;why&lt;/i&gt;); A. B.," in html
    assert "<b>a/b" not in html and "<i>why" not in html
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", html))
    assert text.count("one with cluster 2 (27 together)") == 2, "in the overview and on the card"
    assert "Flagged: motion &amp; noise" in text and "A person flagged clusters" in text
    assert "An image is flagged: mirrored; a person," in text
    assert "36 images were sorted into 3 clusters" in text, "the model's own output stays"


def test_what_is_about_another_fit_is_said_and_not_applied(out: Path) -> None:
    edit_run(out, "rename", ["2", "lungs"])
    (out / "model.safetensors").write_bytes(b"another")
    html = write_report(out).read_text()
    assert "<strong>lungs" not in html and "1 decision" in html and "about another fit" in html


def test_a_line_that_cannot_be_read_is_told(out: Path) -> None:
    (out / "decisions.jsonl").write_text("{}\n")
    with pytest.raises(RunFolderError, match="line 1"):
        write_report(out)
