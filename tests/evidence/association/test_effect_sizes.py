"""Effect sizes against naive references, and a bootstrap sample given as counts against the sample written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from medstrata.evidence.association.effect_sizes import cramers_v, epsilon_squared, kruskal, omega_squared, welch


def naive_v(table: np.ndarray) -> float:
    """Bergsma 2013, step by step."""
    n = table.sum()
    rows, columns = table.shape
    phi = stats.chi2_contingency(table, correction=False).statistic / n
    corrected = max(0.0, phi - (rows - 1) * (columns - 1) / (n - 1))
    r = rows - (rows - 1) ** 2 / (n - 1)
    c = columns - (columns - 1) ** 2 / (n - 1)
    return float(np.sqrt(corrected / min(r - 1, c - 1)))


@pytest.mark.parametrize("table", [[[30, 10], [12, 25]], [[5, 9, 2], [4, 1, 11]], [[7, 7], [7, 7]]])
def test_cramers_v_by_hand(table: list[list[int]]) -> None:
    assert cramers_v(table) == pytest.approx(naive_v(np.array(table)))


def test_cramers_v_at_its_ends() -> None:
    assert cramers_v(np.diag([20, 20, 20])) == pytest.approx(1)
    assert cramers_v([[10, 0, 10], [10, 0, 10]]) == 0
    assert cramers_v([[10, 20]]) == 0
    assert cramers_v(np.eye(5, dtype=int)) == 0  # every unit a level of its own says nothing
    with_empty = cramers_v([[30, 10, 0], [12, 25, 0], [0, 0, 0]])
    assert with_empty == pytest.approx(naive_v(np.array([[30, 10], [12, 25]])))


def test_epsilon_squared_is_the_adjusted_share_of_variance_of_the_ranks() -> None:
    generator = np.random.default_rng(0)
    values, groups = np.round(generator.normal(size=50) * 3), generator.integers(4, size=50)
    values += groups
    ranks = stats.rankdata(values)
    within = sum(((ranks[groups == k] - ranks[groups == k].mean()) ** 2).sum() for k in range(4))
    total = ((ranks - ranks.mean()) ** 2).sum()
    assert epsilon_squared(values, groups) == pytest.approx(1 - (within / 46) / (total / 49))
    assert epsilon_squared([1, 2, 3, 4], [0, 1, 1, 0]) == 0
    assert epsilon_squared([1, 1, 1], [0, 1, 1]) == 0


def test_omega_squared_by_its_formula() -> None:
    generator = np.random.default_rng(2)
    groups = np.repeat([4, 5, 9], 30)
    values = generator.normal(size=90) * groups + groups
    statistic = stats.f_oneway(*(values[groups == k] for k in (4, 5, 9)), equal_var=False).statistic
    above = 2 * (statistic - 1)
    assert omega_squared(values, groups) == pytest.approx(above / (above + 90))
    assert omega_squared([1, 2, 1, 2], [0, 0, 1, 1]) == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 3)), min_size=3, max_size=25))
def test_counts_are_the_same_as_the_sample_written_out(units: list[tuple[int, int, int]]) -> None:
    values, groups, counts = np.array(sorted(units), dtype=np.int64).T
    if counts.sum() < 2:
        return
    values = values.astype(np.float64)
    _, group = np.unique(groups, return_inverse=True)
    member = np.eye(group.max() + 1)[group]
    written, owner = np.repeat(values, counts), np.repeat(groups, counts)
    statistic, effect = kruskal(values, member, counts[None].astype(np.float64))
    assert effect[0] == pytest.approx(epsilon_squared(written, owner))
    if len(set(written)) > 1 and len(set(owner)) > 1:
        assert statistic[0] == pytest.approx(stats.kruskal(*(written[owner == k] for k in np.unique(owner))).statistic)
    assert np.isfinite(welch(values, member, counts[None].astype(np.float64))[1]).all()
