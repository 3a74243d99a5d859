"""The plan: every decision between catalog and pixels, in one file that people can read and edit."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medstrata.errors import PlanError
from medstrata.images.intensity import describe_rule

GOALS = ("categories", "subtypes")
GRID_MULTIPLE = 8  # the networks halve each side three times
GRID_SIDES = (16, 512)


@dataclass(frozen=True)
class Plan:
    """What is done with the images of a catalog. Field by field the keys of ``plan.json``."""

    goal: str  # "categories": sort a mixed archive; "subtypes": find groups within one kind of image
    include_burned_in: bool  # take images that may carry burned-in text
    dimensions: int  # 2 or 3
    grid: list[int]  # samples of the common grid: [rows, columns] or [slices, rows, columns]
    spacing: list[float] | None  # mm per grid step (source pixels where an image has no mm); None: fill the grid
    slices_per_volume: int  # how many central slices of a volume enter in 2-D
    channels: int  # 1 grey, 3 colour
    stored_as: str  # "uint8" or "uint16"
    intensity: dict[str, dict[str, Any]]  # class of images -> rule, see ``images.intensity``
    method: str
    n_clusters: int | str  # "auto": as many as the embeddings show
    batch_size: int
    seed: int
    maps_per_cluster: int
    fit_images: int = 50_000  # of more images so many are drawn at random to fit on; all are assigned
    crop_to_content: bool = False  # cut off padding at the borders and stretch the rest over the grid; spacing is None
    augmentation: str = "none"  # how training changes images at random: see ``learning.augment.AUGMENTATIONS``
    select: dict[str, str] = field(default_factory=dict)  # column of the catalog -> the value that is wanted
    kind: dict[str, str] = field(default_factory=dict)  # goal subtypes: the one kind of image that takes part
    settings: dict[str, Any] = field(default_factory=dict)  # constructor arguments of the method, over its defaults
    adjust_for: list[str] = field(default_factory=list)  # columns that tell batches: see ``images.batch_columns``
    reasons: dict[str, str] = field(default_factory=dict)  # one sentence per decision
    version: int = 1


MADE = "plan_made"  # in run.json: the plan as it was written, before anybody edited it


def reasons_now(values: Mapping[str, Any], made: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the reasons of the plan ``values``; where a value is not the one that was ``made``, that a person set it.

    Both as in ``plan.json``; ``made``: the plan as this program wrote it, None where that is not known.
    """
    reasons = dict(values.get("reasons") or {})
    changed = [key for key in made or {} if key != "reasons" and values.get(key) != (made or {})[key]]
    if "grid" in changed:
        reasons.pop("spacing", None)  # it says how images come onto the other grid
    return reasons | dict.fromkeys(changed, "Set by hand in plan.json.")


def describe(plan: Plan, made: Mapping[str, Any] | None = None) -> list[tuple[str, str, str]]:
    """Return ``(decision, value, reason)`` for each decision that has a reason; ``made`` as in ``reasons_now``."""
    values = dataclasses.asdict(plan)
    return [(name, in_words(values.get(name, "")), reason) for name, reason in reasons_now(values, made).items()]


def in_words(value: Any) -> str:
    """Say a value of ``plan.json`` as a person would read it."""
    if value is None or value in ({}, []):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value) if isinstance(value[0], str) else " × ".join(f"{item:g}" for item in value)
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_entry(item)}" for key, item in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _entry(value: Any) -> str:
    return describe_rule(value) if isinstance(value, dict) and "rule" in value else in_words(value)


def load_plan(path: Path) -> Plan:
    """Read ``plan.json``.

    Raises
    ------
    PlanError : not JSON; an unknown or a missing key; a value of the wrong type or an impossible one. Whether the
        plan fits a catalog is asked in ``selection.check_plan``.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PlanError(f"There is no plan at {path}. Run `medstrata plan` first.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(
            f"{path} cannot be read ({type(error).__name__}). Check the file or make a new plan."
        ) from error
    except json.JSONDecodeError as error:
        raise PlanError(
            f"{path.name} is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}."
        ) from error
    return plan_from(values)


def plan_from(values: Any) -> Plan:
    """Build a plan from the values of ``plan.json``; raises ``PlanError`` as ``load_plan`` does."""
    if not isinstance(values, dict):
        raise PlanError('plan.json must hold one JSON object: {"goal": ..., ...}.')
    fields = {item.name: item for item in dataclasses.fields(Plan)}
    for name in values:
        if name not in fields:
            raise PlanError(f"plan.json has an unknown key '{name}'.{nearest(name, fields)}")
    for name, item in fields.items():
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise PlanError(f"plan.json lacks the key '{name}'. Run `medstrata plan` to make a complete one.")
    plan = Plan(**values)
    check_values(plan)
    return plan


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the known name nearest to ``name``, or the list of all known names."""
    names = sorted(known)
    close = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(names)}."


def check_values(plan: Plan) -> None:
    """Raise ``PlanError`` for the first value that is of the wrong type or impossible whatever the images are."""
    for name, (allowed, holds) in _ALLOWED.items():
        value = getattr(plan, name)
        if not holds(value):
            raise PlanError(f"plan.json: '{name}' is {json.dumps(value, default=str)}, but must be {allowed}.")
    for name in ("grid", "spacing"):
        value = getattr(plan, name)
        if value is not None and len(value) != plan.dimensions:
            raise PlanError(f"plan.json: '{name}' has {len(value)} numbers, but 'dimensions' is {plan.dimensions}.")
    if plan.crop_to_content and (plan.dimensions != 2 or plan.spacing is not None):
        raise PlanError("plan.json: 'crop_to_content' needs 'dimensions' 2 and 'spacing' null: sizes in mm are lost.")
    for kind, rule in plan.intensity.items():
        _check_rule(kind, rule)


def _integer(low: int, high: int = 2**63) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_cluster_number(value: Any) -> bool:
    return value == "auto" if isinstance(value, str) else _integer(2)(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _is_grid(value: Any) -> bool:
    side = _integer(*GRID_SIDES)
    return isinstance(value, list) and all(side(n) and n % GRID_MULTIPLE == 0 for n in value)


def _is_spacing(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(_is_number(mm) and mm > 0 for mm in value))


def _is_text_map(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())


def _is_name_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value) and len(set(value)) == len(value)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[a-z][a-z0-9_]*", value) is not None


def _is_map(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _one_of(*allowed: Any) -> tuple[str, Callable[[Any], bool]]:
    text = " or ".join(json.dumps(item) for item in allowed)
    return text, lambda value: any(type(value) is type(item) and value == item for item in allowed)


_ALLOWED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "version": _one_of(1),
    "goal": _one_of(*GOALS),
    "include_burned_in": _one_of(True, False),
    "dimensions": _one_of(2, 3),
    "grid": (f"a list of multiples of {GRID_MULTIPLE} from {GRID_SIDES[0]} to {GRID_SIDES[1]}", _is_grid),
    "spacing": ("null or a list of positive numbers (mm)", _is_spacing),
    "crop_to_content": _one_of(True, False),
    "slices_per_volume": ("a whole number from 1 to 64", _integer(1, 64)),
    "channels": _one_of(1, 3),
    "stored_as": _one_of("uint8", "uint16"),
    "intensity": ("an object of intensity rules", _is_map),
    "method": ('the name of a method in lower case, such as "dcec"', _is_word),
    "n_clusters": ('a whole number, at least 2, or "auto"', _is_cluster_number),
    "batch_size": ("a whole number, at least 2", _integer(2)),
    "seed": ("a whole number from 0 to 4294967295", _integer(0, 2**32 - 1)),
    "maps_per_cluster": ("a whole number, at least 0", _integer(0)),
    "fit_images": ("a whole number, at least 100", _integer(100)),
    "augmentation": ('the name of an augmentation in lower case, such as "mixed"', _is_word),
    "select": ("an object of catalog columns and wanted values, both text", _is_text_map),
    "kind": ("an object of catalog columns and values, both text", _is_text_map),
    "settings": ("an object of constructor arguments of the method", _is_map),
    "adjust_for": ('a list of different columns of the catalog, or "site"', _is_name_list),
    "reasons": ("an object of sentences", _is_text_map),
}

_RULES: dict[str, Mapping[str, tuple[str, Callable[[Any], bool]]]] = {
    "window": {
        "low": ("a number", _is_number),
        "high": ("a number", _is_number),
        "units": ("text", lambda value: isinstance(value, str)),
    },
    "percentile": {
        "low": ("a number from 0 to 100", lambda value: _is_number(value) and 0 <= value <= 100),
        "high": ("a number from 0 to 100", lambda value: _is_number(value) and 0 <= value <= 100),
        "of": _one_of("foreground", "all"),
    },
    "range": {
        "low": ("a number or null", lambda value: value is None or _is_number(value)),
        "high": ("a number or null", lambda value: value is None or _is_number(value)),
    },
}


def _check_rule(kind: str, rule: Any) -> None:
    where = f"plan.json: the intensity rule of '{kind}'"
    if not isinstance(rule, dict) or rule.get("rule") not in _RULES:
        raise PlanError(f'{where} must be an object with "rule" set to {_one_of(*_RULES)[0]}.')
    allowed = _RULES[rule["rule"]]
    for name in rule:
        if name != "rule" and name not in allowed:
            raise PlanError(f"{where} has an unknown key '{name}'.{nearest(name, allowed)}")
    for name, (text, holds) in allowed.items():
        if name not in rule and name != "units":
            raise PlanError(f"{where} lacks '{name}': {text}.")
        if name in rule and not holds(rule[name]):
            raise PlanError(f"{where}: '{name}' is {json.dumps(rule[name], default=str)}, but must be {text}.")
    if rule["low"] is not None and rule["high"] is not None and not rule["low"] < rule["high"]:
        raise PlanError(f"{where}: 'low' must be smaller than 'high'.")
