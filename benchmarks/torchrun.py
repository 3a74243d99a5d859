"""One fit by one process and by two that torchrun started: speed, and whether the clusters are the same.

python -m benchmarks.torchrun [--methods dcec deepmcat] [--images 3000] [--rounds 3] [--short]  (needs MEDSTRATA_DATA)

Images of MedNIST (64 x 64), every method with its default settings (--short: three epochs of each phase, enough for
the speed, not for the clusters), one thread per process, rounds alternated. Images per second of the wall clock and per
CPU-second of all processes together, median over rounds. The final reading of the clusters, which one process does, is
in it, the start of Python is not. The adjusted Rand index compares the clusters of the two: in float32 sums in another
order differ in the last digit, and training makes more of it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score

CLUSTERS = 6


SHORT = {"training": {"warmup_epochs": 3, "warmup_steps": 0, "epochs": 3, "tolerance": 0.0}}


def fit(method: str, count: int, short: bool, result: Path) -> None:
    """Fit in this process, or in all that torchrun started; the first writes seconds, CPU-seconds and labels."""
    from medstrata.learning.comm import joined
    from medstrata.methods.settings import make_method

    stored = np.load(Path(os.environ["MEDSTRATA_DATA"]) / "mednist.npz")["images"]
    images = stored[:: len(stored) // count][:count]
    with joined() as comm:
        comm.first(lambda: None)  # all are there
        started, used = time.perf_counter(), time.process_time()
        settings = {"n_clusters": CLUSTERS, "device": "cpu"} | (SHORT if short else {})
        model = make_method(method, settings).fit(images, comm=comm)
        import torch

        cpu = float(comm.total(torch.tensor(time.process_time() - used, dtype=torch.float64)))
        seconds = time.perf_counter() - started
        epochs = sum("loss" in record for record in model.history_)
    if comm.rank == 0:
        found = {"seconds": seconds, "cpu": cpu, "epochs": epochs, "labels": model.labels_.tolist()}
        result.write_text(json.dumps(found))


def run(method: str, count: int, short: bool, processes: int) -> dict[str, Any]:
    """Start one process, or several by torchrun, and return what the first wrote."""
    torchrun = [str(Path(sys.executable).parent / "torchrun"), "--standalone", f"--nproc_per_node={processes}"]
    start = [sys.executable] if processes == 1 else torchrun
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [
            *start,
            "-m",
            "benchmarks.torchrun",
            "--methods",
            method,
            "--images",
            str(count),
            *["--short"] * short,
        ]
        subprocess.run(
            [*command, "--result", str(result)], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=3600
        )
        found: dict[str, Any] = json.loads(result.read_text())
        return found


def compare(method: str, count: int, short: bool, rounds: int) -> str:
    """Return one line of the table."""
    found: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for _ in range(rounds):
        for processes, runs in found.items():
            runs.append(run(method, count, short, processes))
    wall, cpu = (
        {n: statistics.median(count * one["epochs"] / one[key] for one in runs) for n, runs in found.items()}
        for key in ("seconds", "cpu")
    )
    ratios = [one["seconds"] / two["seconds"] for one, two in zip(found[1], found[2], strict=True)]
    alike = adjusted_rand_score(found[1][0]["labels"], found[2][0]["labels"])
    return (
        f"| {method} | {wall[1]:.0f} | {wall[2]:.0f} | {statistics.median(ratios):.2f} [{min(ratios):.2f}-"
        f"{max(ratios):.2f}] | {cpu[1]:.0f} | {cpu[2]:.0f} | {alike:.4f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--methods", nargs="+", default=["dcec", "deepmcat"])
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="three epochs of each phase")
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.result:
        fit(given.methods[0], given.images, given.short, given.result)
        return
    print(f"{given.images} images, {given.rounds} rounds, load of the machine {os.getloadavg()[0]:.1f}")
    print(
        "| method | images/s, 1 process | 2 | ratio | images/CPU-s, 1 process | 2 | ARI |", "|---" * 7 + "|", sep="\n"
    )
    for method in given.methods:
        print(compare(method, given.images, given.short, given.rounds), flush=True)


if __name__ == "__main__":
    main()
