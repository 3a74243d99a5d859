"""What a column of a clinical table holds: numbers, categories, times to an event, or nothing that can be tested."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MISSING = frozenset({"", "na", "n/a", "#n/a", "<na>", "nan", "null", "-", "--", ".", "?", "unknown"})
FEW_LEVELS = 5  # as many categories may each stand once; of more, names would
LEAST_NUMBER = 100_000  # whole numbers from here on that all differ are numbers of patients or studies
MAX_LEVELS = 20  # categories of a column
MAX_CHARACTERS = 40  # of a category; longer text is a remark

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_COMMA = re.compile(r"[+-]?\d+,\d+")
_AMBIGUOUS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_CLOCK = r"([T ]\d{1,2}:\d{2}.*)?"
_DATE = re.compile(
    rf"(\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}|\d{{1,2}}[-/.]\d{{1,2}}[-/.](\d{{4}}|\d{{2}}))\.?{_CLOCK}"
    r"|\d{4}[-/]\d{1,2}|\d{1,2}[-/. ]{1,2}[^\W\d_]{3,9}[-/. ]{1,2}(\d{4}|\d{2})"
)
_COMPACT_DATE = re.compile(r"(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")

ALL_MISSING = "all values are missing"
CONSTANT = "all values are the same"
DATES = "dates are not tested; give ages or durations in days as numbers"
IDENTIFIER = "looks like an identifier: all or most values stand once"
MANY = f"more than {MAX_LEVELS} categories"
MIXED = "numbers and text mixed"
LONG = f"text of more than {MAX_CHARACTERS} characters"
COMMAS = "a comma that may part decimals or thousands"
TOO_LARGE = "numbers too large to compute with"
ORIGINAL = "repeats the patients' original ids"
NO_NAME = "no name in the header"
KEY = "another key column"
BAD_TIME = "a time to event must be a number of 0 or more, and its event 0 or 1, yes or no"

EVENTS = {"0": 0.0, "no": 0.0, "false": 0.0, "1": 1.0, "yes": 1.0, "true": 1.0, "0.0": 0.0, "1.0": 1.0}
LARGEST = 1e100  # squares of numbers below it are finite


@dataclass(frozen=True)
class Variable:
    """``values`` (n,): float64 with NaN where missing if ``kind`` is numeric, else text with "" where missing."""

    name: str
    kind: Literal["numeric", "categorical"]
    values: NDArray[np.float64] | NDArray[np.str_]

    def take(self, rows: NDArray[np.int64]) -> Variable:
        """Return the variable of these rows."""
        return replace(self, values=self.values[rows])


@dataclass(frozen=True)
class TimeToEvent:
    """``time`` (n,) in the table's own unit, NaN where time or event is missing; ``event`` (n,): it was seen then."""

    name: str
    time: NDArray[np.float64]
    event: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> TimeToEvent:
        """Return the variable of these rows."""
        return replace(self, time=self.time[rows], event=self.event[rows])


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value: ``MISSING``, in any case of letters, between blanks and NULs."""
    return cell.strip(" \t\0").lower() in MISSING


def read_variable(name: str, cells: Sequence[str], decimal_comma: bool) -> Variable | str:
    """Return a column as numbers or categories, or the reason why it is neither.

    Two different numbers are categories. Never returned are dates, remarks, and text that is different in every row.
    """
    known = [cell for cell in cells if not is_missing(cell)]
    levels = set(known)
    if not levels:
        return ALL_MISSING
    if len(levels) == 1:
        return CONSTANT
    if any(_DATE.fullmatch(level) for level in levels) or all(_COMPACT_DATE.fullmatch(level) for level in levels):
        return DATES
    if decimal_comma and all(_NUMBER.fullmatch(level) or _COMMA.fullmatch(level) for level in levels):
        commas = [level for level in levels if _COMMA.fullmatch(level)]
        if commas and all(_AMBIGUOUS.fullmatch(level) for level in commas):
            return COMMAS
        cells = [cell.replace(",", ".") for cell in cells]
        levels = {level.replace(",", ".") for level in levels}
    numbers = sum(1 for level in levels if _NUMBER.fullmatch(level))
    if numbers == len(levels):
        return _numeric(name, cells)
    return _refused(levels, known, numbers) or Variable(name, "categorical", _text(cells))


def _numeric(name: str, cells: Sequence[str]) -> Variable | str:
    values = np.array([np.nan if is_missing(cell) else float(cell) for cell in cells])
    different = np.unique(values[~np.isnan(values)])
    if np.abs(different).max() > LARGEST:
        return TOO_LARGE
    if len(different) == 1:
        return CONSTANT
    if len(different) == 2:
        return Variable(name, "categorical", _codes(values))
    if len(different) == np.isfinite(values).sum() and different.min() >= LEAST_NUMBER and (different % 1 == 0).all():
        return IDENTIFIER
    return Variable(name, "numeric", values)


def _codes(values: NDArray[np.float64]) -> NDArray[np.str_]:
    return np.array(["" if np.isnan(value) else repr(value).removesuffix(".0") for value in values.tolist()])


def _refused(levels: set[str], known: Sequence[str], numbers: int) -> str:
    count = len(known)
    if max(map(len, levels)) > MAX_CHARACTERS:
        return LONG
    if len(levels) == count:
        return MIXED if 2 * numbers > count else IDENTIFIER
    once = sum(number == 1 for number in Counter(known).values())
    if len(levels) > FEW_LEVELS and 2 * once > len(levels):  # names with a few doubles
        return IDENTIFIER
    if len(levels) > MAX_LEVELS:
        return MIXED if 2 * numbers > len(levels) else MANY
    return ""


def _text(cells: Sequence[str]) -> NDArray[np.str_]:
    return np.array(["" if is_missing(cell) else cell for cell in cells], dtype=np.str_)


def read_time_to_event(
    name: str, times: Sequence[str], events: Sequence[str], decimal_comma: bool
) -> TimeToEvent | str:
    """Return a pair of columns as times to an event, or the reason why it is none; half a pair is missing."""
    if decimal_comma:
        times = [cell.replace(",", ".") if _COMMA.fullmatch(cell) else cell for cell in times]
    pairs = [
        (time, event) for time, event in zip(times, events, strict=True) if not (is_missing(time) or is_missing(event))
    ]
    if not pairs:
        return ALL_MISSING
    if not all(_NUMBER.fullmatch(time) and event.lower() in EVENTS for time, event in pairs):
        return BAD_TIME
    if not all(0 <= float(time) < LARGEST for time, _ in pairs):
        return BAD_TIME
    found = [not (is_missing(time) or is_missing(event)) for time, event in zip(times, events, strict=True)]
    time = np.array([float(cell) if there else np.nan for cell, there in zip(times, found, strict=True)])
    event = np.array([there and EVENTS[cell.lower()] == 1 for cell, there in zip(events, found, strict=True)])
    return TimeToEvent(name, time, event)
