"""What testing the activation maps came to (``maps/check.json``): sentences and a table, rules above controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SHOWN = {
    "average_precision": "average precision",
    "pointing": "peak inside",
    "dice": "Dice",
    "energy": "strength inside",
    "distractor_share": "on mask, not distractor",
    "peak_on_distractor": "peak on distractor",
    "deletion": "deletion",
    "insertion": "insertion",
    "own_runner_up": "own / runner-up",
    "shuffled_50": "half the weights shuffled",
    "shuffled_100": "all",
    "other_images": "other images",
    "noise": "noise",
    "moved": "moved",
    "mirrored": "mirrored",
    "other_seed": "other seed",
}
"""Measures of the table and their headings, in this order; those that were not measured are left out."""


@dataclass(frozen=True)
class TestedMaps:
    """``headings`` of the table; ``rows``: name, whether it is a control, and one cell per heading."""

    images: int
    tests: list[tuple[str, str]]  # "passed", "not passed" or "", and the sentence
    headings: list[str]
    rows: list[tuple[str, bool, list[tuple[str, str]]]]  # each cell the mean and its interval

    @property
    def failed(self) -> int:
        """How many tests were not passed."""
        return sum(word == "not passed" for word, _ in self.tests)


def read_tests(check: Mapping[str, Any]) -> TestedMaps | None:
    """Return what the report shows of ``maps/check.json``, None where the maps were not tested."""
    if not check:
        return None
    rules, controls = check["rules"], check["controls"]
    known = [name for name in SHOWN if any(name in measures for measures in rules.values())]
    rows = [(name, False, _cells(measures, known)) for name, measures in rules.items()]
    rows += [(name, True, _cells(measures, known)) for name, measures in controls.items()]
    words = {True: "passed", False: "not passed"}
    tests = [(words.get(test["passed"], ""), test["sentence"]) for test in check["verdict"]]
    return TestedMaps(check["images"], tests, [SHOWN[name] for name in known], rows)


def _cells(measures: Mapping[str, Mapping[str, float | None]], names: list[str]) -> list[tuple[str, str]]:
    return [_cell(measures.get(name)) for name in names]


def _cell(found: Mapping[str, float | None] | None) -> tuple[str, str]:
    if found is None or found["mean"] is None or found["low"] is None or found["high"] is None:
        return "", ""
    return f"{found['mean']:.2f}", f"{found['low']:.2f} to {found['high']:.2f}"
