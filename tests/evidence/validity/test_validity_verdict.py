"""Verdicts in words: what is needed to call clusters supported, and what is said where it is missing."""

from __future__ import annotations

from typing import Any

import pytest

from medstrata.evidence.validity.verdict import judge

PASSED = {
    "passed": True,
    "separate": True,
    "p": 0.05,
    "replication": {"real": 0.9, "surrogates": [0.1] * 19, "as_good": 0, "p": 0.05},
    "separation": {"real": 0.5, "surrogates": [0.1] * 19, "as_good": 0, "p": 0.05},
}


FEW = {
    "passed": False,
    "separate": False,
    "p": 1 / 6,
    "replication": {"real": 0.9, "surrogates": [0.1] * 5, "as_good": 0, "p": 1 / 6},
    "separation": {"real": 0.5, "surrogates": [0.1] * 5, "as_good": 0, "p": 1 / 6},
}
AS_FAR = PASSED | {
    "passed": False,
    "p": 1.0,
    "separation": {"real": 0.5, "surrogates": [0.6] * 3, "as_good": 3, "p": 1.0},
}


def measured(
    seeds: float | None = 0.9,
    patients: float | None = 0.9,
    new: float | None = 0.9,
    count: int = 3,
    recovery: Any = (0.9, 0.9),
) -> dict[str, Any]:
    return {
        "refits": {"seeds": count, "patients": count},
        "seeds": {"ari": {"mean": seeds}},
        "patients": {"ari": {"mean": patients}, "new": {"mean": new}},
        "recovery": {"seeds": list(recovery), "patients": list(recovery)},
    }


def test_all_conditions_met() -> None:
    found = judge(measured(), PASSED, [10, 20])
    assert found["supported"] and found["verdict"] == "supported"
    assert (found["sentence"], found["remark"]) == ("All 2 clusters are supported.", "")
    assert [one["supported"] for one in found["clusters"]] == [True, True]
    assert found["clusters"][1]["sentence"] == (
        "Cluster 1 is stable: found again with a Jaccard index of 0.90 with other random numbers and 0.90 on other "
        "patients."
    )


@pytest.mark.parametrize(
    ("stability", "null", "words"),
    [
        (measured(seeds=0.5), PASSED, "other random numbers give other clusters (adjusted Rand index 0.50)"),
        (measured(patients=0.5), PASSED, "on other patients give other clusters"),
        (measured(new=0.5), PASSED, "patients that a fit did not see"),
        (
            measured(seeds=0.5, count=1),
            None,
            "index 0.50); fewer than three refits of each kind were made; images without",
        ),
        (measured(), AS_FAR, "are as far apart in 3 of 3 trials"),
    ],
)
def test_what_speaks_against_the_whole(stability: dict[str, Any], null: Any, words: str) -> None:
    found = judge(stability, null, [10, 20])
    assert not found["supported"] and found["verdict"] == "not supported"
    assert words in found["sentence"]
    assert found["sentence"].startswith("No clusters are supported: ")
    assert not any(one["supported"] for one in found["clusters"])


@pytest.mark.parametrize(
    ("stability", "null", "words"),
    [
        (measured(count=2), PASSED, "fewer than three refits of each kind were made"),
        (measured(None, None, None, 0, (None, None)), PASSED, "fewer than three refits of each kind were made"),
        (measured(patients=None, count=1), PASSED, "fewer than three refits of each kind were made"),
        (measured(), None, "images without groups were not tried"),
        (measured(), FEW, "only 5 surrogates without groups were tried, 19 are needed"),
    ],
)
def test_what_is_missing_is_no_objection(stability: dict[str, Any], null: Any, words: str) -> None:
    found = judge(stability, null, [10, 20])
    assert not found["supported"] and found["verdict"] == "not fully tested"
    assert found["sentence"] == f"Not fully tested: {words}. Until then nothing is supported."
    assert not any(one["supported"] for one in found["clusters"])
    assert "is not supported" not in found["clusters"][0]["sentence"]


def test_pieces_of_a_continuum_are_told() -> None:
    found = judge(measured(), PASSED | {"separate": False}, [10, 20])
    assert found["supported"]
    assert found["sentence"] == "All 2 clusters are supported."
    assert found["remark"] == (
        "No gap was found between them: they may be pieces of a continuum, or groups that overlap, rather than "
        "separate groups."
    )
    unsupported = judge(measured(seeds=0.5), PASSED | {"separate": False}, [10, 20])
    assert unsupported["remark"] == "", "of clusters that are no clusters nothing more is said"


def test_one_cluster_of_several() -> None:
    found = judge(measured(recovery=(0.9, 0.65, 0.3, None)), PASSED, [10, 20, 5, 0])
    assert found["sentence"] == "1 of 4 clusters is supported; not supported: 1, 2, 3."
    words = [one["sentence"] for one in found["clusters"]]
    assert "doubtful" in words[1]
    assert "not stable" in words[2]
    assert words[3] == "Cluster 3 is empty."


def test_a_whole_without_a_single_stable_cluster_is_not_supported() -> None:
    found = judge(measured(recovery=(0.5, 0.5)), PASSED, [10, 20])
    assert not found["supported"] and found["verdict"] == "not supported"
