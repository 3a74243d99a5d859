"""Compare a finished run with labels that the fit never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from medstrata.errors import RunFolderError
from medstrata.evidence.labels import read_labels
from medstrata.evidence.metrics import score

BASELINES = ("pca_kmeans", "pixel_graph")


def score_run(out: Path, labels: Path) -> dict[str, Any]:
    """Return the scores of ``evidence.metrics.score`` for the run's clusters, and beside them for each baseline.

    Every assigned image that has a label counts with its nearest cluster, rejected or not; ``rejected`` says how many
    of them the model rejected.

    Raises
    ------
    RunFolderError : the run is not finished, or its ``private/`` folder was removed
    InputError : the labels cannot be used
    """
    assignments = out / "assignments.parquet"
    if not assignments.exists():
        raise RunFolderError(f"{out} holds no assignments yet. Run: medstrata run INPUT OUT")
    sources = out / "private" / "sources.parquet"
    if not sources.exists():
        raise RunFolderError(f"{out} has no private/ folder, which joins images and labels. Use the original folder.")
    table = pq.read_table(assignments)
    known = read_labels(labels, pq.read_table(sources), table["image_id"].to_pylist())
    truth, found = known.values[known.known], np.asarray(table["nearest"])[known.known]
    result: dict[str, Any] = {**score(truth, found), "images": len(table), "labelled": known.count}
    result["rejected"] = int((np.asarray(table["cluster"])[known.known] < 0).sum())
    if (out / "baselines.parquet").exists():
        others = pq.read_table(out / "baselines.parquet")
        if others["image_id"].to_pylist() == table["image_id"].to_pylist():
            rows = {name: np.asarray(others[name])[known.known] for name in BASELINES}
            result["baselines"] = {name: dict(score(truth, row)) for name, row in rows.items()}
    return result
