"""The patient is the unit: votes, ties, rejected images, and images without a patient."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medstrata.evidence.association.patients import patient_clusters, unit_of

PATIENTS = {
    **dict.fromkeys(["a1", "a2", "a3"], "A"),
    **dict.fromkeys(["b1", "b2"], "B"),
    "c1": "C",
    "d1": "D",
    "d2": "D",
    "e1": "",
}
IMAGES = [*PATIENTS, "f1"]
CLUSTERS = np.array([0, 2, 2, 0, 1, -1, 1, -1, 2, 0], dtype=np.int32)


def test_votes_ties_and_rejected_images() -> None:
    q = np.full((10, 3), 0.2)
    q[3], q[4] = (0.5, 0.4, 0.1), (0.0, 0.9, 0.1)  # B: one image each for 0 and 1, sums 0.5 and 1.3
    q[5] = (9, 9, 9)
    found = patient_clusters(IMAGES, CLUSTERS, q, PATIENTS)
    assert dict(zip(found.patients.tolist(), found.clusters.tolist(), strict=True)) == {
        "A": 2,
        "B": 1,
        "D": 1,
        "e1": 2,  # no patient is known: the image stands for itself
        "f1": 0,
    }
    assert (found.mixed, found.rejected) == (2, 1)


def test_a_tie_in_everything_goes_to_the_lower_cluster_and_rejected_images_have_no_vote() -> None:
    q = np.array([[0.3, 0.7], [0.7, 0.3], [0.0, 1.0]])
    found = patient_clusters(["x", "y", "z"], np.array([1, 0, -1]), q, dict.fromkeys("xyz", "P"))
    assert (found.patients.tolist(), found.clusters.tolist(), found.mixed, found.rejected) == (["P"], [0], 1, 0)


def test_no_image_at_all() -> None:
    found = patient_clusters([], np.zeros(0, dtype=np.int32), np.zeros((0, 3)), {})
    assert (len(found.patients), len(found.clusters), found.mixed, found.rejected) == (0, 0, 0, 0)


def test_unit_of_unknown_patients_is_the_image() -> None:
    assert unit_of(["i", "j"], ["", "P"]) == {"i": "i", "j": "P"}


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 2)), max_size=30))
def test_every_patient_is_counted_once(pairs: list[tuple[int, int]]) -> None:
    images = [f"i{number}" for number in range(len(pairs))]
    owner = {image: f"p{patient}" for image, (patient, _) in zip(images, pairs, strict=True)}
    clusters = np.array([cluster for _, cluster in pairs], dtype=np.int64)
    found = patient_clusters(images, clusters, np.full((len(pairs), 3), 1 / 3), owner)
    everyone = set(owner.values())
    assert len(found.patients) + found.rejected == len(everyone)
    assert set(found.patients.tolist()) <= everyone
    for name, chosen in zip(found.patients.tolist(), found.clusters.tolist(), strict=True):
        own = [cluster for patient, cluster in pairs if f"p{patient}" == name and cluster >= 0]
        assert own.count(chosen) == max(own.count(cluster) for cluster in own)
