"""Write one table of a finished run: each image with its cluster, what a person decided, and how sure the model is."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medstrata.decisions import read_decided
from medstrata.errors import RunFolderError
from medstrata.pipeline.export import check_outside
from medstrata.pipeline.inputs import input_of
from medstrata.pipeline.patients import known_patients
from medstrata.run import RunFolder, atomic, write_json, write_table

SURE = (
    "probability",
    "calibrated",
    "margin",
    "typicality",
    "novelty",
    "novelty_p",
    "novel",
    "fitted",
)  # where they are there


def decided_table(out: Path) -> pa.Table:
    """Return one row per clustered image: ``image_id``, ``patient``, ``cluster`` and what a person made of it.

    ``cluster`` is the model's (-1: rejected), ``decided_cluster`` the lowest number of those that it was merged with,
    ``decided_name`` the name that a person gave it ("": none); then ``SURE``, as in assignments.parquet, which a run of
    an earlier version may hold some of only; ``flagged`` and ``flag_reason``: whether a person flagged the image or its
    cluster, and why. ``patient`` is the pseudonym, as in catalog.parquet; null where the headers tell none.

    Raises
    ------
    RunFolderError : the run is not finished, or a line of decisions.jsonl cannot be read
    """
    if not (out / "assignments.parquet").exists():
        raise RunFolderError(f"{out} holds no assignments yet. Run: medstrata run INPUT OUT")
    table = pq.read_table(out / "assignments.parquet")
    decided = read_decided(out)
    clusters, of_image = table["cluster"].to_pylist(), decided.image_flags()
    names = {cluster: decided.name(cluster) for cluster in set(clusters)}
    flags = {cluster: decided.flags(cluster) for cluster in set(clusters)}
    reasons = [
        [*flags[cluster], *of_image.get(image_id, [])]
        for image_id, cluster in zip(table["image_id"].to_pylist(), clusters, strict=True)
    ]
    columns = {
        "image_id": table["image_id"],
        "patient": pa.array(known_patients(out, table["image_id"].to_pylist()), pa.string()),
        "cluster": table["cluster"],
        "decided_cluster": pa.array([decided.group(cluster) for cluster in clusters], pa.int32()),
        "decided_name": pa.array([names[cluster] for cluster in clusters], pa.string()),
    }
    columns |= {name: table[name] for name in SURE if name in table.column_names}
    columns |= {
        "flagged": pa.array([bool(found) for found in reasons], pa.bool_()),
        "flag_reason": pa.array(["; ".join(found) for found in reasons], pa.string()),
    }
    return pa.table(columns)


def check_tables(out: Path, files: Mapping[str, Path]) -> None:
    """Raise RunFolderError where a table may not be written: the file exists, or lies inside INPUT or OUT."""
    for file in files.values():
        if file.exists():
            raise RunFolderError(f"{file} exists already. Name a file that does not exist yet.")
        check_outside(file, out, input_of(RunFolder(out)))


def write_tables(out: Path, files: Mapping[str, Path]) -> int:
    """Write the table of ``decided_table`` to each of ``files`` (keys of ``WRITERS``); return its number of rows."""
    table = decided_table(out)
    for kind, file in files.items():
        WRITERS[kind](file, table)
    return int(table.num_rows)


def _write_csv(file: Path, table: pa.Table) -> None:
    with atomic(file) as part, open(part, "w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow(table.column_names)
        writer.writerows(list(row.values()) for row in _rows(table))


def _write_json(file: Path, table: pa.Table) -> None:
    write_json(file, _rows(table))


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as CSV and JSON hold them: six digits of a number are enough, one that is not known is None."""
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        for name, value in row.items():
            if isinstance(value, float):
                row[name] = round(value, 6) if math.isfinite(value) else None
    return rows


WRITERS: dict[str, Callable[[Path, pa.Table], None]] = {"csv": _write_csv, "parquet": write_table, "json": _write_json}
