"""Check the maps of a finished run beside controls: ``medstrata explain --check`` writes ``OUT/maps/check.json``."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from medstrata.errors import FitError, InputError
from medstrata.evidence.intervals import mean_interval
from medstrata.evidence.maps.activation import cluster_activation_map
from medstrata.evidence.maps.check import RULES, check_maps
from medstrata.evidence.maps.cohort_file import read_cohort
from medstrata.evidence.maps.correlation import pearson
from medstrata.evidence.maps.rule import Cohort, measure_cohort
from medstrata.evidence.maps.verdict import verdict
from medstrata.evidence.masks import Masks
from medstrata.images.plan import Plan, load_plan
from medstrata.methods.files import load
from medstrata.methods.method import ClusteringMethod
from medstrata.pipeline.fitting import method_of
from medstrata.run import Progress, write_json

CHECKED = 32  # images, drawn evenly from the clusters


def check_run(
    out: Path, device: str, masks: Path | None, refits: int, progress: Progress, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure the maps of up to 32 images (``evidence.maps.check``) and of ``refits`` models of other seeds.

    ``masks``: a file of what the maps should point at (``evidence.masks``).

    Raises
    ------
    FitError : the method has no activation maps
    InputError : the masks cannot be used
    """
    model = load(out, device)
    if not model.has_maps:
        raise FitError("This method has no feature maps, so there are no activation maps to check.")
    pixels: NDArray[Any] = np.load(out / "pixels.npy", mmap_mode="r")
    table = pq.read_table(out / "images.parquet")
    known = None if masks is None else Masks(masks, out, pixels.shape[2:])
    rows, clusters = _drawn(out, table["image_id"].to_pylist(), known)
    geometry = table.take(rows).to_pylist()
    inside = distractors = None
    if known is not None:
        inside = np.stack([known.on_grid(row["image_id"], row) for row in geometry])
        if known.has_distractors:
            distractors = np.stack([known.on_grid(row["image_id"], row, "distractor") for row in geometry])
    cohort = read_cohort(out, model.device_) or measure_cohort(model, pixels)
    found = check_maps(model, pixels[rows], clusters, cohort, inside, distractors, progress=progress)
    plan = load_plan(out / "plan.json")
    plans = [replace(plan, seed=plan.seed + 1 + number) for number in range(refits)]
    other = [_other_seed(model, one, pixels, rows, cohort, progress) for one in plans]
    for rule in RULES if refits else ():
        found["rules"][rule.name]["other_seed"] = mean_interval(np.concatenate([one[rule.name] for one in other]))
    found["verdict"] = verdict(found, RULES[0].name)
    write_json(out / "maps" / "check.json", found)
    for sentence in found["verdict"]:
        say(f"check: {sentence}")
    return found


def _drawn(out: Path, ids: list[str], masks: Masks | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of ``pixels.npy`` of the images to check and their clusters, in turn from each cluster."""
    assignments = pq.read_table(out / "assignments.parquet", columns=["image_id", "cluster"])
    row_of: dict[str, list[int]] = {}
    for row, image_id in enumerate(ids):
        row_of.setdefault(image_id, []).append(row)
    names, clusters = assignments["image_id"].to_pylist(), assignments["cluster"].to_numpy()
    mixed = np.random.default_rng(0).permutation(len(names)).tolist()
    order = [at for at in mixed if clusters[at] >= 0 and (masks is None or names[at] in masks.image_ids)]
    if not order:
        raise InputError("None of the masks is of an image that was clustered. Give masks of this run's images.")
    rank = {at: int(np.sum(clusters[order[:place]] == clusters[at])) for place, at in enumerate(order)}
    chosen = sorted(order, key=lambda at: (rank[at], clusters[at]))[:CHECKED]
    rows = [row_of[names[at]][len(row_of[names[at]]) // 2] for at in chosen]
    return np.array(rows), clusters[chosen].astype(np.int64)


def _other_seed(
    model: ClusteringMethod,
    plan: Plan,
    pixels: NDArray[Any],
    rows: NDArray[np.int64],
    cohort: Cohort,
    progress: Progress,
) -> dict[str, NDArray[np.float64]]:
    """Fit ``plan``; Pearson's r of each rule's maps, of the images that both models put into the same cluster."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the other fit's own clusters: they are not the result
        other = method_of(plan, str(model.device_)).fit(pixels, progress=progress)
    table = np.zeros((model.n_clusters_, other.n_clusters_))
    own = model.predict(pixels)
    np.add.at(table, (own, other.labels_), 1)
    same = dict(zip(*(each.tolist() for each in linear_sum_assignment(table, maximize=True)), strict=True))
    agree = np.array([row for row in rows if same.get(int(own[row])) == other.labels_[row]], dtype=np.int64)
    if not len(agree):
        return {rule.name: np.empty(0) for rule in RULES}
    theirs = measure_cohort(other, pixels)
    found = {}
    for rule in RULES:
        first = cluster_activation_map(model, pixels[agree], rule, cohort=cohort).maps
        second = cluster_activation_map(other, pixels[agree], rule, cohort=theirs).maps
        found[rule.name] = pearson(torch.from_numpy(first), torch.from_numpy(second)).numpy()
    return found
