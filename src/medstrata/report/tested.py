"""What testing the activation maps came to (``maps/check.json``): sentences and a table, rules above controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SHOWN = {
    "average_precision": "average precision",
    "pointing": "peak inside",
    "deletion": "deletion",
    "insertion": "insertion",
    "own_runner_up": "own / runner-up",
    "shuffled_100": "weights shuffled",
    "noise": "noise",
    "moved": "moved",
    "other_seed": "other seed",
}
"""Measures of the table and their headings, in this order; those that were not measured are left out."""


@dataclass(frozen=True)
class TestedMaps:
    """``headings`` of the table; ``rows``: name, whether it is a control, and one cell per heading."""

    images: int
    sentences: list[str]
    headings: list[str]
    rows: list[tuple[str, bool, list[str]]]


def read_tests(check: Mapping[str, Any]) -> TestedMaps | None:
    """Return what the report shows of ``maps/check.json``, None where the maps were not tested."""
    if not check:
        return None
    rules, controls = check["rules"], check["controls"]
    known = [name for name in SHOWN if any(name in measures for measures in rules.values())]
    rows = [(name, False, _cells(measures, known)) for name, measures in rules.items()]
    rows += [(name, True, _cells(measures, known)) for name, measures in controls.items()]
    return TestedMaps(check["images"], list(check["verdict"]), [SHOWN[name] for name in known], rows)


def _cells(measures: Mapping[str, Mapping[str, float | None]], names: list[str]) -> list[str]:
    return [_cell(measures.get(name)) for name in names]


def _cell(found: Mapping[str, float | None] | None) -> str:
    if found is None or found["mean"] is None or found["low"] is None or found["high"] is None:
        return ""
    return f"{found['mean']:.2f} ({found['low']:.2f} to {found['high']:.2f})"
