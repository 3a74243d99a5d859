"""Stability over planted refits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medstrata.evidence.validity.stability import Refit, consensus, some_patients, stability, thin

REFERENCE = np.repeat([0, 1, 2], 10)
ALL = np.ones(30, dtype=bool)


def mixed(fraction: float, seed: int) -> np.ndarray:
    """``REFERENCE`` with a share of clusters 1 and 2 exchanged at random."""
    random = np.random.default_rng(seed)
    labels = REFERENCE.copy()
    moved = np.flatnonzero(labels > 0)[random.random(20) < fraction]
    labels[moved] = 3 - labels[moved]
    return labels


def test_refits_that_agree_and_clusters_that_do_not() -> None:
    seen = np.arange(30) % 5 > 0
    refits = [Refit("seeds", mixed(0.5, seed), ALL) for seed in range(3)]
    refits += [Refit("patients", REFERENCE, seen) for _ in range(3)]
    found = stability(REFERENCE, refits, 4)
    assert found["refits"] == {"seeds": 3, "patients": 3}
    assert found["patients"]["ari"] == {"mean": 1.0, "lowest": 1.0, "pairs": 3}
    assert found["patients"]["new"] == {"mean": 1.0, "lowest": 1.0, "pairs": 3}
    assert found["seeds"]["ari"]["pairs"] == 6  # the model itself is the fourth
    assert 0.2 < found["seeds"]["ari"]["mean"] < 0.7
    assert found["recovery"]["patients"] == [1.0, 1.0, 1.0, None]  # cluster 3 is empty
    recovered = found["recovery"]["seeds"]
    assert recovered[0] == 1
    assert max(recovered[1:3]) < 0.7


def test_new_patients_are_those_that_a_resample_did_not_see() -> None:
    seen = np.ones(30, dtype=bool)
    seen[[0, 1, 10, 11]] = False
    other = REFERENCE.copy()
    other[[0, 1, 10, 11]] = [1, 1, 0, 0]  # the unseen change places: the same two groups under other names
    assert stability(REFERENCE, [Refit("patients", other, seen)], 3)["patients"]["new"]["mean"] == 1
    other[[0, 1, 10, 11]] = [0, 1, 0, 1]
    assert stability(REFERENCE, [Refit("patients", other, seen)], 3)["patients"]["new"]["mean"] < 0.1


def test_no_refits_no_numbers() -> None:
    found = stability(REFERENCE, [], 3)
    assert found["seeds"]["ari"] == {"mean": None, "lowest": None, "pairs": 0}
    assert found["recovery"] == {"seeds": [None] * 3, "patients": [None] * 3}


def test_consensus_is_the_share_of_refits() -> None:
    other = REFERENCE.copy()
    other[0] = 1
    assert consensus(REFERENCE, [Refit("seeds", REFERENCE, ALL), Refit("seeds", other, ALL)])[:2].tolist() == [0.5, 1]


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=40), st.floats(0.05, 1), st.integers(0, 99))
def test_no_patient_is_split(names: list[str], share: float, seed: int) -> None:
    patients = np.array(names)
    chosen = some_patients(patients, share, seed)
    assert chosen.any()
    for name in set(names):
        assert len(set(chosen[patients == name].tolist())) == 1
    assert share == 1 or len(set(names)) == 1 or not chosen.all()


@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
def test_the_share_is_of_patients(share: float) -> None:
    patients = np.repeat([f"p{number}" for number in range(100)], 3)
    assert len(set(patients[some_patients(patients, share, 1)])) == 100 * share


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=40), st.integers(1, 45), st.integers(0, 99))
def test_thinning_takes_from_all_patients_alike(names: list[str], most: int, seed: int) -> None:
    patients = np.array(names)
    taken = thin(patients, most, seed)
    assert taken.sum() == min(most, len(names))
    own = {name: int(taken[patients == name].sum()) for name in set(names)}
    for name, count in own.items():
        if count < (patients == name).sum():  # where a patient has more, no other has more than one image more
            assert max(own.values()) <= count + 1
