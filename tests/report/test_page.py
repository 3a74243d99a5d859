"""The page as a whole: complete, self-contained, private, the same each time, and whole with parts missing."""

from __future__ import annotations

import json
import re
import shutil
import stat
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from medstrata.errors import RunFolderError
from medstrata.report.page import read_origin, write_report

if TYPE_CHECKING:
    import run_folder
else:
    run_folder = sys.modules["run_folder"]

SECTIONS = ["input", "plan", "overview", "cards", "training", "agreement", "made"]


class Page(HTMLParser):
    """Collects what a page links to, its ids and text, and checks that its tags close."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = run_folder.write_run_folder(tmp_path_factory.mktemp("flat") / "out", run_folder.planted_2d())
    return Path(write_report(out))


def test_page_is_written_into_the_run_folder(flat: Path) -> None:
    assert flat.name == "report.html" and flat.parent.name == "out"
    assert flat.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert not [path for path in flat.parent.iterdir() if path.name.endswith(".part")]


def test_first_screen_says_what_was_done_and_what_for(flat: Path) -> None:
    page = Page(flat)
    assert "36 images were sorted into 3 clusters; 3 files and images were left out." in page.text
    before_first_section = page.html[: page.html.index('id="input"')]
    assert "Research use only. Not a medical device." in before_first_section
    assert "Nothing left this computer." in before_first_section
    for said in ("2025-03-04", "dcec", "0.1.0"):
        assert said in before_first_section


def test_sections_stand_in_order(flat: Path) -> None:
    ids = Page(flat).ids
    assert [name for name in ids if name in SECTIONS] == SECTIONS
    assert [name for name in ids if name.startswith("cluster")] == ["cluster0", "cluster1", "cluster2"]


def test_page_asks_for_nothing_from_outside(flat: Path) -> None:
    page = Page(flat)
    assert page.links and all(link.startswith(("data:image/", "#")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    assert not re.search(r"https?:|@import|url\(|\son\w+=", page.html)


def test_page_never_looks_into_private(flat: Path, tmp_path: Path) -> None:
    html = flat.read_text(encoding="utf-8")
    for secret in (run_folder.SECRET, "1.2.840", "5a17" * 16, str(flat.parent)):
        assert secret not in html
    copy = tmp_path / "copy"
    shutil.copytree(flat.parent, copy)
    shutil.rmtree(copy / "private")
    without = write_report(copy).read_text(encoding="utf-8")
    line = re.compile(r"<tr><td class=\"keep\"><code>(private|report.html)</code>.*\n")
    assert without == line.sub("", html)  # the list of files is all that differs


def test_page_is_readable_for_others_and_the_same_again(flat: Path) -> None:
    first = flat.read_bytes()
    write_report(flat.parent)
    assert flat.read_bytes() == first
    assert flat.stat().st_mode & stat.S_IRUSR


def test_values_of_headers_are_escaped(tmp_path: Path) -> None:
    study = run_folder.planted_2d((10, 10))
    study.headers["manufacturer"] = ["<script>alert(1)</script>"] * 10 + ["A & B"] * 10
    html = write_report(run_folder.write_run_folder(tmp_path / "out", study)).read_text(encoding="utf-8")
    assert "<script" not in html and "&lt;script&gt;" in html and "A &amp; B" in html


def test_volumes_have_three_planes(tmp_path: Path) -> None:
    page = Page(write_report(run_folder.write_run_folder(tmp_path / "out", run_folder.planted_3d())))
    assert "13 volumes were sorted into 2 clusters" in page.text
    for words in ("Mean, axial", "Mean, coronal", "Mean, sagittal", "mattered little", "mattered most", "Flat map."):
        assert words in page.text


def test_optional_parts_may_be_missing(tmp_path: Path) -> None:
    study = run_folder.planted_2d()
    out = run_folder.write_run_folder(tmp_path / "out", study, maps=False, baselines=False, history=False)
    (out / "run.json").unlink()
    page = Page(write_report(out))
    assert "No activation maps were made in this run" in page.text
    assert "No simple method was run on these images" in page.text
    assert "No network was trained in this run." in page.text
    assert "not recorded" in page.text


@pytest.mark.parametrize("volumes", [False, True])
def test_one_cluster(tmp_path: Path, volumes: bool) -> None:
    study = run_folder.planted_3d((5,)) if volumes else run_folder.planted_2d((5,))
    page = Page(write_report(run_folder.write_run_folder(tmp_path / "out", study)))
    assert "sorted into 1 cluster;" in page.text and "No header value stands out" in page.text
    assert "A t-SNE map was not drawn" in page.text


def test_a_single_image(tmp_path: Path) -> None:
    page = Page(write_report(run_folder.write_run_folder(tmp_path / "out", run_folder.planted_2d((1,)))))
    assert "1 image was sorted into 1 cluster;" in page.text


def test_empty_clusters_and_rejected_images(tmp_path: Path) -> None:
    study = run_folder.planted_2d((12, 0, 12))
    study.labels[:3] = -1
    page = Page(write_report(run_folder.write_run_folder(tmp_path / "out", study)))
    assert "21 images were sorted into 2 clusters; 3 fit none of them; 3 files and images were left out." in page.text
    assert [name for name in page.ids if name.startswith("cluster")] == ["cluster0", "cluster2", "cluster-1"]
    assert "Most unlike all others" in page.text


def test_colour_images_and_16_bits(tmp_path: Path) -> None:
    study = run_folder.planted_2d((8, 8))
    study.pixels = np.repeat(study.pixels, 3, axis=1).astype(np.uint16) * 200
    assert Page(write_report(run_folder.write_run_folder(tmp_path / "out", study))).text


def test_constant_images_and_maps_do_no_harm(tmp_path: Path) -> None:
    study = run_folder.planted_2d((8, 8))
    study.pixels[:] = 7
    page = Page(write_report(run_folder.write_run_folder(tmp_path / "out", study)))
    assert "There is no activation map for this cluster." in page.text


def test_sentences_of_the_fit_are_told(tmp_path: Path) -> None:
    out = run_folder.write_run_folder(tmp_path / "out", run_folder.planted_2d())
    (out / "model.json").write_text(json.dumps({"warnings": ["One cluster was moved."]}))
    assert "One cluster was moved." in Page(write_report(out)).text


def test_missing_stage_is_an_error_and_leaves_no_page(tmp_path: Path) -> None:
    out = run_folder.write_run_folder(tmp_path / "out", run_folder.planted_2d())
    (out / "assignments.parquet").unlink()
    with pytest.raises(RunFolderError, match="medstrata assign"):
        write_report(out)
    assert not (out / "report.html").exists()


def test_origin_takes_the_last_finished_stage() -> None:
    stages = {"scan": {"finished": "2025-01-01T00:00:00"}, "fit": {"finished": "2025-02-03T00:00:00"}}
    origin = read_origin({"medstrata": "9.9", "stages": stages, "versions": {"numpy": "2.0"}})
    assert (origin.version, origin.date, origin.versions) == ("9.9", "2025-02-03", {"numpy": "2.0"})
    assert read_origin({}).date == ""


@pytest.mark.slow
def test_page_stays_small_with_many_noisy_clusters(tmp_path: Path) -> None:
    study = run_folder.planted_2d((40,) * 60, side=128)
    study.pixels = np.random.default_rng(0).integers(0, 256, (2400, 3, 128, 128), dtype=np.uint8)
    out = run_folder.write_run_folder(tmp_path / "out", study, maps=False)
    np.save(out / "pixels.npy", study.pixels)
    assert write_report(out).stat().st_size < 10_000_000
