"""Which images of two runs are the same. Original ids and file names are read from ``private/`` and stay in memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medstrata.errors import RunFolderError
from medstrata.images.catalog import SOURCES_FILE

BY_ID = "image_id"
BY_SOURCE = "what the files themselves say (SOP instance UID, otherwise file and frame)"


@dataclass(frozen=True)
class Joined:
    """Rows ``first`` and ``second`` (N,) of two assignments.parquet that are about the same images.

    ``by`` says how they were joined; ``ambiguous`` images stand in a run more than once and are left out.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    by: str
    ambiguous: int = 0


def join_images(first: Path, second: Path) -> Joined:
    """Find the images of run folder ``first`` among those of ``second``.

    Runs that were made with the same secret key (``assign``) share ``image_id``; others are joined by their sources.

    Raises
    ------
    RunFolderError : no image is in both, or a ``private/`` that is needed was removed
    """
    ids = [_ids(out) for out in (first, second)]
    found = _pairs(*({image_id: row for row, image_id in enumerate(each)} for each in ids))
    if len(found):
        return Joined(found[:, 0], found[:, 1], BY_ID)
    for name, out in (("OUT1", first), ("OUT2", second)):
        if not (out / SOURCES_FILE).exists():
            raise RunFolderError(
                "The two runs share no image_id, since each has a secret key of its own, and the private/ folder of "
                f"{name}, by which images could be joined, was removed. Use the folder where that run was made."
            )
    keys = [_keys(out, each) for out, each in zip((first, second), ids, strict=True)]
    found = _pairs(*(known for known, _ in keys))
    if not len(found):
        raise RunFolderError(
            "The two runs have no image in common: neither an image_id, nor an SOP instance UID, nor a file. "
            "Compare runs of the same INPUT."
        )
    return Joined(found[:, 0], found[:, 1], BY_SOURCE, sum(doubled for _, doubled in keys))


def _ids(out: Path) -> list[str]:
    found: list[str] = pq.read_table(out / "assignments.parquet", columns=["image_id"])["image_id"].to_pylist()
    return found


def _pairs(first: dict[str, int], second: dict[str, int]) -> NDArray[np.int64]:
    """Rows (N, 2) of what both know, in the order of the second."""
    rows = [(first[key], row) for key, row in second.items() if key in first]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def _keys(out: Path, ids: list[str]) -> tuple[dict[str, int], int]:
    """Name each image by its frames: SOP instance UID and frame, or file and frame; those named alike are left out.

    Returns the row of each name, and how many images were left out.
    """
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    table = pq.read_table(out / SOURCES_FILE)
    frames: dict[str, list[tuple[str, str]]] = {}
    columns = [table[name].to_pylist() for name in ("image_id", "file", "frame")]
    for image_id, file, frame, uid in zip(*columns, _column(table, "instance_uid"), strict=True):
        if image_id in row_of:
            frames.setdefault(image_id, []).append((f"file {file} {frame}", f"uid {uid} {frame}" if uid else ""))
    names = {}
    for image_id, each in frames.items():
        has_uids = all(by_uid for _, by_uid in each)
        names[image_id] = "\n".join(sorted(by_uid if has_uids else by_file for by_file, by_uid in each))
    uses = Counter(names.values())
    known = {name: row_of[image_id] for image_id, name in names.items() if uses[name] == 1}
    return known, len(names) - len(known)


def _column(table: pa.Table, name: str) -> list[str]:
    return table[name].to_pylist() if name in table.column_names else [""] * len(table)
