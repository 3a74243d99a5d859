"""Whether the clusters are to be believed (``validation.json``): sentences, a table and figures for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medstrata.report.confounded import Technical
from medstrata.report.validity_figures import consensus_figure, null_figure, number_figure, without_curve
from medstrata.report.wording import things

MOST_IN_VERDICT = 3  # clusters that are named in the one sentence of the verdict
RECOVERY = ("seeds", "patients")
BESIDE_THE_NULL = {
    "replication": "Agreement of fits on two halves of the patients (adjusted Rand index)",
    "separation": "How far apart the clusters lie in images that a fit did not see (silhouette)",
    "gap": "Gap between the clusters (above 1: more than between pieces of a continuum)",
}


@dataclass(frozen=True)
class ClusterVerdict:
    """One row of the table: Jaccard indices in words ("" where unknown), ``verdict`` and its sentence."""

    number: int
    supported: bool
    recovery: list[str]
    sentence: str


@dataclass(frozen=True)
class Validity:
    """What the report says of ``validation.json``; figures are data URIs, "" where there is nothing to draw."""

    provisional: bool
    supported: bool
    sentence: str
    clusters: list[ClusterVerdict]
    numbers: list[tuple[str, str]] = field(default_factory=list)
    null: str = ""
    consensus: str = ""
    cluster_number: str = ""
    cluster_number_sentence: str = ""
    without_curve: str = ""
    remark: str = ""
    outcome: str = "not supported"

    @property
    def whole(self) -> str:
        """The sentence and the remark."""
        return f"{self.sentence} {self.remark}".rstrip()

    def verdict(self, technical: Technical | None) -> str:
        """Return the sentence, with the clusters that are a scanner: stable clusters may be no more than that."""
        named = technical.named if technical and self.supported else []
        if len(named) > MOST_IN_VERDICT:
            return f"{self.sentence.removesuffix('.')}; {len(named)} of them follow how the images were made."
        return "; ".join([self.sentence.removesuffix("."), *(_uncapitalised(one.short) for one in named)]) + "."

    @property
    def count_words(self) -> str:
        """How many clusters are supported: "none of 4", "3 of 4"."""
        supported = sum(row.supported for row in self.clusters)
        return f"{supported or 'none'} of {len(self.clusters)}"


def read_validity(found: Mapping[str, Any] | None, folder: Path) -> Validity | None:
    """Return what the report shows of ``validation.json`` and of ``validation/`` (``folder``), None without it."""
    if not found:
        return None
    clusters = [_row(entry) for entry in found["clusters"]]
    number = found.get("n_clusters") or {}
    return Validity(
        found["provisional"],
        found["supported"],
        found["sentence"],
        clusters,
        [*_numbers(found["stability"], found["null"]), *_known_classes(found.get("labels"))],
        null_figure(found["null"]) if found["null"] else "",
        _consensus(folder),
        number_figure(number) if number.get("curves") else "",
        number.get("sentence", ""),
        without_curve(number) if number.get("curves") else "",
        found.get("remark", ""),  # older runs: none
        found.get("verdict", "not supported"),
    )


def _uncapitalised(sentence: str) -> str:
    return f"{sentence[:1].lower()}{sentence[1:]}".removesuffix(".")


def _row(entry: Mapping[str, Any]) -> ClusterVerdict:
    recovery = [_two_digits(entry["recovery"][kind]) for kind in RECOVERY]
    return ClusterVerdict(entry["cluster"], entry["supported"], recovery, entry["sentence"])


def _two_digits(value: float | None) -> str:
    return "" if value is None else f"{round(value, 2) + 0.0:.2f}"  # a small negative value is 0.00, not -0.00


def _numbers(stability: Mapping[str, Any], null: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """List what was measured, with its value, in the order in which it is to be read."""
    refits = stability["refits"]
    what = "readings" if not refits["seeds"] and null is None else "refits"  # provisional: nothing was fitted again
    rows = [
        ("Agreement of fits with other random numbers", stability["seeds"]["ari"], refits["seeds"]),
        ("Agreement of fits on other patients", stability["patients"]["ari"], refits["patients"]),
        ("Agreement on patients that a fit did not see", stability["patients"]["new"], refits["patients"]),
    ]
    shown = [
        (name, f"adjusted Rand index {_spread(value)}, of {things(count, what)}")
        for name, value, count in rows
        if value["mean"] is not None
    ]
    if null:
        shown += [(name, _beside_the_null(null[key])) for key, name in BESIDE_THE_NULL.items() if key in null]
    return shown


def _known_classes(labels: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if not labels:
        return []
    agreement = f"adjusted Rand index {_two_digits(labels['ari'])}, of {things(labels['labelled'], 'images')}"
    return [("Agreement with known classes, which no fit has seen", agreement)]


def _spread(value: Mapping[str, Any]) -> str:
    return f"{_two_digits(value['mean'])}, lowest {_two_digits(value['lowest'])}"


def _beside_the_null(found: Mapping[str, Any]) -> str:
    low, high = min(found["surrogates"]), max(found["surrogates"])
    real, low_words, high_words = (_two_digits(value) for value in (found["real"], low, high))
    return f"{real}; in images without groups {low_words} to {high_words}; p = {found['p']:.2f}"


def _consensus(folder: Path) -> str:
    files = [folder / name for name in ("consensus_matrix.npy", "consensus_clusters.npy")]
    if not all(file.is_file() for file in files):
        return ""
    matrix, clusters = (np.load(file, allow_pickle=False) for file in files)
    return consensus_figure(matrix, clusters)
