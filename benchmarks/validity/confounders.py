"""How often a planted scanner effect is found and named, by its strength and the number of patients.

python -m benchmarks.validity.confounders [--repeats 20]

A cluster has its own scanner with probability ``agreement`` and any of the scanners otherwise; four more columns have
nothing to do with the clusters. Prints a table: per cell the balanced accuracy of the headers, the rate at which the
scanner has q < .05, the rate at which a cluster is named after it, and at which anything else is found.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medstrata.evidence.confounders.columns import TechnicalColumn
from medstrata.evidence.confounders.confounders import find_confounders

CLUSTERS = 3
AGREEMENTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
PATIENTS = (60, 150, 400)


def plant(patients: int, agreement: float, seed: int) -> tuple[list[TechnicalColumn], NDArray[np.int64]]:
    """Return technical columns and clusters of ``patients`` images, one of each patient."""
    generator = np.random.default_rng(seed)
    clusters = generator.integers(CLUSTERS, size=patients)
    own = generator.random(patients) < agreement
    scanner = np.where(own, clusters, generator.integers(CLUSTERS, size=patients))
    texts = {"model": scanner, "kernel": generator.integers(4, size=patients)}
    numbers = {
        "slice_thickness": generator.choice([1.0, 3.0, 5.0], patients),
        "spacing_rows": generator.normal(0.7, 0.1, patients),
        "study_date": generator.permutation(patients).astype(np.float64),
    }
    found = [TechnicalColumn(key, "header", np.array([f"{key} {n}" for n in of])) for key, of in texts.items()]
    return found + [TechnicalColumn(key, "header", of) for key, of in numbers.items()], clusters


def measure(patients: int, agreement: float, repeats: int) -> dict[str, float]:
    """Return the rates of one cell."""
    rows = []
    for seed in range(repeats):
        columns, clusters = plant(patients, agreement, seed)
        found = find_confounders(columns, clusters, [f"patient {n}" for n in range(patients)], seed)
        rows.append(_outcome(found))
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _outcome(found: dict[str, Any]) -> dict[str, float]:
    (kind,) = found["kinds"]
    significant = {entry["column"] for entry in kind["associations"] if entry["q"] < 0.05}
    return {
        "accuracy": kind["headers"]["balanced_accuracy"],
        "found": "model" in significant,
        "named": any(entry["column"] == "model" for entry in found["named"]),
        "others": bool(significant - {"model"}),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args(arguments).repeats
    lines = ["| patients | agreement | balanced accuracy | found | named | others found |", "|--:|--:|--:|--:|--:|--:|"]
    for patients in PATIENTS:
        for agreement in AGREEMENTS:
            cell = measure(patients, agreement, repeats)
            lines.append(
                f"| {patients} | {agreement} | " + " | ".join(f"{value:.2f}" for value in cell.values()) + " |"
            )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
