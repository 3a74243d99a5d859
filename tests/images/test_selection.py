"""Which images take part: planted catalogs, the whole answer written out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medstrata.errors import InputError, PlanError
from medstrata.images.intensity import intensity_class
from medstrata.images.plan import Plan
from medstrata.images.selection import check_plan, choose_images, choose_rows, image_rows, slice_numbers

CatalogOf = Callable[..., Any]
VOLUME = {
    "unit": "series",
    "format": "dicom",
    "modality": "CT",
    "body_part": "chest",
    "slices": 40,
    "geometry": "regular",
    "spacing_slices": 5.0,
    "burned_in": "no",
}
PLAN = Plan(
    goal="subtypes",
    include_burned_in=False,
    dimensions=3,
    grid=[32, 32, 32],
    spacing=None,
    slices_per_volume=3,
    channels=1,
    stored_as="uint16",
    intensity={"CT chest": {"rule": "window", "low": -1000, "high": 400}},
    method="dcec",
    n_clusters=2,
    batch_size=8,
    seed=0,
    maps_per_cluster=4,
)


def chosen_and_codes(catalog: Any, plan: Plan) -> tuple[list[str], dict[str, str]]:
    rule = {"rule": "range", "low": 0, "high": 1}
    plan = dataclasses.replace(plan, intensity={intensity_class(row): rule for row in image_rows(catalog)})
    chosen = choose_images(catalog, plan)
    return [row["image_id"] for row in chosen.rows], {item.image_id: item.code for item in chosen.left_out}


def test_subtypes_leave_out_with_a_reason_each(catalog_of: CatalogOf) -> None:
    catalog = catalog_of(
        [
            VOLUME | {"image_id": "a", "study": "s1"},
            VOLUME | {"image_id": "b", "study": "s2"},
            VOLUME | {"image_id": "scout", "study": "s2", "series_class": "localizer"},
            VOLUME | {"image_id": "gap", "geometry": "missing_slice", "geometry_note": "A slice is missing at 12 mm."},
            VOLUME | {"image_id": "short", "slices": 5},
            VOLUME | {"image_id": "shot", "burned_in": "likely"},
            VOLUME | {"image_id": "head", "body_part": "head"},
            VOLUME | {"image_id": "film", "slices": 90, "geometry": "none"},
            {"image_id": "flat", "modality": "CT", "body_part": "chest"},
            {"image_id": "", "skipped": "no_pixels", "reason": "No pixels."},
        ]
    )
    taken, codes = chosen_and_codes(catalog, PLAN)
    assert taken == ["a", "b"]
    assert codes == {
        "scout": "localizer",
        "gap": "irregular_geometry",
        "short": "not_a_volume",
        "shot": "burned_in",
        "head": "other_kind",
        "film": "not_a_volume",
        "flat": "not_a_volume",
    }
    reasons = {item.image_id: item.reason for item in choose_images(catalog, PLAN).left_out}
    assert reasons["gap"] == "A slice is missing at 12 mm. Not taken as a volume (missing slice)."
    assert reasons["head"] == "This run takes CT chest volumes; --select body_part=head takes images like this one."
    assert "--include-burned-in" in reasons["shot"]


def test_categories_take_everything_but_burned_in_text(catalog_of: CatalogOf) -> None:
    catalog = catalog_of(
        [
            VOLUME | {"image_id": "a", "study": "s1"},
            VOLUME | {"image_id": "b", "study": "s1", "series_class": "localizer"},
            VOLUME | {"image_id": "gap", "geometry": "missing_slice"},
            {"image_id": "photo", "modality": "", "burned_in": "unknown"},
            {"image_id": "us", "modality": "US", "burned_in": "yes"},
        ]
    )
    plan = dataclasses.replace(PLAN, goal="categories", dimensions=2, grid=[64, 64])
    assert chosen_and_codes(catalog, plan) == (["a", "b", "gap", "photo"], {"us": "burned_in"})
    everything = dataclasses.replace(plan, include_burned_in=True)
    assert chosen_and_codes(catalog, everything) == (["a", "b", "gap", "photo", "us"], {})


def test_one_reconstruction_per_study(catalog_of: CatalogOf) -> None:
    sharp, soft = VOLUME | {"kernel": "L"}, VOLUME | {"kernel": "B"}
    catalog = catalog_of(
        [
            soft | {"image_id": "s1_soft", "study": "s1"},
            sharp | {"image_id": "s1_sharp", "study": "s1"},
            soft | {"image_id": "s2_soft", "study": "s2"},
            soft | {"image_id": "s3_thick", "study": "s3"},
            sharp | {"image_id": "s3_thin", "study": "s3", "spacing_slices": 1.0},
            soft | {"image_id": "s4_short", "study": "s4"},
            soft | {"image_id": "s4_long", "study": "s4", "slices": 60},
            soft | {"image_id": "no_study_1"},
            soft | {"image_id": "no_study_2"},
        ]
    )
    taken, codes = chosen_and_codes(catalog, PLAN)
    assert taken == ["s1_soft", "s2_soft", "s3_thin", "s4_long", "no_study_1", "no_study_2"]
    assert set(codes.values()) == {"other_reconstruction"}
    reasons = {item.image_id: item.reason for item in choose_images(catalog, PLAN).left_out}
    assert "is taken: kernel L, 1.00 mm between slices," in reasons["s3_thick"]
    flat = dataclasses.replace(PLAN, dimensions=2, grid=[64, 64])
    views = catalog_of([{"image_id": name, "modality": "MG", "study": "s1"} for name in "abcd"])
    assert chosen_and_codes(views, flat)[0] == ["a", "b", "c", "d"]  # views of one study are no reconstructions


def test_contrasts_of_mr_are_kinds(catalog_of: CatalogOf) -> None:
    mr = VOLUME | {"modality": "MR", "body_part": "head"}
    images = [mr | {"image_id": f"{c}{n}", "series_class": c, "study": f"s{n}"} for n in range(3) for c in ("t1", "t2")]
    catalog = catalog_of([*images, mr | {"image_id": "t1x", "series_class": "t1", "study": "s9"}])
    taken, codes = chosen_and_codes(catalog, PLAN)
    assert taken == ["t10", "t11", "t12", "t1x"]
    assert set(codes.values()) == {"other_kind"}
    other = dataclasses.replace(PLAN, select={"series_class": "t2"})
    assert chosen_and_codes(catalog, other)[0] == ["t20", "t21", "t22"]


def test_select_compares_texts_and_numbers(catalog_of: CatalogOf) -> None:
    catalog = catalog_of(
        [VOLUME | {"image_id": "a", "field_strength": 1.5}, VOLUME | {"image_id": "b", "field_strength": 3.0}]
    )
    by = {"field_strength": "3", "modality": "ct", "slices": "40"}
    assert chosen_and_codes(catalog, dataclasses.replace(PLAN, select=by)) == (["b"], {"a": "not_selected"})


def test_arrays_of_volumes_are_volumes(catalog_of: CatalogOf) -> None:
    array = {"unit": "series", "format": "array", "slices": 32, "geometry": "none"}
    catalog = catalog_of([array | {"image_id": name} for name in "ab"])
    assert chosen_and_codes(catalog, PLAN)[0] == ["a", "b"]


@pytest.mark.parametrize(
    ("values", "count", "expected"),
    [
        ({"slices": 1}, 3, None),
        ({"slices": 101}, 3, [40, 50, 60]),
        ({"slices": 11}, 3, [4, 5, 6]),
        ({"slices": 2}, 3, [0, 1]),
        ({"slices": 3}, 3, [1]),
        ({"slices": 101}, 1, [50]),
        ({"slices": 101}, 2, [40, 60]),
        ({"slices": 30, "geometry": "none"}, 3, [15]),
    ],
)
def test_slices_that_enter(values: dict[str, Any], count: int, expected: list[int] | None) -> None:
    row = VOLUME | values
    assert slice_numbers(row, 2, count) == expected
    assert slice_numbers(row, 3, count) is None


def test_nothing_left_says_why_and_what_to_do(catalog_of: CatalogOf) -> None:
    catalog = catalog_of([VOLUME | {"burned_in": "yes"}] * 3 + [VOLUME | {"slices": 2}])
    with pytest.raises(InputError) as caught:
        check_plan(PLAN, catalog)
    assert str(caught.value) == (
        "No image is left to cluster. Left out: 3 burned in, 1 not a volume. To take them, "
        "for burned in: give --include-burned-in; for not a volume: give --goal categories."
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"select": {"modalty": "CT"}}, "no column 'modalty'. Did you mean 'modality'?"),
        ({"select": {"modality": "MR"}}, "no image has modality = 'MR'. Values in the catalog: 'CT' (3)."),
        ({"n_clusters": 4}, "4 clusters are asked for, but only 3 images take part. Give --clusters 2"),
        ({"goal": "groups"}, "'goal'"),
    ],
)
def test_a_plan_that_does_not_fit(catalog_of: CatalogOf, values: dict[str, Any], said: str) -> None:
    catalog = catalog_of([VOLUME] * 3)
    assert len(check_plan(PLAN, catalog).rows) == 3
    with pytest.raises(PlanError) as caught:
        check_plan(dataclasses.replace(PLAN, **values), catalog)
    assert said in str(caught.value)


def test_images_without_an_intensity_rule_are_rows_with_a_reason(catalog_of: CatalogOf) -> None:
    chosen = choose_images(catalog_of([VOLUME] * 3), dataclasses.replace(PLAN, intensity={}))
    assert chosen.rows == [] and {item.code for item in chosen.left_out} == {"no_intensity_rule"}


def test_the_kind_of_the_plan_decides_not_the_majority(catalog_of: CatalogOf) -> None:
    catalog = catalog_of([VOLUME, VOLUME | {"body_part": "head"}, VOLUME | {"body_part": "head"}])
    kind = {"modality": "CT", "body_part": "chest", "unit": "series"}
    chosen = choose_images(catalog, dataclasses.replace(PLAN, kind=kind))
    assert [row["body_part"] for row in chosen.rows] == ["chest"]
    assert [item.code for item in chosen.left_out] == ["other_kind", "other_kind"]


def test_one_image_is_not_enough(catalog_of: CatalogOf) -> None:
    with pytest.raises(PlanError, match="Only one image takes part"):
        check_plan(PLAN, catalog_of([VOLUME]))


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "modality": st.sampled_from(["CT", "MR", ""]),
                "slices": st.sampled_from([1, 5, 40]),
                "unit": st.sampled_from(["series", "image"]),
                "geometry": st.sampled_from(["regular", "none", "missing_slice"]),
                "burned_in": st.sampled_from(["yes", "no", "unknown"]),
                "series_class": st.sampled_from(["", "localizer", "t1"]),
                "study": st.sampled_from(["", "s1", "s2"]),
            }
        ),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from(["categories", "subtypes"]),
    st.sampled_from([2, 3]),
)
@settings(max_examples=100, deadline=None)
def test_every_image_is_taken_or_left_out_once(images: list[dict[str, Any]], goal: str, dimensions: int) -> None:
    rows = [VOLUME | image | {"image_id": str(n), "kernel": "", "geometry_note": ""} for n, image in enumerate(images)]
    chosen = choose_rows(rows, goal, {}, False, dimensions)
    found = [row["image_id"] for row in chosen.rows] + [item.image_id for item in chosen.left_out]
    assert sorted(found) == sorted(row["image_id"] for row in rows)
    assert all(item.stage == "plan" and item.code and item.reason for item in chosen.left_out)


def test_skipped_files_are_no_images(catalog_of: CatalogOf) -> None:
    assert len(image_rows(catalog_of([VOLUME, {"skipped": "no_pixels", "reason": "No pixels."}]))) == 1
