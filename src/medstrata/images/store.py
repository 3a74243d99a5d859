"""Decode once: every chosen image, normalised and on the common grid, in one flat file that training reads."""

from __future__ import annotations

import dataclasses
import secrets
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medstrata.errors import FileProblem, InputError
from medstrata.images import pixel_file
from medstrata.images.array_blocks import decode_arrays
from medstrata.images.catalog import Catalog, scan
from medstrata.images.decoding import Decoded, Job, Setup, decode_image, left_out
from medstrata.images.intensity import intensity_class
from medstrata.images.plan import Plan, check_values
from medstrata.images.planning import make_plan
from medstrata.images.records import FrameSource
from medstrata.images.selection import LeftOut, Row, choose_images, nothing_left, slice_numbers
from medstrata.images.sources import Source, open_source
from medstrata.images.workers import map_in_processes
from medstrata.run import Progress, atomic, no_progress, write_table

FRAMES_PER_CHUNK = 64  # handed to a worker at once: a few hundredths of a second of work, or one volume

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
    source: Source, catalog: Catalog, plan: Plan, out: Path, workers: int = 1, progress: Progress = no_progress
) -> DecodeSummary:
    """Write ``pixels.npy``, ``images.parquet`` and ``left_out.parquet`` into ``out``.

    ``pixels.npy``: ``(rows, C, *grid)`` in ``plan.stored_as``, one row per image (in 2-D one per slice that the plan
    takes), in the order of the catalog. Memory stays bounded by the largest image of each worker (an ``.npz`` is
    loaded whole). An image that cannot be decoded becomes a row of ``left_out.parquet``.

    Raises
    ------
    InputError : INPUT is no longer reachable, or no image could be decoded
    PlanError : impossible values in the plan
    RunFolderError : no room on the disk, or ``out`` cannot be written
    """
    check_values(plan)
    chosen = choose_images(catalog, plan)
    if not chosen.rows:
        raise nothing_left(chosen.left_out)
    counts = [len(slice_numbers(row, plan.dimensions, plan.slices_per_volume) or [0]) for row in chosen.rows]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    kept = np.zeros(int(starts[-1]), dtype=np.bool_)
    decoded: list[Decoded] = []
    failed: list[LeftOut] = []
    with atomic(out / "pixels.npy") as part:
        file = pixel_file.create(part, len(kept), (plan.channels, *plan.grid), plan.stored_as)
        jobs = _jobs(source, catalog, plan, chosen.rows, starts, file)
        for done, (job, result) in enumerate(_run(jobs, workers), start=1):
            if isinstance(result, Decoded):
                kept[job.row : job.row + result.rows] = True
                decoded.append(result)
            else:
                failed.append(result)
            progress("decode", done, len(jobs))
        if not decoded:
            raise _nothing_decoded(failed)
        file.close_up(kept)
        for name in ("images.parquet", "left_out.parquet"):  # never beside the pixels of another run
            (out / name).unlink(missing_ok=True)
    decoded.sort(key=lambda item: item.row)
    missing = [*_skipped(catalog), *chosen.left_out, *failed]
    write_table(out / "left_out.parquet", _left_out_table(missing))
    write_table(out / "images.parquet", _rows_table(decoded))
    return DecodeSummary(len(decoded), len(missing), int(kept.sum()))


def _jobs(
    source: Source, catalog: Catalog, plan: Plan, rows: list[Row], starts: NDArray[np.int64], file: pixel_file.PixelFile
) -> list[Job]:
    spacing = None if plan.spacing is None else tuple(plan.spacing)
    setup = Setup(plan.dimensions, tuple(plan.grid), spacing, plan.channels, plan.crop_to_content)
    frames = _frames(catalog, {row["image_id"] for row in rows})
    jobs = []
    for row, start in zip(rows, starts, strict=False):
        numbers = slice_numbers(row, plan.dimensions, plan.slices_per_volume)
        jobs.append(
            Job(
                source=source,
                image_id=row["image_id"],
                format=row["format"],
                frames=frames[row["image_id"]],
                slices=None if numbers is None else tuple(numbers),
                stored=(row["slices"], row["rows"], row["columns"]),
                rule=plan.intensity[intensity_class(row)],
                setup=setup,
                file=file,
                row=int(start),
            )
        )
    return jobs


def _frames(catalog: Catalog, wanted: set[str]) -> dict[str, tuple[FrameSource, ...]]:
    """Return where each wanted image's frames are found, in order, without the original ids."""
    table = catalog.sources.select(["image_id", "position", "file", "frame"]).to_pydict()
    found: dict[str, list[tuple[int, FrameSource]]] = {}
    for image_id, position, name, frame in zip(*table.values(), strict=True):
        if image_id in wanted:
            found.setdefault(image_id, []).append((position, FrameSource(name, frame)))
    return {key: tuple(frame for _, frame in sorted(value, key=lambda item: item[0])) for key, value in found.items()}


def _run(jobs: list[Job], workers: int) -> Iterator[tuple[Job, Decoded | LeftOut]]:
    """Yield each job with its result: rows of arrays in blocks in this process, everything else in workers."""
    alike = [job.format == "array" and not job.setup.crop_to_content for job in jobs]  # one placement for all rows
    yield from decode_arrays(list(compress(jobs, alike)))
    images = [job for job, is_alike in zip(jobs, alike, strict=True) if not is_alike]
    frames = sum(len(job.slices or job.frames) for job in images)
    chunk = max(1, min(FRAMES_PER_CHUNK * len(images) // max(1, frames), len(images) // (4 * max(1, workers))))
    results = map_in_processes(decode_image, images, workers, chunk)
    for job, result in zip(images, results, strict=True):
        yield job, left_out(job, result) if isinstance(result, FileProblem) else result


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
        for number in item.slices or (-1,):
            rows.append(
                {
                    "row": len(rows),
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
