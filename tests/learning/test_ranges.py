"""Numbers out of their range are told by name; those within pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medstrata.errors import FitError
from medstrata.learning.ranges import check_number, check_whole, check_wholes


def test_what_is_in_range_passes() -> None:
    check_whole("n", 0)
    check_whole("n", np.int64(3), 3)
    check_number("x", 0)
    check_number("x", np.float32(0.5), above_zero=True)
    check_wholes("widths", (4, np.int64(8)))


@pytest.mark.parametrize("value", [2, -1, 3.0, "3", None, True])
def test_no_whole_number_of_at_least_three(value: Any) -> None:
    with pytest.raises(FitError, match=r"n is .*, but must be a whole number of at least 3"):
        check_whole("n", value, 3)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "1", None, True])
def test_no_number_of_at_least_zero(value: Any) -> None:
    with pytest.raises(FitError, match=r"x is .*, but must be a number of at least 0"):
        check_number("x", value)


def test_zero_where_it_must_be_above() -> None:
    with pytest.raises(FitError, match="x is 0, but must be a number above 0"):
        check_number("x", 0, above_zero=True)


@pytest.mark.parametrize("values", [(), 4, None, "44", (4, 0), (4.5,)])
def test_no_list_of_whole_numbers(values: Any) -> None:
    with pytest.raises(FitError, match="widths is"):
        check_wholes("widths", values)
