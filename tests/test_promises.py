"""What the README promises, end to end on small studies."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks import demo
from command_line import medstrata
from medstrata.evidence.metrics import score
from medstrata.simulation.study import Study, simulate_study

ROOT = Path(__file__).parents[1]


@pytest.mark.promise
def test_phantom_study_from_dicom_to_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small study as DICOM, clustered in 3-D without any connection; maps lie on the series' own grid."""

    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX, "a connection was opened"  # processes of one run talk to each other
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    dicom, out = tmp_path / "dicom", tmp_path / "run"
    simulate_study(dicom, Study(patients=12, shape=(24, 48, 48), spacing=(12.0, 7.0, 7.0)))
    assert medstrata("scan", dicom, out).code == 0
    assert medstrata("plan", out, "--clusters", 3).code == 0
    plan = json.loads((out / "plan.json").read_text())
    assert plan["dimensions"] == 3 and plan["intensity"]["CT chest"]["rule"] == "window"
    (out / "plan.json").write_text(json.dumps(plan | {"grid": [24, 32, 32], "spacing": [12.0, 11.0, 11.0]}))
    answer = medstrata("run", dicom, out)
    assert answer.code == 0, answer.err
    scores = json.loads(medstrata("score", out, tmp_path / "dicom-truth" / "labels.csv").out)
    assert scores["labelled"] == 12 and scores["majority_rate"] == pytest.approx(1 / 3)
    found = demo.localisation(out, tmp_path / "dicom-truth")
    assert found["maps"] == 12 and found["pointing"] > 3 * found["chance"]
    assert "planted lesions" in demo.in_words(scores, found, out / "report.html")
    page = (out / "report.html").read_text()
    assert "Research use only" in page and not re.search(r"(src|href)=.?https?:", page)
    entry = pq.read_table(out / "maps" / "index.parquet").to_pylist()[0]
    image = nib.load(out / entry["file"])
    source = pq.read_table(out / "private" / "sources.parquet").to_pylist()
    folder = next(row["file"] for row in source if row["image_id"] == entry["image_id"]).split("/")[0]
    lesion = nib.load(tmp_path / "dicom-truth" / f"lesion_{folder}.nii.gz")
    assert image.shape == lesion.shape and np.allclose(image.affine, lesion.affine, atol=1e-3)


@pytest.mark.promise
@pytest.mark.timeout(1200)
def test_mednist_is_sorted_better_than_by_pca(data_dir: Path, tmp_path: Path) -> None:
    """A fifth of MedNIST, as an array: above PCA + k-means, without labels reaching the fit."""
    stored = np.load(data_dir / "mednist.npz")
    np.savez(tmp_path / "part.npz", images=stored["images"][::5], labels=stored["labels"][::5])
    answer = medstrata("run", tmp_path / "part.npz", tmp_path / "out", "--clusters", 6, "--seed", 0)
    assert answer.code == 0, answer.err
    clusters = np.asarray(pq.read_table(tmp_path / "out" / "assignments.parquet")["nearest"])
    simple = np.asarray(pq.read_table(tmp_path / "out" / "baselines.parquet")["pca_kmeans"])
    ours, theirs = (score(stored["labels"][::5], labels) for labels in (clusters, simple))
    assert ours["nmi"] > theirs["nmi"] and ours["purity"] > theirs["purity"]


@pytest.mark.promise
def test_five_lines_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python of the README, and after it that of docs/maps.md, runs as it stands, on a folder named as there."""
    from PIL import Image

    from command_line import images

    (tmp_path / "images").mkdir()
    for number, image in enumerate(images(18)[0]):
        Image.fromarray(image).save(tmp_path / "images" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for page in (ROOT / "README.md", ROOT / "docs" / "maps.md"):
        blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
        assert blocks
        for code in blocks:
            exec(compile(code, page.name, "exec"), names)


@pytest.mark.promise
def test_commands_of_the_page_about_deciding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command lines of docs/deciding.md run as they stand."""
    from command_line import write_array

    monkeypatch.chdir(tmp_path)
    source = write_array(tmp_path / "in")
    for name, clusters in (("OUT", 3), ("OUT2", 2)):
        assert medstrata("run", source, name, "--clusters", clusters, "--method", "pca").code == 0
    shutil.copytree("OUT", "OUT1")
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "deciding.md").read_text(), re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    assert len(lines) == 9
    for line in lines:
        assert line[0] == "medstrata"
        answer = medstrata(*line[1:])
        assert answer.code == 0, (line, answer.err)


@pytest.mark.promise
def test_commands_of_the_page_about_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command lines of docs/validation.md run as they stand, with its clinical table, on a small study of DICOM."""
    from command_line import images
    from dicom_factory import dataset, save

    page = (ROOT / "docs" / "validation.md").read_text()
    monkeypatch.chdir(tmp_path)
    table = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)[0]
    more = [f"P{number:03d},{50 + number},{'FM'[number % 2]},2.5,{number},1\n" for number in range(5, 24)]
    (tmp_path / "patients.csv").write_text(table + "".join(more))
    for number, image in enumerate(images(24)[0]):
        values = {"PatientID": f"P{number:03d}", "SeriesInstanceUID": f"1.2.{number}", "Modality": "CR"}
        for folder in ("FOLDER", "NEW_FOLDER"):
            save(dataset(image.astype(np.uint16), **values), tmp_path / folder / f"{number}.dcm")
    commands = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)[0]
    lines = [shlex.split(line, comments=True) for line in commands.splitlines()]
    assert [line[1] for line in lines] == ["run", "validate", "validate", "validate", "assign"]
    for line in lines:
        quick = ["--method", "pca"] if line[1] == "run" else []
        answer = medstrata(*line[1:], *quick)
        assert answer.code == 0, (line, answer.err)
        if "--clinical" in line:
            assert json.loads(Path("OUT/validation.json").read_text())["associations"]["patients"] == 23
            assert "of 23 patients were compared with the clusters" in Path("OUT/model_card.md").read_text()
    found = json.loads(Path("OUT/validation.json").read_text())
    assert not found["provisional"] and found["stability"]["refits"] == {"seeds": 5, "patients": 5}
    assert f"random {found['settings']['share_of_patients']:.0%} of".replace("%", " %") in page


@pytest.mark.promise
def test_commands_of_the_page_about_scaling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job array of docs/scaling.md runs as it stands, one job after the other."""
    from PIL import Image

    from command_line import images

    page = (ROOT / "docs" / "scaling.md").read_text()
    job = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)[0].splitlines()[-1]
    monkeypatch.chdir(tmp_path)
    Path("INPUT").mkdir()
    for number, image in enumerate(images(520)[0]):
        Image.fromarray(image).save(f"INPUT/{number}.png")

    def carry_out(command: str) -> None:
        answer = medstrata(*shlex.split(command)[1:])
        assert answer.code == 0, (command, answer.err)
        if "--shards" in command:
            done.append(answer.sentence.split(";")[0])

    done: list[str] = []
    for line in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)[1].splitlines():
        if not line.startswith("sbatch"):
            carry_out(line.replace("--clusters 3", "--clusters 3 --method pca"))
            continue
        for number in (3, 1, 4, 2):
            arguments = line.removeprefix("sbatch --wait --array=1-4 share.sh ")
            carry_out(job.replace('"$@"', arguments).replace("$SLURM_ARRAY_TASK_ID", str(number)))
    stages = ("scan", "decode", "assign")
    assert done == [f"{stage}: share {number} of 4 is done" for stage in stages for number in (3, 1, 4, 2)]
    assert Path("OUT/report.html").exists() and not Path("OUT/private/shards").exists()


@pytest.mark.promise
def test_documented_help_is_the_programs_own() -> None:
    """docs/commands.md holds every --help text as the program prints it."""
    page = (ROOT / "docs" / "commands.md").read_text()
    assert page == commands_page(), "run: PYTHONPATH=.:tests python tests/test_promises.py > docs/commands.md"


def commands_page() -> str:
    """Return the text of docs/commands.md."""
    import subprocess
    import sys

    def shown(*arguments: str) -> str:
        environment = {**os.environ, "COLUMNS": "100", "TERM": "dumb"}
        command = [sys.executable, "-m", "medstrata", *arguments, "--help"]
        text = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        return text.replace("python -m medstrata", "medstrata").rstrip()

    names = re.findall(r"^  (\w+)  ", shown().split("Commands:")[1], re.MULTILINE)
    parts = ["# Commands\n\nWhat `--help` prints; a test keeps this page equal to the program.\n"]
    for name in ["", *names]:
        parts.append(f"## medstrata {name}".rstrip() + f"\n\n```text\n{shown(*([name] if name else []))}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(commands_page(), end="")
