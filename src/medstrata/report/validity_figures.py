"""Figures of the section on validity: the null, the consensus of refits, the number of clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from medstrata.report.figures import COLOURS, FAINT, INK, STYLE, colour, png, svg

TITLES = {
    "replication": "Agreement of two halves of the patients",
    "separation": "How far apart unseen images lie",
    "gap": "Gap between clusters",
}
AXES = {
    "replication": (1.0, "adjusted Rand index: 0 = by chance, 1 = the same"),
    "separation": (0.3, "silhouette: 0 = not at all, 1 = far"),
    "gap": (2.0, "1 = as between pieces of a continuum"),
}
"""How far each axis goes at least, so that differences near nothing look like that, and its label."""


CRITERIA = {
    "valley": "density between clusters\n(low: they are parted)",
    "prediction strength": "share predicted\n(high is good)",
    "mixture": "Bayesian criterion\n(low is good)",
    "connection": "connection\n(low: they are parted)",
    "stability": "agreement of samples\n(high is good)",
    "gap": "gap statistic\n(high is good)",
    "silhouette": "silhouette\n(high is good)",
}
"""What each criterion for the number of clusters measures, and which way it is good."""
COMMUNITIES = "the number of communities that the graph of neighbours has over most resolutions"


def null_figure(null: Mapping[str, Any]) -> str:
    """Draw the statistics of the null: one dot for each set of images without groups, a line for the real images."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.4, 2.3), layout="constrained")
        measured = {name: title for name, title in TITLES.items() if name in null}
        for axes, (name, title) in zip(figure.subplots(1, len(measured)), measured.items(), strict=True):
            values, real = np.sort(np.array(null[name]["surrogates"])), null[name]["real"]
            least, label = AXES[name]
            low, high = min(0.0, real, *values), max(least, real, *values)
            margin = 0.04 * (high - low)
            heights = _stacked(values, margin / 2)
            axes.scatter(values, heights, s=26, color="#9aa5b1", linewidths=0, label="images without groups")
            axes.axvline(real, color=COLOURS[4], linewidth=2, label="these images")
            axes.set_title(title, loc="left", fontsize=9, fontweight="bold")
            axes.set(yticks=[], ylim=(-0.8, max(4.0, heights.max(initial=0) + 1.0)), xlim=(low - margin, high + margin))
            axes.set_xlabel(label, fontsize=8, color=FAINT)
            axes.spines["left"].set_visible(False)
        figure.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside lower right", ncols=2)
        return svg(figure)


def _stacked(values: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Return heights so that dots nearer than ``width`` stand on one another; ``values`` (n,) in ascending order."""
    heights = np.zeros(len(values))
    for number in range(1, len(values)):
        near = values[number] - values[:number] < width
        heights[number] = np.count_nonzero(near)
    return heights


def consensus_figure(matrix: NDArray[np.float32], clusters: NDArray[np.int64]) -> str:
    """Draw the consensus matrix (n, n) of images in the order of their ``clusters`` (n,), with their colours."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 4.2), layout="constrained")
        axes = figure.subplots()
        shown = axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        edges = np.flatnonzero(np.diff(clusters)) + 0.5
        for edge in edges.tolist():
            axes.axhline(edge, color="white", linewidth=0.8)
            axes.axvline(edge, color="white", linewidth=0.8)
        for number in np.unique(clusters).tolist():
            rows = np.flatnonzero(clusters == number)
            axes.plot([-0.02, -0.02], [rows[0] - 0.4, rows[-1] + 0.4], **_bar(axes, number))
            axes.annotate(
                str(number),
                (-0.04, float(rows.mean())),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="center",
                color=INK,
                fontsize=8,
            )
        bar = figure.colorbar(shown, ax=axes, shrink=0.6, ticks=[0, 0.5, 1])
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, labelcolor=FAINT)
        return png(figure)


def _bar(axes: Any, number: int) -> dict[str, Any]:
    return {
        "color": colour(number),
        "linewidth": 5,
        "solid_capstyle": "butt",
        "clip_on": False,
        "transform": axes.get_yaxis_transform(),
    }


def without_curve(number: Mapping[str, Any]) -> str:
    """Say what the criteria give that have no curve: they name one number of clusters and value no other."""
    given = {name: curve["recommended"] for name, curve in number["curves"].items() if not _drawn(curve)}
    what = {"communities": f" ({COMMUNITIES})"}
    said = [f"{name}{what.get(name, '')}: {recommended}" for name, recommended in given.items()]
    return f"Without a curve: {'; '.join(said)}." if said else ""


def _drawn(curve: Mapping[str, Any]) -> bool:
    return len(curve["k"]) > 1


def number_figure(number: Mapping[str, Any]) -> str:
    """Draw the curve of each criterion over the number of clusters, with a ring at its own choice."""
    curves = {name: curve for name, curve in number["curves"].items() if _drawn(curve)}
    columns = min(3, max(len(curves), 1))
    lines = -(-len(curves) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.4, 2.2 * lines), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False)
        for axes, (name, curve) in zip(grid.flat, curves.items(), strict=False):
            values = np.array([np.nan if value is None else value for value in curve["value"]], dtype=float)
            axes.axvline(number["used"], color="#e4e7eb", linewidth=5)
            axes.plot(curve["k"], values, "o-", color=COLOURS[0], linewidth=1.4, markersize=3)
            if curve["recommended"] in curve["k"]:
                at = curve["k"].index(curve["recommended"])
                axes.plot(curve["recommended"], values[at], "o", markersize=9, markerfacecolor="none", color=COLOURS[4])
            axes.set_title(name, loc="left", fontsize=9, fontweight="bold")
            axes.set_xlabel("number of clusters", fontsize=8, color=FAINT)
            axes.set_ylabel(CRITERIA.get(name, ""), fontsize=8, color=FAINT)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        for axes in list(grid.flat)[len(curves) :]:
            axes.remove()
        return svg(figure)
