"""Association, profiles and provisional names against naive references and planted headers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from medstrata.report.headers import (
    OTHER,
    SHOWN_VALUES,
    Column,
    contingency,
    header_columns,
    profile,
    provisional_name,
)

TEXTS = ("modality", "body_part", "series_class", "view", "orientation", "manufacturer", "model", "kernel")
NUMBERS = ("field_strength", "spacing_rows", "spacing_slices", "slice_thickness")


def catalog(count: int, **columns: list[object]) -> pa.Table:
    empty: dict[str, list[object]] = {name: [""] * count for name in (*TEXTS, "format", "photometric")}
    empty |= {name: [None] * count for name in NUMBERS} | {"rows": [64] * count, "columns": [32] * count}
    table = empty | columns
    return pa.table({key: pa.array(value, pa.float64() if key in NUMBERS else None) for key, value in table.items()})


def column(key: str, *texts: str) -> Column:
    values = tuple(dict.fromkeys(text for text in texts if text))
    return Column(key, values, np.array([values.index(text) if text else -1 for text in texts]))


def test_contingency_counts_pairs() -> None:
    assert contingency(np.array([0, 0, 1, 2]), np.array([1, 1, 0, 1])).tolist() == [[0, 2], [1, 0], [0, 1]]


def test_columns_code_texts_by_frequency_and_leave_out_empty_ones() -> None:
    columns = {c.key: c for c in header_columns(catalog(4, modality=["MR", "CT", "", "CT"]))}
    assert set(columns) == {"modality", "matrix"}
    assert columns["modality"].values == ("CT", "MR") and columns["modality"].codes.tolist() == [1, 0, -1, 0]
    assert columns["matrix"].values == ("32 × 64",)


def test_rare_values_are_merged() -> None:
    names = [f"model {index:02d}" for index in range(SHOWN_VALUES + 5)]
    found = next(c for c in header_columns(catalog(len(names), model=list(names))) if c.key == "model")
    assert found.values[-1] == OTHER and len(found.values) == SHOWN_VALUES + 1
    assert (found.codes == SHOWN_VALUES).sum() == 5


def test_few_numbers_stand_as_they_are_and_many_are_cut_at_quantiles() -> None:
    few: list[object] = [1.5, 3.0, None, 1.5, 1.5]
    field = next(c for c in header_columns(catalog(5, field_strength=few)) if c.key == "field_strength")
    assert field.values == ("1.5 T", "3 T") and field.codes.tolist() == [0, 1, -1, 0, 0]
    many: list[object] = [float(index) for index in range(100)]
    spacing = next(c for c in header_columns(catalog(100, spacing_rows=many)) if c.key == "spacing_rows")
    assert sorted(np.bincount(spacing.codes).tolist()) == [20] * 5
    assert spacing.codes[0] != spacing.codes[99] and "mm" in spacing.values[0]


def test_name_joins_values_that_set_the_cluster_apart() -> None:
    # 10 in the cluster: 9 CT chest, 1 MR head. 20 elsewhere: 10 CT head, 5 CT abdomen, 5 MR chest.
    modality = column("modality", *["CT"] * 9, "MR", *["CT"] * 15, *["MR"] * 5)
    body = column("body_part", *["chest"] * 9, *["head"] * 11, *["abdomen"] * 5, *["chest"] * 5)
    members = np.arange(30) < 10
    name = provisional_name([modality, body], members)
    assert name is not None and name.words == "CT chest" and not name.from_scanner
    assert name.share == pytest.approx(0.9) and name.elsewhere == 0.0


def test_name_is_absent_where_nothing_stands_out() -> None:
    members = np.arange(20) < 10
    assert provisional_name([column("modality", *["CT", "MR"] * 10)], members) is None
    assert provisional_name([column("modality", *["CT"] * 20)], np.ones(20, dtype=bool)) is None  # K = 1
    assert provisional_name([column("modality", *["CT"] * 3, *["MR"] * 17)], np.arange(20) < 3) is None  # too few


def test_scanner_names_a_cluster_only_where_content_does_not() -> None:
    members = np.arange(20) < 10
    vendor = column("manufacturer", *["Vendor A"] * 10, *["Vendor B"] * 10)
    alone = provisional_name([vendor], members)
    assert alone is not None and alone.words == "Vendor A" and alone.from_scanner
    body = column("body_part", *["chest"] * 10, *["head"] * 10)
    both = provisional_name([vendor, body], members)
    assert both is not None and both.words == "chest" and not both.from_scanner


def test_names_that_are_hashes_say_of_what() -> None:
    members = np.arange(20) < 10
    columns = [
        column("manufacturer", *["other 3f2a9c"] * 10, *["GE"] * 10),
        column("model", *["other 07bb1e"] * 10, *["optima"] * 10),
    ]
    found = provisional_name(columns, members)
    assert found is not None and found.words == "manufacturer other 3f2a9c"
    assert profile(columns, members, top=1)[1].value == "other 07bb1e"


def test_profile_shows_what_stands_out_and_the_main_columns() -> None:
    members = np.arange(20) < 10
    columns = [
        column("modality", *["CT"] * 20),
        column("kernel", *["sharp"] * 10, *["soft"] * 10),
        column("view", *["PA"] * 20),
    ]
    rows = profile(columns, members)
    assert [(row.label, row.value, row.share, row.overall, row.stands_out) for row in rows] == [
        ("Modality", "CT", 1.0, 1.0, False),
        ("Reconstruction kernel", "sharp", 1.0, 0.5, True),
    ]
