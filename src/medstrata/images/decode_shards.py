"""What is to be decoded, cut into shards: their jobs, and the file that all workers write pixels into."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medstrata.images import pixel_file
from medstrata.images.array_blocks import decode_arrays
from medstrata.images.catalog import Catalog
from medstrata.images.decoding import Decoded, Job, Setup, decode_image, left_out
from medstrata.images.intensity import intensity_class
from medstrata.images.manifest import Manifest, Sharding, cut
from medstrata.images.plan import Plan, check_values
from medstrata.images.records import FrameSource
from medstrata.images.selection import LeftOut, Row, choose_images, nothing_left, slice_numbers
from medstrata.images.shards import Work, run_shards
from medstrata.images.sources import Source
from medstrata.images.workers import Serial
from medstrata.run import Progress

PIXELS_PER_SHARD = 500 * 512 * 512  # as stored, decoded by a worker before it says so: seconds of work, or one volume
ROWS_PER_SHARD = 4096  # of arrays, that are decoded many at once


@dataclass(frozen=True)
class Task:
    """Jobs that ``manifest`` cuts into shards, jobs of rows of arrays, images not chosen, and the file of all rows."""

    manifest: Manifest
    images: list[Job]
    rows: list[Job]
    left_out: list[LeftOut]
    file: pixel_file.PixelFile


def begin(source: Source, catalog: Catalog, plan: Plan, sharding: Sharding) -> Task:
    """Make the folder of the shards with the file of the pixels in it, or find those of an interrupted call."""
    check_values(plan)
    chosen = choose_images(catalog, plan)
    if not chosen.rows:
        raise nothing_left(chosen.left_out)
    numbers = [slice_numbers(row, plan.dimensions, plan.slices_per_volume) for row in chosen.rows]
    starts = np.concatenate([[0], np.cumsum([len(of or [0]) for of in numbers])]).astype(np.int64)
    alike = [row["format"] == "array" and not plan.crop_to_content for row in chosen.rows]  # one placement for all rows
    pixels = [
        (len(of or []) or row["slices"]) * row["rows"] * row["columns"]
        for of, row, is_row in zip(numbers, chosen.rows, alike, strict=True)
        if not is_row
    ]
    size = max(1, PIXELS_PER_SHARD * len(pixels) // max(1, sum(pixels)))
    manifest = Manifest(sharding.folder, sharding.token, len(pixels), cut(len(pixels), size))
    file = _pixel_file(manifest, int(starts[-1]), plan, sharding)
    jobs = _jobs(source, catalog, plan, chosen.rows, starts, file)
    images = [job for job, is_row in zip(jobs, alike, strict=True) if not is_row]
    return Task(manifest, images, list(compress(jobs, alike)), chosen.left_out, file)


def _pixel_file(manifest: Manifest, rows: int, plan: Plan, sharding: Sharding) -> pixel_file.PixelFile:
    """Begin the manifest with a file of full size; a call that has the folder for itself gives it a name of its own.

    So a worker that outlived the call which started it cannot write into a file whose rows are being closed up.
    """

    def described(path: Path) -> pixel_file.PixelFile:
        return pixel_file.described(path, rows, (plan.channels, *plan.grid), plan.stored_as)

    def create() -> None:
        first = manifest.folder / "pixels-0.npy"
        pixel_file.create(first, rows, (plan.channels, *plan.grid), plan.stored_as)

    def found() -> list[Path]:
        return list(manifest.folder.glob("pixels-*.npy"))

    manifest.begin(create, lambda: [described(path).is_whole() for path in found()] == [True])
    file = described(found()[0])
    return file if sharding.share.of > 1 else file.renamed(f"pixels-{secrets.token_hex(4)}.npy")


def work_of(task: Task) -> Work[Job]:
    """Return what workers do: decode the images, in shards. A crash costs one image."""
    return Work("decode", task.images, _decode_images, left_out)


def _decode_images(jobs: Sequence[Job]) -> list[Decoded | LeftOut]:
    """Decode the images of a shard; their pixels are on the disk before the shard counts as done."""
    results = [decode_image(job) for job in jobs]
    jobs[0].file.sync()
    return results


def _decode_rows(jobs: Sequence[Job]) -> list[Decoded | LeftOut]:
    results = [result for _, result in decode_arrays(jobs)]
    jobs[0].file.sync()
    return results


def results_of(task: Task, sharding: Sharding, progress: Progress) -> Iterator[tuple[Job, Decoded | LeftOut]]:
    """Do what is not done yet: rows of arrays in this process, which opens an array once, everything else in workers.

    Yields each job with its result.
    """
    total = len(task.rows) + len(task.images)
    rows = Manifest(sharding.folder / "arrays", sharding.token, len(task.rows), ROWS_PER_SHARD)
    rows.begin()
    here = replace(sharding, executor=Serial())
    told = run_shards(rows, Work("decode", task.rows, _decode_rows), here, lambda what, n, _: progress(what, n, total))
    yield from zip(task.rows, told, strict=True)
    told = run_shards(
        task.manifest, work_of(task), sharding, lambda what, n, _: progress(what, len(task.rows) + n, total)
    )
    yield from zip(task.images, told, strict=True)


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
