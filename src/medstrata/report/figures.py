"""Figures of the report: one set of colours, drawn without a display, returned as data URIs."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from openTSNE import TSNE
from sklearn.decomposition import PCA

from medstrata.report.training import WATCHED, Phase
from medstrata.report.wording import readable

Points = NDArray[np.float64]

COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#d55e00",
    "#56b4e9",
    "#882255",
    "#332288",
    "#661100",
    "#1a1a1a",
)
"""Okabe and Ito's colours but the yellow (too pale on white), and dark ones of Paul Tol's: apart for all readers."""
MARKERS = ("o", "^", "s")
REJECTED = "#b5b5b5"
SHOWN_POINTS = 3000  # more points hide one another, and t-SNE of 5,000 takes half a minute on one core
FEWEST_FOR_TSNE = 10
INK, FAINT = "#1f2933", "#7b8794"
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": "#cbd2d9",
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "medstrata",
}


def colour(number: int) -> str:
    """Return the colour of a cluster, grey for -1."""
    return REJECTED if number < 0 else COLOURS[number % len(COLOURS)]


def marker(number: int) -> str:
    """Return the marker of a cluster: colours repeat after ten clusters, markers then tell them apart."""
    return "x" if number < 0 else MARKERS[number // len(COLOURS) % len(MARKERS)]


def shade(share: float) -> str:
    """Return the background of a table cell, from white (0) to dark blue (1), as "#rrggbb"."""
    return "#" + "".join(f"{round(255 + share * (end - 255)):02x}" for end in (31, 95, 139))


def data_uri(content: bytes, kind: str) -> str:
    """Return bytes as a data URI of the MIME type ``image/kind``."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def sample_points(count: int, seed: int) -> NDArray[np.intp]:
    """Return at most ``SHOWN_POINTS`` row numbers of ``count``, sorted, the same for the same seed."""
    if count <= SHOWN_POINTS:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, SHOWN_POINTS, replace=False))


def pca_positions(embeddings: Points) -> Points:
    """Project embeddings (N, Z) on their two main directions (N, 2); zeros where there are fewer."""
    centred = embeddings - embeddings.mean(axis=0)
    kept = min(2, *centred.shape)
    positions = np.zeros((len(centred), 2))
    if np.any(centred):
        positions[:, :kept] = PCA(kept, svd_solver="full").fit_transform(centred)
    return positions


def tsne_positions(embeddings: Points, seed: int) -> Points | None:
    """Place embeddings (N, Z) on a t-SNE map (N, 2); None below 10 different points, where t-SNE means nothing."""
    if len(np.unique(embeddings, axis=0)) < FEWEST_FOR_TSNE:
        return None
    reduced = embeddings
    if embeddings.shape[1] > 50:  # the usual first step: t-SNE's neighbours are those of the main directions
        reduced = PCA(min(50, len(embeddings)), svd_solver="full").fit_transform(embeddings)
    initial = pca_positions(reduced)
    initial = initial / max(initial[:, 0].std(), 1e-12) * 1e-4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about small sets and tied distances; nothing a reader could act on
        model = TSNE(
            perplexity=min(30.0, (len(reduced) - 1) / 3),
            initialization=initial,
            neighbors="exact",
            n_jobs=1,
            random_state=seed,
        )
        return np.asarray(model.fit(reduced), dtype=np.float64)


def embedding_maps(embeddings: NDArray[Any], labels: NDArray[np.int64], seed: int) -> tuple[str, bool, int]:
    """Draw the embeddings (N, Z) as t-SNE map and PCA projection in the colours of the clusters.

    Returns the PNG as data URI, whether a t-SNE map could be drawn, and the number of points shown.
    """
    rows = sample_points(len(embeddings), seed)
    points = np.nan_to_num(np.asarray(embeddings[rows], dtype=np.float64))
    maps = [("Two main directions (PCA)", pca_positions(points))]
    neighbours = tsne_positions(points, seed)
    if neighbours is not None:
        maps.insert(0, ("Neighbourhoods (t-SNE)", neighbours))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.7 * len(maps), 4.4), layout="constrained")
        for axes, (title, positions) in zip(np.ravel(figure.subplots(1, len(maps))), maps, strict=True):
            _scatter(axes, positions, labels[rows])
            axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        return png(figure), neighbours is not None, len(rows)


def _scatter(axes: Axes, positions: Points, labels: NDArray[np.int64]) -> None:
    size = float(np.clip(3000 / len(positions), 4, 30))
    numbers = np.unique(labels)
    for number in numbers.tolist():
        at = positions[labels == number]
        outline = 0.7 if number < 0 else 0.0  # a cross is nothing but its outline
        look: dict[str, Any] = {"c": colour(number), "marker": marker(number), "linewidths": outline}
        axes.scatter(at[:, 0], at[:, 1], s=size, alpha=0.75, **look)
    for number in numbers[numbers >= 0].tolist():
        at = positions[labels == number]
        middle = at[np.linalg.norm(at - np.median(at, axis=0), axis=1).argmin()]  # a member: never in empty space
        box = {"boxstyle": "round,pad=0.22", "facecolor": "white", "edgecolor": colour(number), "linewidth": 1.2}
        axes.annotate(str(number), middle, ha="center", va="center", fontsize=8, fontweight="bold", bbox=box)
    axes.set(xticks=[], yticks=[])
    axes.margins(0.06)
    for spine in axes.spines.values():
        spine.set_visible(True)


def training_curves(phases: Sequence[Phase]) -> str:
    """Draw the loss of each phase and what was watched, one panel each, as an SVG data URI."""
    panels: list[tuple[str, Mapping[str, tuple[list[float], list[float]]]]] = []
    for phase in phases:
        if phase.losses:
            panels.append((f"Loss: {phase.name}", phase.losses))
        panels += [(WATCHED[key], {key: curve}) for key, curve in phase.watched.items()]
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.4, 2.5 * lines), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False)
        for axes, (title, curves) in zip(grid.flat, panels, strict=False):
            _curves(axes, title, curves)
        for axes in list(grid.flat)[len(panels) :]:
            axes.remove()
        return svg(figure)


def _curves(axes: Axes, title: str, curves: Mapping[str, tuple[list[float], list[float]]]) -> None:
    for index, (key, (epochs, values)) in enumerate(curves.items()):
        style = "o-" if len(epochs) < 3 else "-"
        tint = COLOURS[index % len(COLOURS)]
        axes.plot(epochs, values, style, color=tint, linewidth=1.6, markersize=3, label=readable(key))
    axes.set_title(title, loc="left", fontsize=9, fontweight="bold")
    axes.set_xlabel("Pass over all images")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.7)
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=8)
    elif min(values := next(iter(curves.values()))[1]) >= 0:
        axes.set_ylim(0, max(1e-9, max(values)) * 1.08)


def png(figure: Figure) -> str:
    """Return a figure as a data URI of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=170, metadata={"Software": None})
    return data_uri(buffer.getvalue(), "png")


def svg(figure: Figure) -> str:
    """Return a figure as a data URI of an SVG; call it within ``STYLE``."""
    return data_uri(svg_bytes(figure), "svg+xml")


def svg_bytes(figure: Figure) -> bytes:
    """Return a figure as SVG, the same bytes each time; call it within ``STYLE``."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
