"""Two runs compared, from their folders to the page; no original id or file name in what is written."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import run_folder
from command_line import medstrata
from medstrata.errors import RunFolderError
from medstrata.pipeline.comparing import compare_runs, plan_changes
from medstrata.pipeline.editing import edit_run

SECRETS = (run_folder.SECRET, "1.2.840", "/home/")


class OtherIds(run_folder.Study):
    """The same images under another secret key."""

    @property
    def ids(self) -> list[str]:
        return [f"{index:016x}" for index in range(0xB000, 0xB000 + self.count)]


def write(out: Path, study: run_folder.Study, **plan: object) -> Path:
    run_folder.write_run_folder(out, study)
    (out / "model.safetensors").write_bytes(out.name.encode())
    (out / "plan.json").write_text(json.dumps(run_folder.plan_of(study) | plan))
    sources = pq.read_table(out / "private" / "sources.parquet").append_column("frame", pa.array([0] * study.count))
    pq.write_table(sources, out / "private" / "sources.parquet")
    return out


def changed(study: run_folder.Study) -> run_folder.Study:
    """Cluster numbers 0 and 1 changed places, and 4 images of the old cluster 2 went to a new one."""
    labels = np.array([1, 0, 2])[study.labels]
    labels[-4:] = 3
    return OtherIds(**vars(replace(study, labels=labels, n_clusters=4)))


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    study = run_folder.planted_2d()
    second = write(tmp_path / "b", changed(study), seed=7, settings={"training": {"epochs": 5}})
    return write(tmp_path / "a", study), second


def test_everything_that_is_written(runs: tuple[Path, Path]) -> None:
    first, second = runs
    said: list[str] = []
    page = compare_runs(first, second, say=said.append)
    folder = second / "comparison"
    assert page == folder / "comparison.html"
    assert sorted(path.name for path in folder.iterdir()) == [
        *("compare.json", "comparison.html", "flow.svg", "moved.parquet")
    ]
    found = json.loads((folder / "compare.json").read_text())
    assert [(pair["first"], pair["second"], pair["shared"], pair["jaccard"]) for pair in found["pairs"]] == [
        (0, 1, 12, 1.0),
        (1, 0, 9, 1.0),
        (2, 2, 11, 11 / 15),
    ]
    assert found["shared"] == 36 and found["moved"] == 4 and found["moved_share"] == pytest.approx(4 / 36)
    assert found["first"]["unmatched"] == [] and found["second"]["unmatched"] == [3]
    assert found["table"]["counts"] == [[0, 12, 0, 0], [9, 0, 0, 0], [0, 0, 11, 4]]
    assert found["plan"] == [
        {"key": "n_clusters", "first": "3", "second": "4"},
        {"key": "seed", "first": "0", "second": "7"},
        {"key": "settings.training.epochs", "first": "not set", "second": "5"},
    ]
    table = pq.read_table(folder / "moved.parquet")
    assert table["image_id"].to_pylist() == changed(run_folder.planted_2d()).ids
    assert table["moved"].to_pylist() == [False] * 32 + [True] * 4
    assert table["first_cluster"].to_pylist()[-1] == 2 and table["second_cluster"].to_pylist()[-1] == 3
    assert said[0].startswith("compare: 36 images joined by what the files themselves say")


def test_the_page_is_self_contained_and_shows_the_movers(runs: tuple[Path, Path]) -> None:
    first, second = runs
    edit_run(second, "rename", ["2", "<script>x</script>"])
    html = compare_runs(first, second, say=lambda _: None).read_text()
    assert "4 of 36 images (11 %) moved" in html
    assert "Cluster 2 in the first run, cluster 3 in the second <small>4 images</small>" in html
    assert html.count("<figcaption><span") == 4 and "settings.training.epochs" in html
    assert "&lt;script&gt;x" in html and "<script" not in html
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert sources and all(source.startswith("data:image/") for source in sources)
    again = compare_runs(first, second, say=lambda _: None).read_text()
    assert again == html


def test_no_original_id_or_name_is_written(runs: tuple[Path, Path]) -> None:
    first, second = runs
    compare_runs(first, second, say=lambda _: None)
    old_ids = run_folder.planted_2d().ids
    for path in (second / "comparison").iterdir():
        held = path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            held += repr(pq.read_table(path).to_pylist())
        assert not [secret for secret in (*SECRETS, *old_ids, str(first)) if secret in held], path.name


def test_hidden_images_are_counted_and_not_shown(runs: tuple[Path, Path]) -> None:
    first, second = runs
    catalog = pq.read_table(second / "catalog.parquet")
    at = catalog.column_names.index("burned_in")
    pq.write_table(catalog.set_column(at, "burned_in", [["yes"] * len(catalog)]), second / "catalog.parquet")
    html = compare_runs(first, second, say=lambda _: None).read_text()
    assert "4 of these may have text burned in" in html and "data:image/jpeg" not in html


def test_volumes_and_runs_that_agree(tmp_path: Path) -> None:
    study = run_folder.planted_3d()
    first, second = write(tmp_path / "a", study), write(tmp_path / "b", study)
    html = compare_runs(first, second, say=lambda _: None).read_text()
    assert "No image moved." in html and "The plans of both runs are the same." in html


def test_ids_that_mean_a_name_in_two_inputs_are_cautioned_about(tmp_path: Path) -> None:
    study = run_folder.planted_2d()
    first, second = write(tmp_path / "a", study), write(tmp_path / "b", study)
    (second / "private" / "input.json").write_text(json.dumps({"input": "/elsewhere"}))
    said: list[str] = []
    html = compare_runs(first, second, say=said.append).read_text()
    assert "different INPUTs" in html and any("different INPUTs" in line for line in said)


def test_wrong_places(runs: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = runs
    with pytest.raises(RunFolderError, match="same folder"):
        compare_runs(first, first)
    with pytest.raises(RunFolderError, match=r"OUT2 .* no finished run"):
        compare_runs(first, tmp_path / "none")
    with pytest.raises(RunFolderError, match="inside OUT"):
        compare_runs(first, second, first / "x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(RunFolderError, match="holds no comparison"):
        compare_runs(first, second, tmp_path / "full")
    shutil.rmtree(first / "private")
    answer = medstrata("compare", first, second)
    assert answer.code == 1 and "private/ folder of OUT1" in answer.sentence
    assert not (second / "comparison").exists()


def test_command_writes_elsewhere_and_over_its_own(runs: tuple[Path, Path], tmp_path: Path) -> None:
    for _ in range(2):
        answer = medstrata("compare", *runs, "--out", tmp_path / "c")
        assert answer.code == 0, answer.err
    assert answer.out.strip() == str(tmp_path / "c" / "comparison.html")
    assert "adjusted Rand index 0." in answer.err and "4 images moved" in answer.err
    assert not (runs[1] / "comparison").exists()


def test_settings_that_differ() -> None:
    first = {"version": 1, "reasons": {"a": "b"}, "grid": [8, 8], "spacing": None, "kind": {"modality": "CT"}, "x": {}}
    second = {"version": 2, "reasons": {}, "grid": [8, 9], "spacing": [1.0, 0.5], "kind": {"modality": "MR"}, "x": {}}
    assert plan_changes(first, second) == [
        {"key": "grid", "first": "8 × 8", "second": "8 × 9"},
        {"key": "kind.modality", "first": "CT", "second": "MR"},
        {"key": "spacing", "first": "none", "second": "1 × 0.5"},
    ]


def test_verdicts_and_adjusting_of_both_runs_are_said(runs: tuple[Path, Path]) -> None:
    first, second = runs
    (first / "validation.json").write_text(json.dumps({"provisional": True, "supported": False}))
    verdict = {"provisional": False, "supported": False, "verdict": "not fully tested"}
    (second / "validation.json").write_text(json.dumps(verdict))
    facts = {"columns": ["manufacturer", "kernel"], "before": 0.8512, "after": 0.12, "count": 2, "sentences": []}
    (second / "adjustment.json").write_text(json.dumps(facts))
    said: list[str] = []
    html = compare_runs(first, second, say=said.append).read_text()
    sentences = [
        "The clusters of the first run are not validated.",
        "The clusters of the second run are not fully tested. It adjusts for manufacturer and kernel: Cramér's V of "
        "batches and clusters is 0.85 before and 0.12 after.",
    ]
    found = json.loads((second / "comparison" / "compare.json").read_text())
    assert found["judged"] == sentences and [f"compare: {one}" for one in sentences] == said[1:3]
    assert found["first"]["adjusted"] is None and found["second"]["adjusted"] == {
        "columns": ["manufacturer", "kernel"],
        "before": 0.8512,
        "after": 0.12,
    }
    assert sentences[0] in html and "is 0.85 before and 0.12 after." in html
    for earlier, word in ((True, "supported"), (False, "not supported")):  # files of earlier versions
        (first / "validation.json").write_text(json.dumps({"provisional": False, "supported": earlier}))
        compare_runs(first, second, say=said.append)
        assert json.loads((second / "comparison" / "compare.json").read_text())["first"]["validity"] == word
