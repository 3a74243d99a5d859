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


def test_decimal_commas() -> None:
    found = read_variable("x", ["1,5", "2", "10,25"], True)
    assert isinstance(found, Variable)
    np.testing.assert_array_equal(found.values, [1.5, 2, 10.25])
    quoted = read_variable("x", ["47,2", "46", "1000,25", "", "46"], False)  # in a file whose cells commas part
    assert isinstance(quoted, Variable)
    np.testing.assert_array_equal(quoted.values, [47.2, 46, 1000.25, np.nan, 46])
    assert read_variable("x", ["1", "2", "3", "1,2"], False) == columns.COMMAS, "a list as well as a number"
    listed = read_variable("x", ["1", "2", "1,2", "1,2", "1"], False)
    assert isinstance(listed, Variable) and listed.kind == "categorical"
    assert read_variable("x", ["1,500", "2,250", "7,125"], False) == columns.COMMAS
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
        ["5-9", "10-14", "Mar-10", "5-9"],
        ["10-Mar", "2. Mrz", "", "SEP-07"],
        ["March 2020", "december 1999", "Okt. 2001"],
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
        assert there.tolist() == known or found.remark


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=30, unique=True))
def test_numbers_are_read_again(numbers: list[float]) -> None:
    found = read_variable("x", [repr(number) for number in numbers], False)
    if not isinstance(found, str):  # -0.0 and 0.0 are one number; 20200101.0 is no date
        assert found.kind == "categorical" or found.values.tolist() == numbers or found.remark


def test_names_with_a_few_doubles_are_identifiers() -> None:
    names = [f"Surname{letter}" for letter in "ABCDEFGHI"] + ["SurnameA"]
    assert read_variable("name", names, False) == columns.IDENTIFIER
    assert isinstance(read_variable("group", ["a", "b", "c", "a"], False), Variable)  # few categories may stand once


def test_long_whole_numbers_that_all_differ_are_identifiers() -> None:
    assert read_variable("mrn", ["4711001", "4711002", "4711003"], False) == columns.IDENTIFIER
    assert isinstance(read_variable("cells", ["4711001", "4711001", "4711003", "5"], False), Variable)


@pytest.mark.parametrize("cells", [["grade 1", "grade 2", "grade 1"], ["marker-1", "may", "marker-1"]])
def test_a_word_and_a_number_are_no_date(cells: list[str]) -> None:
    assert isinstance(read_variable("x", cells, False), Variable)


def test_percent_signs() -> None:
    found = read_variable("fev1", ["47.0 %", "NA", "12%", "8,5 %"], True)
    assert isinstance(found, Variable) and found.kind == "numeric"
    np.testing.assert_array_equal(found.values, [47, np.nan, 12, 8.5])
    assert read_variable("fev1", ["47 %", "0.4", "12"], False) == columns.MIXED, "parts or percent"
    assert isinstance(read_variable("grade", ["low %", "high %", "low %"], False), Variable)


def test_codes_far_outside_are_missing_and_said() -> None:
    found = read_variable("age", ["61", "-999", "45", "999", "-999", "50", ""], False)
    assert isinstance(found, Variable)
    np.testing.assert_array_equal(found.values, [61, np.nan, 45, np.nan, np.nan, 50, np.nan])
    assert found.remark == "-999 stands 2 times and 999 stands once, taken as missing"
    two = read_variable("smoker", ["0", "1", "-99", "1"], False)
    assert isinstance(two, Variable)
    assert (two.kind, two.values.tolist()) == ("categorical", ["0", "1", "", "1"])


@pytest.mark.parametrize(
    "cells", [["1500", "999", "200", "700"], ["-99", "-60", "-10"], ["5", "5", "999"], ["-98", "1", "2"]]
)
def test_a_code_among_its_like_is_a_number(cells: list[str]) -> None:
    """Within the range or no farther from it than it is wide, beside one value only, or no code."""
    found = read_variable("x", cells, False)
    assert isinstance(found, Variable) and not found.remark
    assert "" not in found.values.astype(str).tolist() and "nan" not in found.values.astype(str).tolist()


@pytest.mark.parametrize("name", ["pid", "ID", "Patient", "PatientNr", "case_number", "subject id"])
def test_whole_numbers_with_the_name_of_a_key_are_identifiers(name: str) -> None:
    numbers = [str(number) for number in (3, 17, 5, 9, 12, 4, 8, 1, 2, 6)]
    assert read_variable(name, numbers, False) == columns.IDENTIFIER
    assert read_variable(name, [*numbers, "6"], False) == columns.IDENTIFIER
    assert isinstance(read_variable(name, numbers * 2, False), Variable), "a number for several patients"
    assert isinstance(read_variable("width", numbers, False), Variable)
    assert isinstance(read_variable("lesion number size", numbers, False), Variable)
