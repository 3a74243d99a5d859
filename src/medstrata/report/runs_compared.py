"""The page that compares two runs. (``comparison`` is about the simple methods beside one run.)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medstrata.decisions import read_decided
from medstrata.report.cards import showable
from medstrata.report.figures import data_uri
from medstrata.report.folder import RunFolder, rows_of
from medstrata.report.pictures import Picture, Pictures
from medstrata.report.templates import render_template

MOST_FLOWS, MOVERS = 8, 6  # flows that are shown with pictures, and pictures of each


@dataclass(frozen=True)
class Mover:
    """One image that moved; ``before`` and ``now``: the probability of its cluster in each run."""

    image_id: str
    pictures: list[Picture]
    before: float
    now: float


@dataclass(frozen=True)
class Flow:
    """The images that moved from one cluster to another, the most certain of them with pictures."""

    first: int
    second: int
    size: int
    movers: list[Mover]
    hidden: int


def render_comparison(second: RunFolder, compared: dict[str, Any], images: pa.Table, flow: bytes) -> str:
    """Return the page as HTML.

    ``second``: the run whose pixels are shown; ``compared``: compare.json; ``images``: moved.parquet; ``flow``: the
    flow figure as SVG.
    """
    decided = read_decided(second.path)
    flows = list_flows(second, images)
    return render_template(
        "compared.html",
        compared=compared,
        names={pair["second"]: decided.name(pair["second"]) for pair in compared["pairs"]},
        flow=data_uri(flow, "svg+xml"),
        flows=flows[:MOST_FLOWS],
        other_flows=len(flows) - len(flows[:MOST_FLOWS]),
        volumes=second.pixels.ndim == 5,
    )


def list_flows(second: RunFolder, images: pa.Table) -> list[Flow]:
    """List the flows between clusters that are not matched, largest first; the largest have pictures.

    The most certain movers are those whose smaller probability of both runs is largest. Images that may have text
    burned in are counted as hidden and never shown.
    """
    moved = images.filter(images["moved"])
    if not len(moved):
        return []
    froms, tos = (moved[name].to_numpy() for name in ("first_cluster", "second_cluster"))
    both, group, sizes = np.unique(np.stack([froms, tos], 1), axis=0, return_inverse=True, return_counts=True)
    group = group.ravel()
    members = pc.index_in(moved["image_id"], value_set=second.assignments["image_id"].combine_chunks()).to_numpy()
    allowed = showable(rows_of(second.catalog, moved["image_id"]), bool(second.plan.get("include_burned_in")))
    pictures = Pictures(second)
    flows = []
    for place, number in enumerate(np.argsort(-sizes, kind="stable").tolist()):
        rows = np.flatnonzero(group == number)
        shown = rows[allowed[rows]] if place < MOST_FLOWS else rows[:0]
        hidden = int((~allowed[rows]).sum())
        start, end = both[number].tolist()
        flows.append(Flow(start, end, len(rows), _movers(pictures, moved, members, shown), hidden))
    return flows


def _movers(pictures: Pictures, moved: pa.Table, members: NDArray[np.int64], rows: NDArray[np.intp]) -> list[Mover]:
    if not len(rows):
        return []
    before, now = (moved[name].to_numpy() for name in ("first_probability", "second_probability"))
    surest = rows[np.argsort(-np.minimum(before, now)[rows], kind="stable")][:MOVERS]
    window = pictures.window(members[rows].astype(np.intp))
    return [
        Mover(
            moved["image_id"][int(row)].as_py(),
            pictures.thumbnail(int(members[row]), window),
            float(before[row]),
            float(now[row]),
        )
        for row in surest
    ]
