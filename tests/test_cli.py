"""The command line on small inputs: every stage a command, skipped when done, edited plans honoured."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from command_line import images, medstrata, write_array
from medstrata.pipeline.stages import NAMES

pytestmark = pytest.mark.usefixtures("quick_fits")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """INPUT and OUT of one finished run."""
    folder = tmp_path_factory.mktemp("run")
    source = write_array(folder / "in")
    answer = medstrata("run", source, folder / "out", "--clusters", 3, "--seed", 0)
    assert answer.code == 0, answer.err
    assert answer.out.strip().endswith("report.html")
    return source, folder / "out"


def test_run_writes_every_file_of_the_run_folder(done: tuple[Path, Path]) -> None:
    _, out = done
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {
        "catalog.parquet",
        "plan.json",
        "pixels.npy",
        "images.parquet",
        "left_out.parquet",
        "model.safetensors",
        "model.json",
        "history.jsonl",
        "baselines.parquet",
        "embeddings.npy",
        "soft_assignments.npy",
        "assignments.parquet",
        "maps/index.parquet",
        "maps/cluster_maps.npy",
        "report.html",
        "run.json",
        "log.txt",
        "private/salt",
        "private/sources.parquet",
    } <= names
    assert not [name for name in names if name.endswith(".part") or "checkpoint" in name]
    assert (out / "private").stat().st_mode & 0o777 == 0o700


def test_planted_groups_are_found_and_scored(done: tuple[Path, Path]) -> None:
    source, out = done
    found = json.loads(medstrata("score", out, source).out)
    keys = ["accuracy", "balanced_accuracy", "nmi", "ami", "ari", "purity", "n_clusters", "majority_rate"]
    assert [found[key] for key in keys] == pytest.approx([1, 1, 1, 1, 1, 1, 3, 1 / 3])
    assert found["labelled"] == 18 and found["baselines"]["pca_kmeans"]["accuracy"] == 1.0


def test_score_by_csv_of_image_ids(done: tuple[Path, Path], tmp_path: Path) -> None:
    _, out = done
    ids = pq.read_table(out / "assignments.parquet")["image_id"].to_pylist()
    lines = [f"{image_id},{'abc'[number % 3]}" for number, image_id in enumerate(ids)]
    (tmp_path / "labels.csv").write_text("image_id,label\n" + "\n".join(lines))
    assert json.loads(medstrata("score", out, tmp_path / "labels.csv").out)["accuracy"] == 1.0


def test_second_run_does_nothing_again_and_redo_does(done: tuple[Path, Path]) -> None:
    source, out = done
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.*") if path.name != "log.txt"}
    answer = medstrata("run", source, out)
    assert answer.code == 0 and answer.err.count("up to date") == len(NAMES) - 1
    assert {path: path.stat().st_mtime_ns for path in before} == before
    labels = (out / "assignments.parquet").read_bytes()
    answer = medstrata("run", source, out, "--redo", "fit")
    assert answer.code == 0 and answer.err.count("up to date") == 2
    assert (out / "assignments.parquet").read_bytes() == labels


def test_every_stage_is_a_command(tmp_path: Path, done: tuple[Path, Path]) -> None:
    source, whole = done
    out = tmp_path / "out"
    (out / "private").mkdir(parents=True)
    (out / "private" / "salt").write_text((whole / "private" / "salt").read_text())
    assert medstrata("scan", source, out).code == 0
    assert medstrata("plan", out, "--clusters", 3).code == 0
    for stage in NAMES[2:]:
        answer = medstrata(stage, out)
        assert answer.code == 0, answer.err
    for name in ("catalog.parquet", "pixels.npy", "model.safetensors", "assignments.parquet", "maps/index.parquet"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_stages_out_of_order_name_the_missing_one(tmp_path: Path) -> None:
    source = write_array(tmp_path)
    assert "medstrata scan INPUT OUT" in medstrata("fit", tmp_path / "out").sentence
    assert medstrata("scan", source, tmp_path / "out").code == 0
    answer = medstrata("decode", tmp_path / "out")
    assert answer.code == 1 and "medstrata plan OUT" in answer.sentence


def test_edited_plan_is_honoured_and_never_overwritten(tmp_path: Path) -> None:
    source, out = write_array(tmp_path), tmp_path / "out"
    medstrata("scan", source, out)
    medstrata("plan", out)
    plan = json.loads((out / "plan.json").read_text())
    plan |= {"n_clusters": 2, "settings": {"training": {"warmup_epochs": 1, "warmup_steps": 0, "epochs": 1}}}
    (out / "plan.json").write_text(json.dumps(plan))
    answer = medstrata("run", source, out)
    assert answer.code == 0 and "plan: kept as it stands" in answer.err
    assert "epochs: 1   Set by hand in plan.json." in answer.err
    assert (out / "report.html").read_text().count("Set by hand in plan.json.") == 1
    assert json.loads((out / "model.json").read_text())["settings"]["n_clusters"] == 2
    assert len((out / "history.jsonl").read_text().splitlines()) == 2
    answer = medstrata("run", source, out, "--clusters", 3)
    assert answer.code == 1 and "edited by hand" in answer.sentence and "--redo plan" in answer.sentence
    answer = medstrata("run", source, out, "--clusters", 3, "--redo", "plan")
    assert answer.code == 0 and json.loads((out / "plan.json").read_text())["n_clusters"] == 3


def test_options_of_earlier_calls_stay_until_the_plan_is_made_anew(tmp_path: Path) -> None:
    source, out = write_array(tmp_path), tmp_path / "out"
    medstrata("scan", source, out)

    def planned(*options: object) -> tuple[str, int, int]:
        assert medstrata("plan", out, *options).code == 0
        plan = json.loads((out / "plan.json").read_text())
        return plan["method"], plan["n_clusters"], plan["seed"]

    assert planned("--method", "pca", "--clusters", 4) == ("pca", 4, 0)
    assert planned("--seed", 5) == ("pca", 4, 5)
    assert planned("--clusters", 3) == ("pca", 3, 5)
    assert planned() == ("pca", 3, 5)
    assert medstrata("scan", source, out, "--redo").code == 0 and planned() == ("pca", 3, 5)
    method, clusters, seed = planned("--redo", "--seed", 2)
    assert (method, seed) == ("dcec", 2) and clusters != 3


def test_a_folder_that_is_refused_stays_as_it_is(tmp_path: Path) -> None:
    source, images = write_array(tmp_path), tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes(b"x")
    answer = medstrata("run", source, images)
    assert answer.code == 1 and "is not a run folder" in answer.sentence
    assert [file.name for file in images.iterdir()] == ["a.png"]


def test_a_stage_that_was_killed_is_not_taken_for_done(tmp_path: Path) -> None:
    """The record of an earlier fit goes before a new fit begins."""
    source, out = write_array(tmp_path), tmp_path / "out"
    quick = {"settings": {"training": {"warmup_epochs": 1, "warmup_steps": 0, "epochs": 1}}}
    medstrata("scan", source, out)
    medstrata("plan", out, "--clusters", 3)
    first = json.loads((out / "plan.json").read_text()) | quick
    (out / "plan.json").write_text(json.dumps(first))
    assert medstrata("run", source, out).code == 0
    (out / "plan.json").write_text(json.dumps(first | {"n_clusters": 2}))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medstrata.pipeline.fitting._baselines", killed)
        assert medstrata("fit", out).code == 1
    (out / "plan.json").write_text(json.dumps(first))
    assert medstrata("run", source, out).code == 0
    assert json.loads((out / "model.json").read_text())["settings"]["n_clusters"] == 3


def test_a_stage_refuses_inputs_that_are_out_of_date(done: tuple[Path, Path], tmp_path: Path) -> None:
    _, whole = done
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    plan = json.loads((out / "plan.json").read_text())
    (out / "plan.json").write_text(json.dumps(plan | {"n_clusters": 2}))
    answer = medstrata("report", out)
    assert (
        answer.code == 1 and "fit was done with another plan" in answer.sentence and "medstrata fit" in answer.sentence
    )


def test_a_kill_between_plan_and_its_record_is_no_edit(tmp_path: Path) -> None:
    from medstrata.run import RunFolder

    source, out = write_array(tmp_path), tmp_path / "out"
    medstrata("scan", source, out)
    medstrata("plan", out, "--clusters", 3, "--seed", 5)
    RunFolder(out).forget(("plan",))
    answer = medstrata("plan", out, "--clusters", 3, "--seed", 5)
    assert answer.code == 0, answer.err


def test_an_explicit_seed_of_0_is_an_option(tmp_path: Path) -> None:
    source, out = write_array(tmp_path), tmp_path / "out"
    medstrata("scan", source, out)
    medstrata("plan", out, "--seed", 5)
    medstrata("plan", out, "--seed", 0)
    assert json.loads((out / "plan.json").read_text())["seed"] == 0


def test_versions_are_written_down(done: tuple[Path, Path]) -> None:
    versions = json.loads((done[1] / "run.json").read_text())["versions"]
    assert {"torch", "pydicom", "numpy", "python"} <= versions.keys()


def test_assign_sorts_new_images_into_a_folder_of_their_own(done: tuple[Path, Path], tmp_path: Path) -> None:
    source, out = done
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    stored = np.load(source)
    new = np.concatenate([stored["images"][:4], 255 - stored["images"][:1]])
    np.save(tmp_path / "new.npy", new)
    answer = medstrata("assign", out, tmp_path / "new.npy", tmp_path / "new_out")
    assert answer.code == 0, answer.err
    old = pq.read_table(out / "assignments.parquet").to_pylist()
    found = pq.read_table(tmp_path / "new_out" / "assignments.parquet").to_pylist()
    assert [row["nearest"] for row in found[:4]] == [row["nearest"] for row in old[:4]]
    explained = {row["row"]: row for row in pq.read_table(tmp_path / "new_out" / "maps" / "index.parquet").to_pylist()}
    for row in pq.read_table(out / "maps" / "index.parquet").to_pylist():
        if row["row"] in explained and row["row"] < 4:
            assert explained[row["row"]]["completeness"] == pytest.approx(row["completeness"], rel=1e-3)
    assert found[4]["cluster"] == -1 and found[4]["novelty"] > 2
    assert {path: path.stat().st_mtime_ns for path in before} == before
    drift = json.loads((tmp_path / "new_out" / "drift.json").read_text())
    assert not drift["tested"] and "5 new patients are too few" in answer.err
    assert "not calibrated" in answer.err and {row["calibrated"] for row in found} == {None}  # of 18 images
    assert drift["sentence"] in (tmp_path / "new_out" / "report.html").read_text()
    assert medstrata("assign", out, tmp_path / "new.npy", tmp_path / "new_out").err.count("up to date") >= 5


def test_assign_says_how_sure_it_is_and_whether_the_new_images_differ(tmp_path: Path) -> None:
    source, out = write_array(tmp_path / "in", 120), tmp_path / "out"
    answer = medstrata("run", source, out, "--clusters", 3, "--method", "pca")
    assert answer.code == 0 and "100% of held-back images came into the same cluster" in answer.err, answer.err
    facts = json.loads((out / "calibration.json").read_text())
    assert facts["calibrated"] and facts["by_reader"] == [1.0] * 4
    assert facts["fit"]["comparisons"] == facts["new"]["comparisons"] == 240
    assert facts["novelty"] | {"rejected_share_below": 0} == {
        "false_alarm_rate": 0.01,
        "patients": 120,
        "can_flag": True,
        "rejected_share": 0.0,
        "rejected_share_below": 0,
    }
    fit = pq.read_table(out / "assignments.parquet")
    named = ["probability", "calibrated", "margin", "typicality", "novelty", "novelty_p", "novel"]
    assert fit.column_names == ["image_id", "cluster", "nearest", *named, "fitted"]
    assert min(fit["calibrated"].to_pylist()) > 1 / 3 and max(fit["calibrated"].to_pylist()) <= 1
    assert not (out / "drift.json").exists()
    alike = images(160)[0][120:]
    for name, new, differs in (("alike", alike, False), ("inverted", 255 - alike, True)):
        np.save(tmp_path / f"{name}.npy", new)
        answer = medstrata("assign", out, tmp_path / f"{name}.npy", tmp_path / name)
        assert answer.code == 0, answer.err
        drift = json.loads((tmp_path / name / "drift.json").read_text())
        assert drift["tested"] and drift["drift"] is differs and drift["sentence"] in answer.err
        assert drift["patients"] == {"new": 40, "fit": 120, "in_both": 0}
        assert (tmp_path / name / "calibration.json").read_bytes() == (out / "calibration.json").read_bytes()
        flagged = pq.read_table(tmp_path / name / "assignments.parquet")["novel"].to_pylist()
        assert sum(flagged) == 40 if differs else sum(flagged) <= 3
        page = (tmp_path / name / "report.html").read_text()
        assert drift["sentence"] in page and ('data-kind="drift"' in page) is differs
        assert "calibrated probability" in page


def test_one_new_image_is_enough_to_assign(done: tuple[Path, Path], tmp_path: Path) -> None:
    source, out = done
    (tmp_path / "in").mkdir()
    Image.fromarray(np.load(source)["images"][0]).save(tmp_path / "in" / "one.png")
    answer = medstrata("assign", out, tmp_path / "in", tmp_path / "new_out")
    assert answer.code == 0, answer.err
    assert len(pq.read_table(tmp_path / "new_out" / "assignments.parquet")) == 1
    # Compared with what the model was fitted on: compared with itself, one image would have an empty map.
    summary = json.loads((tmp_path / "new_out" / "maps" / "summary.json").read_text())
    assert summary["caution"] == "" and summary["scale"] > 0
    # A model that sorts images through another folder of new images still knows what is usual for it.
    assert medstrata("assign", tmp_path / "new_out", tmp_path / "in", tmp_path / "third").code == 0
    for name in ("fit_embeddings.npy", "fit_soft_assignments.npy", "fit_patients.parquet", "fit_cohort.safetensors"):
        assert (tmp_path / "third" / name).read_bytes() == (tmp_path / "new_out" / name).read_bytes()
    answer = medstrata("explain", tmp_path / "third", "--check")
    assert answer.code == 0 and "not fitted again" in answer.err
    assert "Only 1 image was checked" in (tmp_path / "third" / "report.html").read_text()


def test_a_run_without_its_private_folder_is_explained_and_reported(done: tuple[Path, Path], tmp_path: Path) -> None:
    """Nothing private is needed for it; decoding needs INPUT, says so and takes nothing back."""
    _, whole = done
    out = Path(shutil.copytree(whole, tmp_path / "out", ignore=shutil.ignore_patterns("private")))
    assert "up to date" in medstrata("report", out).err
    answer = medstrata("explain", out, "--redo")
    assert answer.code == 0, answer.err
    assert re.search(r"explain: maps of \d+ images and of 3 clusters in maps/", answer.err)
    assert answer.out.strip() == str(out / "maps")
    assert medstrata("report", out).out.strip() == str(out / "report.html")
    assert medstrata("assign", out, "--redo").code == 0
    for stage in ("plan", "decode"):
        answer = medstrata(stage, out, "--redo")
        assert answer.code == 1 and "no private/ folder" in answer.sentence
    assert not (out / "private").exists() and (out / "plan.json").exists()
    assert "decode" in json.loads((out / "run.json").read_text())["stages"], "what is refused is not forgotten"


def test_decisions_are_reported_taken_along_and_undone(done: tuple[Path, Path], tmp_path: Path) -> None:
    source, whole = done
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    model = {name: (out / name).read_bytes() for name in ("assignments.parquet", "soft_assignments.npy")}
    answer = medstrata("edit", out, "rename", 2, "ground glass", "--who", "A. B.", "--why", "seen on all")
    assert answer.code == 0 and "cluster 2 is called “ground glass”" in answer.err, answer.err
    assert answer.out.strip() == str(out / "report.html")
    assert "<strong>ground glass</strong>" in (out / "report.html").read_text()
    assert "report: up to date" in medstrata("report", out).err
    answer = medstrata("assign", out, source, tmp_path / "new")
    assert answer.code == 0, answer.err
    assert "<strong>ground glass</strong>" in (tmp_path / "new" / "report.html").read_text()
    medstrata("edit", tmp_path / "new", "merge", 0, 1)
    assert "some of its own" not in medstrata("assign", out, source, tmp_path / "new").err
    medstrata("edit", out, "flag", 0, "--why", "motion")
    assert "some of its own" in medstrata("assign", out, source, tmp_path / "new").err
    assert [medstrata("edit", out, "undo").code for _ in range(2)] == [0, 0]
    assert "ground glass" not in (out / "report.html").read_text()
    assert {name: (out / name).read_bytes() for name in model} == model
    assert medstrata("edit", out, "rename", 3, "x").code == 1 and medstrata("edit", out, "drop", 3).code == 2


def test_after_another_fit_decisions_are_kept_and_not_applied(done: tuple[Path, Path], tmp_path: Path) -> None:
    source, whole = done
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    medstrata("edit", out, "rename", 2, "ground glass")
    assert medstrata("run", source, out, "--redo", "fit").code == 0
    assert "<strong>ground glass</strong>" in (out / "report.html").read_text(), "the same fit again, to the last bit"
    answer = medstrata("run", source, out, "--clusters", 2, "--redo", "plan")
    assert answer.code == 0 and "about another fit: 1 decision in decisions.jsonl" in answer.err
    assert "ground glass" not in (out / "report.html").read_text()
    assert len((out / "decisions.jsonl").read_text().splitlines()) == 1
    assert "another fit" in medstrata("edit", out, "undo").sentence


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("run", "in"),
        ("run", "in", "out", "--clusters", "1"),
        ("run", "in", "out", "--bogus"),
        ("run", "in", "out", "--method", "dec"),
        ("run", "in", "out", "--goal", "kinds"),
        ("run", "in", "out", "--redo", "fitt"),
        ("nothing",),
    ],
)
def test_wrong_command_lines_are_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert medstrata(*arguments).code == 2


def test_a_range_of_numbers_is_told_where_it_belongs(tmp_path: Path) -> None:
    answer = medstrata("run", tmp_path, tmp_path / "out", "--clusters", "2-5")
    assert answer.code == 2 and "validate OUT --clusters 2-5" in " ".join(answer.err.split())


def test_only_commands_that_make_a_run_folder_say_so() -> None:
    makes = "made if it is not there"
    assert [name for name in ("run", "scan", "validate", "edit", "export") if makes in medstrata(name, "-h").out] == [
        *("run", "scan")
    ]


def test_help_and_import_are_quick() -> None:
    def seconds(*command: str) -> float:
        best = 9.0
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], capture_output=True, check=True)
            best = min(best, time.perf_counter() - start)
        return best

    bare = seconds("-c", "pass")
    assert seconds("-m", "medstrata", "--help") - bare < 0.5
    assert seconds("-c", "import medstrata") - bare < 0.3


def test_vectors_are_clustered_instead_of_pixels(tmp_path: Path) -> None:
    source, out = write_array(tmp_path / "in"), tmp_path / "out"
    groups = np.load(source)["labels"]
    np.save(tmp_path / "v.npy", np.eye(3)[groups] + np.random.default_rng(0).normal(0, 0.05, (18, 3)))
    np.save(tmp_path / "few.npy", np.zeros((4, 3)))
    np.save(tmp_path / "flat.npy", np.zeros(18))
    for name, said in (("none.npy", "cannot be read"), ("flat.npy", "no numbers of shape (N, Z)")):
        answer = medstrata("run", source, out, "--clusters", 3, "--features", tmp_path / name)
        assert answer.code == 1 and said in answer.sentence and "one row of numbers" in answer.sentence
    assert "4 vectors, but 18" in medstrata("run", source, out, "--clusters", 3, "--features", tmp_path / "few.npy").err
    assert medstrata("run", source, out, "--features", tmp_path / "v.npy", "--method", "pca").code == 2
    answer = medstrata("run", source, out, "--clusters", 3, "--features", tmp_path / "v.npy")
    assert answer.code == 0 and "no activation maps" in answer.err and (out / "report.html").exists()
    assert json.loads(medstrata("score", out, source).out)["accuracy"] == 1.0
    assert "fit: up to date" in medstrata("run", source, out).err
    assert "vectors, not pixels" in medstrata("assign", out, source, tmp_path / "new").sentence


def test_maps_can_be_checked_and_the_report_says_what_came_of_it(done: tuple[Path, Path]) -> None:
    source, out = done
    pixels = np.load(out / "pixels.npy")
    masks = out.parent / "masks" / "images.npz"
    masks.parent.mkdir(exist_ok=True)
    names = pq.read_table(out / "private" / "sources.parquet", columns=["file", "frame"]).to_pylist()
    stored = np.zeros((1 + max(row["frame"] for row in names), *np.load(source)["images"].shape[1:3]), np.uint8)
    stored[:, :8, :8] = 1
    np.savez(masks, masks=stored)
    assert "has not been tested" in (out / "report.html").read_text()
    answer = medstrata("explain", out, "--check", "--masks", masks)
    assert answer.code == 0, answer.err
    assert answer.out.strip().endswith("check.json")
    found = json.loads((out / "maps" / "check.json").read_text())
    assert found["images"] == min(32, len(pixels))
    ours = next(iter(found["rules"].values()))
    assert {"deletion", "insertion", "own_runner_up", "other_seed", "average_precision"} <= set(ours)
    page = (out / "report.html").read_text()
    assert "Can the activation maps be believed?" in page and "Against the masks" in page
    wrong = medstrata("explain", out, "--masks", masks)
    assert wrong.code == 2 and "by --check only" in wrong.err
