"""Numbers and findings in words for people: percentages, counts, how strong an agreement is."""

from __future__ import annotations

import math
import re


def count(number: int) -> str:
    """Return 6600 as "6,600"."""
    return f"{number:,}"


def percent(share: float) -> str:
    """Return a share (0..1) as a percentage that never rounds something to nothing or almost all to all."""
    if not math.isfinite(share):
        return "–"
    if 0 < share < 0.01:
        return "< 1 %"
    if 0.99 < share < 1:
        return "> 99 %"
    return f"{100 * share:.0f} %"


def number(value: float) -> str:
    """Return a number with two digits after the point, a dash where it is unknown."""
    return f"{value:.2f}" if math.isfinite(value) else "–"


def listing(items: list[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def things(amount: int, noun: str) -> str:
    """Return the count with its noun; "1 image", "2 images", "1 series"."""
    return f"{count(amount)} {noun if amount != 1 or noun == 'series' else noun.removesuffix('s')}"


def agreement(ari: float) -> str:
    """Say what an adjusted Rand index means."""
    if ari >= 0.9:
        return "almost the same grouping"
    if ari >= 0.65:
        return "largely the same grouping"
    if ari >= 0.3:
        return "a partly similar grouping"
    return "a different grouping"


def readable(key: str) -> str:
    """Return a key of a file in plain words: "n_clusters" as "Number of clusters", "slices_per_volume" without "_"."""
    known = {
        "n_clusters": "Number of clusters",
        "stored_as": "Stored as",
        "grid": "Grid (pixels)",
        "loss": "Total loss",
    }
    return known.get(key) or re.sub(r"_+", " ", key).strip().capitalize()
