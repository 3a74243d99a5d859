"""Which technical columns go along with the clusters, and how well they predict them together.

What is found goes along with the clusters; it need not be their cause. Pixel measures above all may be the content: a
healthy lung is darker than one with fluid. The patient is the unit: of every patient one image is drawn by the seed for
the tests, the effects and their intervals, which all take independent units for granted. Permuting whole patients
would keep every image, but gives no interval, and is valid only where patients have equally many images. The
prediction uses several images of a patient, never on both sides of a fold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medstrata.errors import InputError
from medstrata.evidence.association.effects import (
    NotTested,
    benjamini_hochberg,
    categorical_association,
    numeric_association,
)
from medstrata.evidence.association.patients import draw_one_each
from medstrata.evidence.confounders.columns import TechnicalColumn, common_values
from medstrata.evidence.confounders.named import name_clusters
from medstrata.evidence.confounders.prediction import (
    FEWEST_PATIENTS,
    SIGNIFICANT,
    Task,
    features,
    make_task,
    prediction,
    skill,
)

Integers = NDArray[np.int64]
ORIGINS = {"headers": "header", "pixels": "pixels"}
ONE_CLUSTER = f"fewer than two clusters have images of {FEWEST_PATIENTS} patients or more"


@dataclass(frozen=True)
class _Group:
    """The images of one kind in clusters that are large enough to be judged."""

    kind: str
    columns: Sequence[TechnicalColumn]
    clusters: Integers
    patients: Integers


def find_confounders(
    columns: Sequence[TechnicalColumn],
    clusters: ArrayLike,
    patients: Sequence[str],
    seed: int = 0,
    kinds: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Test every technical column against the clusters, and predict the clusters from all of them.

    Parameters
    ----------
    columns : of M images each (``read_technical``)
    clusters : (M,) integers, -1 for rejected images, which take no part
    patients : (M,), one name for all images of a patient
    kinds : (M,), within which alone images are compared (``kinds_of``); by default all are of one kind

    Returns
    -------
    JSON values: ``unit`` ("patient", or "image" where no patient has two), ``images``, ``rejected``, ``seed``,
    ``not_compared`` (kinds that do not hold two clusters of ``FEWEST_PATIENTS`` patients: kind, images, reason),
    ``named`` (of all kinds, the strongest first: see ``name_clusters``), ``sentences`` (those of ``named``), and
    ``kinds``, for each one that was compared:

    - ``kind``, ``images``, ``units``, ``clusters`` and ``too_small`` (clusters that were left out)
    - ``associations``, strongest first: column, label, origin, test, statistic, p, q (Benjamini-Hochberg over all
      columns of all kinds), effect, effect_name, low, high, n, missing, and ``balanced_accuracy`` of this column alone
    - ``untested``: column, label, reason
    - ``headers`` and ``pixels``: see ``prediction``; None where there is no such column or ``not_predicted`` says why

    Raises
    ------
    InputError : clusters, patients, kinds and columns are not of the same images
    """
    labels, kind_of = np.asarray(clusters, dtype=np.int64), list(kinds if kinds is not None else [""] * len(patients))
    _check(columns, labels, patients, kind_of)
    patient = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)[1].astype(np.int64)
    groups, not_compared = _groups(columns, labels, patient, kind_of)
    results = [_examine(group, labels, kind_of, len(groups), seed) for group in groups]
    _correct([entry for result in results for entry in result["associations"]])
    named = [entry for result, group in zip(results, groups, strict=True) for entry in _named(result, group, seed)]
    named.sort(key=lambda entry: (entry["origin"] != "header", -entry["balanced_accuracy"]))
    for result in results:
        result["associations"].sort(key=lambda entry: (entry["q"], -entry["effect"]))
        for entry in result["associations"]:
            del entry["apart"]
    return {
        "unit": "image" if len(np.unique(patient)) == len(patient) else "patient",
        "images": int((labels >= 0).sum()),
        "rejected": int((labels < 0).sum()),
        "seed": seed,
        "sentences": [entry["sentence"] for entry in named],
        "named": named,
        "kinds": results,
        "not_compared": not_compared,
    }


def _check(
    columns: Sequence[TechnicalColumn], clusters: Integers, patients: Sequence[str], kinds: Sequence[str]
) -> None:
    lengths = {len(clusters), len(patients), len(kinds), *(len(column.values) for column in columns)}
    if clusters.ndim != 1 or len(lengths) != 1:
        raise InputError(
            f"Clusters, patients, kinds and technical columns are of different numbers of images: {sorted(lengths)}. "
            "Give all of them for the same images, in the same order."
        )


def _groups(
    columns: Sequence[TechnicalColumn], clusters: Integers, patients: Integers, kinds: Sequence[str]
) -> tuple[list[_Group], list[dict[str, Any]]]:
    """Return the kinds of image that hold two clusters or more, the commonest first, and the others with a reason."""
    groups, others = [], []
    counts = Counter(kind for kind, cluster in zip(kinds, clusters.tolist(), strict=True) if cluster >= 0)
    for kind, images in counts.most_common():
        rows = np.flatnonzero((np.asarray(kinds) == kind) & (clusters >= 0))
        large = [name for name in np.unique(clusters[rows]) if _large_enough(rows, clusters, patients, name)]
        if len(large) < 2:
            others.append({"kind": kind, "images": images, "reason": ONE_CLUSTER})
            continue
        rows = rows[np.isin(clusters[rows], large)]
        groups.append(_Group(kind, [column.take(rows) for column in columns], clusters[rows], patients[rows]))
    return groups, others


def _large_enough(rows: Integers, clusters: Integers, patients: Integers, name: int) -> bool:
    return len(np.unique(patients[rows][clusters[rows] == name])) >= FEWEST_PATIENTS


def _examine(group: _Group, clusters: Integers, kinds: Sequence[str], compared: int, seed: int) -> dict[str, Any]:
    """Test and predict within one of the ``compared`` kinds; the q-values are still missing."""
    drawn = draw_one_each(group.patients, seed)
    found, untested = associations([column.take(drawn) for column in group.columns], group.clusters[drawn], seed)
    tested = {entry["column"] for entry in found}
    usable = [column for column in group.columns if column.key in tested]
    task = make_task(group.clusters, group.patients, seed)
    if isinstance(task, Task):
        _alone(found, usable, task)
    used = np.unique(group.clusters).tolist()
    present = np.unique(clusters[(np.asarray(kinds) == group.kind) & (clusters >= 0)]).tolist()
    by_origin = {
        name: prediction([column for column in usable if column.origin == origin], task, seed, compared)
        if isinstance(task, Task)
        else None
        for name, origin in ORIGINS.items()
    }
    return {
        "kind": group.kind,
        "images": len(group.clusters),
        "units": len(drawn),
        "clusters": used,
        "too_small": [name for name in present if name not in used],
        "associations": found,
        "untested": untested,
        **by_origin,
        "not_predicted": "" if isinstance(task, Task) else task,
    }


def associations(
    columns: Sequence[TechnicalColumn], clusters: Integers, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Test each column (n,) of independent units against their ``clusters`` (n,).

    Returns what was tested, ``q`` still missing because it depends on all tests that are made, and what could not be.
    """
    found, untested = [], []
    for column in columns:
        if column.numeric:
            result = numeric_association(column.values, clusters, seed)
        else:
            result = categorical_association(common_values(column.values.tolist()), clusters, seed)
        about = {"column": column.key, "label": column.label, "origin": column.origin}
        if isinstance(result, NotTested):
            untested.append({"column": column.key, "label": column.label, "reason": result.reason})
        else:
            found.append({**about, **asdict(result), "balanced_accuracy": None, "apart": {}})
    return found, untested


def _alone(found: list[dict[str, Any]], columns: Sequence[TechnicalColumn], task: Task) -> None:
    """Write into each association how well its column alone predicts the clusters."""
    for entry, column in zip(found, columns, strict=True):
        own = skill(features([column.take(task.rows)]), task)
        entry["balanced_accuracy"] = own.balanced_accuracy
        entry["apart"] = dict(zip(task.names, own.apart.tolist(), strict=True))


def _correct(entries: list[dict[str, Any]]) -> None:
    for entry, q in zip(entries, benjamini_hochberg([entry["p"] for entry in entries]).tolist(), strict=True):
        entry["q"] = q


def _named(result: dict[str, Any], group: _Group, seed: int) -> list[dict[str, Any]]:
    drawn = draw_one_each(group.patients, seed)
    significant = {entry["column"]: entry["apart"] for entry in result["associations"] if entry["q"] < SIGNIFICANT}
    columns = [column.take(drawn) for column in group.columns if column.key in significant]
    together = {origin: result[name] for name, origin in ORIGINS.items()}
    return name_clusters(columns, group.clusters[drawn], significant, together, group.kind)
