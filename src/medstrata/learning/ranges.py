"""Settings that are numbers: each has a smallest value, and a wrong one is told by its name."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from medstrata.errors import FitError


def check_whole(name: str, value: Any, least: int = 0) -> None:
    """Raise FitError where ``value`` is no whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise FitError(f"{name} is {value!r}, but must be a whole number of at least {least}.")


def check_number(name: str, value: Any, above_zero: bool = False) -> None:
    """Raise FitError where ``value`` is no finite number of at least 0; ``above_zero``: or is 0."""
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (above_zero and value == 0):
        raise FitError(f"{name} is {value!r}, but must be a number {'above 0' if above_zero else 'of at least 0'}.")


def check_wholes(name: str, values: Any) -> None:
    """Raise FitError where ``values`` is not a tuple or list of whole numbers above 0."""
    if not isinstance(values, tuple | list) or not values:
        raise FitError(f"{name} is {values!r}, but must list at least one whole number above 0.")
    for value in values:
        check_whole(name, value, 1)
