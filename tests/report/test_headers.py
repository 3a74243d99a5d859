"""Association, profiles and provisional names against naive references and planted headers."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from medstrata.report.headers import (
    OTHER,
    SHOWN_VALUES,
    Column,
    associations,
    contingency,
    cramers_v,
    dominant_manufacturer,
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


def naive_v(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Bergsma's formula, line by line, with the chi-square of another library."""
    table = np.array([[np.sum((first == a) & (second == b)) for b in np.unique(second)] for a in np.unique(first)])
    n, (r, c) = table.sum(), table.shape
    phi2 = chi2_contingency(table, correction=False).statistic / n
    phi2 = max(0.0, phi2 - (r - 1) * (c - 1) / (n - 1))
    r, c = r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)
    return math.sqrt(phi2 / min(r - 1, c - 1))


def test_cramers_v_equals_the_formula() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        first = rng.integers(0, 4, 60)
        second = np.where(rng.random(60) < 0.5, first % 3, rng.integers(0, 3, 60))
        assert cramers_v(first, second) == pytest.approx(naive_v(first, second), abs=1e-12)


def test_cramers_v_at_its_ends() -> None:
    labels = np.repeat([0, 1, 2], 50)
    assert cramers_v(labels, 2 - labels) == pytest.approx(1.0)
    assert cramers_v(labels, np.tile([0, 1], 75)) == 0.0  # independent: the correction takes all of it
    assert cramers_v(labels, np.arange(150)) == 0.0  # a value of its own for every image tells nothing
    assert cramers_v(labels, np.zeros(150, dtype=np.int64)) == 0.0
    assert cramers_v(np.full(5, -1), np.arange(5)) == 0.0  # nothing known
    half_known = np.where(np.arange(150) % 2 == 0, labels, -1)
    assert cramers_v(labels, half_known) == pytest.approx(1.0)


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), max_size=40))
def test_cramers_v_is_symmetric_and_in_range(pairs: list[tuple[int, int]]) -> None:
    first = np.array([a for a, _ in pairs], dtype=np.int64)
    second = np.array([b for _, b in pairs], dtype=np.int64)
    value = cramers_v(first, second)
    assert 0.0 <= value <= 1.0 and value == pytest.approx(cramers_v(second, first), abs=1e-6)


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


def test_associations_look_at_the_scanner_alone() -> None:
    labels = np.repeat([0, 1], 20)
    columns = [
        column("modality", *["CT"] * 20, *["MR"] * 20),
        column("manufacturer", *["Vendor A", "Vendor B"] * 20),
        column("model", *["One"] * 20, *["Two"] * 20),
    ]
    assert [(found.key, round(value, 6)) for found, value in associations(columns, labels)] == [
        ("model", 1.0),
        ("manufacturer", 0.0),
    ]


def test_dominant_manufacturer_needs_95_percent_inside_and_less_than_60_overall() -> None:
    vendor = column("manufacturer", *["Vendor A"] * 20, *["Vendor B"] * 30)
    assert dominant_manufacturer([vendor], np.arange(50) < 20) == ("Vendor A", 1.0, 0.4)
    assert dominant_manufacturer([vendor], np.arange(50) < 24) is None  # 20 of 24
    assert dominant_manufacturer([vendor], np.arange(50) >= 20) is None  # 60 % overall
