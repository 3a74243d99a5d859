"""The number of clusters with all its curves: planted groups, one Gaussian, patients, bad input."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from medstrata.errors import InputError
from medstrata.evidence.validity.cluster_number import drawn_by_patient, number_of_clusters

CRITERIA = {
    *("valley", "prediction strength", "mixture", "connection"),
    *("stability", "gap", "silhouette", "communities"),
}


def blobs(groups: int, each: int = 30) -> np.ndarray:
    chance = np.random.default_rng(0)
    return 9 * np.eye(groups, 8)[np.repeat(np.arange(groups), each)] + chance.standard_normal((groups * each, 8))


def test_planted_groups_with_all_curves() -> None:
    said: list[tuple[int, int]] = []
    found = number_of_clusters(blobs(3), progress=lambda what, done, total: said.append((done, total)))
    assert found["recommended"] == 3 and 3 in found["plausible"] and found["images"] == 90
    assert set(found["curves"]) == CRITERIA and said == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for name, curve in found["curves"].items():
        assert curve["recommended"] == 3, name
        assert curve["k"] == ([] if name == "communities" else list(range(1, 11))), name
        assert len(curve["value"]) == len(curve["k"]), name
    assert found["curves"]["silhouette"]["value"][0] is None
    assert found["sentence"] == "3 clusters are recommended (8 of 8 criteria give 3)."


def test_one_gaussian_is_said_to_have_no_clusters() -> None:
    found = number_of_clusters(np.random.default_rng(0).standard_normal((150, 6)) * np.geomspace(2, 0.5, 6))
    assert found["recommended"] == 1 and found["sentence"].startswith("No separate clusters are seen")


def test_the_same_seed_gives_the_same_and_the_range_is_kept() -> None:
    z = blobs(4, 15)
    assert number_of_clusters(z, range_=range(2, 5)) == number_of_clusters(z, range_=range(2, 5))
    assert number_of_clusters(z, range_=range(2, 5))["curves"]["gap"]["k"] == [1, 2, 3, 4]


def test_patients_are_not_clusters() -> None:
    """Five patients of like images: by image five clusters are sure; by patient nothing predicts them."""
    chance = np.random.default_rng(3)
    patients = np.repeat(np.arange(5), 24)
    z = 9 * chance.standard_normal((5, 8))[patients] + chance.standard_normal((120, 8))
    by_image = number_of_clusters(z)["curves"]["prediction strength"]
    by_patient = number_of_clusters(z, [f"p{number}" for number in patients])["curves"]["prediction strength"]  # type: ignore[arg-type]
    assert by_image["recommended"] == 5 and by_patient["value"][4] < 0.5 < by_image["value"][4]


def test_drawing_by_patient_keeps_patients_whole() -> None:
    patients = np.repeat(np.arange(50), 7)
    rows = drawn_by_patient(patients, 100, 0)
    assert len(rows) == 98 and (np.bincount(patients[rows])[np.unique(patients[rows])] == 7).all()
    assert len(drawn_by_patient(np.zeros(300, np.int64), 100, 0)) == 100
    assert drawn_by_patient(patients, 350, 0).tolist() == list(range(350))


def test_too_few_and_equal_images_are_told() -> None:
    for z in (np.ones((40, 3)), np.eye(4)):
        found: dict[str, Any] = number_of_clusters(z)
        assert found["recommended"] == 1 and found["curves"] == {} and "cannot be told" in found["sentence"]


@pytest.mark.parametrize("z", [np.ones(5), np.ones((0, 3)), np.full((9, 2), np.nan), np.array([["a"]])])
def test_bad_embeddings_are_refused(z: np.ndarray) -> None:
    with pytest.raises(InputError, match="cannot be clustered"):
        number_of_clusters(z)


def test_patients_must_be_one_each() -> None:
    with pytest.raises(InputError, match="one patient each"):
        number_of_clusters(np.eye(9), np.arange(8))
