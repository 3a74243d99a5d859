"""Headers that contradict their cluster: against a naive formula, and 2 % of falsified headers found again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medstrata.evidence.contradictions import contradictions, shares

KINDS = [("CT", "head"), ("CT", "chest"), ("MR", "breast"), ("DX", "chest"), ("DX", "hand")]


def archive(count: int = 1000, seed: int = 0) -> tuple[list[str], np.ndarray, dict[str, list[str]], np.ndarray, set]:
    """Images of five kinds in five clusters with 2 % of falsified and 10 % of missing headers, and a mixed cluster."""
    chance = np.random.default_rng(seed)
    kinds = np.arange(count) % 5
    headers = {"modality": [KINDS[k][0] for k in kinds], "body_part": [KINDS[k][1] for k in kinds]}
    clusters = kinds.astype(np.int32)
    mixed = chance.permutation(count)[:100]
    clusters[mixed] = 5
    falsified = set()
    for row in chance.permutation(np.setdiff1d(np.arange(count), mixed))[: count // 50].tolist():
        column = ("modality", "body_part")[row % 2]
        others = {kind[row % 2] for kind in KINDS} - {headers[column][row]}
        headers[column][row] = min(others)
        falsified.add((f"i{row:04d}", column))
    for row in chance.permutation(count)[: count // 10].tolist():
        if not {(f"i{row:04d}", column) for column in headers} & falsified:
            headers["body_part"][row] = ""
    q = 0.9 * np.eye(6)[clusters] + 0.1 * chance.dirichlet(np.ones(6), count)
    return [f"i{row:04d}" for row in range(count)], q.astype(np.float32), headers, clusters, falsified


def test_falsified_headers_are_found() -> None:
    for seed in range(5):
        ids, q, headers, clusters, falsified = archive(seed=seed)
        table = contradictions(ids, q, headers, clusters)
        found = set(zip(table["image_id"].to_pylist(), table["column"].to_pylist(), strict=True))
        precision, recall = len(found & falsified) / len(found), len(found & falsified) / len(falsified)
        assert precision >= 0.95 and recall >= 0.95, (precision, recall)
        certainty = table["certainty"].to_numpy()
        assert (np.diff(certainty) <= 0).all() and (certainty > 0.6).all()
        assert "" not in table["header_value"].to_pylist() and 5 not in table["cluster"].to_pylist()


def test_shares_are_the_written_formula() -> None:
    chance = np.random.default_rng(1)
    q, codes = chance.dirichlet(np.ones(3), 8), np.array([0, 1, -1, 1, 2, 0, -1, 1])
    found = shares(q.astype(np.float32), codes, 3)
    for i in range(8):
        for v in range(3):
            naive = 0.0
            for k in range(3):
                others = [j for j in range(8) if j != i and codes[j] >= 0]
                same, all_ = sum(q[j, k] for j in others if codes[j] == v), sum(q[j, k] for j in others)
                naive += q[i, k] * (1 / 3 + same) / (1 + all_)
            assert found[i, v] == pytest.approx(naive, abs=1e-6)


@given(st.integers(2, 40), st.integers(1, 4), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_order_of_images_does_not_matter_and_certainty_is_a_share(count: int, k: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    q = chance.dirichlet(np.full(k, 0.1), count).astype(np.float32)
    values = [("CT", "MR", "")[number] for number in chance.choice(3, count, p=[0.8, 0.1, 0.1])]
    ids, clusters = [f"i{row:03d}" for row in range(count)], q.argmax(1).astype(np.int32)
    table = contradictions(ids, q, {"modality": values}, clusters)
    turn = chance.permutation(count)
    turned = contradictions([ids[t] for t in turn], q[turn], {"modality": [values[t] for t in turn]}, clusters[turn])
    before, after = ({row.pop("image_id"): row for row in one.to_pylist()} for one in (table, turned))
    assert before.keys() == after.keys()
    for name, row in before.items():
        assert 0 <= row["certainty"] <= 1 and after[name].pop("certainty") == pytest.approx(row.pop("certainty"))
        assert after[name] == row


def test_nothing_to_say_of_one_image_or_without_headers() -> None:
    one = contradictions(["a"], np.ones((1, 1), np.float32), {"modality": ["CT"]}, np.zeros(1, np.int32))
    none = contradictions(["a", "b"], np.ones((2, 1), np.float32), {"modality": ["", ""]}, np.zeros(2, np.int32))
    assert len(one) == len(none) == 0 and one.schema == none.schema


def test_rejected_images_are_not_listed() -> None:
    values = ["CT"] * 9 + ["MR"]
    clusters = np.array([0] * 9 + [-1], np.int32)
    ids = [str(row) for row in range(10)]
    assert len(contradictions(ids, np.ones((10, 1), np.float32), {"modality": values}, clusters)) == 0
    assert len(contradictions(ids, np.ones((10, 1), np.float32), {"modality": values}, np.zeros(10, np.int32))) == 1


def test_a_few_images_are_no_majority_and_many_are_surer_than_some() -> None:
    """Two images that disagree say nothing of each other; a lone other value counts more the larger its cluster."""

    def certainty(agreeing: int) -> list[float]:
        values = ["MR"] + ["CT"] * agreeing
        ids, q = [str(row) for row in range(len(values))], np.ones((len(values), 1), np.float32)
        return contradictions(ids, q, {"modality": values}, np.zeros(len(values), np.int32))["certainty"].to_pylist()

    assert certainty(1) == []
    found = [certainty(agreeing) for agreeing in (4, 20, 200)]
    assert [len(one) for one in found] == [1, 1, 1] and found[0] < found[1] < found[2]
    assert found[0][0] == pytest.approx((4 + 1 / 2) / 5 - (1 / 2) / 5)
