"""How well technical data predict the cluster of images of patients that the predictor has not seen.

The predictor is linear: ridge regression of the clusters on one column per value of a category and five hat functions
of the rank of a number, so that a cluster in the middle of a range is found too. Shapes: M images, K clusters, F
features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.model_selection import StratifiedGroupKFold

from medstrata.evidence.confounders.columns import TechnicalColumn, common_values

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Folds = list[tuple[Integers, Integers]]

FOLDS = 5
FEWEST_PATIENTS = 5  # of a cluster that is to be predicted: one for each fold
MOST_IMAGES = 2000  # predicted; more make the figures hardly more precise
SHUFFLES = 39  # of the null: the smallest p-value is 1 in 40
SIGNIFICANT = 0.05  # more shuffles, one kind of image as many as one alone has, only where so few leave p below
HATS = 5  # functions of the rank of a number
PENALTY = 1.0  # of ridge regression, on features between 0 and 1


@dataclass(frozen=True)
class Task:
    """Which images are predicted, and in which folds.

    ``rows`` (m,) of the M images; ``clusters`` (m,) numbers 0..K-1 into ``names``; ``patients`` (m,) numbers.
    """

    rows: Integers
    clusters: Integers
    names: tuple[int, ...]
    patients: Integers
    folds: Folds


@dataclass(frozen=True)
class Skill:
    """Cross-validated: ``balanced_accuracy`` over all clusters, ``recall`` (K,) of each one, and ``apart`` (K,).

    ``apart`` is the balanced accuracy of telling the cluster from all others together; by chance it is .5.
    """

    balanced_accuracy: float
    recall: Floats
    apart: Floats


def make_task(clusters: Integers, patients: Integers, seed: int) -> Task | str:
    """Choose at most ``MOST_IMAGES`` images by chance and deal patients into folds; a reason where that cannot be done.

    ``clusters`` (M,), -1 for rejected images; ``patients`` (M,) numbers. Clusters of fewer than ``FEWEST_PATIENTS``
    patients are left out.
    """
    used = np.flatnonzero(clusters >= 0)
    used = np.sort(np.random.default_rng(seed).permutation(used)[:MOST_IMAGES])
    names = [
        name
        for name in np.unique(clusters[used]).tolist()
        if len(np.unique(patients[used][clusters[used] == name])) >= FEWEST_PATIENTS
    ]
    if len(names) < 2:
        return f"fewer than two clusters have images of {FEWEST_PATIENTS} patients or more"
    rows = used[np.isin(clusters[used], names)]
    numbers, groups = np.searchsorted(names, clusters[rows]), patients[rows]
    dealt = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(rows, numbers, groups)
    folds = [(train, test) for train, test in dealt if len(test)]
    return Task(rows, numbers, tuple(names), groups, folds)


def features(columns: Sequence[TechnicalColumn]) -> Floats:
    """Return the features (m, F) of columns (m,), between 0 and 1; an unknown value is a feature of its own."""
    return np.concatenate([_hats(c.values) if c.numeric else _indicators(c.values) for c in columns], axis=1)


def _indicators(texts: NDArray[Any]) -> Floats:
    values, codes = np.unique(common_values(texts.tolist()), return_inverse=True)
    return np.eye(len(values))[codes]


def _hats(numbers: NDArray[Any]) -> Floats:
    """Return ``HATS`` triangles over the ranks, which sum to 1, and whether the number is unknown."""
    known = np.isfinite(numbers)
    place = np.zeros(len(numbers))
    place[known] = (HATS - 1) * (rankdata(numbers[known]) - 0.5) / max(1, known.sum())
    hats = (1 - np.abs(place[:, None] - np.arange(HATS))).clip(0) * known[:, None]
    return np.column_stack([hats, ~known])


def skill(x: Floats, task: Task) -> Skill:
    """Predict each fold from the others. ``x`` (m, F)."""
    count = len(task.names)
    own = np.eye(count)[task.clusters]
    weights = (1 / np.maximum(own.sum(0), 1))[task.clusters] * len(own) / count
    guessed, told = np.zeros(len(own), dtype=np.int64), np.zeros(own.shape, dtype=np.bool_)
    for train, test in task.folds:
        coefficients = ridge(x[train], own[train], weights[train])
        predicted = x[test] @ coefficients
        guessed[test] = predicted.argmax(1)
        told[test] = predicted > _halfway(x[train] @ coefficients, own[train])
    right = own.astype(bool)
    hit = (told & right).sum(0) / right.sum(0)
    spared = (~told & ~right).sum(0) / (~right).sum(0)
    recall = np.bincount(task.clusters, guessed == task.clusters, count) / right.sum(0)
    return Skill(float(recall.mean()), recall, (hit + spared) / 2)


def ridge(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Return the coefficients (F, K) of ridge regression of ``y`` (m, K) on ``x`` (m, F), without an intercept.

    The features of each column sum to 1, so that they hold the constant already.
    """
    weighted = x.T * weights
    return np.asarray(np.linalg.solve(weighted @ x + PENALTY * np.eye(x.shape[1]), weighted @ y))


def _halfway(fitted: Floats, own: Floats) -> Floats:
    """Return for each cluster (K,) the score halfway between the mean of its images and that of all others."""
    inside = (fitted * own).sum(0) / np.maximum(own.sum(0), 1)
    outside = (fitted * (1 - own)).sum(0) / np.maximum((1 - own).sum(0), 1)
    return np.asarray((inside + outside) / 2)


def null_skills(x: Floats, task: Task, own: Skill, kinds: int, seed: int) -> list[Skill]:
    """Return the skill in data sets in which every patient has the technical data of another patient.

    The images of a patient keep data of one patient, so that images that belong together do not pass as many.
    ``SHUFFLES`` sets; where few of them are predicted as well as ``own``, so many that a p-value can stay below
    ``SIGNIFICANT`` when it is multiplied by the number of ``kinds``.
    """
    generator = np.random.default_rng(seed)

    def more(count: int) -> list[Skill]:
        return [skill(x[_other_patients(task.patients, generator)], task) for _ in range(count)]

    null = more(SHUFFLES)
    if _p(own.balanced_accuracy, _accuracies(null)) <= SIGNIFICANT:
        null += more((SHUFFLES + 1) * (kinds - 1))
    return null


def _accuracies(null: Sequence[Skill]) -> Floats:
    return np.array([each.balanced_accuracy for each in null])


def _other_patients(patients: Integers, generator: np.random.Generator) -> Integers:
    """Return rows (m,) such that each patient's images get rows of one other patient, in turn where it has fewer."""
    order = np.argsort(patients, kind="stable")
    _, first, counts = np.unique(patients[order], return_index=True, return_counts=True)
    donor = generator.permutation(len(counts))
    place = np.arange(len(patients)) - np.repeat(first, counts)
    source = np.repeat(first[donor], counts) + place % np.repeat(counts[donor], counts)
    found = np.empty_like(order)
    found[order] = order[source]
    return found


def prediction(columns: Sequence[TechnicalColumn], task: Task, seed: int, kinds: int = 1) -> dict[str, Any] | None:
    """Say how well all ``columns`` (M,) together predict the cluster, beside chance; None where there is no column.

    ``p`` is the share of shuffled data sets, this one counted, that are predicted at least as well; ``adjusted`` is
    multiplied by the number of ``kinds`` that are looked at (Bonferroni): in many, one would be predicted by chance.
    """
    if not columns:
        return None
    x = features([column.take(task.rows) for column in columns])
    own = skill(x, task)
    null = null_skills(x, task, own, kinds, seed)
    accuracies = _accuracies(null)
    apart = np.array([each.apart for each in null])
    p = _p(own.balanced_accuracy, accuracies)
    return {
        "balanced_accuracy": own.balanced_accuracy,
        "chance": 1 / len(task.names),
        "null_mean": float(accuracies.mean()),
        "null_high": float(np.quantile(accuracies, 0.95)),
        "p": p,
        "adjusted": min(1.0, p * kinds),
        "shuffles": len(null),
        "images": len(task.rows),
        "patients": len(np.unique(task.patients)),
        "clusters": [
            {
                "cluster": name,
                "recall": float(own.recall[number]),
                "balanced_accuracy": float(own.apart[number]),
                "p": _p(float(own.apart[number]), apart[:, number]),
            }
            for number, name in enumerate(task.names)
        ],
    }


def _p(value: float, null: Floats) -> float:
    return float((1 + (null >= value - 1e-12).sum()) / (1 + len(null)))
