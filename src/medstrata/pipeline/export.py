"""Sort the files of a finished run into folders: one per cluster, by links or copies. INPUT and OUT are only read."""

from __future__ import annotations

import csv
import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.parquet as pq

from medstrata.decisions import Decided, read_decided
from medstrata.errors import FileProblem, RunFolderError
from medstrata.images.sources import Source
from medstrata.pipeline.inputs import source_of
from medstrata.run import Progress, RunFolder, atomic, folder_error, no_progress

INDEX = "index.csv"
COLUMNS = ("image_id", "folder", "name", "frame", "probability", "margin", "reason")
REJECTED = "rejected"
LONGEST_FOLDER = 60  # characters
SUFFIXES = (".dcm", ".nii", ".nii.gz", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", ".mha", ".nrrd")
"""File names may hold patients' names. A link is named after the image's id; of the old name only these are kept."""


@dataclass(frozen=True)
class Exported:
    """``placed`` images stand in folders; ``left_out``: how many do not, for each reason (all are in index.csv)."""

    placed: int
    left_out: dict[str, int]


def export_folders(out: Path, target: Path, copy: bool = False, progress: Progress = no_progress) -> Exported:
    """Make ``target/cluster-00``, ``cluster-01``, ..., ``rejected`` and ``index.csv`` from the run folder ``out``.

    A cluster with a name that a person gave has a folder like ``cluster-02-ground-glass``; merged clusters share one.

    Each image becomes a symbolic link to its file, or with ``copy`` a copy; a series of files becomes a folder of them.
    Images that share one file with others (an array, several images in one file) cannot be parted: ``index.csv`` says
    so. ``index.csv`` has one row per image of the run: ``COLUMNS``. What fails
    or is stopped takes back what it made, so that the same command can be given again.

    No name in ``target`` tells a patient, but a link leads to the original path and a copy is the original file.

    Raises
    ------
    RunFolderError : the run is not finished or its ``private/`` is gone; ``target`` is not empty, lies inside INPUT or
        OUT, takes no links, or cannot be written; INPUT is a zip and ``copy`` is not given
    InputError : INPUT is gone
    """
    if not (out / "assignments.parquet").exists():
        raise RunFolderError(f"{out} holds no assignments yet. Run: medstrata run INPUT OUT")
    source = source_of(RunFolder(out))
    _check_target(target, out, source.path)
    if source.kind == "zip" and not copy:
        raise RunFolderError("INPUT is a zip, and nothing can link into a zip. Add --copy.")
    rows = pq.read_table(out / "assignments.parquet").to_pylist()
    decided = read_decided(out)
    folders = {row["cluster"]: folder_name(decided, row["cluster"]) for row in rows}
    files = _files(out)
    frames = _frames(out)
    shared = Counter(name for names in files.values() for name in set(names))
    entries: list[dict[str, Any]] = []
    try:
        target.mkdir(parents=True, exist_ok=True)
        for number, row in enumerate(rows, start=1):
            row["folder"] = folders[row["cluster"]]
            entry = _place(row, files.get(row["image_id"], []), shared, source, target, copy)
            entries.append(entry | {"frame": frames.get(row["image_id"], "")})
            progress("export", number, len(rows))
        with atomic(target / INDEX) as part, open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(entries)
    except BaseException as error:
        for folder in set(folders.values()):
            shutil.rmtree(target / folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise folder_error(error, target) from error
        raise
    reasons = Counter(entry["reason"] for entry in entries if entry["reason"])
    return Exported(len(entries) - reasons.total(), dict(reasons))


def _check_target(target: Path, out: Path, source: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RunFolderError(f"{target} is not empty. Name a folder that does not exist yet.")
    check_outside(target, out, source)


def check_outside(target: Path, out: Path, source: Path | None) -> None:
    """Raise RunFolderError where ``target`` lies inside INPUT (where that is known) or OUT."""
    place = target.resolve()
    for name, folder in (("INPUT", source), ("OUT", out)):
        if folder is not None and (place == folder.resolve() or folder.resolve() in place.parents):
            raise RunFolderError(f"{target} lies inside {name}. Name a place elsewhere.")


def _files(out: Path) -> dict[str, list[str]]:
    """Return for each image the names of its files in INPUT, in their order along the stack, each once."""
    table = pq.read_table(out / "private" / "sources.parquet", columns=["image_id", "file"]).to_pylist()
    found: dict[str, dict[str, None]] = {}
    for row in table:
        found.setdefault(row["image_id"], {})[row["file"]] = None
    return {image_id: list(names) for image_id, names in found.items()}


def _frames(out: Path) -> dict[str, int]:
    """Return for each image that is one of several in its file which of them it is: a row of an array, a frame."""
    table = pq.read_table(out / "private" / "sources.parquet", columns=["image_id", "frame"]).to_pylist()
    return {row["image_id"]: row["frame"] for row in table if row["frame"] is not None}


def folder_name(decided: Decided, cluster: int) -> str:
    """Return the name of the folder of a cluster of the model; of a given name, letters and digits (ASCII) are kept."""
    if cluster < 0:
        return REJECTED
    plain = unicodedata.normalize("NFKD", decided.name(cluster)).encode("ascii", "ignore").decode().lower()
    words = re.findall("[a-z0-9]+", plain)
    return "-".join([f"cluster-{decided.group(cluster):02d}", *words])[:LONGEST_FOLDER].rstrip("-")


def _place(
    row: dict[str, Any], names: Sequence[str], shared: Counter[str], source: Source, target: Path, copy: bool
) -> dict[str, Any]:
    """Place one image and return its row of index.csv."""
    folder = row["folder"]
    name = row["image_id"] + (_suffix(names[0]) if len(names) == 1 else "")
    entry = {"image_id": row["image_id"], "folder": folder, "name": name}
    entry |= {"probability": f"{row['probability']:.4f}", "margin": f"{row['margin']:.4f}"}
    if not names:
        return entry | {"name": "", "reason": "the run no longer knows its file"}
    if any(shared[file] > 1 for file in names):
        return entry | {"name": "", "reason": "its file holds other images too (column frame: which of them it is)"}
    (target / folder).mkdir(exist_ok=True)
    place = target / folder / name
    try:
        if len(names) == 1:
            _link(source, names[0], place, copy)
        else:
            place.mkdir()
            digits = len(str(len(names)))
            for number, file in enumerate(names):
                _link(source, file, place / f"{number:0{digits}d}{_suffix(file)}", copy)
    except FileProblem as problem:
        shutil.rmtree(place, ignore_errors=True)  # a series is placed whole or not at all
        return entry | {"name": "", "reason": problem.sentence}
    return entry | {"reason": ""}


def _link(source: Source, name: str, place: Path, copy: bool) -> None:
    local = source.local_path(name)
    if copy:
        with atomic(place) as part, source.open(name) as old, open(part, "wb") as new:
            shutil.copyfileobj(old, new)
    elif local is None or not local.exists():
        raise source.explain(FileNotFoundError())
    else:
        try:
            os.symlink(local.resolve(), place)
        except (OSError, NotImplementedError) as error:
            raise RunFolderError(
                f"{place.parent} takes no symbolic links ({type(error).__name__}). Add --copy, or name another place."
            ) from error


def _suffix(name: str) -> str:
    lower = PurePosixPath(name).name.lower()
    return max((suffix for suffix in SUFFIXES if lower.endswith(suffix)), key=len, default="")
