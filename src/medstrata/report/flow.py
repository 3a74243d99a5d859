"""The flow figure: how the images of each cluster of one run lie in the clusters of another."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from medstrata.evidence.comparison import Comparison
from medstrata.report.figures import FAINT, INK, REJECTED, STYLE, colour, svg_bytes

BAR, GAP = 0.035, 0.02  # width of a bar, and room between two, as parts of the figure
NEW = "#52606d"  # a cluster of the second run that matches none of the first
Counts = NDArray[np.int64]


def flow_figure(compared: Comparison) -> bytes:
    """Draw two columns of bars, one per cluster, and a band for the images that two of them share; return SVG.

    A cluster of the second run has the colour and the place of the one that it is matched with.
    """
    left, right = list(range(len(compared.first_numbers))), _right_order(compared)
    counts = compared.counts[:, right]
    first_tints = [colour(compared.first_numbers[row]) for row in left]
    second_tints = [_second_tint(compared, compared.second_numbers[column]) for column in right]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, max(3.0, 0.34 * max(counts.shape) + 0.8)), layout="constrained")
        axes = figure.add_subplot()
        starts, ends = _places(counts.sum(axis=1)), _places(counts.sum(axis=0))
        _bands(axes, counts, (starts, ends), first_tints)
        numbers = [compared.second_numbers[column] for column in right]
        _bars(axes, 0.0, starts, (compared.first_numbers, counts.sum(axis=1)), first_tints)
        _bars(axes, 1.0 - BAR, ends, (numbers, counts.sum(axis=0)), second_tints)
        for place, words in ((0.0, "First run"), (1.0, "Second run")):
            side = "left" if place == 0 else "right"
            axes.text(place, -0.02, words, ha=side, va="bottom", fontsize=10, fontweight="bold", color=INK)
        axes.set(xlim=(-0.16, 1.16), ylim=(1.02, -0.07))
        axes.axis("off")
        return svg_bytes(figure)


def _right_order(compared: Comparison) -> list[int]:
    """Order the clusters of the second run like their partners, others by where most of them comes from."""
    partner = {pair.second: pair.first for pair in compared.pairs}
    place = {number: row for row, number in enumerate(compared.first_numbers)}

    def key(column: int) -> tuple[bool, float, int]:
        number = compared.second_numbers[column]
        row = place[partner[number]] if number in partner else int(compared.counts[:, column].argmax()) + 0.5
        return number < 0, row, number

    return sorted(range(len(compared.second_numbers)), key=key)


def _second_tint(compared: Comparison, number: int) -> str:
    if number < 0:
        return REJECTED
    return next((colour(pair.first) for pair in compared.pairs if pair.second == number), NEW)


def _places(sizes: Counts) -> NDArray[np.float64]:
    """Upper and lower ends (n, 2) of bars as high as ``sizes`` (n,) over one another, 0 on top to 1."""
    gaps = min(GAP, 0.3 / max(1, len(sizes)))
    heights = sizes / sizes.sum() * (1 - gaps * (len(sizes) - 1))
    lower = np.cumsum(heights + gaps) - gaps
    return np.stack([lower - heights, lower], axis=1)


def _bands(axes: Axes, counts: Counts, places: tuple[NDArray[np.float64], ...], tints: list[str]) -> None:
    """Draw a band for each pair of clusters with images in common, in the order of the bars on the other side."""
    starts, ends = places
    left, right = starts[:, 0].copy(), ends[:, 0].copy()
    step_left = (starts[:, 1] - starts[:, 0]) / counts.sum(axis=1)
    step_right = (ends[:, 1] - ends[:, 0]) / counts.sum(axis=0)
    for row, column in np.argwhere(counts > 0).tolist():
        heights = counts[row, column] * step_left[row], counts[row, column] * step_right[column]
        outline = _band((left[row], right[column]), heights)
        axes.add_patch(PathPatch(outline, facecolor=tints[row], edgecolor="none", alpha=0.42))
        left[row] += heights[0]
        right[column] += heights[1]


def _band(tops: tuple[float, float], heights: tuple[float, float]) -> Outline:
    begin, middle, end = BAR, 0.5, 1 - BAR
    (left, right), (left_height, right_height) = tops, heights
    points = [(begin, left), (middle, left), (middle, right), (end, right), (end, right + right_height)]
    points += [(middle, right + right_height), (middle, left + left_height), (begin, left + left_height), (begin, left)]
    curve, line = Outline.CURVE4, Outline.LINETO
    return Outline(points, [Outline.MOVETO, curve, curve, curve, line, curve, curve, curve, Outline.CLOSEPOLY])


def _bars(
    axes: Axes, at: float, places: NDArray[np.float64], named: tuple[list[int], Counts], tints: list[str]
) -> None:
    for number, size, (top, bottom), tint in zip(*named, places, tints, strict=True):
        axes.add_patch(Rectangle((at, top), BAR, bottom - top, facecolor=tint, edgecolor="none"))
        words = "not assigned" if number < 0 else str(number)
        side, place = ("right", at - 0.012) if at < 0.5 else ("left", at + BAR + 0.012)
        middle = (top + bottom) / 2
        axes.text(place, middle, f"{words} · {size:,}", ha=side, va="center", fontsize=8, color=INK if size else FAINT)
