"""The curves of history.jsonl, sorted into the phases of the training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

WATCHED = {
    "label_change": "Share of images that changed cluster",
    "clusters_used": "Clusters that hold images",
    "size_entropy": "Evenness of the cluster sizes (1 = all equal)",
}
"""Curves of the collapse watch, as history.jsonl names them."""


@dataclass(frozen=True)
class Phase:
    """One phase of the training: per curve (epochs, values)."""

    name: str
    losses: dict[str, tuple[list[float], list[float]]]
    watched: dict[str, tuple[list[float], list[float]]]


def read_phases(history: list[dict[str, Any]]) -> list[Phase]:
    """Sort the lines of history.jsonl into phases with their curves of the loss and of the collapse watch.

    Every number whose name holds "loss" is a part of the loss. The label change of a phase's first epoch has nothing
    to compare with and is left out.
    """
    phases: dict[str, Phase] = {}
    for index, row in enumerate(history):
        name = str(row.get("phase", "training"))
        phase = phases.setdefault(name, Phase(name, {}, {}))
        epoch = float(row.get("epoch", index))
        for key, value in row.items():
            curves = phase.losses if "loss" in key else phase.watched if key in WATCHED else None
            if curves is None or not isinstance(value, int | float) or not math.isfinite(value):
                continue
            if key != "label_change" or epoch > 0:
                epochs, values = curves.setdefault(key, ([], []))
                epochs.append(epoch)
                values.append(float(value))
    return list(phases.values())
