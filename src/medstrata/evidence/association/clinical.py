"""Every column of a clinical table against the clusters of the patients, corrected over all tests, in plain words."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medstrata.evidence.association.clinical_table import ClinicalTable, Column, select
from medstrata.evidence.association.columns import TimeToEvent, Variable
from medstrata.evidence.association.effects import (
    DRAWS,
    Association,
    NotTested,
    benjamini_hochberg,
    categorical_association,
    numeric_association,
)
from medstrata.evidence.association.survival import SurvivalAssociation, survival_association

LEVEL = 0.05  # of the corrected p-values: the expected share of findings that are none
MISSING_UNITS = 5  # patients with and without a value, at least, for a test of missing values
MANY_TESTS, FEW_DRAWS = 200, 200  # from this many columns on, intervals take this many bootstrap draws

NUMERIC, CATEGORICAL, TIME_TO_EVENT, MISSING_VALUES = "numeric", "categorical", "time to event", "missing values"

Found = Association | SurvivalAssociation | NotTested


@dataclass(frozen=True)
class _Tested:
    variable: str
    kind: str
    found: Found


def associate(
    table: ClinicalTable, patients: NDArray[np.str_], clusters: NDArray[np.integer], seed: int = 0
) -> dict[str, Any]:
    """Test every column of ``table`` against the clusters of the patients, and whether its missing values go with them.

    Where the run knows no patients (``table.unit``), read "image" for "patient" in what follows.

    Missing values are a test of their own where at least ``MISSING_UNITS`` patients have a value and as many have
    none. All tests of the table, missing values and times to an event included, are corrected together by Benjamini
    and Hochberg. Every test is of one variable alone, nothing is adjusted for.

    Parameters
    ----------
    patients, clusters : (P,) the patients in a cluster, and the cluster of each

    Returns
    -------
    JSON-able, without NaN: ``unit`` ("patient" or "image"), ``patients`` (tested), ``without_row`` (in a cluster and
    not in the table), ``sizes`` (patients by cluster), ``rows_not_used`` (reason: count), ``columns_not_used`` (reason:
    names), ``not_tested`` (reason: count), ``remarks`` (codes that were taken as missing), ``tests``, ``findings``,
    ``level``, ``seed``, and ``associations``: per test ``variable``, ``kind``, ``test``, ``statistic``, ``p``, ``q``,
    ``effect``, ``effect_name``, ``low``, ``high``, ``n``, ``missing``, ``finding``, ``reason`` (why it was not tested),
    ``sentence``, and for a time to an event ``events`` and ``curves`` (``survival.Curve``).
    """
    chosen, group = select(table, patients, clusters)
    draws = DRAWS if len(chosen.columns) < MANY_TESTS else FEW_DRAWS
    tested = [one for column in chosen.columns for one in _tests(column, group, seed, draws)]
    p = [math.nan if isinstance(one.found, NotTested) else one.found.p for one in tested]
    entries = [_entry(one, float(q), table.unit) for one, q in zip(tested, benjamini_hochberg(p), strict=True)]
    names, sizes = np.unique(group, return_counts=True)
    reasons = [entry["reason"] for entry in entries if entry["reason"]]
    return {
        "unit": table.unit,
        "patients": len(group),
        "without_row": len(patients) - len(group),
        "sizes": dict(zip(map(str, names.tolist()), sizes.tolist(), strict=True)),
        "rows_not_used": dict(chosen.rows_not_used),
        "columns_not_used": {reason: list(columns) for reason, columns in chosen.columns_not_used.items()},
        "not_tested": {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
        "remarks": [
            f"{column.name}: {column.remark}"
            for column in chosen.columns
            if isinstance(column, Variable) and column.remark
        ],
        "tests": len(entries) - len(reasons),
        "findings": sum(entry["finding"] for entry in entries),
        "level": LEVEL,
        "seed": seed,
        "associations": entries,
    }


def _tests(column: Column, group: NDArray[np.int64], seed: int, draws: int) -> list[_Tested]:
    """Return the test of a column and, where it can be made, that of its missing values."""
    if isinstance(column, TimeToEvent):
        known = ~np.isnan(column.time)
        tested = _Tested(column.name, TIME_TO_EVENT, survival_association(column, group, seed))
    elif column.kind == NUMERIC:
        known = ~np.isnan(np.asarray(column.values, dtype=np.float64))
        tested = _Tested(column.name, NUMERIC, numeric_association(column.values, group, seed, draws))
    else:
        known = column.values != ""
        tested = _Tested(column.name, CATEGORICAL, categorical_association(column.values, group, seed, draws))
    if min(known.sum(), (~known).sum()) < MISSING_UNITS:
        return [tested]
    missing = categorical_association(np.where(known, "known", "missing"), group, seed, draws)
    return [tested, _Tested(column.name, MISSING_VALUES, missing)]


def _entry(one: _Tested, q: float, unit: str) -> dict[str, Any]:
    """Return a test as it stands in the result: every key is there, None where it has no value."""
    blank: dict[str, Any] = dict.fromkeys(("test", "statistic", "effect", "effect_name", "low", "high"))
    facts = asdict(one.found) if not isinstance(one.found, SurvivalAssociation) else vars(one.found)
    entry = {"variable": one.variable, "kind": one.kind, **blank, "p": None, "reason": "", **facts}
    if isinstance(one.found, SurvivalAssociation):
        entry["curves"] = [asdict(curve) for curve in one.found.curves]
    entry["q"] = None if math.isnan(q) else q
    entry["finding"] = not math.isnan(q) and q < LEVEL
    entry["sentence"] = sentence(entry, unit)
    return entry


def sentence(entry: dict[str, Any], unit: str) -> str:
    """Say in one sentence what an entry of ``associations`` found; ``unit``: what was counted."""
    what = {
        TIME_TO_EVENT: f"Time to {entry['variable']}",
        MISSING_VALUES: f"How often {entry['variable']} is missing",
    }.get(entry["kind"], entry["variable"])
    if entry["reason"]:
        return f"{what} was not tested: {entry['reason']}."
    found = "differs between clusters" if entry["finding"] else "was not found to differ between clusters"
    if entry["effect"] is None:
        size = f"{entry['test']}, {entry['events']} events in {entry['n']} {unit}s"
    else:
        size = f"{entry['effect_name']} {short(entry['effect'])}, {short(entry['low'])} to {short(entry['high'])}"
    return f"{what} {found} ({size}; {chance('q', entry['q'])})."


def short(value: float) -> str:
    """Return a number between 0 and 1 with two digits after the point, as ".12"."""
    return f"{value:.2f}".removeprefix("0")


def chance(name: str, value: float) -> str:
    """Return a p- or q-value as "q = .003" or "q < .001"; next to the level with a digit more."""
    if value < 0.001:
        return f"{name} < .001"
    digits = 4 if abs(value - LEVEL) < 0.001 else 3
    return f"{name} = {f'{value:.{digits}f}'.removeprefix('0')}"
