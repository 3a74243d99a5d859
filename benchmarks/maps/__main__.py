"""Planted lesions in simulated and in real lung CT: every rule for maps beside controls, over many settings and seeds.

python -m benchmarks.maps [--seeds 0 1 2 3 4] [--only TEXT] [--table]

Made of cells, each a small JSON in ``benchmarks/maps/cells`` that is skipped when present, so that it can be stopped
and continued.
Then the tables and figures of docs/maps.md are written. ``benchmarks.maps.speed`` and ``benchmarks.maps.masked`` are
benchmarks of their own.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.maps.inserted import FACTORS
from benchmarks.maps.planted import Cell, plant
from benchmarks.maps.scores import score_all
from medstrata.run import write_json

CELLS = Path(__file__).with_name("cells")
SEEDS = [0, 1, 2, 3, 4]
NOISES = (0.25, 0.5, 2.0, 4.0)  # contrast to noise, beside 1


def cells(seed: int) -> Iterator[tuple[Cell, bool]]:
    """Yield the cells of one seed, the most important first, and whether few rules are scored in it."""
    for distractor in (False, True):
        yield Cell("phantoms", distractor=distractor, seed=seed), False
        for factor in FACTORS:
            yield Cell("ct-2d", factor, distractor=distractor, seed=seed), factor != "location"
    for distractor in (False, True):
        for contrast in NOISES:
            yield Cell("phantoms", contrast_to_noise=contrast, distractor=distractor, seed=seed), True
    for factor in FACTORS:
        yield Cell("ct-3d", factor, distractor=True, seed=seed), True
    for moved in (0.0, 5.0, 8.0):
        yield Cell("ct-2d", distractor=True, misregistration=moved, seed=seed), True
    for noise in (200.0, 400.0, 800.0):
        yield Cell("ct-2d", distractor=True, noise=noise, seed=seed), True
    for moved in (5.0, 10.0):
        yield Cell("phantoms", distractor=True, misregistration=moved, seed=seed), True
    for images in (60, 150, 600):
        yield Cell("ct-2d", distractor=True, images=images, seed=seed), True
    for clusters in (2, 4, 6):
        yield Cell("phantoms", clusters=clusters, seed=seed), True
        yield Cell("ct-2d", clusters=clusters, seed=seed), True
    for method in ("dvc", "contrastive", "deepmcat"):
        yield Cell("ct-2d", method=method, distractor=True, seed=seed), True
    for method in ("dvc", "contrastive"):
        yield Cell("phantoms", method=method, distractor=True, seed=seed), True


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.maps")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--only", default="", help="cells whose name holds this text")
    parser.add_argument("--table", action="store_true", help="write the tables of the cells that are there, no more")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)  # as the cells of the results
    warnings.simplefilter("ignore", UserWarning)  # collapse at a wrong K is what some cells are about
    for seed in [] if given.table else given.seeds:
        for cell, few in cells(seed):
            file = CELLS / f"{cell.name}.json"
            if given.only in cell.name and not file.exists():
                study = plant(cell)
                scores = score_all(study, few)
                CELLS.mkdir(exist_ok=True)
                write_json(file, {"cell": asdict(cell), **study.facts, "scores": scores})
                print(cell.name, json.dumps({key: round(value, 2) for key, value in study.facts.items()}), flush=True)
    from benchmarks.maps.table import write_tables

    write_tables(CELLS)


if __name__ == "__main__":
    main()
