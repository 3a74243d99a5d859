"""Fill the cells of the table, each in a process of its own with a limit; write the table into docs/results.md.

python -m benchmarks.results [--quick] [--data SET ...] [--rows ROW ...] [--seeds 0 1 2] [--workers 2]

A cell (set, row, seed) is a small JSON under ``benchmarks/results/cells``; one that is there is not done again, so that
the table can be stopped and continued. ``--table`` writes the table from the cells that are there, and fits nothing.
With ``--cells FOLDER`` the table is FOLDER/results.md, not the one of the documentation.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.results.rows import BASELINES, PAPERS, ROWS, belongs, fill
from benchmarks.results.sets import SETS
from benchmarks.results.table import write_table
from medstrata.run import write_json

CELLS = Path(__file__).with_name("cells")
DOCUMENT = Path(__file__).parents[2] / "docs" / "results.md"
QUICK = Path("build", "results-quick")
LIMIT, LIMIT_LARGE = 600, 1800  # CPU seconds, of two cores: 5 minutes, and 15 for MNIST 60k
QUICK_SETS, QUICK_ROWS = ("busi", "msd-patches"), (*BASELINES, *PAPERS, "auto")
Job = tuple[str, str, int]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="two small sets, one seed: under 10 minutes")
    parser.add_argument("--table", action="store_true", help="only write docs/results.md from the cells that are there")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--cells", type=Path, default=CELLS, help="folder of the cells")
    parser.add_argument("--minutes", type=float, help="CPU minutes that a cell may take, instead of 10 (30: MNIST 60k)")
    given = parser.parse_args(arguments)
    if given.minutes is not None and given.cells == CELLS:
        parser.error("--minutes goes with --cells FOLDER: the cells of the documentation have one limit")
    if given.one:
        data, row, seed = given.one
        _write(given.cells, fill(data, row, int(seed), limit(data, given.minutes)))
        return
    if given.quick:
        given.data, given.rows, given.seeds = QUICK_SETS, QUICK_ROWS, [0]
        given.cells = QUICK
    failed: list[Job] = []
    if not given.table:
        jobs = [(data, row, seed) for seed in given.seeds for row in given.rows for data in given.data]
        wanted = [job for job in jobs if belongs(*job) and not path_of(given.cells, job).exists()]
        with ThreadPoolExecutor(given.workers) as pool:
            ended = list(pool.map(lambda job: _in_a_process(job, given.cells, given.minutes), wanted))
        failed = [job for job, done in zip(wanted, ended, strict=True) if not done]
    document = DOCUMENT if given.cells == CELLS else given.cells / "results.md"
    write_table(given.cells, document)
    print(document)
    if failed:
        parser.exit(
            1, f"{len(failed)} of {len(wanted)} cells failed; why stands above. Mend it and run the same again.\n"
        )


def limit(data: str, minutes: float | None = None) -> int:
    """CPU seconds that a cell of this set may take: ``minutes``, or the usual ones."""
    if minutes is not None:
        return int(60 * minutes)
    return LIMIT_LARGE if data == "mnist-60k" else LIMIT


def path_of(cells: Path, job: Job) -> Path:
    """Where a cell stands."""
    data, row, seed = job
    return cells / data / f"{row}-{seed}.json"


def _in_a_process(job: Job, cells: Path, minutes: float | None) -> bool:
    """Fill one cell; return whether it is there now, be it as *not finished*."""
    data, row, seed = job
    command = [sys.executable, "-m", "benchmarks.results", "--one", data, row, str(seed), "--cells", str(cells)]
    if minutes is not None:
        command += ["--minutes", str(minutes)]
    limited = f'ulimit -S -t {limit(data, minutes) + 60}; exec "$@"'
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    ended = subprocess.run(
        ["/bin/sh", "-c", limited, "sh", *command], env=environment, capture_output=True, text=True, check=False
    )
    if ended.returncode == -signal.SIGXCPU:  # over its limit; killed otherwise it is only missing
        _write(cells, {"data": data, "row": row, "seed": seed, "finished": False, "scores": {}})
    elif ended.returncode:
        print(ended.stderr, file=sys.stderr)
    there = path_of(cells, job).exists()
    print(f"{data} {row} {seed}: {'done' if there else 'failed'}", flush=True)
    return there


def _write(cells: Path, cell: dict[str, object]) -> None:
    file = path_of(cells, (str(cell["data"]), str(cell["row"]), int(str(cell["seed"]))))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, json.loads(json.dumps(_rounded(cell))))


def _rounded(value: object) -> object:
    """Four digits tell all that the spread over seeds allows."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
