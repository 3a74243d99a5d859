"""Agreement of a clustering with known classes. Labels are read here, after the fit, and never before.

Never look at accuracy alone: with unequal classes one large cluster reaches the majority rate, and purity rises with
the number of clusters. So all of them are computed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score

from medstrata.errors import InputError

REJECTED = -1
"""Cluster number of an image that was rejected as unlike everything the model was fitted on."""

Labels = Sequence[str] | Sequence[int] | NDArray[Any]


class Score(TypedDict):
    """All between 0 and 1 (``ami`` and ``ari`` may fall below 0) but ``n_clusters``, a count."""

    accuracy: float
    balanced_accuracy: float
    nmi: float
    ami: float
    ari: float
    purity: float
    n_clusters: int
    majority_rate: float


def score(labels_true: Labels, labels_pred: Labels) -> Score:
    """Compare clusters with classes.

    ``labels_true`` and ``labels_pred`` (N,) are strings or integers. Each cluster is matched with at most one class and
    each class with at most one cluster, so that most images agree (Hungarian algorithm):

    - ``accuracy``: share of images whose cluster is matched with their class; surplus clusters count as wrong
    - ``balanced_accuracy``: under the same matching, the mean over classes of the share of the class that is right
    - ``nmi``, ``ami``, ``ari``: normalised (arithmetic mean) and adjusted mutual information, adjusted Rand index
    - ``purity``: share of images that belong to the commonest class of their cluster; read it with ``n_clusters``
    - ``n_clusters``: clusters that hold at least one image
    - ``majority_rate``: share of the commonest class, the accuracy of a single cluster

    The integer -1 in ``labels_pred`` means rejected: wrong for accuracy and purity, no cluster in ``n_clusters``, and
    one group of its own for ``nmi``, ``ami`` and ``ari``.

    Raises
    ------
    InputError : no labels, or a different number of them
    """
    classes, clusters = np.asarray(labels_true), np.asarray(labels_pred)
    if classes.ndim != 1 or classes.shape != clusters.shape or classes.size == 0:
        raise InputError(
            f"Labels of shape {classes.shape} cannot be compared with clusters of shape {clusters.shape}. "
            "Give one label and one cluster per image, at least one."
        )
    table, true, pred = contingency(classes, clusters)
    rows, columns = linear_sum_assignment(table, maximize=True)
    right = np.zeros(len(table))
    right[rows] = table[rows, columns]
    sizes = np.bincount(true)
    return Score(
        accuracy=float(right.sum() / len(true)),
        balanced_accuracy=float(np.mean(right / sizes)),
        nmi=float(normalized_mutual_info_score(true, pred)),
        ami=float(adjusted_mutual_info_score(true, pred)),
        ari=float(adjusted_rand_score(true, pred)),
        purity=float(table.max(axis=0, initial=0).sum() / len(true)),
        n_clusters=table.shape[1],
        majority_rate=float(sizes.max() / len(true)),
    )


def contingency(
    classes: NDArray[Any], clusters: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Count images by class and cluster, rejected ones left out of the table.

    Returns the table (classes, clusters) and, per image, the number of its class and of its group (N,), in which the
    rejected images form a last group.
    """
    names, true = np.unique(classes, return_inverse=True)
    rejected = clusters == REJECTED if clusters.dtype.kind in "if" else np.zeros(len(clusters), dtype=bool)
    used, kept = np.unique(clusters[~rejected], return_inverse=True)
    pred = np.full(len(clusters), len(used), dtype=np.int64)
    pred[~rejected] = kept
    table = np.zeros((len(names), len(used)), dtype=np.int64)
    np.add.at(table, (true[~rejected], kept), 1)
    return table, true.astype(np.int64), pred
