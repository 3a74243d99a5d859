"""plan.json: what is accepted, and what is said about the rest."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medstrata.errors import PlanError
from medstrata.images.plan import Plan, describe, load_plan, plan_from, reasons_now
from medstrata.run import write_json

PLAN = Plan(
    goal="subtypes",
    include_burned_in=False,
    dimensions=3,
    grid=[48, 64, 64],
    spacing=[6.5, 6.5, 6.5],
    slices_per_volume=3,
    channels=1,
    stored_as="uint16",
    intensity={
        "CT chest": {"rule": "window", "low": -1000.0, "high": 400.0, "units": "HU"},
        "MR": {"rule": "percentile", "low": 1, "high": 99, "of": "foreground"},
        "other": {"rule": "range", "low": None, "high": None},
    },
    method="dcec",
    n_clusters=3,
    batch_size=16,
    seed=7,
    maps_per_cluster=40,
    augmentation="ct",
    select={"modality": "CT"},
    settings={"gamma": 0.1},
    reasons={"goal": "One kind.", "grid": "It covers the volumes.", "intensity": "By class.", "spacing": "Fits."},
)


def changed(**values: Any) -> dict[str, Any]:
    return dataclasses.asdict(PLAN) | values


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "plan.json", vars(PLAN))
    assert load_plan(tmp_path / "plan.json") == PLAN
    assert list(json.loads((tmp_path / "plan.json").read_text())) == [f.name for f in dataclasses.fields(Plan)]


def test_describe_gives_each_decision_with_its_value_and_reason() -> None:
    assert describe(PLAN) == [
        ("goal", "subtypes", "One kind."),
        ("grid", "48 × 64 × 64", "It covers the volumes."),
        (
            "intensity",
            "CT chest: window -1000..400 HU; MR: percentiles 1..99 of foreground; other: each image's own range",
            "By class.",
        ),
        ("spacing", "6.5 × 6.5 × 6.5", "Fits."),
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"n_cluster": 4}, "unknown key 'n_cluster'. Did you mean 'n_clusters'?"),
        ({"Grid": [64, 64]}, "unknown key 'Grid'. Did you mean 'grid'?"),
        ({"goal": "subtype"}, """'goal' is "subtype", but must be "categories" or "subtypes"."""),
        ({"grid": [48, 64]}, "'grid' has 2 numbers, but 'dimensions' is 3."),
        ({"grid": [50, 64, 64]}, "must be a list of multiples of 8 from 16 to 512."),
        ({"grid": "64"}, "must be a list of multiples of 8"),
        ({"spacing": [1.0, 0.0, 1.0]}, "must be null or a list of positive numbers (mm)."),
        ({"spacing": [1.0]}, "'spacing' has 1 numbers, but 'dimensions' is 3."),
        ({"n_clusters": 1}, "'n_clusters' is 1, but must be a whole number, at least 2, or"),
        ({"n_clusters": True}, "'n_clusters' is true"),
        ({"n_clusters": 3.0}, "'n_clusters' is 3.0"),
        ({"channels": 2}, "'channels' is 2, but must be 1 or 3."),
        ({"stored_as": "float32"}, """must be "uint8" or "uint16"."""),
        ({"include_burned_in": 1}, "'include_burned_in' is 1, but must be true or false."),
        ({"version": 2}, "'version' is 2, but must be 1."),
        ({"seed": -1}, "'seed' is -1"),
        ({"select": {"modality": 3}}, "'select'"),
        ({"method": "DCEC"}, "'method'"),
        ({"augmentation": "X-ray"}, "'augmentation' is \"X-ray\", but must be the name of an augmentation"),
        ({"intensity": {"MR": {"rule": "windows"}}}, "the intensity rule of 'MR' must be an object with"),
        ({"intensity": {"MR": {"rule": "window", "low": 1, "hihg": 2}}}, "unknown key 'hihg'. Did you mean 'high'?"),
        ({"intensity": {"MR": {"rule": "window", "low": 1}}}, "lacks 'high': a number."),
        ({"intensity": {"MR": {"rule": "window", "low": 5, "high": 5}}}, "'low' must be smaller than 'high'."),
        (
            {"intensity": {"MR": {"rule": "percentile", "low": -1, "high": 99, "of": "all"}}},
            "'low' is -1, but must be a number from 0 to 100.",
        ),
        (
            {"intensity": {"MR": {"rule": "percentile", "low": 1, "high": 99, "of": "head"}}},
            """'of' is "head", but must be "foreground" or "all".""",
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(values: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError) as caught:
        plan_from(changed(**values))
    assert said in str(caught.value)


def test_a_missing_key_is_named() -> None:
    values = changed()
    del values["grid"]
    with pytest.raises(PlanError, match=r"lacks the key 'grid'. Run `medstrata plan`"):
        plan_from(values)


def test_optional_keys_may_be_left_out() -> None:
    values = {
        k: v for k, v in changed().items() if k not in ("augmentation", "select", "settings", "reasons", "version")
    }
    assert plan_from(values) == dataclasses.replace(PLAN, augmentation="none", select={}, settings={}, reasons={})


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "not valid JSON: .* line 1"), ("[]", "one JSON object"), ('"goal"', "one JSON object"), ("\xff", "JSON")],
)
def test_files_that_are_no_plan(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(PlanError, match=said):
        load_plan(tmp_path / "plan.json")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="Run `medstrata plan` first"):
        load_plan(tmp_path / "plan.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from([f.name for f in dataclasses.fields(Plan)]), JSON)
@settings(max_examples=300, deadline=None)
def test_any_value_is_accepted_or_refused_in_words(name: str, value: Any) -> None:
    try:
        plan = plan_from(changed(**{name: value}))
    except PlanError as error:
        assert name in str(error)
    else:
        assert getattr(plan, name) == value
        assert len(describe(plan)) == len(plan.reasons)


def test_a_decision_that_a_person_changed_says_so_and_keeps_no_reason_of_the_machine() -> None:
    made = {"grid": [64, 64], "spacing": [1.0, 1.0], "seed": 0, "reasons": {"grid": "Median.", "spacing": "Copied."}}
    edited = made | {"grid": [32, 32], "seed": 3}
    by_hand = "Set by hand in plan.json."
    assert reasons_now(edited, made) == {"grid": by_hand, "seed": by_hand}
    assert reasons_now(made, made) == reasons_now(made, None) == made["reasons"]
    assert reasons_now(edited, None) == made["reasons"], "it is not known what was made"
