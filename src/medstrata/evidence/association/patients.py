"""From the clusters of images to the clusters of patients: several images of a patient never count as several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medstrata.evidence.metrics import REJECTED


@dataclass(frozen=True)
class PatientClusters:
    """The cluster of each patient.

    patients, clusters : (P,) names in order, and the cluster of each, 0 or more
    mixed : patients whose images lie in several clusters
    rejected : patients left out because all of their images were rejected
    """

    patients: NDArray[np.str_]
    clusters: NDArray[np.int64]
    mixed: int
    rejected: int


def unit_of(image_ids: Sequence[str], patients: Sequence[str]) -> dict[str, str]:
    """Return for each image its patient, or the image itself where the patient is unknown (``""``)."""
    return {image: patient or image for image, patient in zip(image_ids, patients, strict=True)}


def patient_clusters(
    image_ids: Sequence[str],
    clusters: NDArray[np.integer],
    soft_assignments: NDArray[np.floating],
    patient_of: Mapping[str, str],
) -> PatientClusters:
    """Return for each patient the cluster that most of its images are in.

    Ties go to the cluster with the larger sum of the soft assignments of the patient's images, then to the lower
    number. Rejected images have no vote.

    Parameters
    ----------
    image_ids, clusters : (M,), -1 for rejected images
    soft_assignments : (M, K)
    patient_of : image id to patient; an image that is not in it, or has ``""``, stands for itself
    """
    units = np.array([patient_of.get(image) or image for image in image_ids], dtype=np.str_)
    names, unit = np.unique(units, return_inverse=True)
    voting = clusters != REJECTED
    votes = np.zeros((len(names), soft_assignments.shape[1]))
    sums = np.zeros_like(votes)
    np.add.at(votes, (unit[voting], clusters[voting]), 1)
    np.add.at(sums, unit[voting], soft_assignments[voting])
    most = votes.max(1, initial=0)
    chosen = np.where(votes == most[:, None], sums, -np.inf).argmax(1) if len(names) else np.zeros(0, dtype=np.int64)
    known = most > 0
    mixed = int(((votes > 0).sum(1) > 1).sum())
    return PatientClusters(names[known], chosen[known].astype(np.int64), mixed, int((~known).sum()))


def draw_one_each(patients: NDArray[Any], seed: int | np.random.Generator) -> NDArray[np.int64]:
    """Return one random row of every patient, in ascending order: ``patients`` (M,) -> (number of patients,)."""
    order = np.random.default_rng(seed).permutation(len(patients))
    return np.sort(order[np.unique(patients[order], return_index=True)[1]])
