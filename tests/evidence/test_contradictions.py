"""Headers that contradict the images like them: against a naive formula, and 2 % of falsified headers found again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medstrata.evidence.contradictions import LIKE, WITNESSES, contradictions, images_like, shares

KINDS = [("CT", "head"), ("CT", "chest"), ("MR", "breast"), ("DX", "chest"), ("DX", "hand")]


def archive(count: int = 1000, seed: int = 0) -> tuple[list[str], np.ndarray, dict[str, list[str]], np.ndarray, set]:
    """Images of five kinds, 2 % of falsified and 10 % of missing headers, and 100 of all kinds that look alike."""
    chance = np.random.default_rng(seed)
    kinds = np.arange(count) % 5
    headers = {"modality": [KINDS[k][0] for k in kinds], "body_part": [KINDS[k][1] for k in kinds]}
    z = 8 * np.eye(5, 8)[kinds] + chance.normal(size=(count, 8))
    mixed = chance.permutation(count)[:100]
    z[mixed] = 8 * np.eye(6, 8)[5] + chance.normal(size=(100, 8))
    falsified = set()
    for row in chance.permutation(np.setdiff1d(np.arange(count), mixed))[: count // 50].tolist():
        column = ("modality", "body_part")[row % 2]
        others = {kind[row % 2] for kind in KINDS} - {headers[column][row]}
        headers[column][row] = min(others)
        falsified.add((f"i{row:04d}", column))
    for row in chance.permutation(count)[: count // 10].tolist():
        if not {(f"i{row:04d}", column) for column in headers} & falsified:
            headers["body_part"][row] = ""
    return [f"i{row:04d}" for row in range(count)], z.astype(np.float32), headers, kinds.astype(np.int32), falsified


def names(count: int) -> np.ndarray:
    return np.array([f"p{row}" for row in range(count)])


def test_falsified_headers_are_found() -> None:
    for seed in range(5):
        ids, z, headers, clusters, falsified = archive(seed=seed)
        table = contradictions(ids, images_like(z, names(1000)), headers, clusters)
        found = set(zip(table["image_id"].to_pylist(), table["column"].to_pylist(), strict=True))
        precision, recall = len(found & falsified) / len(found), len(found & falsified) / len(falsified)
        assert precision >= 0.95 and recall >= 0.95, (precision, recall)
        certainty = table["certainty"].to_numpy()
        assert (np.diff(certainty) <= 0).all() and (certainty > 0.6).all()
        assert "" not in table["header_value"].to_pylist()


def test_a_series_with_a_wrong_header_does_not_vouch_for_itself() -> None:
    ids, z, headers, clusters, _ = archive()
    z[:50] = z[0] + 0.01 * np.random.default_rng(0).normal(size=(50, 8))
    headers["modality"][:50] = ["US"] * 50
    patients = names(1000)
    alone = contradictions(ids, images_like(z, patients), headers, clusters)
    assert not {f"i{row:04d}" for row in range(50)} & set(alone["image_id"].to_pylist()), "each its own patient"
    patients[:50] = "one"
    found = contradictions(ids, images_like(z, patients), headers, clusters)
    assert {f"i{row:04d}" for row in range(50)} <= set(found["image_id"].to_pylist())


def test_images_like_are_the_nearest_of_other_patients() -> None:
    chance = np.random.default_rng(2)
    z = chance.normal(size=(60, 4)).astype(np.float32)
    patients = names(60)
    patients[:12] = np.repeat(["a", "b", "c", "d"], 3)
    near = images_like(z, patients)
    centred = z - z.mean(0)
    directions = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    assert near.shape == (60, LIKE)
    for row in range(60):
        others = np.flatnonzero(patients != patients[row])
        distance = np.linalg.norm(directions[others] - directions[row], axis=1)
        assert near[row].tolist() == others[np.argsort(distance)][:LIKE].tolist()


def test_few_images_of_a_patient_are_asked() -> None:
    z = np.random.default_rng(0).normal(size=(130, 3)).astype(np.float32)
    patients = np.array(["many"] * 100 + [f"p{row}" for row in range(30)])
    near = images_like(z, patients)
    assert len(np.unique(near[100:][near[100:] < 100])) == WITNESSES
    assert (near[:100] >= 100).all()


def test_of_few_images_there_are_as_many_as_there_are() -> None:
    near = images_like(np.eye(3, dtype=np.float32), names(3))
    assert [sorted(row[row >= 0].tolist()) for row in near] == [[1, 2], [0, 2], [0, 1]]
    assert (images_like(np.ones((1, 3), np.float32), names(1)) == -1).all()
    assert (images_like(np.ones((4, 3), np.float32), np.array(["a"] * 4)) == -1).all(), "one patient only"


def test_shares_are_the_written_formula() -> None:
    near, codes = np.array([[1, 2, 3], [0, 2, -1], [0, 1, 3], [-1, -1, -1]]), np.array([0, 1, -1, 1])
    found = shares(near, codes, 2)
    # image 0: of 1 (value 1), 2 (none), 3 (value 1); image 1: of 0 (value 0), 2 (none); image 3: nobody
    expected = [[0.5 / 3, 2.5 / 3], [1.5 / 2, 0.5 / 2], [1.5 / 4, 2.5 / 4], [0.5, 0.5]]
    np.testing.assert_allclose(found, expected)


@given(st.integers(2, 40), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_order_of_images_does_not_matter_and_certainty_is_a_share(count: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    z = chance.normal(size=(count, 3)).astype(np.float32)
    values = [("CT", "MR", "")[number] for number in chance.choice(3, count, p=[0.8, 0.1, 0.1])]
    ids, clusters = [f"i{row:03d}" for row in range(count)], np.zeros(count, np.int32)
    table = contradictions(ids, images_like(z, names(count)), {"modality": values}, clusters)
    turn = chance.permutation(count)
    turned = contradictions(
        [ids[t] for t in turn], images_like(z[turn], names(count)), {"modality": [values[t] for t in turn]}, clusters
    )
    before, after = ({row.pop("image_id"): row for row in one.to_pylist()} for one in (table, turned))
    assert before.keys() == after.keys()
    for name, row in before.items():
        assert 0 <= row["certainty"] <= 1 and after[name].pop("certainty") == pytest.approx(row.pop("certainty"))
        assert after[name] == row


def test_nothing_to_say_of_one_image_or_without_headers() -> None:
    one = contradictions(["a"], np.full((1, LIKE), -1), {"modality": ["CT"]}, np.zeros(1, np.int32))
    near = images_like(np.eye(2, dtype=np.float32), names(2))
    none = contradictions(["a", "b"], near, {"modality": ["", ""]}, np.zeros(2, np.int32))
    assert len(one) == len(none) == 0 and one.schema == none.schema


def test_rejected_images_are_not_listed() -> None:
    values, ids = ["CT"] * 9 + ["MR"], [str(row) for row in range(10)]
    near = images_like(np.eye(10, dtype=np.float32), names(10))
    clusters = np.array([0] * 9 + [-1], np.int32)
    assert len(contradictions(ids, near, {"modality": values}, clusters)) == 0
    assert len(contradictions(ids, near, {"modality": values}, np.zeros(10, np.int32))) == 1


def test_a_few_images_are_no_majority_and_many_are_surer_than_some() -> None:
    """Two images that disagree say nothing of each other; a lone other value counts more the more are like it."""

    def certainty(agreeing: int) -> list[float]:
        values = ["MR"] + ["CT"] * agreeing
        near = images_like(np.eye(agreeing + 1, dtype=np.float32), names(agreeing + 1))
        clusters = np.zeros(agreeing + 1, np.int32)
        return contradictions([str(row) for row in range(len(values))], near, {"modality": values}, clusters)[
            "certainty"
        ].to_pylist()

    assert certainty(1) == []
    found = [certainty(agreeing) for agreeing in (4, 10, 20)]
    assert [len(one) for one in found] == [1, 1, 1] and found[0] < found[1] < found[2]
    assert found[0][0] == pytest.approx((4 + 1 / 2) / 5 - (1 / 2) / 5)
