"""What all maps of a run come to, in words: whether they say what puts an image into its cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medstrata.evidence.maps.deletion import SHARE

BETTER = 0.05  # by so much more than random places the strongest part of a map must lower the probability


def summarise(
    rule: str, clusters: Sequence[int], facts: Mapping[str, Sequence[float]], k: int, scale: float
) -> dict[str, Any]:
    """Return ``maps/summary.json``: the rule, the common scale, and means of the figures over all maps and by cluster.

    ``clusters``: of each map; ``facts``: figures of each map, those of ``maps.deletion`` among them. ``check`` says
    these in words; ``caution`` is a plain sentence where the maps must not be used, else "". Of no maps: null.
    """
    summary = {"rule": rule, "scale": scale, **_means(range(len(clusters)), facts)}
    empty = "All maps are empty: no part of any image speaks for its cluster." if clusters and not scale else ""
    entries = []
    for cluster in range(k):
        means = _means([row for row, own in enumerate(clusters) if own == cluster], facts)
        entries.append({"cluster": cluster, **means, **({"check": "", "caution": ""} if empty else _judged(means))})
    return {**summary, "caution": empty, "clusters": entries}


def _means(rows: Sequence[int], facts: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    means: dict[str, Any] = {"images": len(rows)}
    for name, values in facts.items():
        known = np.array([values[row] for row in rows])
        known = known[np.isfinite(known)]
        means[name] = float(known.mean()) if len(known) else None
    return means


def _judged(means: dict[str, Any]) -> dict[str, str]:
    if not means["images"]:
        return {"check": "", "caution": ""}
    check = (
        f"Taking the strongest {SHARE:.0%} of the map out of an image brings the cluster's probability from "
        f"{means['probability']:.2f} to {means['without']:.2f}; as much at random places, to "
        f"{means['without_random']:.2f}."
    )
    if means["without_random"] - means["without"] >= BETTER:
        return {"check": check, "caution": ""}
    return {"check": "", "caution": f"This map should not be used to explain the cluster. {check}"}
