"""Check the maps of a finished run beside controls: ``medstrata explain --check`` writes ``OUT/maps/check.json``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
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
from medstrata.evidence.maps.check import RULES, Checked, check_maps
from medstrata.evidence.maps.cohort_file import COHORT, COPIED, read_cohort
from medstrata.evidence.maps.correlation import pearson
from medstrata.evidence.maps.rule import measure_cohort
from medstrata.evidence.maps.verdict import verdict
from medstrata.evidence.masks import Masks
from medstrata.images.plan import Plan, load_plan
from medstrata.methods.adjusting import no_maps
from medstrata.methods.files import load
from medstrata.methods.method import ClusteringMethod
from medstrata.pipeline.fitted_images import copy_drawn, drawn, fitted_images, image_numbers
from medstrata.pipeline.fitting import method_of
from medstrata.pipeline.inputs import FIT_PIXELS
from medstrata.pipeline.patients import patients_of
from medstrata.run import Progress, write_json

MARKS = {True: "passed: ", False: "not passed: ", None: ""}
CHECKED = 32  # images, drawn evenly from the clusters


def check_run(
    out: Path, device: str, masks: Path | None, refits: int, progress: Progress, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure the maps of up to 32 images (``evidence.maps.check``) and of ``refits`` models of other seeds.

    ``masks``: a file of what the maps should point at (``evidence.masks``). What is found is written before the refits,
    and again after them.

    Raises
    ------
    FitError : the method has no activation maps
    InputError : the masks cannot be used
    """
    model = load(out, device)
    if reason := no_maps(model):
        raise FitError(f"There is nothing to check: {reason}.")
    pixels: NDArray[Any] = np.load(out / "pixels.npy", mmap_mode="r")
    checked, rows = _checked(out, model, pixels, masks)
    found = check_maps(checked, progress=progress)
    _write(out, found)
    if refits and (out / COPIED).exists():
        say("check: the model was fitted on other images than these, so it is not fitted again with other seeds")
    elif refits:
        plan = load_plan(out / "plan.json")
        plans = [replace(plan, seed=plan.seed + 1 + number) for number in range(refits)]
        ids, image_of = image_numbers(out)
        fitted = fitted_images(len(ids), plan)[image_of]
        copy_drawn(out, pixels, fitted)
        some = drawn(out, pixels, fitted)
        other = [_other_seed(checked, one, some, (pixels, rows), progress) for one in plans]
        (out / FIT_PIXELS).unlink(missing_ok=True)
        for rule in RULES:
            found["rules"][rule.name]["other_seed"] = mean_interval(np.concatenate([one[rule.name] for one in other]))
        found["refits"] = {"count": refits, "same_cluster": [len(one[RULES[0].name]) for one in other]}
        _write(out, found)
    for test in found["verdict"]:
        say(f"check: {MARKS[test['passed']]}{test['sentence']}")
    return found


def _write(out: Path, found: dict[str, Any]) -> None:
    found["verdict"] = verdict(found, RULES[0].name)
    write_json(out / "maps" / "check.json", found)


def _checked(
    out: Path, model: ClusteringMethod, pixels: NDArray[Any], file: Path | None
) -> tuple[Checked, NDArray[np.int64]]:
    """Draw the images to check, in turn from each cluster, and the rows of ``pixels.npy`` that they stand in."""
    images = pq.read_table(out / "images.parquet")
    ids = images["image_id"].to_pylist()
    masks = None if file is None else Masks(file, out, pixels.shape[2:])
    row_of: dict[str, list[int]] = {}
    for row, image_id in enumerate(ids):
        row_of.setdefault(image_id, []).append(row)
    chosen: list[tuple[int, int]] = []
    inside, distractors = [], []
    for image_id, cluster in _in_turn(out, None if masks is None else masks.image_ids):
        row = row_of[image_id][len(row_of[image_id]) // 2]
        if masks is not None:
            geometry = images.slice(row, 1).to_pylist()[0]
            mask = masks.on_grid(image_id, geometry)
            if not mask.any():  # an image without a lesion says nothing about where its map should be
                continue
            inside.append(mask)
            distractors.append(masks.on_grid(image_id, geometry, "distractor"))
        chosen.append((row, cluster))
        if len(chosen) == CHECKED:
            break
    if not chosen:
        raise InputError("None of the masks holds anything on a clustered image. Give masks of this run's images.")
    rows = np.array([row for row, _ in chosen])
    checked = Checked(
        model,
        pixels[rows],
        np.array([cluster for _, cluster in chosen]),
        read_cohort(out / "maps" / COHORT, model.device_) or measure_cohort(model, pixels),
        patients_of(out, [ids[row] for row in rows]).tolist(),
        np.stack(inside) if masks is not None else None,
        np.stack(distractors) if masks is not None and masks.has_distractors else None,
    )
    return checked, rows


def _in_turn(out: Path, known: set[str] | None) -> Iterator[tuple[str, int]]:
    """Yield images and their clusters, one of each cluster in turn, in random order; of ``known`` ones only."""
    table = pq.read_table(out / "assignments.parquet", columns=["image_id", "cluster"])
    names, clusters = table["image_id"].to_pylist(), table["cluster"].to_pylist()
    mixed = np.random.default_rng(0).permutation(len(names)).tolist()
    members: dict[int, list[str]] = {}
    for at in mixed:
        if clusters[at] >= 0 and (known is None or names[at] in known):
            members.setdefault(clusters[at], []).append(names[at])
    if not members:
        raise InputError("No image of this run can be checked: all were rejected, or the masks are of other images.")
    for turn in range(max(map(len, members.values()))):
        for cluster in sorted(members):
            if turn < len(members[cluster]):
                yield members[cluster][turn], cluster


def _other_seed(
    checked: Checked, plan: Plan, some: Any, asked: tuple[NDArray[Any], NDArray[np.int64]], progress: Progress
) -> dict[str, NDArray[np.float64]]:
    """Fit ``plan`` on ``some`` images, those of the first fit.

    Returns Pearson's r of each rule's maps, of the images (all pixels, and rows of them) that are ``asked`` about and
    that both models put into the same cluster.
    """
    model: Any = checked.model
    pixels, rows = asked
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the other fit's own clusters: they are not the result
        other = method_of(plan, str(model.device_)).fit(some, progress=progress)
    table = np.zeros((model.n_clusters_, other.n_clusters_))
    np.add.at(table, (model.predict(some), other.labels_), 1)
    same = dict(zip(*(each.tolist() for each in linear_sum_assignment(table, maximize=True)), strict=True))
    both = zip(rows.tolist(), model.predict(pixels[rows]), other.predict(pixels[rows]), strict=True)
    agree = np.array([row for row, own, theirs in both if same.get(int(own)) == theirs], dtype=np.int64)
    if not len(agree):
        return {rule.name: np.empty(0) for rule in RULES}
    theirs = measure_cohort(other, some)
    found = {}
    for rule in RULES:
        first = cluster_activation_map(model, pixels[agree], rule, cohort=checked.cohort).maps
        second = cluster_activation_map(other, pixels[agree], rule, cohort=theirs).maps
        found[rule.name] = pearson(torch.from_numpy(first), torch.from_numpy(second)).numpy()
    return found
