"""Folders of links per cluster: every image once, no name of a file or patient, what cannot be parted has a reason."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command_line import medstrata
from medstrata.decisions import Decided, Decision
from medstrata.errors import RunFolderError
from medstrata.pipeline.editing import edit_run
from medstrata.pipeline.export import export_folders, folder_name


def finished(tmp_path: Path, source: Path, files: dict[str, list[str]], clusters: list[int]) -> Path:
    """Write what export reads of a run: ids, clusters, files."""
    out = tmp_path / "out"
    (out / "private").mkdir(parents=True)
    (out / "private" / "input.json").write_text(json.dumps({"input": str(source)}))
    whole = [name for names in files.values() for name in names]
    rows = [
        {"image_id": image, "file": file, "frame": 0 if whole.count(file) > 1 else None, "patient_id": ""}
        for image, names in files.items()
        for file in names
    ]
    pq.write_table(pa.Table.from_pylist(rows), out / "private" / "sources.parquet")
    table = {"image_id": list(files), "cluster": pa.array(clusters, pa.int32())}
    table |= {"probability": [0.9] * len(files), "margin": [0.8] * len(files)}
    pq.write_table(pa.table(table), out / "assignments.parquet")
    return out


def archive(tmp_path: Path) -> tuple[Path, Path]:
    source = tmp_path / "in"
    (source / "Doe^Jane").mkdir(parents=True)
    for name in ("Doe^Jane/scan1.dcm", "Doe^Jane/scan2.DCM", "Doe^Jane/a.b", "Doe^Jane/x.nii.gz", "Doe^Jane/many.png"):
        (source / name).write_bytes(name.encode())
    files = {
        "aa": ["Doe^Jane/scan1.dcm", "Doe^Jane/scan2.DCM"],
        "bb": ["Doe^Jane/a.b"],
        "cc": ["Doe^Jane/x.nii.gz"],
        "dd": ["Doe^Jane/many.png"],
        "ee": ["Doe^Jane/many.png"],
    }
    return source, finished(tmp_path, source, files, [0, 1, -1, 0, 1])


@pytest.mark.parametrize("copy", [False, True])
def test_every_image_stands_in_its_folder_or_has_a_reason(tmp_path: Path, copy: bool) -> None:
    source, out = archive(tmp_path)
    target = tmp_path / "sorted"
    found = export_folders(out, target, copy)
    assert found.placed == 3
    assert found.left_out == {"its file holds other images too (column frame: which of them it is)": 2}
    places = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert places == {
        "cluster-00/aa/0.dcm",
        "cluster-00/aa/1.dcm",
        "cluster-01/bb",
        "rejected/cc.nii.gz",
        "index.csv",
    }
    assert (target / "cluster-00/aa/1.dcm").read_bytes() == b"Doe^Jane/scan2.DCM"
    assert (target / "cluster-01/bb").is_symlink() is not copy
    text = (target / "index.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["folder"] for row in rows] == ["cluster-00", "cluster-01", "rejected", "cluster-00", "cluster-01"]
    assert "Doe" not in text and not any("Doe" in place or "scan" in place for place in places)
    assert len(list(source.rglob("*"))) == 6, "INPUT is as it was"


def test_folders_have_the_names_that_people_gave_and_merged_clusters_share_one(tmp_path: Path) -> None:
    source, out = archive(tmp_path)
    (out / "run.json").write_text(json.dumps({"format": 1, "stages": {}}))
    (out / "model.safetensors").write_bytes(b"model")
    np.save(out / "soft_assignments.npy", np.zeros((5, 4), np.float32))
    edit_run(out, "rename", ["1", "../Größe: <b>A/B</b>  "])
    assert export_folders(out, tmp_path / "named").placed == 3
    names = sorted(path.name for path in (tmp_path / "named").iterdir())
    assert names == ["cluster-00", "cluster-01-groe-b-a-b-b", "index.csv", "rejected"]
    edit_run(out, "merge", ["1", "0"])
    export_folders(out, tmp_path / "merged")
    names = sorted(path.name for path in (tmp_path / "merged").iterdir())
    assert names == ["cluster-00-groe-b-a-b-b", "index.csv", "rejected"]
    assert len(list((tmp_path / "merged" / names[0]).iterdir())) == 2
    assert len(list(source.rglob("*"))) == 6


@pytest.mark.parametrize(
    ("name", "folder"), [("肺", "cluster-03"), ("..", "cluster-03"), ("a" * 80, "cluster-03-" + "a" * 49)]
)
def test_names_of_folders_are_safe(name: str, folder: str) -> None:
    decided = Decided((Decision("rename", "m", "2025", clusters=(3,), name=name),))
    assert folder_name(decided, 3) == folder and folder_name(decided, -1) == "rejected"


def test_a_zip_is_copied_and_says_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as file:
        file.writestr("one.png", b"1")
    out = finished(tmp_path, tmp_path / "in.zip", {"aa": ["one.png"]}, [0])
    with pytest.raises(RunFolderError, match="Add --copy"):
        export_folders(out, tmp_path / "links")
    export_folders(out, tmp_path / "links", copy=True)  # the same place, as the message says
    assert (tmp_path / "links/cluster-00/aa.png").read_bytes() == b"1"


@pytest.mark.parametrize("copy", [False, True])
def test_a_file_that_has_gone_costs_one_row(tmp_path: Path, copy: bool) -> None:
    """No link leads nowhere, and of a series that is not whole nothing is placed."""
    source, out = archive(tmp_path)
    (source / "Doe^Jane/a.b").unlink()
    (source / "Doe^Jane/scan2.DCM").unlink()
    found = export_folders(out, tmp_path / "sorted", copy)
    assert found.placed == 1 and sum(found.left_out.values()) == 4
    files = {str(path.relative_to(tmp_path / "sorted")) for path in (tmp_path / "sorted").rglob("*.*")}
    assert files == {"rejected/cc.nii.gz", "index.csv"}


def test_an_image_whose_file_is_not_known_has_its_own_reason(tmp_path: Path) -> None:
    _, out = archive(tmp_path)
    sources = pq.read_table(out / "private" / "sources.parquet")
    pq.write_table(sources.slice(2), out / "private" / "sources.parquet")
    assert export_folders(out, tmp_path / "sorted").left_out["the run no longer knows its file"] == 1


def test_no_links_on_this_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, out = archive(tmp_path)

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("medstrata.pipeline.export.os.symlink", refuse)
    answer = medstrata("export", out, "--folders", tmp_path / "sorted")
    assert answer.code == 1 and "takes no symbolic links" in answer.sentence and "--copy" in answer.sentence
    assert not list((tmp_path / "sorted").iterdir())
    assert medstrata("export", out, "--folders", tmp_path / "sorted", "--copy").code == 0


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_what_is_stopped_leaves_nothing(tmp_path: Path, stop_at: int) -> None:
    source, out = archive(tmp_path)
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}

    def stop(what: str, done: int, total: int) -> None:
        if done == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_folders(out, tmp_path / "sorted", progress=stop)
    assert not list((tmp_path / "sorted").iterdir())
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before, "links, not files, go"
    assert export_folders(out, tmp_path / "sorted").placed == 3


def test_wrong_places_are_told(tmp_path: Path) -> None:
    source, out = archive(tmp_path)
    with pytest.raises(RunFolderError, match="not empty"):
        export_folders(out, source)
    with pytest.raises(RunFolderError, match="inside OUT"):
        export_folders(out, out / "sorted")
    with pytest.raises(RunFolderError, match="inside INPUT"):
        export_folders(out, source / "sorted")
    assert medstrata("export", tmp_path / "none", "--folders", tmp_path / "x").code == 1


def test_command(tmp_path: Path) -> None:
    _, out = archive(tmp_path)
    answer = medstrata("export", out, "--folders", tmp_path / "sorted")
    assert answer.code == 0 and "3 images placed" in answer.err
    assert "2 images not placed: its file holds other images" in answer.err
    assert answer.out.strip() == str(tmp_path / "sorted")
