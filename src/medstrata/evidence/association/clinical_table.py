"""The clinical table of a study: read, joined with the patients of a run, and told what of it can be tested.

Original ids are matched in memory and kept nowhere; from here on a patient is its pseudonym.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medstrata.errors import InputError
from medstrata.evidence.association.columns import (
    KEY,
    NO_NAME,
    ORIGINAL,
    TimeToEvent,
    Variable,
    is_missing,
    read_time_to_event,
    read_variable,
)
from medstrata.evidence.association.patients import unit_of
from medstrata.evidence.association.table_file import TextTable, read_table
from medstrata.evidence.labels import as_listed

KEYS = ("patient", "image_id", "patient_id", "file")  # the first of them that the table has joins it with the run
TIME, EVENT = "_time", "_event"  # endings of the names of a pair of columns

NO_ID = "the row has no id"
UNKNOWN_ID = "the id is not known to this run"
SEVERAL = "the id belongs to several {}s of this run"
REPEATED = "repeats an earlier row of the same {}"
NOT_CLUSTERED = "the {} is in no cluster"
PATIENT, IMAGE = "patient", "image"  # what is counted

Column = Variable | TimeToEvent


@dataclass(frozen=True)
class ClinicalTable:
    """One row per patient, by pseudonym.

    patients : (n,) as in catalog.parquet; the image id where an image's patient is unknown
    columns : what can be tested, in the order of the file
    rows_not_used : reason and count
    columns_not_used : reason and names
    unit : what is counted, ``PATIENT``, or ``IMAGE`` where the run knows the patient of no image
    """

    patients: NDArray[np.str_]
    columns: tuple[Column, ...]
    rows_not_used: Mapping[str, int] = field(default_factory=dict)
    columns_not_used: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unit: str = PATIENT


def read_clinical_table(path: Path | str, catalog: pa.Table, sources: pa.Table) -> ClinicalTable:
    """Read a CSV or Parquet file of one row per patient, or per image, and join it with a run.

    The first of the columns ``patient`` (pseudonym), ``image_id``, ``patient_id`` (original) and ``file`` (relative to
    INPUT) joins it; the others of them are not tested, nor is a column that repeats the original ids. Case does not
    matter in names. ``NAME_time`` and ``NAME_event`` are a time to an event. What counts as missing and what cannot be
    tested says ``columns``.

    Parameters
    ----------
    catalog : catalog.parquet (``image_id``, ``patient``)
    sources : private/sources.parquet (``image_id``, ``file``, ``patient_id``)

    Raises
    ------
    InputError : the file cannot be read, has no key, fits no patient of the run, or has differing rows of one patient
    """
    path = Path(path)
    table = read_table(path)
    names = [name.lower() for name in table.names]
    key = next((names.index(name) for name in KEYS if name in names), None)
    if key is None:
        raise InputError(f"{path} has no column {', '.join(KEYS[:-1])} or {KEYS[-1]}. Name the column of ids so.")
    units = _units(table, key, catalog, sources)
    counted = PATIENT if any(catalog["patient"].to_pylist()) else IMAGE
    rows, reasons = _one_row_each(path, table, [cells[key] for cells in table.rows], units, counted)
    if not rows:
        raise InputError(
            f"{path}: none of the {len(table.rows)} rows has an id of this run in the column {names[key]}. Is it the "
            "table of another study? Pseudonyms go in the column patient, original ids in patient_id. They must "
            "agree to the letter; spreadsheets remove leading zeros."
        )
    kept = replace(table, rows=[table.rows[row] for row in rows], lines=[table.lines[row] for row in rows])
    patients = np.array([units[row] for row in rows], dtype=np.str_)
    columns, refused = _columns(kept, _originals(patients, catalog, sources))
    return ClinicalTable(patients, tuple(columns), reasons, refused, counted)


def select(
    table: ClinicalTable, patients: NDArray[np.str_], clusters: NDArray[np.integer]
) -> tuple[ClinicalTable, NDArray[np.int64]]:
    """Return the rows (n,) of the ``patients`` (P,) that are in a cluster, and their ``clusters`` (P,) as (n,)."""
    cluster_of = dict(zip(patients.tolist(), clusters.tolist(), strict=True))
    rows = np.flatnonzero([name in cluster_of for name in table.patients.tolist()])
    lost = len(table.patients) - len(rows)
    reasons = {**table.rows_not_used, **({NOT_CLUSTERED.format(table.unit): lost} if lost else {})}
    columns = tuple(column.take(rows) for column in table.columns)
    found = np.array([cluster_of[name] for name in table.patients[rows].tolist()], dtype=np.int64)
    return replace(table, patients=table.patients[rows], columns=columns, rows_not_used=reasons), found


def _units(table: TextTable, key: int, catalog: pa.Table, sources: pa.Table) -> list[str | None]:
    """Return for each row its patient: "" where the id is unknown, None where it belongs to several patients."""
    name = table.names[key].lower()
    unit = unit_of(catalog["image_id"].to_pylist(), catalog["patient"].to_pylist())
    known: dict[str, set[str]] = {}
    if name == "patient":
        known = {one: {one} for one in unit.values()}
    elif name == "image_id":
        known = {image: {one} for image, one in unit.items()}
    else:
        for value, image in zip(sources[name].to_pylist(), sources["image_id"].to_pylist(), strict=True):
            if value and value.strip() and image in unit:
                known.setdefault(value.strip(), set()).add(unit[image])
    found = []
    for cells in table.rows:
        cell = as_listed(cells[key], known) if name == "file" else cells[key]
        units = known.get(cell, {""})
        found.append(next(iter(units)) if len(units) == 1 else None)
    return found


def _one_row_each(
    path: Path, table: TextTable, ids: list[str], units: list[str | None], counted: str
) -> tuple[list[int], dict[str, int]]:
    """Return one row of each patient (or image: ``counted``), and why the others are not used."""
    keys = {number for number, name in enumerate(table.names) if name.lower() in KEYS}
    first: dict[str, int] = {}
    reasons: Counter[str] = Counter()
    for row, (cells, own, unit) in enumerate(zip(table.rows, ids, units, strict=True)):
        if not unit:
            several = SEVERAL.format(counted)
            reasons[NO_ID if is_missing(own) else several if unit is None else UNKNOWN_ID] += 1
            continue
        earlier = first.setdefault(unit, row)
        if earlier == row:
            continue
        if any(
            old != new
            for number, (old, new) in enumerate(zip(table.rows[earlier], cells, strict=True))
            if number not in keys
        ):
            raise InputError(
                f"{path}: lines {table.lines[earlier]} and {table.lines[row]} are of one {counted} and differ. "
                f"Give one row per {counted}."
            )
        reasons[REPEATED.format(counted)] += 1
    return list(first.values()), dict(reasons)


def _originals(patients: NDArray[np.str_], catalog: pa.Table, sources: pa.Table) -> list[str]:
    """Return the original id of each patient, "" where there is none."""
    unit = unit_of(catalog["image_id"].to_pylist(), catalog["patient"].to_pylist())
    pairs = zip(sources["image_id"].to_pylist(), sources["patient_id"].to_pylist(), strict=True)
    original = {unit[image]: (value or "").strip() for image, value in pairs if image in unit}
    return [original.get(name, "") for name in patients.tolist()]


def _columns(table: TextTable, originals: list[str]) -> tuple[list[Column], dict[str, tuple[str, ...]]]:
    """Return the columns that can be tested, and the names of the others by reason."""
    cells = dict(zip(table.names, map(list, zip(*table.rows, strict=True)), strict=False))
    partner = {name.lower(): name for name in table.names}
    columns: list[Column] = []
    refused: dict[str, list[str]] = {}
    for name in table.names:
        lower = name.lower()
        stem = name[: -len(TIME)] if lower.endswith(TIME) else name[: -len(EVENT)]
        other = partner.get(f"{stem.lower()}{EVENT}")
        if lower.endswith(EVENT) and stem and f"{stem.lower()}{TIME}" in partner:
            continue  # read with its time
        found: Column | str
        if lower in KEYS:
            found = "" if lower == next(key for key in KEYS if key in partner) else KEY
        elif not name:
            found = NO_NAME
        elif _repeats(cells[name], originals):
            found = ORIGINAL
        elif lower.endswith(TIME) and stem and other is not None:
            found = read_time_to_event(stem, cells[name], cells[other], table.decimal_comma)
        else:
            found = read_variable(name, cells[name], table.decimal_comma)
        if not isinstance(found, str):
            columns.append(found)
        elif found:
            refused.setdefault(found, []).append(name)
    return columns, {reason: tuple(names) for reason, names in refused.items()}


def _repeats(cells: list[str], originals: list[str]) -> bool:
    """Whether most of the cells are the patients' original ids, under another name."""
    same = sum(1 for cell, original in zip(cells, originals, strict=True) if cell and cell == original)
    return 2 * same > len(cells)
