"""Agreement of the clusters with what simple methods find in the same images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from medstrata.report.folder import RunFolder, rows_of
from medstrata.report.headers import contingency

Labels = NDArray[np.int64]

SHOWN_BASELINE_CLUSTERS = 12
BASELINES = {
    "pca_kmeans": "PCA and k-means",
    "pixel_graph": "Neighbour graph of the raw pixels",
}


@dataclass(frozen=True)
class Agreement:
    """Agreement of the clusters with one baseline; ``table`` (clusters, baseline clusters) counts images."""

    key: str
    title: str
    ari: float
    nmi: float
    count: int
    rows: list[int]
    columns: list[str]
    table: list[list[int]]
    apart: list[int]


def list_agreements(run: RunFolder, labels: Labels) -> list[Agreement]:
    """Compare the clusters with every baseline that ran on at least one clustered image."""
    if run.baselines is None:
        return []
    rows = rows_of(run.baselines, run.assignments["image_id"])
    found = []
    for key, title in BASELINES.items():
        if key in rows.column_names:
            other = pc.fill_null(rows[key], -1).to_numpy().astype(np.int64)
            both = (labels >= 0) & (other >= 0)
            if both.any():
                found.append(_agreement(key, title, labels[both], other[both]))
    return found


def _agreement(key: str, title: str, labels: Labels, other: Labels) -> Agreement:
    full = contingency(labels, other)
    rows, names = np.flatnonzero(full.sum(axis=1)), np.flatnonzero(full.sum(axis=0))
    table = full[rows][:, names]
    sizes = table.sum(axis=0)
    overlap = table / (table.sum(axis=1, keepdims=True) + sizes - table)  # Jaccard index of every pair of clusters
    largest = np.argsort(-sizes, kind="stable")[:SHOWN_BASELINE_CLUSTERS]
    shown = largest[np.argsort(overlap[:, largest].argmax(axis=0), kind="stable")]
    columns, cells = [str(names[index]) for index in shown], table[:, shown]
    if len(shown) < len(names):
        columns, cells = [*columns, "others"], np.column_stack([cells, table.sum(axis=1) - cells.sum(axis=1)])
    return Agreement(
        key=key,
        title=title,
        ari=float(adjusted_rand_score(other, labels)),
        nmi=float(normalized_mutual_info_score(other, labels)),
        count=len(labels),
        rows=rows.tolist(),
        columns=columns,
        table=cells.tolist(),
        apart=[int(row) for row, best in zip(rows, overlap.max(axis=1), strict=True) if best < 0.5],
    )
