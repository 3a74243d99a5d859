"""Decode once: every chosen image, normalised and on the common grid, in one flat file that training reads."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medstrata.errors import InputError
from medstrata.images import pixel_file
from medstrata.images.catalog import Catalog, scan
from medstrata.images.decode_shards import ROWS_PER_SHARD, begin, results_of, work_of
from medstrata.images.decoding import Decoded
from medstrata.images.manifest import Sharding
from medstrata.images.plan import Plan
from medstrata.images.planning import make_plan
from medstrata.images.selection import LeftOut
from medstrata.images.shards import run_shards
from medstrata.images.sources import Source, open_source
from medstrata.images.workers import in_processes
from medstrata.run import Progress, folder_error, no_progress, write_table

ROWS_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("image_id", pa.string()),
        ("slice", pa.int32()),
        ("source_shape", pa.list_(pa.int32())),
        ("source_affine", pa.list_(pa.float64())),
        ("grid_affine", pa.list_(pa.float64())),
        ("crop", pa.list_(pa.float64())),
        ("units", pa.string()),
        ("decoder", pa.string()),
        ("note", pa.string()),
    ]
)
LEFT_OUT_SCHEMA = pa.schema([(name, pa.string()) for name in ("image_id", "stage", "code", "reason")])


@dataclass(frozen=True)
class DecodeSummary:
    """Images decoded, images and files left out at any stage, rows of ``pixels.npy``."""

    decoded: int
    left_out: int
    rows: int


def decode(
    source: Source,
    catalog: Catalog,
    plan: Plan,
    out: Path,
    workers: int = 1,
    progress: Progress = no_progress,
    sharding: Sharding | None = None,
) -> DecodeSummary:
    """Write ``pixels.npy``, ``images.parquet`` and ``left_out.parquet`` into ``out``.

    ``pixels.npy``: ``(rows, C, *grid)`` in ``plan.stored_as``, one row per image (in 2-D one per slice that the plan
    takes), in the order of the catalog. Memory stays bounded by the largest image of each worker (an ``.npz`` is
    loaded whole). An image that cannot be decoded becomes a row of ``left_out.parquet``. With ``sharding`` its workers
    decode, and what an interrupted call has decoded is kept; its folder must be on the disk of ``out``.

    Raises
    ------
    InputError : INPUT is no longer reachable, or no image could be decoded
    PlanError : impossible values in the plan
    RunFolderError : no room on the disk, or ``out`` cannot be written
    """
    try:
        if sharding is not None:
            return _decode(source, catalog, plan, out, sharding, progress)
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".decode.", dir=out) as folder:
            own = Sharding(Path(folder) / "shards", "", in_processes(workers))
            return _decode(source, catalog, plan, out, own, progress)
    except OSError as error:
        raise folder_error(error, out / "pixels.npy") from error


def decode_share(
    source: Source, catalog: Catalog, plan: Plan, sharding: Sharding, progress: Progress = no_progress
) -> None:
    """Decode one job's share of the images; ``decode`` with the same folder and token then finds them decoded.

    Rows of arrays are left to ``decode``. Raises as ``decode`` does.
    """
    try:
        task = begin(source, catalog, plan, sharding)
        run_shards(task.manifest, work_of(task), sharding, progress)
    except OSError as error:
        raise folder_error(error, sharding.folder) from error


def _decode(
    source: Source, catalog: Catalog, plan: Plan, out: Path, sharding: Sharding, progress: Progress
) -> DecodeSummary:
    task = begin(source, catalog, plan, sharding)
    kept = np.zeros(task.file.rows, dtype=np.bool_)
    tables: list[pa.Table] = []
    failed: list[tuple[int, LeftOut]] = []
    waiting: list[Decoded] = []
    for job, result in results_of(task, sharding, progress):
        if isinstance(result, LeftOut):
            failed.append((job.row, result))
            continue
        kept[job.row : job.row + job.rows] = True
        waiting.append(result)
        if len(waiting) == ROWS_PER_SHARD:  # a table takes a tenth of the memory
            tables.append(_rows_table(waiting))
            waiting = []
    problems = [problem for _, problem in sorted(failed, key=lambda item: item[0])]
    if not kept.any():
        shutil.rmtree(sharding.folder)  # a repaired INPUT is to be decoded anew
        raise _nothing_decoded(problems)
    rows = pa.concat_tables([*tables, _rows_table(waiting)]).sort_by("row").combine_chunks()
    missing = [*_skipped(catalog), *task.left_out, *problems]
    _finish(task.file, kept, out)
    write_table(out / "left_out.parquet", _left_out_table(missing))
    write_table(out / "images.parquet", rows.set_column(0, ROWS_SCHEMA.field(0), pa.array(np.arange(len(rows)))))
    return DecodeSummary(len(task.images) + len(task.rows) - len(problems), len(missing), int(kept.sum()))


def _finish(file: pixel_file.PixelFile, kept: NDArray[np.bool_], out: Path) -> None:
    """Close the file up and put it in its place. Rows that move are no longer where their shards left them."""
    closed = file.renamed("closing.npy")
    closed.close_up(kept)
    for name in ("images.parquet", "left_out.parquet"):  # never beside the pixels of another run
        (out / name).unlink(missing_ok=True)
    os.replace(closed.path, out / "pixels.npy")


def _nothing_decoded(failed: Sequence[LeftOut]) -> InputError:
    counts = Counter((item.code, item.reason) for item in failed)
    parts = "; ".join(f"{count} x {code}: {reason}" for (code, reason), count in counts.most_common(5))
    return InputError(
        f"None of the {len(failed)} images could be decoded: {parts} Repair or replace these files, then run again."
    )


def _skipped(catalog: Catalog) -> list[LeftOut]:
    table = catalog.table.select(["image_id", "skipped", "reason"]).to_pylist()
    return [LeftOut(row["image_id"], "scan", row["skipped"], row["reason"]) for row in table if row["skipped"]]


def _left_out_table(missing: list[LeftOut]) -> pa.Table:
    return pa.Table.from_pylist([dataclasses.asdict(item) for item in missing], schema=LEFT_OUT_SCHEMA)


def _rows_table(decoded: list[Decoded]) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for item in decoded:
        for place, number in enumerate(item.slices or (-1,)):
            rows.append(
                {
                    "row": item.row + place,
                    "image_id": item.image_id,
                    "slice": number,
                    "source_shape": item.source_shape,
                    "source_affine": item.source_affine,
                    "grid_affine": item.grid_affine,
                    "crop": item.crop,
                    "units": item.units,
                    "decoder": item.decoder,
                    "note": item.note,
                }
            )
    return pa.Table.from_pylist(rows, schema=ROWS_SCHEMA)


def load_images(path: Path | str, *, grid: Sequence[int] | None = None) -> NDArray[Any]:
    """Read all images of a folder, a zip, an ``.npz`` or ``.npy`` into one array, without a run folder.

    The plan is made as ``medstrata run`` makes it; ``grid`` (``[rows, columns]`` or ``[slices, rows, columns]``,
    multiples of 8) replaces its grid, each image scaled to fill it. Returns uint8 or uint16 ``(N, C, H, W)`` or
    ``(N, C, D, H, W)``; in 2-D a volume gives several slices. Everything happens in this process.

    Raises
    ------
    InputError, PlanError : as ``scan``, ``make_plan`` and ``decode`` do
    """
    source = open_source(Path(path))
    catalog = scan(source, secrets.token_hex(32), 1, no_progress)
    plan = make_plan(catalog)
    if grid is not None:
        plan = dataclasses.replace(plan, grid=[int(n) for n in grid], dimensions=len(grid), spacing=None)
    with tempfile.TemporaryDirectory(prefix="medstrata-") as folder:
        decode(source, catalog, plan, Path(folder))
        images: NDArray[Any] = np.load(Path(folder) / "pixels.npy")
    return images
