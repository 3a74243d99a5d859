"""Table 1: the patients of each cluster side by side, as CSV and Markdown."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medstrata.evidence.association.clinical import MISSING_VALUES, NUMERIC, TIME_TO_EVENT, chance, short
from medstrata.evidence.association.clinical_table import ClinicalTable, Column, select
from medstrata.evidence.association.columns import TimeToEvent
from medstrata.evidence.association.effects import WELCH
from medstrata.run import atomic

SMALL = 5  # patients below which a cluster gets a remark

Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class TableOne:
    """``header`` and ``rows`` of text cells, a row's first cell being its variable or level; ``notes`` below them."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def table_one(
    table: ClinicalTable, patients: NDArray[np.str_], clusters: NDArray[np.integer], associated: Mapping[str, Any]
) -> TableOne:
    """Describe the patients by cluster. ``associated`` is what ``clinical.associate`` returned for the same arguments.

    Numbers that were tested by Welch's analysis of variance are given as mean (SD), all others as median [quartiles];
    categories as count (percentage of those known in the cluster), times to an event as events / patients. Columns
    that could not be tested stand in it too, without p. Clusters of fewer than ``SMALL`` patients get a remark. Where
    the run knows no patients (``table.unit``), the table is of images and says so.
    """
    chosen, group = select(table, patients, clusters)
    units = f"{table.unit}s"
    names = np.unique(group).tolist()
    parts = [np.ones(len(group), dtype=bool), *(group == name for name in names)]
    small = [name for name in names if (group == name).sum() < SMALL]
    titles = [f"Cluster {name}{' (small)' if name in small else ''}" for name in names]
    header = ("", "All", *titles, "Missing", "p", "q", "Effect (95 % interval)", "Test")
    entries = {(one["variable"], one["kind"]): one for one in associated["associations"]}
    rows = [(units.capitalize(), *(str(int(part.sum())) for part in parts), *[""] * 5)]
    for column in chosen.columns:
        kind = TIME_TO_EVENT if isinstance(column, TimeToEvent) else column.kind
        rows += _rows(column, parts, entries[column.name, kind], units)
    notes = [
        "Mean (SD) where Welch's analysis of variance was used, else median [quartiles]; count (percentage of those "
        f"known); events / {units}.",
        _corrected(associated),
    ]
    notes += [one["sentence"] for one in _of_missing_values(associated) if one["finding"]]
    notes += [f"{remark}." for remark in associated["remarks"]]
    if small:
        notes.append(f"Small: fewer than {SMALL} {units}.")
    return TableOne(header, tuple(rows), tuple(notes))


def _of_missing_values(associated: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in associated["associations"] if one["kind"] == MISSING_VALUES and not one["reason"]]


def _corrected(associated: Mapping[str, Any]) -> str:
    """Say for how many tests p was corrected: those of missing values have no row of their own."""
    missing = [one["variable"] for one in _of_missing_values(associated)]
    of_missing = f"{len(missing)} of how often a value is missing ({', '.join(missing)}), without a p above"
    rest = f"; among them {of_missing}" if missing else ""
    return f"q: p corrected for all {associated['tests']} tests of the table (Benjamini-Hochberg){rest}."


def write_table_one(folder: Path, table: TableOne) -> None:
    """Write ``table_one.csv`` and ``table_one.md`` into ``folder``.

    Raises
    ------
    RunFolderError : the folder cannot be written
    """
    with atomic(folder / "table_one.csv") as part, open(part, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([table.header, *table.rows])
    with atomic(folder / "table_one.md") as part:
        part.write_text(markdown(table), encoding="utf-8")


def markdown(table: TableOne) -> str:
    """Return the table as Markdown, its notes below it."""
    lines = [table.header, ("---",) * len(table.header), *table.rows]
    text = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
    return f"{text}\n\n" + "\n\n".join(table.notes) + "\n"


def _rows(column: Column, parts: Sequence[Rows], entry: Mapping[str, Any], units: str) -> list[tuple[str, ...]]:
    tested = (str(entry["missing"]), *_tested(entry))
    if isinstance(column, TimeToEvent):
        known = ~np.isnan(column.time)
        cells = [f"{int(column.event[part & known].sum())} / {int((part & known).sum())}" for part in parts]
        return [(f"{column.name}, events / {units}", *cells, *tested)]
    if column.kind == NUMERIC:
        mean = entry["test"] == WELCH
        numbers = np.asarray(column.values, dtype=np.float64)
        title = f"{column.name}, {'mean (SD)' if mean else 'median [quartiles]'}"
        return [(title, *(_summary(numbers[part], mean) for part in parts), *tested)]
    text = np.asarray(column.values, dtype=np.str_)
    levels = np.unique(text[text != ""]).tolist()
    first = (f"{column.name}, n (%)", *[""] * len(parts), *tested)
    return [first, *((f"  {level}", *(_share(text[part], level) for part in parts), *[""] * 5) for level in levels)]


def _tested(entry: Mapping[str, Any]) -> tuple[str, str, str, str]:
    if entry["reason"]:
        return "", "", "", f"not tested: {entry['reason']}"
    effect = ""
    if entry["effect"] is not None:
        low, high = short(entry["low"]), short(entry["high"])
        effect = f"{entry['effect_name']} {short(entry['effect'])} ({low} to {high})"
    p, q = (chance(name, entry[name]).removeprefix(f"{name} ").removeprefix("= ") for name in "pq")
    return p, q, effect, entry["test"]


def _summary(values: NDArray[np.float64], mean: bool) -> str:
    known = values[~np.isnan(values)]
    if not len(known):
        return "–"
    if mean:
        return f"{known.mean():.4g} ({known.std(ddof=1):.3g})" if len(known) > 1 else f"{known[0]:.4g} (–)"
    low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
    return f"{middle:.4g} [{low:.4g}, {high:.4g}]"


def _share(values: NDArray[np.str_], level: str) -> str:
    known = int((values != "").sum())
    count = int((values == level).sum())
    return f"{count} ({100 * count / known:.0f} %)" if known else "–"
