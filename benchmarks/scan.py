"""Scan and decode rates of medstrata beside plain pydicom, in alternated rounds on the same files.

    python benchmarks/scan.py [--files 2000] [--rounds 3] [--workers 1 2]

A synthetic folder of CT slices is written to a temporary place. "scan" reads the headers of every file: pydicom's
``dcmread(stop_before_pixels=True)`` against ``medstrata.images.catalog.scan``, which also groups series, checks their
geometry and classifies. "decode" reads the pixels: ``dcmread`` and ``pixel_array`` against
``medstrata.images.store.decode``, which also rescales, windows, puts every volume on the common grid and writes it.
The machine's load changes from minute to minute, so only the ratios within a round are to be trusted: the table gives
medians over the rounds. CPU seconds include worker processes.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver
from pathlib import Path

import pydicom

from medstrata.images.catalog import Catalog, scan
from medstrata.images.planning import make_plan
from medstrata.images.sources import open_source
from medstrata.images.store import decode
from medstrata.run import no_progress
from medstrata.simulation.study import Group, Study, simulate_study

SALT = "00" * 32
SLICES = 50
SPAN = 300.0  # mm along every axis


@dataclass(frozen=True)
class Cost:
    """Seconds of one contestant in one round."""

    wall: float
    cpu: float


def cost_of(task: Callable[[], object]) -> Cost:
    """Return wall and CPU seconds of ``task``, those of its worker processes and of their start included."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    task()
    wall = time.perf_counter() - wall
    # The system adds a process's CPU time to ours when it has ended: the server that workers are forked from would
    # live on, and hide them. There is no public way to end it.
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    return Cost(wall, _cpu_seconds() - cpu)


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def write_files(folder: Path, files: int, size: int) -> Path:
    """Write at least ``files`` slices of ``size`` x ``size`` pixels, ``SLICES`` a series, and return their folder."""
    series = -(-files // SLICES)
    study = Study(
        patients=series,
        groups=(Group("clear", ()),),
        shape=(SLICES, size, size),
        spacing=(SPAN / SLICES, 1.13 * SPAN / size, 1.13 * SPAN / size),
    )
    simulate_study(folder / "input", study)
    return folder / "input"


def pydicom_headers(files: list[Path]) -> None:
    for file in files:
        pydicom.dcmread(file, stop_before_pixels=True)


def pydicom_pixels(files: list[Path]) -> None:
    for file in files:
        _ = pydicom.dcmread(file).pixel_array


def medstrata_scan(folder: Path, workers: int) -> Catalog:
    return scan(open_source(folder), SALT, workers, no_progress)


def medstrata_decode(folder: Path, catalog: Catalog, workers: int) -> None:
    with tempfile.TemporaryDirectory() as out:
        decode(open_source(folder), catalog, make_plan(catalog), Path(out), workers, no_progress)


def rounds(contestants: dict[str, Callable[[], object]], count: int) -> dict[str, list[Cost]]:
    """Run the contestants in turn, ``count`` times after one warm-up, every other round in reverse order."""
    costs: dict[str, list[Cost]] = {name: [] for name in contestants}
    for number in range(count + 1):
        order = list(contestants) if number % 2 else list(contestants)[::-1]
        for name in order:
            cost = cost_of(contestants[name])
            if number:
                costs[name].append(cost)
    return costs


def print_table(title: str, costs: dict[str, list[Cost]], files: int) -> None:
    """Print medians, and ratios to the first contestant taken within each round."""
    base = next(iter(costs.values()))
    print(f"\n{title}: {files} files, median of {len(base)} rounds")
    print(f"{'':26}{'files/s':>10}{'wall s':>10}{'CPU s':>10}{'wall ratio':>12}{'CPU ratio':>12}")
    for name, measured in costs.items():
        wall = statistics.median(cost.wall for cost in measured)
        cpu = statistics.median(cost.cpu for cost in measured)
        wall_ratio = statistics.median(cost.wall / one.wall for cost, one in zip(measured, base, strict=True))
        cpu_ratio = statistics.median(cost.cpu / one.cpu for cost, one in zip(measured, base, strict=True))
        print(f"{name:26}{files / wall:10.0f}{wall:10.2f}{cpu:10.2f}{wall_ratio:12.2f}{cpu_ratio:12.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--size", type=int, default=128, help="rows and columns of a slice")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_files(Path(temporary), options.files, options.size)
        files = sorted(folder.rglob("*.dcm"))
        catalog = medstrata_scan(folder, 1)
        headers: dict[str, Callable[[], object]] = {"pydicom, headers": partial(pydicom_headers, files)}
        pixels: dict[str, Callable[[], object]] = {"pydicom, pixels": partial(pydicom_pixels, files)}
        for workers in options.workers:
            name = f"medstrata, {workers} worker(s)"
            headers[name] = partial(medstrata_scan, folder, workers)
            pixels[name] = partial(medstrata_decode, folder, catalog, workers)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, pydicom {pydicom.__version__}")
        print_table("scan", rounds(headers, options.rounds), len(files))
        print_table("decode", rounds(pixels, options.rounds), len(files))


if __name__ == "__main__":
    main()
