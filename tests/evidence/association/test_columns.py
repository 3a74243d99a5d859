"""Kinds of columns: numbers, categories, times to an event, and everything that is not tested."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medstrata.evidence.association import columns
from medstrata.evidence.association.columns import TimeToEvent, Variable, read_time_to_event, read_variable


@pytest.mark.parametrize("gap", ["", "NA", "n/a", "NaN", "null", "-", "Unknown", "#N/A", "?", "<NA>"])
def test_missing_values(gap: str) -> None:
    found = read_variable("age", ["1", gap, "2.5", "-3e1"], False)
    assert isinstance(found, Variable)
    assert found.kind == "numeric"
    np.testing.assert_array_equal(found.values, [1, np.nan, 2.5, -30])
    text = read_variable("grade", ["none", gap, "mild", "none"], False)
    assert isinstance(text, Variable)
    assert (text.kind, text.values.tolist()) == ("categorical", ["none", "", "mild", "none"])


def test_two_numbers_are_categories_and_keep_apart() -> None:
    for cells, expected in ((["0", "1.0", "1", ""], ["0", "1", "1", ""]), (["1000001", "1000002"], None)):
        found = read_variable("sex", cells, False)
        assert isinstance(found, Variable)
        assert (found.kind, found.values.tolist()) == ("categorical", expected or cells)


def test_decimal_commas_only_where_a_comma_parts_no_cells() -> None:
    found = read_variable("x", ["1,5", "2", "10,25"], True)
    assert isinstance(found, Variable)
    np.testing.assert_array_equal(found.values, [1.5, 2, 10.25])
    assert read_variable("x", ["1,5", "2", "10,25", "3,1"], False) == columns.IDENTIFIER
    assert read_variable("x", ["1,500", "999", "2,250"], True) == columns.COMMAS
    assert isinstance(read_variable("x", ["0,500", "0,999", "0,250"], True), Variable)  # no thousands begin with 0


@pytest.mark.parametrize(
    "dates",
    [
        ["2020-01-31", "2021-02-01", "2020-01-31"],
        ["31.01.2020", "1.2.21", ""],
        ["01/31/2020", "7/4/1999", "12/12/2012"],
        ["20200131", "19991231", "20200131"],
        ["2020-01-31T10:00:00Z", "2021-02-01 09:30", "x"],
        ["12 March 2020", "3-Apr-99", "1. Mai 2001"],
        ["2020-05", "2021-11", "2020-05"],
        ["12", "13", "2020-01-31"],
    ],
)
def test_dates_are_never_tested(dates: list[str]) -> None:
    assert read_variable("when", dates, False) == columns.DATES


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["", "NA", "-"], columns.ALL_MISSING),
        (["x", "x", ""], columns.CONSTANT),
        (["1", "1.0", "01"], columns.CONSTANT),
        (["p1", "p2", "p3"], columns.IDENTIFIER),
        ([f"t{number % 21}" for number in range(60)], columns.MANY),
        ([*(str(number % 25) for number in range(60)), "> 90"], columns.MIXED),
        (["1", "2", "3", "< 4"], columns.MIXED),
        (["a" * 41, "b", "b"], columns.LONG),
        (["1e300", "1", "2"], columns.TOO_LARGE),
        (["1" + "0" * 400, "1", "2"], columns.TOO_LARGE),
    ],
)
def test_columns_that_are_not_tested(cells: list[str], reason: str) -> None:
    assert read_variable("x", cells, False) == reason


def test_twenty_categories_are_tested() -> None:
    found = read_variable("x", [f"t{number % 20}" for number in range(60)], False)
    assert isinstance(found, Variable)
    assert found.kind == "categorical"


def test_times_to_an_event() -> None:
    found = read_time_to_event(
        "os", ["10", "2.5", "", "7", "0", "8,5"], ["1", "no", "yes", "NA", "TRUE", "0"], decimal_comma=True
    )
    assert isinstance(found, TimeToEvent)
    np.testing.assert_array_equal(found.time, [10, 2.5, np.nan, np.nan, 0, 8.5])
    assert found.event.tolist() == [True, False, False, False, True, False]


@pytest.mark.parametrize(
    ("times", "events", "reason"),
    [
        (["", "3"], ["1", ""], columns.ALL_MISSING),
        (["-1", "3"], ["1", "0"], columns.BAD_TIME),
        (["5", "3"], ["2", "0"], columns.BAD_TIME),
        (["5", "dead"], ["1", "0"], columns.BAD_TIME),
        (["5", "2020-01-01"], ["1", "0"], columns.BAD_TIME),
    ],
)
def test_times_that_are_none(times: list[str], events: list[str], reason: str) -> None:
    assert read_time_to_event("os", times, events, False) == reason


@example(["0", "0", "\0"], False)  # NumPy drops NULs at the end of a text
@given(st.lists(st.text(max_size=6), min_size=1, max_size=30), st.booleans())
def test_any_text_is_a_variable_of_the_same_length_or_a_reason(cells: list[str], decimal_comma: bool) -> None:
    found = read_variable("x", cells, decimal_comma)
    if isinstance(found, str):
        assert found
    else:
        assert len(found.values) == len(cells)
        assert found.values.dtype.kind == ("f" if found.kind == "numeric" else "U")
        known = [not columns.is_missing(cell) for cell in cells]
        there = found.values != "" if found.kind == "categorical" else ~np.isnan(found.values.astype(float))
        assert there.tolist() == known


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=30, unique=True))
def test_numbers_are_read_again(numbers: list[float]) -> None:
    found = read_variable("x", [repr(number) for number in numbers], False)
    if not isinstance(found, str):  # -0.0 and 0.0 are one number; 20200101.0 is no date
        assert found.kind == "categorical" or found.values.tolist() == numbers


def test_names_with_a_few_doubles_are_identifiers() -> None:
    names = [f"Surname{letter}" for letter in "ABCDEFGHI"] + ["SurnameA"]
    assert read_variable("name", names, False) == columns.IDENTIFIER
    assert isinstance(read_variable("group", ["a", "b", "c", "a"], False), Variable)  # few categories may stand once


def test_long_whole_numbers_that_all_differ_are_identifiers() -> None:
    assert read_variable("mrn", ["4711001", "4711002", "4711003"], False) == columns.IDENTIFIER
    assert isinstance(read_variable("cells", ["4711001", "4711001", "4711003", "5"], False), Variable)
