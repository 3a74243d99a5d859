"""How often each criterion for the number of clusters is right: the tables of docs/number-of-clusters.md.

python -m benchmarks.validity.cluster_number [--sets NAME ...] [--repeats 20] [--folder FOLDER]

Each set is one line of ``cluster_number.jsonl``; what is there is skipped, so that it can be stopped and continued.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.validity.planted import planted
from medstrata.evidence.validity.cluster_number import number_of_clusters

SETS = (
    "phantoms",
    "phantoms-few",
    "lung CT",
    "blobs",
    "mednist pca",
    "mnist-10k pca",
    "mednist deepmcat",
    "mnist-10k deepmcat",
)
GROUPS = range(1, 7)
LINES = Path(__file__).with_name("cluster_number.jsonl")
WAYS = ("recommended", "plausible")


def measure(name: str, groups: int, seed: int, folder: Path) -> dict[str, Any]:
    """Return what each criterion gives on one planted set."""
    found = number_of_clusters(planted(name, groups, seed, folder))
    criteria = {criterion: curve["recommended"] for criterion, curve in found["curves"].items()}
    ways = {way: found[way] for way in WAYS}
    return {"set": name, "groups": groups, "seed": seed, "images": found["images"], **ways, "criteria": criteria}


def table(lines: list[dict[str, Any]]) -> str:
    """Return, for each set, the share of right answers by planted number (rows) and criterion (columns)."""
    parts = []
    for name in dict.fromkeys(line["set"] for line in lines):
        own = [line for line in lines if line["set"] == name]
        criteria = list(own[0]["criteria"])
        head = ["planted K", "sets", "**recommended**", "among plausible", *criteria]
        rows = [head, ["---"] * len(head)]
        for groups in sorted({line["groups"] for line in own}):
            some = [line for line in own if line["groups"] == groups]
            given = [[line["recommended"] == groups for line in some], [groups in line["plausible"] for line in some]]
            given += [[line["criteria"][criterion] == groups for line in some] for criterion in criteria]
            rows.append([str(groups), str(len(some)), *(f"{sum(right) / len(right):.2f}" for right in given)])
        parts.append(f"### {name}\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows))
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=SETS)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path("build/cluster-number"))
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in LINES.read_text().splitlines()] if LINES.exists() else []
    there = {(line["set"], line["groups"], line["seed"]) for line in lines}
    wanted = [(name, k, seed) for name in options.sets for seed in range(options.repeats) for k in GROUPS]
    for name, groups, seed in [key for key in wanted if key not in there]:
        lines.append(measure(name, groups, seed, options.folder))
        with LINES.open("a") as file:
            file.write(json.dumps(lines[-1]) + "\n")
    print(table(lines))


if __name__ == "__main__":
    main()
