"""From catalog to plan: each decision on planted catalogs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from medstrata.errors import InputError, PlanError
from medstrata.images.plan import describe, plan_from
from medstrata.images.planning import PlanOptions, make_plan, parse_select

CatalogOf = Callable[..., Any]
CHEST = {
    "unit": "series",
    "format": "dicom",
    "modality": "CT",
    "body_part": "chest",
    "rows": 512,
    "columns": 512,
    "slices": 64,
    "bits": 16,
    "geometry": "regular",
    "orientation": "axial",
    "spacing_rows": 0.7,
    "spacing_columns": 0.7,
    "spacing_slices": 5.0,
}
XRAY = {"format": "dicom", "modality": "DX", "body_part": "chest", "rows": 2000, "columns": 2500, "bits": 14}
PHOTO = {"format": "png", "bits": 8, "rows": 200, "columns": 150, "value_low": 0.0, "value_high": 255.0}


def array(count: int, shape: tuple[int, ...], **values: Any) -> list[dict[str, Any]]:
    depth = shape[0] if len(shape) == 3 else 1
    row = {"format": "array", "bits": 8, "rows": shape[-2], "columns": shape[-1], "slices": depth, "geometry": "none"}
    unit = {"unit": "series" if depth > 1 else "image", "value_low": 0.0, "value_high": 255.0}
    return [row | unit | values] * count


def test_chest_volumes_are_one_kind_in_three_dimensions(catalog_of: CatalogOf) -> None:
    catalog = catalog_of([CHEST | {"study": f"s{n}"} for n in range(40)] + [XRAY])
    plan = make_plan(catalog)
    assert (plan.goal, plan.dimensions, plan.n_clusters, plan.batch_size) == ("subtypes", 3, 3, 8)
    # 512 * 0.7 = 358.4 mm / 64 = 5.6 -> 6 mm; 358.4 / 6 = 59.7 -> 64; 320 / 6 = 53.3 -> 56
    assert plan.spacing == [6.0, 6.0, 6.0]
    assert plan.grid == [56, 64, 64]
    assert plan.intensity == {"CT chest": {"rule": "window", "low": -1000.0, "high": 400.0, "units": "HU"}}
    assert (plan.channels, plan.stored_as, plan.maps_per_cluster, plan.method) == (1, "uint16", 40, "dcec")
    assert plan.reasons["images"] == "40 of 41 images take part; left out: 1 not a volume."
    assert plan.settings == {"clustering_weight": 0.1} and plan.reasons["settings"].startswith("The paper's weight")
    assert plan.reasons["augmentation"] == "The method dcec learns from the images as they are: this is for the others."
    other = make_plan(catalog, PlanOptions(method="contrastive"))
    assert other.settings == {} and other.reasons["augmentation"].startswith("CT: ")


def test_auto_is_the_method_that_suits_the_images(catalog_of: CatalogOf) -> None:
    volumes, few, many = [CHEST] * 300, [XRAY] * 199, [XRAY] * 200
    for images, method in ((volumes, "dcec"), (few, "dcec"), (many, "auto")):
        catalog = catalog_of(images)
        plan, asked = make_plan(catalog), make_plan(catalog, PlanOptions(method="auto"))
        assert plan.method == asked.method == method and plan.reasons == asked.reasons


def test_a_mixed_archive_is_sorted_into_categories(catalog_of: CatalogOf) -> None:
    images = [CHEST] * 30 + [CHEST | {"body_part": "head"}] * 30 + [XRAY] * 39 + [XRAY | {"body_part": "hand"}] * 1
    plan = make_plan(catalog_of(images))
    assert (plan.goal, plan.dimensions, plan.n_clusters) == ("categories", 2, 4)
    assert (plan.grid, plan.spacing, plan.slices_per_volume, plan.batch_size) == ([64, 64], None, 3, 64)
    assert set(plan.intensity) == {"CT chest", "CT head", "X-ray"}
    assert plan.intensity["CT head"] == plan.intensity["CT chest"]  # the body part of a header may be wrong
    assert plan.intensity["CT chest"]["low"] == -1000.0
    assert plan.crop_to_content
    assert "only a start" in plan.reasons["n_clusters"]


def test_sizes_are_kept_within_one_kind_and_in_arrays(catalog_of: CatalogOf) -> None:
    head = CHEST | {"body_part": "head", "unit": "image", "slices": 1}
    assert not make_plan(catalog_of([head] * 40)).crop_to_content
    within = make_plan(catalog_of([head] * 40), PlanOptions(goal="categories"))
    assert within.intensity["CT head"]["high"] == 80.0
    assert within.crop_to_content
    arrays = make_plan(catalog_of(array(50, (80, 90))))
    assert (arrays.goal, arrays.spacing, arrays.crop_to_content) == ("categories", None, False)


def test_few_odd_images_do_not_make_an_archive_mixed(catalog_of: CatalogOf) -> None:
    assert make_plan(catalog_of([CHEST] * 96 + [XRAY] * 4)).goal == "subtypes"
    assert make_plan(catalog_of([CHEST] * 94 + [XRAY] * 6)).goal == "categories"
    scouts = [CHEST | {"series_class": "localizer", "unit": "image", "slices": 1}] * 50
    assert make_plan(catalog_of([CHEST] * 50 + scouts)).goal == "subtypes"


def test_small_arrays_are_copied_not_interpolated(catalog_of: CatalogOf) -> None:
    plan = make_plan(catalog_of(array(2000, (28, 28))))
    assert (plan.goal, plan.grid, plan.spacing) == ("categories", [32, 32], [1.0, 1.0])
    assert (plan.stored_as, plan.n_clusters, plan.batch_size) == ("uint8", 10, 128)
    assert plan.intensity == {"8-bit": {"rule": "range", "low": 0.0, "high": 255.0}}
    assert make_plan(catalog_of(array(50, (64, 64)))).grid == [64, 64]
    assert make_plan(catalog_of(array(50, (64, 64)))).n_clusters == 5  # at most a tenth of the images


def test_arrays_of_volumes(catalog_of: CatalogOf) -> None:
    plan = make_plan(catalog_of(array(60, (30, 32, 40), bits=32, value_low=-1.0, value_high=2.0)))
    assert (plan.goal, plan.dimensions, plan.grid, plan.spacing) == ("subtypes", 3, [32, 32, 40], [1.0, 1.0, 1.0])
    assert plan.intensity == {"array": {"rule": "range", "low": -1.0, "high": 2.0}}
    assert plan.stored_as == "uint16"
    large = make_plan(catalog_of(array(60, (30, 128, 128))))
    assert (large.grid, large.spacing) == ([32, 64, 64], None)


def test_masks_of_zero_and_one_are_not_black(catalog_of: CatalogOf) -> None:
    plan = make_plan(catalog_of(array(60, (32, 32, 32), value_high=1.0)))
    assert plan.intensity == {"8-bit": {"rule": "range", "low": 0.0, "high": 1.0}}
    assert plan.stored_as == "uint16"


@pytest.mark.parametrize(
    ("side", "goal", "grid"),
    [
        (10, "categories", 32),
        (60, "categories", 64),
        (90, "categories", 64),
        (90, "subtypes", 96),
        (500, "categories", 64),
        (500, "subtypes", 96),
    ],
)
def test_side_of_the_grid_in_two_dimensions(catalog_of: CatalogOf, side: int, goal: str, grid: int) -> None:
    images = [PHOTO | {"rows": side, "columns": side + 5}, PHOTO | {"rows": side + 9, "columns": side}]
    assert make_plan(catalog_of(images), PlanOptions(goal=goal)).grid == [grid, grid]


@pytest.mark.parametrize(
    ("orientation", "grid"), [("axial", [16, 32, 64]), ("coronal", [32, 16, 64]), ("sagittal", [32, 64, 16])]
)
def test_grid_in_canonical_order(catalog_of: CatalogOf, orientation: str, grid: list[int]) -> None:
    values = {"slices": 16, "rows": 32, "columns": 64, "orientation": orientation}
    spacing = {"spacing_slices": 1.0, "spacing_rows": 1.0, "spacing_columns": 1.0}
    plan = make_plan(catalog_of([CHEST | values | spacing] * 3))
    assert (plan.grid, plan.spacing) == (grid, [1.0, 1.0, 1.0])


def test_colour_only_where_most_images_have_it(catalog_of: CatalogOf) -> None:
    colour = PHOTO | {"channels": 3}
    assert make_plan(catalog_of([colour] * 3 + [PHOTO] * 2)).channels == 3
    mixed = make_plan(catalog_of([colour] * 2 + [PHOTO] * 2))
    assert mixed.channels == 1
    assert mixed.reasons["channels"] == "Only 2 of 4 images are in colour: their luminance is taken."


def test_burned_in_text_is_counted(catalog_of: CatalogOf) -> None:
    catalog = catalog_of([PHOTO] * 20 + [PHOTO | {"burned_in": "likely"}] * 5)
    plan = make_plan(catalog)
    assert plan.reasons["include_burned_in"].startswith("5 images may carry burned-in text; --include-burned-in")
    assert plan.reasons["images"] == "20 of 25 images take part; left out: 5 burned in."
    taken = make_plan(catalog, PlanOptions(include_burned_in=True))
    assert taken.reasons["images"] == "25 of 25 images take part."


def test_options_are_followed(catalog_of: CatalogOf) -> None:
    options = PlanOptions(goal="categories", select=["modality=CT"], n_clusters=5, method="dvc", seed=3)
    plan = make_plan(catalog_of([CHEST] * 10 + [XRAY] * 10), options)
    assert (plan.goal, plan.select, plan.n_clusters) == ("categories", {"modality": "CT"}, 5)
    assert (plan.method, plan.seed) == ("dvc", 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (PlanOptions(goal="sorting"), "--goal is 'sorting', but must be categories or subtypes"),
        (PlanOptions(n_clusters=1), "at least 2 clusters"),
        (PlanOptions(n_clusters=21), "21 clusters are asked for, but only 20 images take part"),
        (PlanOptions(select=["modality"]), "--select takes COLUMN=VALUE"),
        (PlanOptions(select=["modality=CT", "modality=DX"]), "names the column 'modality' twice"),
        (PlanOptions(select=["modalty=CT"]), "Did you mean 'modality'?"),
        (PlanOptions(select=["modality=PT"]), "'CT' (10), 'DX' (10)"),
        (PlanOptions(seed=-1), "'seed'"),
    ],
)
def test_options_that_do_not_fit(catalog_of: CatalogOf, options: PlanOptions, said: str) -> None:
    with pytest.raises(PlanError) as caught:
        make_plan(catalog_of([CHEST] * 10 + [XRAY] * 10), options)
    assert said in str(caught.value)


def test_nothing_to_plan_with(catalog_of: CatalogOf) -> None:
    with pytest.raises(InputError, match="no image that can be read"):
        make_plan(catalog_of([{"skipped": "not_an_image", "reason": "Text."}]))
    with pytest.raises(InputError, match=r"2 burned in.*--include-burned-in"):
        make_plan(catalog_of([PHOTO | {"burned_in": "yes"}] * 2))


def test_every_plan_can_be_written_edited_and_read(catalog_of: CatalogOf) -> None:
    for images in ([CHEST] * 3, [PHOTO] * 3, [XRAY] * 3, [CHEST, XRAY, PHOTO], array(3, (8, 8, 8))):
        plan = make_plan(catalog_of(images))
        assert plan_from(json.loads(json.dumps(dataclasses.asdict(plan)))) == plan
        assert {"goal", "images", "grid", "intensity", "n_clusters"} <= {name for name, _, _ in describe(plan)}


def test_parse_select() -> None:
    assert parse_select(["modality=CT", " model = A=B "]) == {"modality": "CT", "model": "A=B"}
