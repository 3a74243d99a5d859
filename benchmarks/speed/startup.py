"""How long the command line and the package take to start: wall and CPU seconds of processes of their own.

python -m benchmarks.speed.startup [--rounds 5]

They run in the package's own environment (``make setup``). On a busy machine wall time says little.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.speed.timing import table

OWN = Path(__file__).resolve().parents[2] / ".venv" / "bin" / "python"
STARTS = {
    "medstrata --help": (("-m", "medstrata", "--help"), 0.5),
    "import medstrata": (("-c", "import medstrata"), 0.3),
    "Python alone": (("-c", "pass"), None),
}


def start(command: Sequence[str | Path]) -> tuple[float, float]:
    """Run ``command`` and return its wall and CPU seconds.

    Raises
    ------
    subprocess.CalledProcessError : it failed
    """
    cpu, wall = _children(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - wall, _children() - cpu


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def report(python: Path, rounds: int) -> str:
    """Start everything in turn, ``rounds`` times after one warm-up."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in STARTS}
    for number in range(rounds + 1):
        for name, (arguments, _) in STARTS.items():
            seconds = start([python, *arguments])
            if number:
                found[name].append(seconds)
    rows = []
    for name, (_, target) in STARTS.items():
        wall, cpu = (median(column) for column in zip(*found[name], strict=True))
        verdict = "-" if target is None else f"{target:g} s: {'reached' if wall < target else 'missed'}"
        rows.append((name, wall, cpu, verdict))
    return table(("start", "wall s", "CPU s", "target (wall)"), rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.startup")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    print(report(OWN if OWN.exists() else Path(sys.executable), given.rounds))


if __name__ == "__main__":
    main()
