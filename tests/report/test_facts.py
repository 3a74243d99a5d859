"""The facts of a planted run folder, with the whole answer written out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medstrata.errors import RunFolderError
from medstrata.report.attention import Finding, findings, left_out_words
from medstrata.report.facts import ALL_MAPS, Reason, gather_facts, list_decisions, map_cautions
from medstrata.report.folder import STAGE_OF, read_run_folder
from medstrata.report.training import read_phases

if TYPE_CHECKING:
    import run_folder
else:
    run_folder = sys.modules["run_folder"]


def kinds(out: Path) -> dict[str, Finding]:
    run = read_run_folder(out)
    return {finding.kind: finding for finding in findings(gather_facts(run), run.plan)}


def test_counts_of_the_planted_folder(tmp_path: Path) -> None:
    run = read_run_folder(run_folder.write_run_folder(tmp_path / "out", run_folder.planted_2d()))
    facts = gather_facts(run)
    assert (facts.noun, facts.clustered, facts.n_clusters) == ("images", 36, 3)
    assert [(c.number, c.size) for c in facts.clusters] == [(0, 12), (1, 9), (2, 15)]
    assert sum(c.share for c in facts.clusters) == pytest.approx(1.0)
    assert [c.title for c in facts.clusters] == ["Mostly CT chest", "Mostly MR head", "No header value stands out"]
    assert facts.members(1).tolist() == list(range(12, 21))
    assert {(k.modality, k.body_part, k.count) for k in facts.kinds} == {("CT", "chest", 19), ("MR", "head", 17)}
    assert facts.reasons == [
        Reason("scan", "not_an_image", "The file is no image that medstrata can read.", 2),
        Reason("decode", "truncated", "The pixel data end too early.", 1),
    ]
    assert left_out_words(facts) == "3 files and images"
    decisions = {decision.key: decision for decision in facts.decisions}
    assert decisions["grid"].value == "16 × 16" and decisions["grid"].reason == "Most images are of this size."
    assert decisions["include_burned_in"].value == "no" and not {"reasons", "version"} & set(decisions)
    assert (decisions["images"].value, decisions["images"].reason) == ("", "36 of 36 images take part.")


@pytest.mark.parametrize(("fitted", "value"), [("none", "none"), (None, "none"), ("ct", "ct")])
def test_an_augmentation_that_the_method_did_not_use_is_not_claimed(fitted: str | None, value: str) -> None:
    plan = {"method": "dcec", "augmentation": "ct", "reasons": {"augmentation": "CT: small turns."}}
    decisions = list_decisions(plan, {"settings": {"training": {"augmentation": fitted}} if fitted else {}})
    told = {decision.key: decision for decision in decisions}["augmentation"]
    assert told.value == value and ("as they are" in told.reason) == (fitted != "ct")


def test_skipped_files_count_once_also_where_left_out_misses_them(tmp_path: Path) -> None:
    out = run_folder.write_run_folder(tmp_path / "out", run_folder.planted_2d())
    left = pq.read_table(out / "left_out.parquet")
    pq.write_table(left.filter(pa.compute.equal(left["stage"], "decode")), out / "left_out.parquet")
    reasons = gather_facts(read_run_folder(out)).reasons
    assert [(r.stage, r.code, r.count) for r in reasons] == [("scan", "not_an_image", 2), ("decode", "truncated", 1)]


def test_agreement_with_the_baselines(tmp_path: Path) -> None:
    study = run_folder.planted_2d()
    out = run_folder.write_run_folder(tmp_path / "out", study)
    other = np.where(study.labels == 2, 5, study.labels)
    other[0] = -1  # was not computed for this image
    halves = np.where(study.labels == 0, np.arange(36) % 2, 7)  # splits cluster 0, joins the others
    table = {"image_id": study.ids[::-1], "pca_kmeans": other[::-1].copy(), "pixel_graph": halves[::-1].copy()}
    pq.write_table(pa.table(table), out / "baselines.parquet")
    same, split = gather_facts(read_run_folder(out)).agreements
    assert (same.ari, same.nmi, same.count, same.apart) == (pytest.approx(1.0), pytest.approx(1.0), 35, [])
    assert (same.rows, same.columns) == ([0, 1, 2], ["0", "1", "5"])
    assert same.table == [[11, 0, 0], [0, 9, 0], [0, 0, 15]]
    assert split.columns == ["0", "1", "7"] and split.table == [[6, 6, 0], [0, 0, 9], [0, 0, 15]]
    assert split.apart == [1]  # 9 of 24; the halves of 0 reach 6 of 12 and 2 has 15 of 24


def test_many_baseline_clusters_are_merged(tmp_path: Path) -> None:
    study = run_folder.planted_2d()
    out = run_folder.write_run_folder(tmp_path / "out", study)
    pq.write_table(pa.table({"image_id": study.ids, "pixel_graph": np.arange(36)}), out / "baselines.parquet")
    (found,) = gather_facts(read_run_folder(out)).agreements
    assert len(found.columns) == 13 and found.columns[-1] == "others"
    assert [sum(row) for row in found.table] == [12, 9, 15]


def test_phases_leave_out_the_first_label_change() -> None:
    warm, tuned = read_phases(run_folder.history_of(run_folder.planted_2d()))
    assert warm.name == "warm-up" and list(warm.losses) == ["loss", "reconstruction_loss"] and not warm.watched
    assert set(tuned.losses) == {"loss", "reconstruction_loss", "clustering_loss"}
    assert tuned.watched["label_change"][0] == [1, 2, 3, 4, 5]
    assert tuned.watched["clusters_used"] == ([0, 1, 2, 3, 4, 5], [3] * 6)
    assert read_phases([{"epoch": 0, "loss": float("nan"), "stopped": "labels settled"}])[0].losses == {}


def test_cautions_of_the_maps() -> None:
    listed = {"caution": "All.", "clusters": [{"cluster": 1, "caution": "One."}, {"cluster": 2, "caution": ""}]}
    assert map_cautions(listed) == {ALL_MAPS: ["All."], 1: ["One."], 2: []}
    assert map_cautions({}) == {ALL_MAPS: []}


@pytest.mark.parametrize(("name", "stage"), STAGE_OF.items())
def test_missing_file_names_its_stage(tmp_path: Path, name: str, stage: str) -> None:
    out = run_folder.write_run_folder(tmp_path / "out", run_folder.planted_2d())
    (out / name).unlink()
    with pytest.raises(RunFolderError, match=f"no {name}.*medstrata {stage}"):
        read_run_folder(out)


@pytest.mark.parametrize("name", ["catalog.parquet", "plan.json", "pixels.npy", "maps/maps.npy", "history.jsonl"])
def test_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    out = run_folder.write_run_folder(tmp_path / "out", run_folder.planted_2d())
    (out / name).write_bytes(b"\x00broken\n")
    with pytest.raises(RunFolderError, match=f"{Path(name).name} is damaged"):
        read_run_folder(out)


def test_cut_off_history_line_is_left_out(tmp_path: Path) -> None:
    out = run_folder.write_run_folder(tmp_path / "out", run_folder.planted_2d())
    with (out / "history.jsonl").open("a") as file:
        file.write('{"phase": "clust')
    assert len(read_run_folder(out).history) == 11


def test_files_of_different_runs_are_refused(tmp_path: Path) -> None:
    out = run_folder.write_run_folder(tmp_path / "out", run_folder.planted_2d())
    np.save(out / "embeddings.npy", np.zeros((35, 6), np.float32))
    with pytest.raises(RunFolderError, match="do not belong together"):
        read_run_folder(out)
    with pytest.raises(RunFolderError, match="not a folder"):
        read_run_folder(tmp_path / "nowhere")


def test_a_sound_run_has_no_findings(tmp_path: Path) -> None:
    out = run_folder.write_run_folder(tmp_path / "out", run_folder.planted_2d((40, 40, 40)))
    assert kinds(out) == {}


def test_collapse_and_tiny_clusters(tmp_path: Path) -> None:
    study = run_folder.planted_2d((4, 0, 96))
    found = kinds(run_folder.write_run_folder(tmp_path / "out", study))
    assert found["collapse"].serious and "96 %" in found["collapse"].text  # the later of two; both are serious
    assert "cluster 0 (4 images)" in found["tiny"].text


def test_empty_cluster_is_told(tmp_path: Path) -> None:
    run = read_run_folder(run_folder.write_run_folder(tmp_path / "out", run_folder.planted_2d((40, 0, 40))))
    (found,) = [f for f in findings(gather_facts(run), run.plan) if f.kind == "collapse"]
    assert "3 clusters were asked for, but only 2 hold any images" in found.text


def test_soft_assignments_and_rejected_images(tmp_path: Path) -> None:
    study = run_folder.planted_2d((40, 40))
    study.labels[:20] = -1
    out = run_folder.write_run_folder(tmp_path / "out", study)
    table = pq.read_table(out / "assignments.parquet")
    margin = pa.array(np.where(np.arange(80) < 30, 0.05, 0.5), pa.float32())
    pq.write_table(table.set_column(table.column_names.index("margin"), "margin", margin), out / "assignments.parquet")
    found = kinds(out)
    assert "For 38 % of the images" in found["margins"].text and "25 % of the images" in found["rejected"].text


def test_little_agreement_and_much_left_out(tmp_path: Path) -> None:
    study = run_folder.planted_2d((40, 40))
    out = run_folder.write_run_folder(tmp_path / "out", study)
    table = {"image_id": study.ids, "pca_kmeans": np.arange(80) % 2, "pixel_graph": np.arange(80) % 3}
    pq.write_table(pa.table(table), out / "baselines.parquet")
    left = pq.read_table(out / "left_out.parquet")
    more = {name: ["x"] * 20 for name in ("image_id", "stage", "code", "reason")}
    pq.write_table(pa.concat_tables([left, pa.table(more)]), out / "left_out.parquet")
    found = kinds(out)
    assert "PCA and k-means (-0.01)" in found["baselines"].text
    assert "23 files and images were left out" in found["left_out"].text


def test_burned_in_images_in_the_plan_are_a_warning(tmp_path: Path) -> None:
    out = run_folder.write_run_folder(tmp_path / "out", run_folder.planted_2d((40, 40)))
    plan = json.loads((out / "plan.json").read_text())
    (out / "plan.json").write_text(json.dumps(plan | {"include_burned_in": True}))
    assert kinds(out)["burned_in"].serious


def test_runs_that_disagree_are_told(tmp_path: Path) -> None:
    out = run_folder.write_run_folder(tmp_path / "out", run_folder.planted_2d((40, 40, 40)))
    for disagreement, serious in ((0.05, None), (0.3, False), (0.6, True)):
        values = {"method": "auto", "warnings": [], "reading": {"disagreement": disagreement}}
        (out / "model.json").write_text(json.dumps(values))
        found = kinds(out).get("disagreement")
        assert (None if found is None else found.serious) is serious
        assert found is None or "matter of chance" in found.title
