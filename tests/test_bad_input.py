"""Bad input ends in one clear sentence with the next step and exit code 1; one bad file never stops a run."""

from __future__ import annotations

import ast
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydicom.uid import SecondaryCaptureImageStorage, UltrasoundImageStorage

import medstrata as medstrata_package
from command_line import Answer, images, medstrata, write_array
from dicom_factory import dataset, save, straight, write_series

LEAVE_OUT = ("FileProblem", "SkippedFile", "_Skip", "problem_entry", "LeftOut")  # what is called with a code
STAGES = {"scan", "plan", "decode"}

pytestmark = pytest.mark.usefixtures("quick_fits")


def run(source: Path, out: Path, *options: object) -> Answer:
    return medstrata("run", source, out, *options)


def test_every_reason_to_leave_an_image_out_is_documented() -> None:
    root = Path(medstrata_package.__file__).parent
    codes = set()
    for file in root.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in LEAVE_OUT:
                texts = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
                codes |= {text for text in texts if re.fullmatch("[a-z]+(_[a-z]+)*", text)}
    text = (Path(__file__).parents[1] / "docs" / "input.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`([a-z_]+)`", text))
    assert len(codes) > 35 and codes - STAGES <= documented


def pngs(folder: Path, count: int = 6) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images(count)[0]):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


def array(folder: Path, values: np.ndarray) -> Path:
    np.save(folder / "a.npy", values)
    return folder / "a.npy"


def random_images(count: int = 8) -> np.ndarray:
    return np.random.default_rng(0).random((count, 16, 16)).astype(np.float32)


def nothing(folder: Path) -> Path:
    (folder / "in").mkdir()
    return folder / "in"


def only_text(folder: Path) -> Path:
    (nothing(folder) / "a.txt").write_text("no image")
    return folder / "in"


def infinite(folder: Path) -> Path:
    values = random_images()
    values[:, 2, 2] = np.inf
    return array(folder, values)


def encrypted(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "in.zip", "w") as file:
        file.writestr("a.png", b"x" * 50)
    data = bytearray((folder / "in.zip").read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (folder / "in.zip").write_bytes(data)
    return folder / "in.zip"


def truncated_zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "in.zip", "w") as file:
        file.writestr("a.png", os.urandom(5000))
    data = (folder / "in.zip").read_bytes()
    (folder / "in.zip").write_bytes(data[:3000])
    return folder / "in.zip"


def truncated_npz(folder: Path) -> Path:
    source = write_array(folder)
    source.write_bytes(source.read_bytes()[:2000])
    return source


def wrong_key(folder: Path) -> Path:
    np.savez(folder / "a.npz", pictures=images()[0])
    return folder / "a.npz"


def tar(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder / "a"), "gztar", pngs(folder / "in")))


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (lambda f: f / "missing", (), "does not exist"),
        (nothing, (), "is empty"),
        (only_text, (), "no image"),
        (lambda f: pngs(f / "in", 1), (), "Only one image takes part"),
        (lambda f: pngs(f / "in", 4), ("--clusters", 5), "5 clusters are asked for, but only 4 images take part"),
        (lambda f: array(f, np.full((8, 16, 16), 7, np.uint8)), (), "All 8 images are equal"),
        (lambda f: array(f, random_images() * np.nan), (), "not finite"),
        (infinite, (), "not finite"),
        (lambda f: array(f, np.zeros((8, 2, 2))), (), "8"),
        (encrypted, (), "password"),
        (truncated_zip, (), "damaged"),
        (truncated_npz, (), "damaged"),
        (wrong_key, (), "images"),
        (tar, (), "Unpack it first"),
        (lambda f: pngs(f / "in"), ("--device", "cuda:7"), "--device cpu"),
        (lambda f: pngs(f / "in"), ("--select", "modalty=CT"), "Did you mean 'modality'"),
        (lambda f: pngs(f / "in"), ("--select", "modality=CT"), "no image has modality"),
        (lambda f: pngs(f / "in"), ("--select", "CT"), "COLUMN=VALUE"),
    ],
)
def test_one_sentence_and_exit_code_1(
    make: Callable[[Path], Path], options: tuple[object, ...], said: str, tmp_path: Path
) -> None:
    answer = run(make(tmp_path), tmp_path / "out", *options)
    assert answer.code == 1, answer.err
    assert said in answer.sentence and answer.sentence.startswith("medstrata: ")
    assert "Traceback" not in answer.err and answer.sentence.rstrip().endswith((".", "?"))


def test_out_inside_input(tmp_path: Path) -> None:
    answer = run(pngs(tmp_path / "in"), tmp_path / "in" / "out")
    assert answer.code == 1 and "inside INPUT" in answer.sentence and not (tmp_path / "in" / "out").exists()


def test_out_of_another_input_another_version_or_not_ours(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert medstrata("scan", pngs(tmp_path / "in"), out).code == 0
    answer = medstrata("scan", pngs(tmp_path / "other"), out)
    assert answer.code == 1 and "another INPUT" in answer.sentence
    state = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(state | {"format": 0, "medstrata": "0.0.1"}))
    answer = run(tmp_path / "in", out)
    assert answer.code == 1 and "another version" in answer.sentence and "0.0.1" in answer.sentence
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    answer = run(tmp_path / "in", tmp_path / "mine")
    assert answer.code == 1 and "not a run folder" in answer.sentence
    assert [path.name for path in (tmp_path / "mine").iterdir() if path.name != ".lock"] == ["letter.txt"]


def test_edited_plan_with_an_unknown_key(tmp_path: Path) -> None:
    out = tmp_path / "out"
    medstrata("scan", pngs(tmp_path / "in"), out)
    medstrata("plan", out)
    plan = json.loads((out / "plan.json").read_text())
    (out / "plan.json").write_text(json.dumps(plan | {"n_cluster": 4}))
    answer = run(tmp_path / "in", out)
    assert answer.code == 1 and "unknown key 'n_cluster'" in answer.sentence and "'n_clusters'" in answer.sentence


def test_changed_input_is_told_and_taken_in_on_redo(tmp_path: Path) -> None:
    out, source = tmp_path / "out", pngs(tmp_path / "in")
    assert run(source, out, "--clusters", 2).code == 0
    shutil.copy(source / "0.png", source / "new.png")
    (source / "1.png").unlink()
    Image.fromarray(255 - images()[0][2]).save(source / "2.png")
    answer = run(source, out)
    assert answer.code == 1 and "1 files added, 1 removed, 1 modified" in answer.sentence
    assert "--redo scan" in answer.sentence
    assert run(source, out, "--redo", "scan", "--clusters", 2).code == 0
    assert pq.read_table(out / "assignments.parquet").num_rows == 6


def test_read_only_input_is_fine_and_untouched(tmp_path: Path) -> None:
    source = pngs(tmp_path / "in")
    before = sorted((path.name, path.stat().st_mtime_ns) for path in source.iterdir())
    for path in [*source.iterdir(), source]:
        path.chmod(0o555)
    assert run(source, tmp_path / "out", "--clusters", 2).code == 0
    source.chmod(0o755)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in source.iterdir()) == before


def test_input_that_goes_midway(tmp_path: Path) -> None:
    source, out = pngs(tmp_path / "in"), tmp_path / "out"
    medstrata("scan", source, out)
    medstrata("plan", out, "--clusters", 2)
    source.rename(tmp_path / "away")
    answer = medstrata("decode", out)
    assert answer.code == 1 and "does not exist" in answer.sentence
    (tmp_path / "away").rename(source)
    assert medstrata("decode", out).code == 0


def test_full_disk_is_told_and_the_run_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = pngs(tmp_path / "in"), tmp_path / "out"
    assert medstrata("scan", source, out).code == 0

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        answer = run(source, out)
    assert answer.code == 1 and "disk is full" in answer.sentence and "Free some space" in answer.sentence
    assert not list(out.rglob("*.part"))
    assert run(source, out, "--clusters", 2).code == 0


def test_two_runs_on_one_folder(tmp_path: Path) -> None:
    from medstrata.run import RunFolder

    source, out = pngs(tmp_path / "in"), tmp_path / "out"
    assert medstrata("scan", source, out).code == 0
    with RunFolder(out).locked():
        answer = run(source, out)
    assert answer.code == 1 and "Another medstrata run" in answer.sentence


def test_bad_files_among_good_ones_are_rows_and_the_run_is_good(tmp_path: Path) -> None:
    source = pngs(tmp_path / "in", 12)
    good = (source / "0.png").read_bytes()
    (source / "cut.png").write_bytes(good[: len(good) // 2])
    (source / "note.txt").write_text("hello")
    (source / "empty.png").write_bytes(b"")
    (source / "inner.zip").write_bytes(_zip_of(good))
    os.symlink(source, source / "loop")
    (Path(os.fsdecode(os.fsencode(source) + b"/\xff\xfe.png"))).write_bytes(good)
    Image.new("CMYK", (16, 16), (10, 90, 0, 30)).save(source / "cmyk.jpg")
    Image.new("RGBA", (16, 16), (200, 10, 10, 128)).save(source / "alpha.png")
    answer = run(source, tmp_path / "out", "--clusters", 3)
    assert answer.code == 0, answer.err
    left = {row["code"] for row in pq.read_table(tmp_path / "out" / "left_out.parquet").to_pylist()}
    assert {"archive_inside", "link", "unknown_format"} <= left and len(left) >= 4
    assert pq.read_table(tmp_path / "out" / "assignments.parquet").num_rows == 15
    assert "left out" in answer.err


def _zip_of(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.png", data)
    return buffer.getvalue()


def test_burned_in_text_is_kept_out_counted_and_the_option_named(tmp_path: Path) -> None:
    source = tmp_path / "in"
    generator = np.random.default_rng(0)
    for number in range(6):
        pixels = generator.integers(0, 200, (32, 32)).astype(np.uint16)
        save(dataset(pixels, Modality="CR", SeriesInstanceUID=f"1.2.{number}"), source / f"good{number}.dcm")
        for kind, modality in ((UltrasoundImageStorage, "US"), (SecondaryCaptureImageStorage, "OT")):
            values = {"Modality": modality, "SeriesInstanceUID": f"1.3.{number}.{len(modality)}{modality == 'US':d}"}
            save(dataset(pixels.astype(np.uint8), kind, **values), source / f"{modality}{number}.dcm")
    answer = run(source, tmp_path / "out", "--clusters", 2)
    assert answer.code == 0, answer.err
    assert "--include-burned-in" in answer.err
    codes = [row["code"] for row in pq.read_table(tmp_path / "out" / "left_out.parquet").to_pylist()]
    assert codes.count("burned_in") == 12
    answer = run(source, tmp_path / "out2", "--clusters", 2, "--include-burned-in")
    assert pq.read_table(tmp_path / "out2" / "assignments.parquet").num_rows == 18


def test_a_study_with_localizer_and_two_reconstructions(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for patient in range(4):
        for kernel in ("SOFT", "LUNG"):
            values = {
                "PatientID": f"p{patient}",
                "StudyInstanceUID": f"1.2.{patient}",
                "SeriesInstanceUID": f"1.2.{patient}.{len(kernel)}{kernel == 'SOFT':d}",
                "ConvolutionKernel": kernel,
                "BodyPartExamined": "CHEST",
            }
            write_series(source / f"p{patient}{kernel}", straight(10), **values)
        localizer = {"StudyInstanceUID": f"1.2.{patient}", "SeriesInstanceUID": f"1.2.{patient}.9"}
        image = dataset(
            np.random.default_rng(patient).integers(0, 99, (16, 16)).astype(np.int16),
            ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
            SeriesDescription="Scout",
            BodyPartExamined="CHEST",
            **localizer,
        )
        save(image, source / f"scout{patient}.dcm")
    answer = medstrata("scan", source, tmp_path / "out")
    assert answer.code == 0, answer.err
    assert medstrata("plan", tmp_path / "out", "--goal", "subtypes", "--clusters", 2).code == 0
    assert medstrata("decode", tmp_path / "out").code in (0, 1)
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["goal"] == "subtypes" and plan["dimensions"] == 3
    assert "4 other reconstruction" in plan["reasons"]["images"] and "4 localizer" in plan["reasons"]["images"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"training": None}, "must be of type Training"),
        ({"training": {"epochs": "many"}}, "epochs is 'many'"),
        ({"training": {"learning_rate": -1}}, "learning_rate is -1"),
        ({"architecture": {"widths": []}}, "widths is ()"),
        ({"training": {"augmentation": "skin"}}, "DCEC does not use augmentation"),
        ({"clustering_weight": "high"}, "'clustering_weight' is 'high'"),
        ({"training": {"preprocessing": "publishd"}}, "centred, scaled, published"),
        ({"gamma": 1}, "does not take these settings"),
        ({"n_clusters": 4}, "the plan's own keys"),
    ],
)
def test_impossible_settings_are_told_before_anything_is_decoded(
    settings: dict[str, object], said: str, tmp_path: Path
) -> None:
    out, source = tmp_path / "out", pngs(tmp_path / "in")
    medstrata("scan", source, out)
    medstrata("plan", out)
    plan = json.loads((out / "plan.json").read_text())
    (out / "plan.json").write_text(json.dumps(plan | {"settings": settings}))
    answer = run(source, out)
    assert answer.code == 1 and said in answer.sentence and not (out / "pixels.npy").exists()


@pytest.mark.parametrize("limit", [3_000, 20_000, 60_000, 150_000])
def test_a_disk_that_takes_no_more_is_one_sentence_wherever_it_happens(limit: int, tmp_path: Path) -> None:
    """Files may grow to ``limit`` bytes only: stands for a full disk at different stages."""
    source, out = pngs(tmp_path / "in"), tmp_path / "out"
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        "from medstrata.cli import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "run", str(source), str(out), "--clusters", "2", "--workers", "1"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.returncode == 1 and "Traceback" not in found.stderr, found.stderr
    assert found.stderr.strip().splitlines()[-1].startswith("medstrata: ")
    assert run(source, out, "--clusters", 2).code == 0


def test_out_without_its_private_folder(tmp_path: Path) -> None:
    source, out = pngs(tmp_path / "in"), tmp_path / "out"
    assert medstrata("scan", source, out).code == 0
    shutil.rmtree(out / "private")
    answer = run(source, out)
    assert answer.code == 1 and "no private/ folder" in answer.sentence


def test_nothing_is_half_written_after_an_error(tmp_path: Path) -> None:
    answer = run(array(tmp_path, np.full((8, 16, 16), 7, np.uint8)), tmp_path / "out")
    assert answer.code == 1
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert not names & {"model.json", "model.safetensors", "assignments.parquet", "report.html"}
    assert not list((tmp_path / "out").rglob("*.part"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of an array, and beside it a folder of new images that were sorted by its model."""
    folder = tmp_path_factory.mktemp("finished")
    source = write_array(folder)
    assert run(source, folder / "out", "--clusters", 3, "--method", "pca").code == 0
    assert medstrata("assign", folder / "out", source, folder / "new").code == 0
    assert medstrata("scan", source, folder / "begun").code == 0
    (folder / "empty").mkdir()
    return folder


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("nothing", "is not a run folder. Begin with: medstrata run INPUT OUT"),
        ("empty", "is not a run folder. Begin with: medstrata run INPUT OUT"),
        ("images.npz", "is not a run folder. Begin with: medstrata run INPUT OUT"),
        ("begun", "plan has not been done"),
        ("new", "holds new images, sorted by the model of another run. Validate that run instead."),
    ],
)
def test_validate_a_folder_that_holds_no_finished_run(out: str, said: str, finished: Path) -> None:
    before = sorted(finished.rglob("*"))
    answer = medstrata("validate", finished / out)
    assert answer.code == 1 and said in answer.sentence and answer.sentence.startswith("medstrata: ")
    assert [path for path in sorted(finished.rglob("*")) if path.name not in (".lock", "log.txt")] == [
        path for path in before if path.name not in (".lock", "log.txt")
    ]


@pytest.mark.parametrize(
    ("option", "content", "said"),
    [
        ("--clinical", None, "No such file or directory"),
        ("--clinical", b"", "is empty"),
        ("--clinical", b"age,sex\n50,F\n", "no column patient, image_id, patient_id or file"),
        ("--clinical", b"image_id,age\nx,50\n", "none of the 1 rows has an id of this run"),
        ("--clinical", bytes(range(128, 256)), "UTF-8"),
        ("--labels", None, "No such file or directory"),
        ("--labels", b"", "is empty"),
        ("--labels", b"image_id,class\nx,1\n", "no column 'label'"),
        ("--labels", b"image_id,label\n0123456789abcdef,1\n", "name an image_id that this run does not know"),
    ],
)
def test_validate_with_a_table_that_is_none_of_this_run(
    option: str, content: bytes | None, said: str, finished: Path, tmp_path: Path
) -> None:
    """Told before anything is fitted, and what was known before stands."""
    file = tmp_path / "table.csv"
    if content is not None:
        file.write_bytes(content)
    known = (finished / "out" / "validation.json").read_bytes()
    answer = medstrata("validate", finished / "out", option, file)
    assert answer.code == 1 and said in answer.sentence and "Traceback" not in answer.err
    assert (finished / "out" / "validation.json").read_bytes() == known
    assert not list((finished / "out" / "validation").glob("refit*"))


def test_validate_with_labels_of_another_array(finished: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", labels=np.arange(7))
    answer = medstrata("validate", finished / "out", "--labels", tmp_path / "other.npz")
    assert answer.code == 1 and "has 7 labels and the array in INPUT has 18 images" in answer.sentence


def test_validate_that_is_stopped_says_so(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medstrata.pipeline import refits

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(refits, "_fitted", stopped)
    answer = medstrata("validate", finished / "out", "--refits", 1, "--surrogates", 0)
    assert answer.code == 1
    assert answer.sentence == "medstrata: stopped. Run the same command again; it goes on where it stopped."
    assert json.loads((finished / "out" / "validation.json").read_text())["provisional"]
