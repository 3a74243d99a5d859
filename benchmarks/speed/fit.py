"""Whole fits of 10,000 digits: ClustPy's DEC, IDEC and VaDE beside ours, from the cells of docs/results.md.

python -m benchmarks.speed.fit [--cells benchmarks/results/cells]

Nothing is fitted here: ``python -m benchmarks.results --data mnist-10k`` fills the cells, each in a process of its own
on one thread. Those of the documentation were filled on several machines; to compare on one, in turn:

python -m benchmarks.results --data mnist-10k --rows dcec peer-DEC --workers 1 --minutes 40 --cells build/fit
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.speed.timing import ratio, shown, table

CELLS = Path(__file__).resolve().parents[1] / "results" / "cells"
DATA = "mnist-10k"
OURS, READING = "dcec", "graph"  # clusters read by the graph, the default
PEERS = ("DEC", "IDEC", "VaDE")
SEEDS = (0, 1, 2)
TARGET = 3.0


@dataclass(frozen=True)
class Row:
    """What is known of one method: CPU seconds and NMI by seed, seeds that were stopped, seeds without a cell."""

    seconds: dict[int, float]
    nmi: dict[int, float]
    stopped: dict[int, float]
    missing: list[int]


def read_row(folder: Path, name: str, reading: str) -> Row:
    """Read the cells ``name``-SEED.json of ``folder``."""
    row = Row({}, {}, {}, [])
    for seed in SEEDS:
        file = folder / f"{name}-{seed}.json"
        if not file.exists():
            row.missing.append(seed)
            continue
        cell = json.loads(file.read_text(encoding="utf-8"))
        if cell["finished"]:
            row.seconds[seed] = cell["cpu_seconds"]
            row.nmi[seed] = cell["scores"][reading]["nmi"]
        else:
            row.stopped[seed] = cell.get("cpu_seconds", 0.0)
    return row


def in_words(seeds: list[int], what: str) -> str:
    """``what`` and the seeds, or nothing where there are none."""
    return f"{what}: seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else ""


def report(folder: Path) -> str:
    """The table of methods, with the ratio to ours at the seeds that both have."""
    own = read_row(folder, OURS, READING)
    rows = {f"medstrata DCEC ({READING})": own}
    rows |= {f"ClustPy {name}": read_row(folder, f"peer-{name}", "own") for name in PEERS}
    lines, verdicts = [], []
    for name, row in rows.items():
        left_out = [in_words(list(row.stopped), "stopped at its limit"), in_words(row.missing, "no cell")]
        both = [seed for seed in row.seconds if seed in own.seconds]
        stopped = [seed for seed in row.stopped if seed in own.seconds]
        cell = "no common seed"
        if both:
            faster = ratio([row.seconds[seed] for seed in both], [own.seconds[seed] for seed in both])
            cell = str(faster)
            if row is not own:
                better = all(own.nmi[seed] >= row.nmi[seed] for seed in both)
                verdicts.append(_verdict(name, faster.middle, better, len(both)))
        elif stopped:
            cell = "more than " + shown(min(row.stopped[seed] / own.seconds[seed] for seed in stopped))
        seconds = ", ".join(shown(value) for value in row.seconds.values()) or "-"
        nmi = ", ".join(f"{value:.2f}" for value in row.nmi.values()) or "-"
        remark = "; ".join(filter(None, left_out)) or "-"
        lines.append((name, seconds, nmi, cell, remark))
    if own.seconds:
        verdicts.append(f"Ours takes {shown(median(own.seconds.values()))} CPU s (median over its seeds).")
    header = ("method", "CPU s by seed", "NMI by seed", "times ours", "left out")
    return "\n".join([table(header, lines), "", *verdicts])


def _verdict(name: str, faster: float, better: bool, seeds: int) -> str:
    reached = "reached" if faster >= TARGET and better else "missed"
    quality = "equal or better" if better else "lower"
    few = "" if seeds >= len(SEEDS) else f" on {seeds} of {len(SEEDS)} seeds only"
    return f"{name}: {shown(faster)} times our CPU time, our NMI {quality} (target {TARGET:g}: {reached}{few})."


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.fit")
    parser.add_argument("--cells", type=Path, default=CELLS)
    print(report(parser.parse_args(arguments).cells / DATA))


if __name__ == "__main__":
    main()
