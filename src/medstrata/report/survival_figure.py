"""Kaplan-Meier curves of the clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from medstrata.report.figures import FAINT, STYLE, colour, svg


def survival_figure(curves: Sequence[Mapping[str, Any]], units: str, names: Mapping[int, str]) -> str:
    """Draw one curve per cluster with its 95 % interval, and below it how many ``units`` ("patients") are at risk.

    ``names``: of clusters that a person named.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.4 + 0.18 * len(curves)), layout="constrained")
        axes, table = figure.subplots(2, 1, sharex=True, height_ratios=[3, 0.25 + 0.2 * len(curves)])
        for line, curve in enumerate(curves):
            tint = colour(curve["cluster"])
            name = names.get(curve["cluster"], "")
            who = f"{curve['cluster']}: {name}" if name else f"Cluster {curve['cluster']}"
            label = f"{who} ({curve['events']} of {curve['n']})".replace("$", r"\$")  # no mathematics in a name
            axes.step(curve["times"], curve["survival"], where="post", color=tint, linewidth=1.8, label=label)
            axes.fill_between(curve["times"], curve["low"], curve["high"], step="post", color=tint, alpha=0.15, lw=0)
            for time, count in zip(curve["at_risk_times"], curve["at_risk"], strict=True):
                table.text(time, -line, str(count), ha="center", va="center", color=tint, fontsize=8)
        axes.set(ylim=(0, 1.02), ylabel="Free of the event")
        axes.legend(frameon=False, fontsize=8)
        table.set(ylim=(-len(curves) + 0.4, 0.8), yticks=[], xlabel="Time, in the unit of the table")
        table.set_title(f"{units.capitalize()} at risk", loc="left", fontsize=8, color=FAINT, pad=2)
        for spine in table.spines.values():
            spine.set_visible(False)
        return svg(figure)
