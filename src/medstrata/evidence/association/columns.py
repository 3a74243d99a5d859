"""What a column of a clinical table holds: numbers, categories, times to an event, or nothing that can be tested."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MISSING = frozenset({"", "na", "n/a", "#n/a", "<na>", "nan", "null", "-", "--", ".", "?", "unknown"})
FEW_LEVELS = 5  # as many categories may each stand once; of more, names would
LEAST_NUMBER = 100_000  # whole numbers from here on that all differ are numbers of patients or studies
MAX_LEVELS = 20  # categories of a column
MAX_CHARACTERS = 40  # of a category; longer text is a remark
MISSING_CODES = (-9999.0, -999.0, -99.0, 999.0, 9999.0)  # written for "no value" where a program wants a number
DIFFERENT = 0.9  # share of different values from which a column with the name of a key is one

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_COMMA = re.compile(r"[+-]?\d+,\d+")
_AMBIGUOUS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_PERCENT = re.compile(r"(.*\d\.?)\s*%")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_KEY_WORDS = frozenset({"id", "pid", "uid", "mrn", "patid", "patientid", "subjectid", "caseid", "studyid", "recordid"})
_KEY_NAMES = frozenset({"patient", "subject", "participant", "case", "study", "record", "number", "nr", "no", "key"})
_CLOCK = r"([T ]\d{1,2}:\d{2}.*)?"
_DATE = re.compile(
    rf"(\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}|\d{{1,2}}[-/.]\d{{1,2}}[-/.](\d{{4}}|\d{{2}}))\.?{_CLOCK}"
    r"|\d{4}[-/]\d{1,2}|\d{1,2}[-/. ]{1,2}[^\W\d_]{3,9}[-/. ]{1,2}(\d{4}|\d{2})"
)
_MONTH = (
    r"(jan(uary|uar)?|feb(ruary|ruar)?|mar(ch)?|märz|mrz|apr(il)?|may|mai|june?|juni|july?|juli|aug(ust)?"
    r"|sept?(ember)?|o[ck]t(ober)?|nov(ember)?|de[cz](ember)?)"
)
_DATE_OF_SPREADSHEET = re.compile(
    rf"{_MONTH}\.?[-/. ]{{1,2}}(\d{{4}}|\d{{1,2}})|\d{{1,2}}[-/. ]{{1,2}}{_MONTH}\.?", re.IGNORECASE
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
    """``values`` (n,): float64 with NaN where missing if ``kind`` is numeric, else text with "" where missing.

    ``remark``: what was taken as missing although it is a number, "" where nothing was.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    values: NDArray[np.float64] | NDArray[np.str_]
    remark: str = ""

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

    Two different numbers are categories. Numbers may have a decimal comma, and all of them a percent sign; codes such
    as -999 that stand far outside the others are missing, which ``remark`` says. Never returned are dates, remarks,
    and text, or whole numbers under the name of a key, that are different in every row.

    ``decimal_comma``: a comma parts no cells of the file; where it does, most of the numbers must have one.
    """
    cells = _without_percent(cells)
    levels = {cell for cell in cells if not is_missing(cell)}
    if not levels:
        return ALL_MISSING
    if len(levels) == 1:
        return CONSTANT
    if any(_DATE.fullmatch(level) or _DATE_OF_SPREADSHEET.fullmatch(level) for level in levels):
        return DATES
    if all(_COMPACT_DATE.fullmatch(level) for level in levels):
        return DATES
    commas = _commas(levels, decimal_comma)
    if commas and all(_AMBIGUOUS.fullmatch(level) for level in commas):
        return COMMAS
    if commas:
        cells = [cell.replace(",", ".") for cell in cells]
        levels = {level.replace(",", ".") for level in levels}
    numbers = sum(1 for level in levels if _NUMBER.fullmatch(level))
    if numbers == len(levels):
        return _numeric(name, cells)
    known = [cell for cell in cells if not is_missing(cell)]
    reason = _refused(levels, known, numbers)
    if reason and all(map(_is_number, levels)):
        return COMMAS
    return reason or Variable(name, "categorical", _text(cells))


def _without_percent(cells: Sequence[str]) -> Sequence[str]:
    """Return the cells without percent signs where every known one is a number with such a sign."""
    found = [None if is_missing(cell) else _PERCENT.fullmatch(cell) for cell in cells]
    numbers = [match.group(1) for match in found if match]
    if len(numbers) < sum(not is_missing(cell) for cell in cells) or not all(map(_is_number, numbers)):
        return cells
    return ["" if match is None else match.group(1) for match in found]


def _is_number(cell: str) -> bool:
    return bool(_NUMBER.fullmatch(cell) or _COMMA.fullmatch(cell))


def _commas(levels: Iterable[str], decimal_comma: bool) -> set[str]:
    """Return which of the levels are numbers with a comma; none where the others are no numbers.

    Where a comma parts the cells of the file, "1,2" in quotation marks may be a list: most levels must be such numbers.
    """
    every = set(levels)
    found = {level for level in every if _COMMA.fullmatch(level)}
    plain = all(map(_is_number, every)) and (decimal_comma or 2 * len(found) > len(every))
    return found if plain else set()


def _numeric(name: str, cells: Sequence[str]) -> Variable | str:
    values = np.array([np.nan if is_missing(cell) else float(cell) for cell in cells])
    values, remark = _without_codes(values)
    different = np.unique(values[~np.isnan(values)])
    if np.abs(different).max() > LARGEST:
        return TOO_LARGE
    if len(different) == 1:
        return CONSTANT
    if len(different) == 2:
        return Variable(name, "categorical", _codes(values), remark)
    count, whole = int(np.isfinite(values).sum()), bool((different % 1 == 0).all())
    if whole and len(different) == count and different.min() >= LEAST_NUMBER:
        return IDENTIFIER
    if whole and len(different) >= DIFFERENT * count and _names_a_key(name):
        return IDENTIFIER
    return Variable(name, "numeric", values, remark)


def _without_codes(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], str]:
    """Return ``values`` (n,) with NaN for each of ``MISSING_CODES`` that lies farther from all others than these lie
    apart, and what was taken so.
    """
    others = values[~np.isnan(values) & ~np.isin(values, MISSING_CODES)]
    if not len(others) or others.min() == others.max():
        return values, ""
    low, high = others.min(), others.max()
    taken, said = np.zeros(len(values), dtype=bool), []
    for code in MISSING_CODES:
        here = values == code
        if here.any() and not 2 * low - high <= code <= 2 * high - low:
            taken |= here
            said.append(f"{code:g} stands {int(here.sum())} times")
    said_of = " and ".join(said).replace(" 1 times", " once")
    return np.where(taken, np.nan, values), f"{said_of}, taken as missing" if said else ""


def _names_a_key(name: str) -> bool:
    words = {word.lower() for word in _WORD.findall(name)}
    return bool(words & _KEY_WORDS) or (bool(words) and words <= _KEY_NAMES)


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
    found = [not (is_missing(time) or is_missing(event)) for time, event in zip(times, events, strict=True)]
    if decimal_comma or _commas([time for time, there in zip(times, found, strict=True) if there], decimal_comma):
        times = [cell.replace(",", ".") if _COMMA.fullmatch(cell) else cell for cell in times]
    pairs = [(time, event) for time, event, there in zip(times, events, found, strict=True) if there]
    if not pairs:
        return ALL_MISSING
    if not all(_NUMBER.fullmatch(time) and event.lower() in EVENTS for time, event in pairs):
        return BAD_TIME
    if not all(0 <= float(time) < LARGEST for time, _ in pairs):
        return BAD_TIME
    time = np.array([float(cell) if there else np.nan for cell, there in zip(times, found, strict=True)])
    event = np.array([there and EVENTS[cell.lower()] == 1 for cell, there in zip(events, found, strict=True)])
    return TimeToEvent(name, time, event)
