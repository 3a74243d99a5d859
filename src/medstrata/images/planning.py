"""From the catalog to a plan: each decision follows from the headers alone and carries its reason."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medstrata.errors import InputError, PlanError
from medstrata.images.augmentation_rule import choose_augmentation
from medstrata.images.batch_columns import check_adjust_for
from medstrata.images.catalog import Catalog
from medstrata.images.grid_rule import choose_grid, crops_to_content
from medstrata.images.intensity import WINDOWS, intensity_class, rule_for
from medstrata.images.plan import GOALS, Plan, check_values
from medstrata.images.selection import (
    LOCALIZERS,
    Row,
    check_count,
    check_select,
    choose_rows,
    image_rows,
    is_volume,
    kind_in_words,
    main_kind,
    matches,
    nothing_left,
    slice_numbers,
)

MIXED_SHARE = 0.05  # a second kind of at least this share makes an archive mixed
KIND_SHARE = 0.01  # a kind counts as a category from this share on
MOST_CATEGORIES = 30
CLUSTERS_UNKNOWN, CLUSTERS_SUBTYPES = 10, 3
SLICES_PER_VOLUME = 3
BATCH_SIZES = {2: ((1_000, 64), (10_000, 128), (None, 256)), 3: ((100, 8), (1_000, 16), (None, 32))}
AUTO = "auto"
AUGMENTING = (AUTO, "contrastive", "deepmcat")  # the methods that learn from images changed at random
OF_VOLUMES = {"dcec": {"clustering_weight": 0.1}}
ENOUGH_FOR_AUTO = 200  # images; learning to tell views of them apart needs many
MAPS_PER_CLUSTER = {2: 24, 3: 40}
CATEGORIES_WINDOW = "CT chest"  # of all CT: air, lungs and soft tissue are told apart in it


@dataclass(frozen=True)
class PlanOptions:
    """What the user asked for; ``None`` leaves the decision to the catalog. ``select``: texts ``COLUMN=VALUE``."""

    goal: str | None = None
    select: Sequence[str] = ()
    n_clusters: int | str | None = None  # "auto": found in the embeddings, see ``learning.cluster_number``
    method: str | None = None  # "auto", as None: the one that suits the images
    seed: int | None = None
    include_burned_in: bool = False
    adjust_for: Sequence[str] = ()  # columns of the catalog that tell batches


def make_plan(catalog: Catalog, options: PlanOptions | None = None) -> Plan:
    """Choose everything between catalog and pixels from the catalog.

    Raises
    ------
    InputError : no image is left
    PlanError : an option that the catalog contradicts (see ``selection.check_plan``)
    """
    options = options or PlanOptions()
    rows = image_rows(catalog)
    if not rows:
        raise InputError("INPUT holds no image that can be read. The catalog says why for each file.")
    select = parse_select(options.select)
    check_select(select, rows)
    reasons: dict[str, str] = {}
    goal = _goal(rows, options, select, reasons)
    dimensions = _dimensions(rows, goal, select, options.include_burned_in, reasons)
    chosen = choose_rows(rows, goal, select, options.include_burned_in, dimensions)
    if not chosen.rows:
        raise nothing_left(chosen.left_out)
    _reason_images(chosen.rows, Counter(item.code for item in chosen.left_out), reasons)
    n_clusters = _n_clusters(chosen.rows, goal, options.n_clusters, reasons)
    check_count(chosen, n_clusters)
    check_adjust_for(options.adjust_for, chosen.rows)
    if options.adjust_for:
        reasons["adjust_for"] = "As asked for. Valid only if every group is in every batch, see docs/adjusting.md."
    grid, spacing = choose_grid(chosen.rows, goal, dimensions, reasons)
    crops = crops_to_content(chosen.rows, goal, spacing, reasons)
    channels = _channels(chosen.rows, reasons)
    intensity = _intensity(chosen.rows, goal, reasons)
    method, reasons["method"] = choose_method(len(chosen.rows), dimensions, options.method)
    if len(chosen.rows) > Plan.fit_images:
        reasons["fit_images"] = (
            f"Of {len(chosen.rows)} images so many are drawn at random to fit on, which takes hours on a CPU as it is; "
            "all are assigned. A larger number in plan.json takes longer."
        )
    plan = Plan(
        goal=goal,
        include_burned_in=options.include_burned_in,
        dimensions=dimensions,
        grid=grid,
        spacing=spacing,
        slices_per_volume=SLICES_PER_VOLUME,
        channels=channels,
        stored_as=_stored_as(intensity, reasons),
        intensity=intensity,
        method=method,
        n_clusters=n_clusters,
        batch_size=0,
        seed=options.seed or 0,
        maps_per_cluster=MAPS_PER_CLUSTER[dimensions],
        crop_to_content=crops,
        augmentation=_augmentation(method, chosen.rows, channels, reasons),
        settings=_settings(method, dimensions, reasons),
        select=select,
        adjust_for=list(options.adjust_for),
        kind=main_kind(chosen.rows) if goal == "subtypes" else {},
        reasons=reasons,
    )
    return _with_batch_size(plan, chosen.rows)


def parse_select(texts: Sequence[str]) -> dict[str, str]:
    """Turn ``COLUMN=VALUE`` texts into a dictionary; ``PlanError`` for any other text or a column given twice."""
    select: dict[str, str] = {}
    for text in texts:
        column, equals, value = text.partition("=")
        if not equals or not column.strip():
            raise PlanError(f"--select takes COLUMN=VALUE, such as --select modality=CT, not '{text}'.")
        if column.strip() in select:
            raise PlanError(f"--select names the column '{column.strip()}' twice; an image can only match one value.")
        select[column.strip()] = value.strip()
    return select


def _goal(rows: list[Row], options: PlanOptions, select: dict[str, str], reasons: dict[str, str]) -> str:
    if options.goal is not None:
        if options.goal not in GOALS:
            raise PlanError(f"--goal is '{options.goal}', but must be {' or '.join(GOALS)}.")
        reasons["goal"] = "As asked for."
        return options.goal
    eligible = choose_rows(rows, "categories", select, options.include_burned_in, 2).rows
    images = [row for row in eligible if row["series_class"] not in LOCALIZERS] or eligible
    kinds = _kinds(images)
    if not any(modality or part for modality, part, _ in kinds):
        if images and all(is_volume(row) for row in images):
            reasons["goal"] = "The headers name no kind, and all images are volumes: taken as of one kind."
            return "subtypes"
        reasons["goal"] = "The headers do not say what the images show, so they are sorted into categories first."
        return "categories"
    if len(kinds) > 1 and kinds.most_common(2)[1][1] >= MIXED_SHARE * len(images):
        reasons["goal"] = f"The headers name {len(kinds)} kinds of image; --goal subtypes looks within the commonest."
        return "categories"
    reasons["goal"] = "Nearly all images are of one kind: groups are looked for within it."
    return "subtypes"


def _kinds(rows: list[Row]) -> Counter[tuple[str, str, str]]:
    return Counter((row["modality"], row["body_part"], row["unit"]) for row in rows)


def _dimensions(
    rows: list[Row], goal: str, select: dict[str, str], include_burned_in: bool, reasons: dict[str, str]
) -> int:
    if goal == "categories":
        reasons["dimensions"] = "Categories put everything on one 2-D grid; a volume enters as central slices."
        return 2
    images = [
        row
        for row in choose_rows(rows, "categories", select, include_burned_in, 2).rows
        if row["series_class"] not in LOCALIZERS
    ]
    main = main_kind(images) if images else {}
    of_main = [row for row in images if all(matches(row, column, value) for column, value in main.items())]
    volumes = sum(is_volume(row) for row in of_main)
    if volumes and 2 * volumes >= len(of_main):
        reasons["dimensions"] = f"{volumes} of {len(of_main)} {kind_in_words(main)} are regular stacks of slices."
        return 3
    reasons["dimensions"] = f"Only {volumes} of {len(of_main)} images of the commonest kind are regular volumes."
    return 2


def _reason_images(rows: list[Row], left_out: Counter[str], reasons: dict[str, str]) -> None:
    total = len(rows) + left_out.total()
    parts = ", ".join(f"{count} {code.replace('_', ' ')}" for code, count in left_out.most_common())
    reasons["images"] = f"{len(rows)} of {total} images take part" + (f"; left out: {parts}." if parts else ".")
    if left_out["burned_in"]:
        reasons["include_burned_in"] = (
            f"{left_out['burned_in']} images may carry burned-in text; --include-burned-in takes them."
        )


def _n_clusters(rows: list[Row], goal: str, asked: int | str | None, reasons: dict[str, str]) -> int | str:
    if isinstance(asked, str):
        if asked != "auto":
            raise PlanError(f"--clusters is '{asked}', but must be a whole number or auto.")
        reasons["n_clusters"] = "As many as the embeddings show; the report says how many and by which rule."
        return asked
    if asked is not None:
        if asked < 2:
            raise PlanError(f"--clusters is {asked}, but at least 2 clusters are needed.")
        reasons["n_clusters"] = "As asked for."
        return asked
    kinds = _kinds(rows)
    common = sum(count >= KIND_SHARE * len(rows) for count in kinds.values())
    if goal == "categories" and common > 1:
        reasons["n_clusters"] = (
            f"The headers name {common} kinds of image with a share of at least {KIND_SHARE:.0%}. "
            "This is only a start; the report shows whether clusters should be split or joined."
        )
        return max(2, min(common, MOST_CATEGORIES, len(rows)))
    reasons["n_clusters"] = (
        "Nothing in the headers tells the number of groups. This is only a start: look at the report, then try others "
        "with --clusters."
    )
    start = CLUSTERS_UNKNOWN if goal == "categories" else CLUSTERS_SUBTYPES
    return max(2, min(start, len(rows) // 10))


def choose_method(count: int, dimensions: int, asked: str | None = None) -> tuple[str, str]:
    """Return the name of the method for ``count`` images of 2 or 3 ``dimensions``, and the reason."""
    if asked not in (None, AUTO):
        return asked, "As asked for."
    if dimensions == 3:
        return "dcec", "On volumes it is the quickest method on a CPU, and the one that activation maps were made for."
    if count < ENOUGH_FOR_AUTO:
        return "dcec", f"With fewer than {ENOUGH_FOR_AUTO} images a plain method is the safest."
    return AUTO, "Two runs of DeepMCAT, read as one, with their disagreement: a fixed recipe, see docs/results.md."


def _settings(method: str, dimensions: int, reasons: dict[str, str]) -> dict[str, Any]:
    settings = OF_VOLUMES.get(method, {}) if dimensions == 3 else {}
    if settings:
        reasons["settings"] = "The paper's weight, on its kind of image: clusters of few volumes are steadier with it."
    return dict(settings)


def _augmentation(method: str, rows: list[Row], channels: int, reasons: dict[str, str]) -> str:
    name, reasons["augmentation"] = choose_augmentation(rows, channels)
    if method not in AUGMENTING:
        reasons["augmentation"] = f"The method {method} learns from the images as they are: this is for the others."
    return name


def _channels(rows: list[Row], reasons: dict[str, str]) -> int:
    colour = sum(row["channels"] >= 3 for row in rows)
    if 2 * colour > len(rows):
        reasons["channels"] = f"{colour} of {len(rows)} images are in colour; grey ones are repeated."
        return 3
    if colour:
        reasons["channels"] = f"Only {colour} of {len(rows)} images are in colour: their luminance is taken."
    return 1


def _intensity(rows: list[Row], goal: str, reasons: dict[str, str]) -> dict[str, dict[str, Any]]:
    classes: dict[str, list[Row]] = {}
    for row in rows:
        classes.setdefault(intensity_class(row), []).append(row)
    reasons["intensity"] = "Each class of images by its own rule, each image alone; nothing is fitted to the set."
    rules = {}
    for name in sorted(classes):
        lows = [row["value_low"] for row in classes[name]]
        highs = [row["value_high"] for row in classes[name]]
        known = None not in lows and None not in highs
        rules[name] = rule_for(name, min(lows), max(highs)) if known else rule_for(name, None, None)
        if (
            goal == "categories" and len(classes) > 1 and name in WINDOWS
        ):  # a wrong body part must not change the pixels it is checked by
            rules[name] = rule_for(CATEGORIES_WINDOW, None, None)
    return rules


def _stored_as(intensity: dict[str, dict[str, Any]], reasons: dict[str, str]) -> str:
    if all(name == "8-bit" and rule["high"] == 255 for name, rule in intensity.items()):
        reasons["stored_as"] = "All images have 8 bits."
        return "uint8"
    reasons["stored_as"] = "Some images have more than 8 bits."
    return "uint16"


def _with_batch_size(plan: Plan, rows: list[Row]) -> Plan:
    count = sum(len(slice_numbers(row, plan.dimensions, plan.slices_per_volume) or [0]) for row in rows)
    size = next(size for most, size in BATCH_SIZES[plan.dimensions] if most is None or count < most)
    plan = dataclasses.replace(plan, batch_size=size)
    check_values(plan)
    return plan
