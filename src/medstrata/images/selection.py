"""Which images of a catalog take part under a plan, and why the others do not. A pure function of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medstrata.errors import InputError, PlanError
from medstrata.images.batch_columns import check_adjust_for
from medstrata.images.catalog import Catalog
from medstrata.images.intensity import intensity_class
from medstrata.images.plan import Plan, check_values, nearest

Row = dict[str, Any]

MIN_SLICES = 8  # a stack with fewer slices is taken as slices, not as a volume
LOCALIZERS = ("localizer", "scout")
NOT_SELECTABLE = ("reason", "skipped", "image_id", "geometry_note")

BURNED_IN = "The image may carry burned-in text, such as a name; --include-burned-in takes such images."
LOCALIZER = "A localizer shows the planning of a scan, not the scan; --goal categories takes it."
NOT_SELECTED = "Left out by --select."
NOT_A_VOLUME = f"A volume needs at least {MIN_SLICES} slices; --goal categories takes slices and single images."
NO_INTENSITY_RULE = "The plan has no intensity rule for this class of image; add one under 'intensity' in plan.json."
RECONSTRUCTION_RULE = "the thinnest slice spacing, then the kernel that most studies have, then the most slices"
ADVICE = {
    "not_selected": "change or drop --select",
    "burned_in": "give --include-burned-in",
    "localizer": "give --goal categories",
    "no_intensity_rule": "add a rule for them under 'intensity' in plan.json",
    "not_a_volume": "give --goal categories",
    "irregular_geometry": "give --goal categories, which takes single slices",
}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One image that does not take part: a row of ``left_out.parquet``."""

    image_id: str
    stage: str  # "scan", "plan" or "decode"
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """The images that take part, in the order of the catalog, and those that do not."""

    rows: list[Row]
    left_out: list[LeftOut]


def choose_images(catalog: Catalog, plan: Plan) -> Chosen:
    """Return the images of ``catalog`` that take part under ``plan``, and a reason for each other one."""
    rows = image_rows(catalog)
    chosen = choose_rows(rows, plan.goal, plan.select, plan.include_burned_in, plan.dimensions, plan.kind)
    ruled = [row for row in chosen.rows if intensity_class(row) in plan.intensity]
    unruled = [row for row in chosen.rows if intensity_class(row) not in plan.intensity]
    left_out = [LeftOut(row["image_id"], "plan", "no_intensity_rule", NO_INTENSITY_RULE) for row in unruled]
    return Chosen(ruled, chosen.left_out + left_out)


def image_rows(catalog: Catalog) -> list[Row]:
    """Return the catalog's images (not its skipped files) as dictionaries."""
    rows: list[Row] = catalog.images().to_pylist()
    return rows


def choose_rows(
    rows: Iterable[Row],
    goal: str,
    select: Mapping[str, str],
    include_burned_in: bool,
    dimensions: int,
    kind: Mapping[str, str] | None = None,
) -> Chosen:
    """Do the work of ``choose_images`` on rows of the catalog, for the decisions of a plan that it depends on.

    ``kind``: the one kind of image that goal ``subtypes`` takes; by default the commonest.
    """
    taken: list[Row] = []
    left_out: list[LeftOut] = []
    for row in rows:
        problem = _row_problem(row, goal, select, include_burned_in, dimensions)
        if problem is None:
            taken.append(row)
        else:
            left_out.append(LeftOut(row["image_id"], "plan", *problem))
    if goal == "subtypes" and taken:
        taken = _of_kind(taken, dict(kind or main_kind(taken)), left_out)
        taken = _one_per_study(taken, left_out)
    return Chosen(taken, left_out)


def _row_problem(
    row: Row, goal: str, select: Mapping[str, str], include_burned_in: bool, dimensions: int
) -> tuple[str, str] | None:
    if not all(matches(row, column, value) for column, value in select.items()):
        return "not_selected", NOT_SELECTED
    if row["burned_in"] in ("yes", "likely") and not include_burned_in:
        return "burned_in", BURNED_IN
    if goal == "subtypes" and row["series_class"] in LOCALIZERS:
        return "localizer", LOCALIZER
    return _volume_problem(row) if dimensions == 3 else None


def matches(row: Row, column: str, value: str) -> bool:
    """Whether ``--select column=value`` takes the row; case does not matter, numbers are compared as numbers."""
    found = row.get(column)
    if isinstance(found, int | float) and not isinstance(found, bool):
        try:
            return float(value) == float(found)
        except ValueError:
            return False
    return ("" if found is None else str(found)).casefold() == value.casefold()


def _volume_problem(row: Row) -> tuple[str, str] | None:
    if row["slices"] < MIN_SLICES or is_cine(row):
        return "not_a_volume", NOT_A_VOLUME
    if row["geometry"] != "regular" and not _is_bare_volume(row):
        note = row["geometry_note"] or "The slices do not form a regular volume."
        return "irregular_geometry", f"{note} Not taken as a volume ({row['geometry'].replace('_', ' ')})."
    return None


def _is_bare_volume(row: Row) -> bool:
    """An array of volumes: no positions in mm, but a stack by its shape."""
    return bool(row["format"] == "array" and row["unit"] == "series")


def is_volume(row: Row) -> bool:
    """Whether the row can take part in three dimensions."""
    return _volume_problem(row) is None


def is_cine(row: Row) -> bool:
    """Whether the row's frames are moments or pages, not slices of a body."""
    return bool(row["geometry"] == "none" and row["slices"] > 1 and not _is_bare_volume(row))


def kind_of(row: Row) -> dict[str, str]:
    """Name what kind of image a row is, as columns and values that ``--select`` understands."""
    kind = {"modality": row["modality"], "body_part": row["body_part"], "unit": row["unit"]}
    if row["modality"] == "MR":  # T1 and T2 of one head differ more than two heads do
        kind["series_class"] = row["series_class"]
    return kind


def kind_in_words(kind: Mapping[str, str]) -> str:
    """``{"modality": "CT", "body_part": "chest", "unit": "series"}`` -> ``CT chest series``."""
    unit = "volumes" if kind["unit"] == "series" else "single images"
    return " ".join([*(value for name, value in kind.items() if name != "unit" and value), unit])


def main_kind(rows: Iterable[Row]) -> dict[str, str]:
    """Return the kind that most rows have; the first in alphabetical order among equals."""
    counts = Counter(tuple(kind_of(row).items()) for row in rows)
    return dict(min(counts.items(), key=lambda item: (-item[1], item[0]))[0])


def _of_kind(rows: list[Row], main: dict[str, str], left_out: list[LeftOut]) -> list[Row]:
    taken = []
    for row in rows:
        kind = kind_of(row)
        if kind == main:
            taken.append(row)
            continue
        differing = " ".join(f"--select {name}={value}" for name, value in kind.items() if value != main.get(name))
        reason = f"This run takes {kind_in_words(main)}; {differing} takes images like this one."
        left_out.append(LeftOut(row["image_id"], "plan", "other_kind", reason))
    return taken


def _one_per_study(rows: list[Row], left_out: list[LeftOut]) -> list[Row]:
    """Keep one series of each study, the first in the catalog among equals; single images are all kept."""
    kernels = Counter(kernel for _, kernel in {(row["study"], row["kernel"]) for row in rows})

    def order(row: Row) -> tuple[bool, float, int, int]:
        spacing = round(row["spacing_slices"] or np.inf, 1)
        return row["geometry"] != "regular", spacing, -kernels[row["kernel"]], -row["slices"]

    best: dict[str, Row] = {}
    for row in rows:
        study = row["study"]
        if study and row["unit"] == "series" and (study not in best or order(row) < order(best[study])):
            best[study] = row
    taken = []
    for row in rows:
        if row["unit"] != "series" or not row["study"] or best[row["study"]] is row:
            taken.append(row)
        else:
            reason = _other_reconstruction(best[row["study"]])
            left_out.append(LeftOut(row["image_id"], "plan", "other_reconstruction", reason))
    return taken


def _other_reconstruction(taken: Row) -> str:
    """Say which series of the study is taken."""
    kernel = f"kernel {taken['kernel']}, " if taken["kernel"] else ""
    step = f"{taken['spacing_slices']:.2f} mm between slices, " if taken["spacing_slices"] else ""
    which = f"{kernel}{step}{taken['slices']} slices"
    return f"Another series of the same study is taken: {which} ({RECONSTRUCTION_RULE})."


def slice_numbers(row: Row, dimensions: int, slices_per_volume: int) -> list[int] | None:
    """Return which slices of the row's stack enter; ``None``: the image as a whole.

    In two dimensions a volume enters as ``slices_per_volume`` slices between 40 and 60 % of its way along the
    normal (fewer where it has fewer), a cine as its central frame.
    """
    if dimensions == 3 or row["slices"] <= 1:
        return None
    count = 1 if is_cine(row) else slices_per_volume
    parts = np.linspace(0.4, 0.6, count) if count > 1 else np.array([0.5])
    return sorted({int(number) for number in np.floor(parts * (row["slices"] - 1) + 0.5)})


def check_plan(plan: Plan, catalog: Catalog) -> Chosen:
    """Return ``choose_images(catalog, plan)`` after asking whether the plan fits the catalog for a fit.

    Raises
    ------
    PlanError : impossible values; a column of ``select`` that the catalog does not have, or one of ``adjust_for`` that
        tells no batches; fewer than two images; more clusters than images
    InputError : no image is left, with counts per reason and the option that takes them
    """
    check_values(plan)
    check_select(plan.select, image_rows(catalog))
    chosen = choose_images(catalog, plan)
    check_count(chosen, plan.n_clusters)
    check_adjust_for(plan.adjust_for, chosen.rows)
    return chosen


def check_count(chosen: Chosen, n_clusters: int | str) -> None:
    """Raise where the chosen images are too few: see ``check_plan``."""
    count = len(chosen.rows)
    if count == 0:
        raise nothing_left(chosen.left_out)
    if count == 1:
        raise PlanError(
            "Only one image takes part, and one image cannot be clustered. " + _what_is_left_out(chosen.left_out)
        )
    if isinstance(n_clusters, int) and n_clusters > count:
        raise PlanError(
            f"{n_clusters} clusters are asked for, but only {count} images take part. "
            f"Give --clusters {max(2, count // 10)}, or add images. " + _what_is_left_out(chosen.left_out)
        )


def nothing_left(left_out: Iterable[LeftOut]) -> InputError:
    """Say why no image is left: counts per reason, and what to do about the reasons that have a remedy."""
    return InputError("No image is left to cluster. " + _what_is_left_out(left_out))


def _what_is_left_out(left_out: Iterable[LeftOut]) -> str:
    counts = Counter(item.code for item in left_out)
    if not counts:
        return "Nothing was left out."
    parts = ", ".join(f"{count} {code.replace('_', ' ')}" for code, count in counts.most_common())
    advice = "; ".join(f"for {code.replace('_', ' ')}: {ADVICE[code]}" for code in counts if code in ADVICE)
    return f"Left out: {parts}." + (f" To take them, {advice}." if advice else " Name an INPUT with more images.")


def check_select(select: Mapping[str, str], rows: list[Row]) -> None:
    """Raise ``PlanError`` where ``select`` names a column the catalog lacks, or a value that no image has."""
    if not rows:
        return
    columns = [name for name in rows[0] if name not in NOT_SELECTABLE]
    for column, value in select.items():
        if column not in columns:
            raise PlanError(f"--select: the catalog has no column '{column}'.{nearest(column, columns)}")
        if not any(matches(row, column, value) for row in rows):
            counts = Counter("" if row[column] is None else str(row[column]) for row in rows)
            shown = ", ".join(f"'{found}' ({count})" for found, count in counts.most_common(20))
            raise PlanError(f"--select: no image has {column} = '{value}'. Values in the catalog: {shown}.")
