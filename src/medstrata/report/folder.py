"""The run folder as the report reads it: every file but those of ``private/``, large arrays memory-mapped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medstrata.errors import RunFolderError

Array = NDArray[Any]
Loaded = TypeVar("Loaded")

STAGE_OF = {
    "catalog.parquet": "scan",
    "plan.json": "plan",
    "images.parquet": "decode",
    "pixels.npy": "decode",
    "left_out.parquet": "decode",
    "assignments.parquet": "assign",
    "embeddings.npy": "assign",
}
"""The files without which there is no report, and the stage that writes each."""


@dataclass(frozen=True)
class Maps:
    """The files of ``maps/``: ``maps`` (P, \\*grid), ``cluster_maps`` (K, \\*grid), ``index`` with P rows.

    ``check``: what ``medstrata explain --check`` found, empty where it has not run.
    """

    maps: Array
    index: pa.Table
    cluster_maps: Array
    summary: dict[str, Any]
    check: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFolder:
    """Tables and memory-mapped arrays of one run.

    ``assignments`` has one row per clustered image, ``images`` one row per row of ``pixels``.
    """

    path: Path
    catalog: pa.Table
    plan: dict[str, Any]
    images: pa.Table
    pixels: Array
    left_out: pa.Table
    assignments: pa.Table
    embeddings: Array
    baselines: pa.Table | None
    contradictions: pa.Table | None
    history: list[dict[str, Any]]
    model: dict[str, Any]
    run: dict[str, Any]
    maps: Maps | None
    validation: dict[str, Any] | None = None
    calibration: dict[str, Any] = field(default_factory=dict)
    adjustment: dict[str, Any] = field(default_factory=dict)  # of the batches that were adjusted for
    drift: dict[str, Any] = field(default_factory=dict)  # of images that are new to the model
    source_validation: dict[str, Any] = field(default_factory=dict)  # what the model's run found of its clusters


def read_run_folder(out: Path) -> RunFolder:
    """Read what the report needs from ``out``; ``out/private`` is never opened.

    Raises
    ------
    RunFolderError : ``out`` is no folder, a required stage has not run, or a file is damaged
    """
    if not out.is_dir():
        raise RunFolderError(f"{out} is not a folder. Give the OUT folder of a run: medstrata run INPUT OUT.")
    for name, stage in STAGE_OF.items():
        if not (out / name).is_file():
            raise RunFolderError(
                f"{out} has no {name}, so the stage '{stage}' has not been run. "
                f"Run `medstrata {stage}` (or `medstrata run`) on this folder, then the report again."
            )
    run = RunFolder(
        path=out,
        catalog=_load(out / "catalog.parquet", pq.read_table),
        plan=_load(out / "plan.json", _read_json),
        images=_load(out / "images.parquet", pq.read_table),
        pixels=_load(out / "pixels.npy", _map_array),
        left_out=_load(out / "left_out.parquet", pq.read_table),
        assignments=_load(out / "assignments.parquet", pq.read_table),
        embeddings=_load(out / "embeddings.npy", _map_array),
        baselines=_optional(out / "baselines.parquet", pq.read_table),
        contradictions=_optional(out / "contradictions.parquet", pq.read_table),
        history=_optional(out / "history.jsonl", _read_lines) or [],
        model=_optional(out / "model.json", _read_json) or {},
        run=_optional(out / "run.json", _read_json) or {},
        maps=_read_maps(out / "maps"),
        validation=_optional(out / "validation.json", _read_json),
        calibration=_optional(out / "calibration.json", _read_json) or {},
        adjustment=_optional(out / "adjustment.json", _read_json) or {},
        drift=_optional(out / "drift.json", _read_json) or {},
        source_validation=_optional(out / "source_validation.json", _read_json) or {},
    )
    _check_rows(run)
    return run


def rows_of(table: pa.Table, image_ids: pa.ChunkedArray) -> pa.Table:
    """Return the (first) row of ``table`` of every image, in the order of ``image_ids``."""
    return table.take(pc.index_in(image_ids, value_set=table["image_id"].combine_chunks()))


def numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    """Return a column as float64, NaN where it is null or absent."""
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    values: NDArray[np.float64] = pc.cast(table[name], pa.float64()).to_numpy()
    return values


def sureness(assignments: pa.Table) -> NDArray[np.float64]:
    """Return the calibrated probability of each image, the method's own where none is known."""
    calibrated = numbers(assignments, "calibrated")
    return np.where(np.isfinite(calibrated), calibrated, numbers(assignments, "probability"))


def _check_rows(run: RunFolder) -> None:
    """The files must describe the same images: a stage that was redone alone would shift the rows silently."""
    if run.assignments.num_rows == 0:
        raise RunFolderError(f"{run.path}: no image was clustered, so nothing can be reported. See left_out.parquet.")
    if len(run.embeddings) != run.assignments.num_rows or len(run.pixels) != run.images.num_rows:
        raise RunFolderError(
            f"{run.path}: the files of the stages do not belong together ({run.assignments.num_rows} assignments, "
            f"{len(run.embeddings)} embeddings; {run.images.num_rows} image rows, {len(run.pixels)} pixel rows). "
            "Run `medstrata run` again with --redo decode."
        )
    for table in (run.catalog, run.images):
        if pc.index_in(run.assignments["image_id"], value_set=table["image_id"].combine_chunks()).null_count:
            raise RunFolderError(
                f"{run.path}: assignments.parquet holds images that the other files do not know. "
                "Run `medstrata run` again with --redo assign."
            )


def _load(path: Path, read: Callable[[Path], Loaded]) -> Loaded:
    try:
        return read(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        stage = STAGE_OF.get(path.name, "explain" if path.parent.name == "maps" else "fit")
        raise RunFolderError(
            f"{path} is damaged or cannot be read. Run `medstrata run` again with --redo {stage}."
        ) from error


def _optional(path: Path, read: Callable[[Path], Loaded]) -> Loaded | None:
    return _load(path, read) if path.is_file() else None


def _read_json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; a last line without its end was cut off by a kill and is left out."""
    text = path.read_text(encoding="utf-8")
    whole = text if text.endswith("\n") else text[: text.rfind("\n") + 1]
    return [row for row in map(json.loads, filter(str.strip, whole.splitlines())) if isinstance(row, dict)]


def _map_array(path: Path) -> Array:
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _read_maps(folder: Path) -> Maps | None:
    """Read ``maps/`` where the stage explain has finished its arrays; None where it has not run."""
    if not all((folder / name).is_file() for name in ("maps.npy", "index.parquet", "cluster_maps.npy")):
        return None
    return Maps(
        maps=_load(folder / "maps.npy", _map_array),
        index=_load(folder / "index.parquet", pq.read_table),
        cluster_maps=_load(folder / "cluster_maps.npy", _map_array),
        summary=_optional(folder / "summary.json", _read_json) or {},
        check=_optional(folder / "check.json", _read_json) or {},
    )
