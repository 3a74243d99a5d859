"""From cells to docs/results.md: the text between two marks is written anew, what stands around it is kept."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.results.rows import PAPERS
from benchmarks.results.sets import DEVELOPED_ON, DRAWN_FROM, SETS
from medstrata.run import atomic

Cell = dict[str, Any]
BEGIN, END = "<!-- the tables: make results -->", "<!-- end of the tables -->"
MEASURES = ("accuracy", "balanced_accuracy", "nmi", "ami", "ari", "purity")
HEADS = ("accuracy", "balanced", "NMI", "AMI", "ARI", "purity K")
OUTSIDE_HEADS = ("accuracy, Hungarian", "NMI", "ARI", "purity", "accuracy, named", "balanced, named", "probe")
NAMES = {
    "auto": "**auto**: two runs of DeepMCAT; of volumes DCEC",
    "deepmcat": "DeepMCAT",
    "deepmcat-balanced": "DeepMCAT, equal shares",
    "contrastive": "Contrastive autoencoder",
    "dcec": "DCEC",
    "dvc": "DVC",
    "pca-kmeans": "PCA + k-means",
    "pca-mixture": "PCA + GMM",
    "pixel-graph": "pixels, graph, Leiden",
    "run": "**medstrata run** --goal categories, with its default method",
    "sharpness-kmeans": "sharpness alone + k-means",
    "sizes-kmeans": "size, bits and padding of the files alone + k-means",
    "peer-UMAP+GMM": "UMAP + GMM (peer)",
    "peer-UMAP+HDBSCAN": "UMAP + HDBSCAN (peer; its own K)",
    "peer-DEC": "ClustPy DEC (peer)",
    "peer-IDEC": "ClustPy IDEC (peer)",
    "peer-VaDE": "ClustPy VaDE (peer)",
    "autoencoder": "autoencoder (of DCEC) + k-means",
    "frozen": "FrozenFeatures on the contrastive autoencoder's vectors",
    "supervised": "the encoder of DeepMCAT, trained with labels",
}
GENERATIVE_COLUMNS = (
    "drawn in their cluster",
    "samples in their cluster",
    "diversity",
    "nearest",
    "reconstruction",
    "reconstruction of PCA",
    "trustworthiness",
    "trustworthiness before",
)
OUTSIDE_TEXT = """\
Fitted on 70 % of the groups (patients, lesions, blocks of files); `predict` on the rest. Hungarian: clusters matched
with classes on the rest. Named: each cluster named by the majority of its training images. Probe: logistic regression
on the frozen embedding, learned with the labels of the training part.
"""
GENERATIVE_TEXT = """\
Drawn: share of the draws from the Gaussian of a cluster that the model assigns to it; `sample` keeps only such draws,
so that the next column is near 1 wherever it finds any. Diversity: distance of two samples over that of two members.
Nearest: distance of a sample to the nearest of all training images over that of a training image to the nearest other
one (far below 1: copies). Reconstruction: share of the variance that is lost, beside PCA of as many components (empty
where there are fewer than 4 images for each). Trustworthiness of the latent space of the finished model, and of the
same one before its clustering phase.
"""
ORDERING_TEXT = """\
Spearman's correlation with NMI over the methods of a set (each by its default reading; mean over its seeds). A score
would have to reach 0.6 on the sets that were not developed on to choose a method by it; with four or five methods a
set, single values are noise.
"""
HEADERS_TEXT = """\
In 2 % of the files of the archive modality or body part were falsified. Precision and recall of the list that
`medstrata run` writes of images whose header contradicts those of the images like them; "first": among as many as were
falsified.
"""
READINGS = {
    "own": "own",
    "graph": "graph",
    "kmeans": "k-means on its embedding",
    "self-supervised": "self-supervised head",
}


def write_table(cells: Path, document: Path) -> None:
    """Write the tables of the cells under ``cells`` into ``document``, between the two marks."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(cells.glob("*/*.json"))]
    text = document.read_text(encoding="utf-8") if document.exists() else "# Results\n\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    with atomic(document) as part:
        part.write_text(f"{before}{BEGIN}\n\n{render(found)}\n{END}{after}", encoding="utf-8")


def render(cells: list[Cell]) -> str:
    """Return all tables as Markdown."""
    present = [name for name in SETS if any(cell["data"] == name for cell in cells)]
    parts = [in_sample(name, [cell for cell in cells if cell["data"] == name]) for name in present]
    further = (out_of_sample, wrong_headers, generative, ordering)
    return "\n".join([*parts, *(table(cells, present) for table in further)])


def in_sample(data: str, cells: list[Cell]) -> str:
    """One table per set: fitted and scored on all its images."""
    rows: dict[str, list[tuple[Cell, dict[str, float]]]] = defaultdict(list)
    for cell in cells:
        if cell["row"].endswith("-split"):
            continue
        for label, scores in _readings(cell):
            rows[label].append((cell, scores))
    if not rows:
        return ""
    sample = next((cell for cell in cells if cell.get("images")), {})
    majority = next((s["majority_rate"] for members in rows.values() for _, s in members if s), float("nan"))
    seen = (
        " — developed on" if data in DEVELOPED_ON else " — images of a set developed on" if data in DRAWN_FROM else ""
    )
    lines = [
        f"### {data}{seen}\n",
        f"{sample.get('images', '?')} images, {sample.get('classes', '?')} classes, majority rate {majority:.3f}.\n",
        f"| | {' | '.join(HEADS)} | purity 3K | CPU min | seeds |",
        f"|---|{'---|' * (len(HEADS) + 3)}",
    ]
    for label in sorted(rows, key=_place):
        lines.append(_line(label, rows[label]))
    return "\n".join(lines) + "\n"


def _readings(cell: Cell) -> list[tuple[str, dict[str, float]]]:
    """Return the rows that one cell fills, each with its scores ({}: not finished)."""
    name, _, kind = cell["row"].partition("-")
    base = str(NAMES.get(cell["row"]) or NAMES.get(name, cell["row"]))
    if not cell["finished"]:
        return [(base + {"as-published": ", as published", "no-objective": ", graph, objective off"}.get(kind, ""), {})]
    scores = cell["scores"]
    if cell["row"] in NAMES and name in ("pca", "pixel", "peer", "sizes", "sharpness", "run"):
        return [(base, next(iter(scores.values())) | _purity(scores, "3K"))]
    if kind == "as-published":
        return [(f"{base}, as published", scores["own"]), (f"{base}, as published, graph", scores["graph"])]
    if kind == "no-objective":
        off = (f"{base}, graph, objective off", scores["graph"] | _purity(scores, "3K"))
        return [off, (NAMES["autoencoder"], scores["kmeans"])] if "kmeans" in scores and name == "dcec" else [off]
    found = []
    for reading, words in READINGS.items():
        if reading in scores:
            more = (
                _purity(scores, "own 3K") if reading == "own" else _purity(scores, "3K") if reading == "graph" else {}
            )
            found.append((f"{base}, {words}", scores[reading] | more))
    return found


def _purity(scores: dict[str, dict[str, float]], key: str) -> dict[str, float]:
    return {"purity_3k": scores[key]["purity"]} if key in scores else {}


def _line(label: str, members: list[tuple[Cell, dict[str, float]]]) -> str:
    finished = [(cell, scores) for cell, scores in members if scores]
    if not finished:
        return f"| {label} | not finished |{' |' * (len(HEADS) + 1)} {len(members)} |"
    values = [mean_and_spread([scores.get(measure) for _, scores in finished]) for measure in (*MEASURES, "purity_3k")]
    minutes = np.mean([cell["cpu_seconds"] for cell, _ in finished]) / 60
    seeds = str(len(finished)) if len(finished) == len(members) else f"{len(finished)} of {len(members)}"
    return f"| {label} | {' | '.join(values)} | {minutes:.1f} | {seeds} |"


def mean_and_spread(values: list[float | None]) -> str:
    """Return "mean ± standard deviation" of three digits; of one value without a spread, of none nothing."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    spread = f" ± {_digits(float(np.std(known, ddof=1)))}" if len(known) > 1 else ""
    return f"{_digits(float(np.mean(known)))}{spread}"


def _digits(value: float) -> str:
    """Three digits after the point, without the zero before it."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.3f}")


def _place(label: str) -> tuple[int, str]:
    order = list(NAMES.values())
    return next((number for number, name in enumerate(order) if label.startswith(name)), len(order)), label


def out_of_sample(cells: list[Cell], present: list[str]) -> str:
    """Fitted on a training part, ``predict`` on the rest."""
    lines = [
        "### Out of sample\n",
        OUTSIDE_TEXT,
        f"| set | majority rate | | {' | '.join(OUTSIDE_HEADS)} | seeds |",
        f"|---|---|---|{'---|' * (len(OUTSIDE_HEADS) + 1)}",
    ]
    for data in present:
        groups: dict[str, list[Cell]] = defaultdict(list)
        for cell in cells:
            if cell["data"] == data and cell["row"].endswith("-split"):
                name = cell["row"].removesuffix("-split")
                groups[NAMES.get(name, name)].append(cell)
        for label in sorted(groups, key=_place):
            finished = [cell for cell in groups[label] if cell["finished"]]
            values = _outside(finished) if finished else ["not finished", *[""] * 6]
            rates = [cell["scores"]["rest"]["majority_rate"] for cell in finished if "rest" in cell["scores"]]
            place = f"| {data} | {mean_and_spread(rates)} | {label}"
            lines.append(f"{place} | {' | '.join(values)} | {len(groups[label])} |")
    return "\n".join(lines) + "\n"


def _outside(cells: list[Cell]) -> list[str]:
    wanted = (
        ("rest", "accuracy"),
        ("rest", "nmi"),
        ("rest", "ari"),
        ("rest", "purity"),
        ("named", "accuracy"),
        ("named", "balanced_accuracy"),
        ("probe", "accuracy"),
    )
    return [mean_and_spread([cell["scores"].get(part, {}).get(measure) for cell in cells]) for part, measure in wanted]


def wrong_headers(cells: list[Cell], present: list[str]) -> str:
    """How well ``medstrata run`` finds headers that were falsified."""
    columns = ("precision", "precision of the first", "recall")
    lines = ["### Wrong headers in an archive\n", HEADERS_TEXT]
    lines += ["| archive | falsified | listed | precision | first | recall | seeds |", "|---|---|---|---|---|---|---|"]
    for data in present:
        found = [cell["contradictions"] for cell in cells if cell["data"] == data and "contradictions" in cell]
        if found:
            counts = [f"{np.mean([facts[key] for facts in found]):.0f}" for key in ("falsified", "listed")]
            values = [mean_and_spread([facts[key] for facts in found]) for key in columns]
            lines.append(f"| {data} | {' | '.join([*counts, *values])} | {len(found)} |")
    return "\n".join(lines) + "\n"


def generative(cells: list[Cell], present: list[str]) -> str:
    """Samples, reconstructions, latent space."""
    lines = [
        "### Samples and reconstructions\n",
        GENERATIVE_TEXT,
        f"| set | | {' | '.join(GENERATIVE_COLUMNS)} | seeds |",
        f"|---|---|{'---|' * (len(GENERATIVE_COLUMNS) + 1)}",
    ]
    for data in present:
        for name in ("dvc", "contrastive"):
            own = [
                cell["generative"]
                for cell in cells
                if (cell["data"], cell["row"]) == (data, name) and "generative" in cell
            ]
            if own:
                values = [mean_and_spread([facts[column] for facts in own]) for column in GENERATIVE_COLUMNS]
                lines.append(f"| {data} | {NAMES[name]} | {' | '.join(values)} | {len(own)} |")
    return "\n".join(lines) + "\n"


def ordering(cells: list[Cell], present: list[str]) -> str:
    """Rank correlation between scores without labels and NMI, over the methods of a set."""
    names = sorted({name for cell in cells for name in cell.get("label-free", {})})
    lines = [
        "### Do scores without labels order the methods?\n",
        ORDERING_TEXT,
        f"| set | {' | '.join(names)} | methods |",
        f"|---|{'---|' * (len(names) + 1)}",
    ]
    collected: dict[str, list[float]] = defaultdict(list)
    for data in present:
        fits: dict[str, list[Cell]] = defaultdict(list)
        for cell in cells:
            if cell["data"] == data and cell.get("label-free") and cell["row"] in (*PAPERS, "auto"):
                fits[cell["row"]].append(cell)
        if len(fits) < 4:
            continue
        truth = [np.mean([cell["scores"]["graph"]["nmi"] for cell in seeds]) for seeds in fits.values()]
        found = [
            float(spearmanr([np.mean([c["label-free"][name] for c in seeds]) for seeds in fits.values()], truth)[0])
            for name in names
        ]
        lines.append(f"| {data} | {' | '.join(f'{value:.2f}' for value in found)} | {len(fits)} |")
        if data not in (*DEVELOPED_ON, *DRAWN_FROM):
            for name, value in zip(names, found, strict=True):
                collected[name].append(value)
    if collected:
        means = [f"{np.nanmean(collected[name]):.2f}" for name in names]
        lines.append(f"| **mean, not developed on** | {' | '.join(means)} | |")
    return "\n".join(lines) + "\n"
