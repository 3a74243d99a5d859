"""The tables and figures of docs/maps.md, from the cells of ``benchmarks.maps``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt

from benchmarks.maps.inserted import FACTORS
from medstrata.evidence.intervals import few_interval
from medstrata.run import atomic

DOCS = Path(__file__).resolve().parents[2] / "docs"
MARK = "<!-- the tables: python -m benchmarks.maps -->"
DEFAULT = "IntegratedGradients (default)"
COLUMNS = {
    "average_precision": "average precision",
    "pointing": "pointing",
    "dice": "Dice",
    "energy": "energy",
    "distractor_share": "share",
    "peak_on_distractor": "peak on distractor",
    "deletion": "deletion",
    "insertion": "insertion",
    "own_runner_up": "own / runner-up",
}
SANE = {
    "shuffled_25": "shuffled 25 %",
    "shuffled_50": "50 %",
    "shuffled_100": "100 %",
    "other_images": "other images",
    "noise": "noise",
    "moved": "moved",
    "completeness": "completeness",
}
CURVES = {  # rule: colour (Okabe, Ito), line
    DEFAULT: ("#0072B2", "-"),
    "FeatureGradients": ("#56B4E9", "-"),
    "Clam": ("#D55E00", "-"),
    "Grad-CAM": ("#CC79A7", "-"),
    "control: difference from the mean image, smoothed": ("#000000", "--"),
    "control: equal weights": ("#999999", "--"),
    "oracle: knows where lesions may lie": ("#009E73", ":"),
}
Found = dict[str, Any]


def write_tables(folder: Path) -> None:
    """Rewrite what stands below ``MARK`` in docs/maps.md, and docs/maps-curves.png."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    page = DOCS / "maps.md"
    head = page.read_text(encoding="utf-8").split(MARK)[0] if page.exists() else ""
    parts = [_accuracy(found), _main(found), _sanity(found), _k(found), _methods(found)]
    with atomic(page) as part:
        part.write_text(f"{head}{MARK}\n\n" + "\n\n".join(parts) + "\n", encoding="utf-8")
    _curves(found)


def _where(found: Sequence[Found], **wanted: Any) -> list[Found]:
    """Cells of these settings, every other at its default."""
    usual = {
        "factor": "location",
        "contrast_to_noise": 1.0,
        "distractor": False,
        "misregistration": None,
        "noise": 0.0,
        "images": None,
        "clusters": None,
        "method": "dcec",
    }
    asked = usual | wanted
    return [one for one in found if all(one["cell"].get(key, usual.get(key)) == value for key, value in asked.items())]


def _cell(values: Sequence[float]) -> str:
    """Mean and 95 % interval over seeds."""
    interval = few_interval(values)
    if interval["mean"] is None:
        return ""
    if len(values) == 1:
        return f"{interval['mean']:.2f}"
    # A t interval knows nothing of bounds: shares lie in 0..1, correlations in -1..1.
    low = max(interval["low"] or 0.0, 0.0 if min(values) >= 0 else -1.0)
    return f"{interval['mean']:.2f} ({low:.2f}–{min(interval['high'] or 0.0, max(1.0, *values)):.2f})"


def _rows(header: str, names: Sequence[str], rows: Sequence[tuple[str, list[str]]]) -> str:
    lines = [f"| {header} | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows)])


def _accuracy(found: Sequence[Found]) -> str:
    rows = []
    for data in ("phantoms", "ct-2d", "ct-3d"):
        for factor in FACTORS if data != "phantoms" else ("location",):
            for distractor in (False, True):
                cells = _where(found, data=data, factor=factor, distractor=distractor)
                if cells:
                    name = "simulated chests, 3-D" if data == "phantoms" else f"real CT, {data[3:].upper()}, {factor}"
                    keys = ("accuracy", "accuracy_new", "simple")
                    values = [_cell([cell[key] for cell in cells if key in cell]) for key in keys]
                    rows.append((name + (", distractor" if distractor else ""), [*values, str(len(cells))]))
    names = ["accuracy", "on the other lung", "PCA + k-means", "seeds"]
    return "### Are the planted groups found?\n\n" + _rows("", names, rows)


def _score_table(cells: Sequence[Found], columns: dict[str, str]) -> str:
    rules = list(cells[0]["scores"])
    used = {key: name for key, name in columns.items() if any(key in cell["scores"][DEFAULT] for cell in cells)}
    rows = []
    for rule in rules:
        values = [[cell["scores"][rule][key] for cell in cells if key in cell["scores"][rule]] for key in used]
        rows.append((rule, [_cell(each) for each in values]))
    return _rows("", list(used.values()), rows)


def _main(found: Sequence[Found]) -> str:
    parts = ["### Every rule beside controls"]
    for data, name in (("phantoms", "Simulated chests, 3-D, contrast to noise 1"), ("ct-2d", "Real CT, 2-D, location")):
        for distractor in (False, True):
            cells = _where(found, data=data, distractor=distractor)
            if cells:
                share = np.mean([cell["lesion_share"] for cell in cells])
                title = (
                    f"**{name}{', with a distractor' if distractor else ''}** ({len(cells)} seeds, chance {share:.3f})"
                )
                parts += [title, _score_table(cells, COLUMNS)]
    for factor in FACTORS:
        cells = _where(found, data="ct-2d", factor=factor, distractor=True)
        if factor != "location" and cells:
            parts += [
                f"**Real CT, 2-D, {factor}, with a distractor** ({len(cells)} seeds)",
                _score_table(cells, COLUMNS),
            ]
    return "\n\n".join(parts)


def _sanity(found: Sequence[Found]) -> str:
    parts = ["### Do maps depend on what they should?"]
    for data, name in (("phantoms", "Simulated chests"), ("ct-2d", "Real CT, 2-D, location")):
        cells = _where(found, data=data, distractor=True)
        if cells:
            scores = [{**cell, "scores": {n: s for n, s in cell["scores"].items() if "moved" in s}} for cell in cells]
            parts += [f"**{name}, with a distractor** ({len(cells)} seeds)", _score_table(scores, SANE)]
    return "\n\n".join(parts)


def _k(found: Sequence[Found]) -> str:
    rows = []
    for data, name in (("phantoms", "simulated chests"), ("ct-2d", "real CT, 2-D, location")):
        for clusters in (2, None, 4, 6):
            cells = _where(found, data=data, clusters=clusters)
            if cells:
                scores = [cell["scores"][DEFAULT] for cell in cells]
                keys = ("average_precision", "pointing", "own_runner_up")
                values = [_cell([cell[key] for cell in cells]) for key in ("accuracy", "purity")]
                values += [_cell([score[key] for score in scores]) for key in keys]
                rows.append((f"{name}, K = {clusters or '3 (true)'}", values))
    names = ["accuracy", "purity", "average precision", "pointing", "own / runner-up"]
    return "### A wrong number of clusters\n\n" + _rows("default rule", names, rows)


def _methods(found: Sequence[Found]) -> str:
    rows = []
    for data, name in (("phantoms", "simulated chests"), ("ct-2d", "real CT, 2-D, location")):
        for method in ("dcec", "dvc", "contrastive", "deepmcat"):
            cells = _where(found, data=data, method=method, distractor=True)
            if cells:
                values = [_cell([cell["accuracy"] for cell in cells])]
                for rule in (DEFAULT, "FeatureGradients", "Clam", "control: difference from the mean image, smoothed"):
                    values.append(_cell([cell["scores"][rule]["average_precision"] for cell in cells]))
                values.append(_cell([cell["scores"][DEFAULT]["distractor_share"] for cell in cells]))
                rows.append((f"{name}, {method}", values))
    names = ["accuracy", "AP default", "AP FeatureGradients", "AP Clam", "AP smoothed difference", "share default"]
    return "### Every clustering method, with a distractor\n\n" + _rows("", names, rows)


def _curves(found: Sequence[Found]) -> None:
    """Average precision along contrast to noise, misregistration and the number of images."""
    matplotlib.use("Agg")
    figure, axes = plt.subplots(1, 5, figsize=(18, 3.8), sharey=True)
    steps: list[tuple[str, str, Callable[[Any], list[Found]], Sequence[Any], Sequence[float]]] = [
        (
            "simulated chests",
            "contrast to noise",
            lambda at: _where(found, data="phantoms", contrast_to_noise=at),
            (0.25, 0.5, 1.0, 2.0, 4.0),
            (0.25, 0.5, 1.0, 2.0, 4.0),
        ),
        (
            "simulated chests, distractor",
            "contrast to noise",
            lambda at: _where(found, data="phantoms", contrast_to_noise=at, distractor=True),
            (0.25, 0.5, 1.0, 2.0, 4.0),
            (0.25, 0.5, 1.0, 2.0, 4.0),
        ),
        (
            "lesions in CT of one patient, distractor",
            "misregistration (mm)",
            lambda at: _where(found, data="ct-2d", misregistration=at, distractor=True),
            (0.0, None, 5.0, 8.0),
            (0.0, 2.0, 5.0, 8.0),
        ),
        (
            "lesions in CT of one patient, distractor",
            "images",
            lambda at: _where(found, data="ct-2d", images=at, distractor=True),
            (60, 150, None, 600),
            (60, 150, 300, 600),
        ),
        (
            "lesions in CT of one patient, distractor",
            "added noise (HU)",
            lambda at: _where(found, data="ct-2d", noise=at, distractor=True),
            (0.0, 200.0, 400.0, 800.0),
            (0.0, 200.0, 400.0, 800.0),
        ),
    ]
    for axis, (title, label, cells_at, keys, places) in zip(axes, steps, strict=True):
        _panel(axis, [cells_at(key) for key in keys], places)
        axis.set(title=title, xlabel=label, ylim=(0, 1))
        if places[0]:
            axis.set_xscale("log")
            axis.set_xticks(places, [f"{place:g}" for place in places])
            axis.minorticks_off()
    axes[0].set_ylabel("average precision (95 % interval)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncol=4, frameon=False)
    figure.tight_layout(rect=(0, 0.16, 1, 1))
    with atomic(DOCS / "maps-curves.png") as part:
        figure.savefig(part, format="png", dpi=110)
    plt.close(figure)


def _panel(axis: Any, cells: Sequence[Sequence[Found]], places: Sequence[float]) -> None:
    for rule, (colour, line) in CURVES.items():
        points = []
        for place, here in zip(places, cells, strict=True):
            values = [cell["scores"][rule]["average_precision"] for cell in here if rule in cell["scores"]]
            interval = few_interval(values)
            if interval["mean"] is not None:
                points.append((place, interval["mean"], interval["low"], interval["high"]))
        if points:
            x, mean, low, high = (np.array(each) for each in zip(*points, strict=True))
            axis.plot(x, mean, line, color=colour, label=rule, marker="o", markersize=3)
            axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    accuracy = [np.mean([cell["accuracy"] for cell in here]) if here else np.nan for here in cells]
    axis.plot(places, accuracy, ":", color="#E69F00", label="(accuracy of the clusters)")
