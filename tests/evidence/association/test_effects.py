"""The tests of one variable: the numbers of scipy and statsmodels, the stated rule, p-values that keep their level."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.oneway import anova_oneway

from medstrata.evidence.association import effects
from medstrata.evidence.association.effects import (
    Association,
    NotTested,
    benjamini_hochberg,
    categorical_association,
    numeric_association,
)

# Conover, Practical nonparametric statistics, 1999, example 5.2.1: yields of corn by four methods of growing it.
CORN = (
    [83, 91, 94, 89, 89, 96, 91, 92, 90],
    [91, 90, 81, 83, 84, 83, 88, 91, 89, 84],
    [101, 100, 91, 93, 96, 95, 94],
    [78, 82, 81, 77, 79, 81, 80, 81],
)


def made(found: Association | NotTested) -> Association:
    assert isinstance(found, Association)
    assert 0 <= found.low <= found.effect <= found.high <= 1
    return found


def stacked(*samples: object) -> tuple[np.ndarray, np.ndarray]:
    parts = [np.asarray(sample, dtype=float) for sample in samples]
    return np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def spread(table: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the units of a table of counts, levels by groups."""
    cells = [(str(row), column, count) for row, counts in enumerate(table) for column, count in enumerate(counts)]
    return np.repeat([row for row, _, _ in cells], [n for *_, n in cells]), np.repeat(
        [column for _, column, _ in cells], [n for *_, n in cells]
    )


def test_kruskal_wallis_of_a_textbook() -> None:
    found = made(numeric_association(*stacked(*CORN)))
    assert found.test == "Kruskal-Wallis"
    assert found.statistic == pytest.approx(25.63, abs=0.01)  # as printed in the book, with its correction for ties
    assert found.p == pytest.approx(stats.kruskal(*CORN).pvalue)
    assert found.effect == pytest.approx((found.statistic - 3) / (34 - 4))
    assert (found.effect_name, found.n, found.missing) == ("epsilon squared", 34, 0)


def test_welch_as_statsmodels_and_scipy_have_it() -> None:
    generator = np.random.default_rng(0)
    samples = [generator.normal(mean, scale, n) for mean, scale, n in ((0, 1, 30), (0.5, 3, 40), (1, 2, 55))]
    values, groups = stacked(*samples)
    for change in (values, 1e9 + values, 1e-200 * values, 1e90 * values):
        found = made(numeric_association(change, groups))
        assert (found.test, found.effect_name) == ("Welch's analysis of variance", "omega squared")
        ours = anova_oneway(samples, use_var="unequal", welch_correction=True)
        assert found.statistic == pytest.approx(ours.statistic, rel=1e-4)
        assert found.p == pytest.approx(ours.pvalue, rel=1e-3)
        assert found.p == pytest.approx(stats.f_oneway(*samples, equal_var=False).pvalue, rel=1e-3)
        above = 2 * (found.statistic - 1)
        assert found.effect == pytest.approx(above / (above + 125))


def test_welch_is_taken_by_sizes_and_shape_alone() -> None:
    generator = np.random.default_rng(1)
    even, skewed = generator.normal(size=90), generator.exponential(size=90)
    groups = np.arange(90) % 3
    assert made(numeric_association(even, groups)).test.startswith("Welch")
    assert made(numeric_association(even[:89], groups[:89])).test == "Kruskal-Wallis"  # a group of 29
    assert made(numeric_association(skewed, groups)).test == "Kruskal-Wallis"
    apart = even + 50 * groups  # far apart, the shape within groups unchanged
    assert made(numeric_association(apart, groups)).test.startswith("Welch")
    flat = np.where(groups == 0, 1.0, even)  # a group without spread
    assert made(numeric_association(flat, groups)).test == "Kruskal-Wallis"


def test_small_groups_get_the_exact_p_by_permutation() -> None:
    values, groups = stacked([1.1, 2.0, 3.7], [4.1, 5.0, 2.9], [8.0, 9.5, 7.2])
    found = made(numeric_association(values, groups))
    assert found.test == "Kruskal-Wallis, by permutation"
    own = stats.kruskal(*(values[groups == k] for k in range(3))).statistic
    assert found.statistic == pytest.approx(own)
    ranks = stats.rankdata(values)
    every = []
    for first in itertools.combinations(range(9), 3):
        rest = [place for place in range(9) if place not in first]
        for second in itertools.combinations(rest, 3):
            third = [place for place in rest if place not in second]
            every.append(stats.kruskal(*(ranks[list(part)] for part in (first, second, third))).statistic)
    exact = np.mean(np.array(every) >= own - 1e-9)
    assert found.p == pytest.approx(exact, rel=0.15)
    assert found.p == made(numeric_association(values, groups)).p  # the same seed
    assert abs(stats.chi2.sf(own, 2) - exact) > 0.5 * exact  # the distribution would have been wrong


def test_chi_square_of_a_textbook() -> None:
    # Agresti, Categorical data analysis, 2002, table 3.1: party identification by sex; X2 = 7.01.
    table = [[279, 165], [73, 47], [225, 191]]
    found = made(categorical_association(*spread(table)))
    assert found.test == "chi-square"
    assert found.statistic == pytest.approx(7.01, abs=0.01)
    assert found.p == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue)
    assert (found.effect_name, found.n) == ("Cramér's V", 980)


@pytest.mark.parametrize("table", [[[3, 1], [1, 3]], [[4, 0, 1], [0, 3, 2]], [[20, 1], [2, 2]], [[9, 2], [1, 8]]])
def test_small_counts_get_the_exact_p_by_permutation(table: list[list[int]]) -> None:
    found = made(categorical_association(*spread(table)))
    assert found.test == "chi-square, by permutation"
    level, group = spread(table)
    own, total = stats.chi2_contingency(table, correction=False).statistic, len(level)
    assert found.statistic == pytest.approx(own)
    generator = np.random.default_rng(5)
    drawn = []
    for _ in range(2000):
        counts = np.zeros(np.shape(table))
        np.add.at(counts, (level.astype(int), generator.permutation(group)), 1)
        expected = np.outer(counts.sum(1), counts.sum(0)) / total
        drawn.append(((counts - expected) ** 2 / expected).sum())
    by_hand = np.mean(np.array(drawn) >= own - 1e-9)
    assert found.p == pytest.approx(by_hand, abs=0.05)
    if np.shape(table) == (2, 2) and np.unique(np.sum(table, 0)).size == 1:  # equal columns: Fisher's exact test
        assert found.p == pytest.approx(stats.fisher_exact(table).pvalue, rel=0.15)


def test_missing_values_are_counted_and_change_nothing() -> None:
    values, groups = stacked(*CORN)
    with_gaps = np.concatenate([values, [np.nan, np.inf, -np.inf]])
    found = made(numeric_association(with_gaps, np.concatenate([groups, [0, 1, 9]])))
    assert (found.n, found.missing) == (34, 3)
    assert found.p == made(numeric_association(values, groups)).p
    level, group = spread([[30, 10], [10, 30]])
    gaps = made(categorical_association([*level, "", ""], [*group, 0, 7]))
    assert (gaps.n, gaps.missing, gaps.p) == (80, 2, made(categorical_association(level, group)).p)


@pytest.mark.parametrize(
    ("values", "groups", "reason", "n", "missing"),
    [
        ([np.nan, np.nan], [0, 1], effects.ALL_MISSING, 0, 2),
        ([], [], effects.ALL_MISSING, 0, 0),
        ([5.0, 5.0, 5.0, 5.0], [0, 0, 1, 1], effects.ONE_VALUE, 4, 0),
        ([1.0, 2.0, 3.0], [0, 0, 0], effects.FEW_UNITS, 3, 0),
        ([1.0, 2.0, 3.0], [0, 1, 2], effects.FEW_UNITS, 3, 0),
        ([1.0, 2.0, 3.0, np.nan], [0, 0, 1, 1], effects.FEW_UNITS, 3, 1),
    ],
)
def test_what_cannot_be_tested_says_why(
    values: list[float], groups: list[int], reason: str, n: int, missing: int
) -> None:
    assert numeric_association(values, groups) == NotTested(reason, n, missing)
    text = ["" if np.isnan(value) else str(value) for value in values]
    assert categorical_association(text, groups) == NotTested(reason, n, missing)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=4, max_size=40),
    st.sampled_from([1.0, -2.5, 1e-300, 1e99]),
)
def test_any_small_sample_gives_finite_numbers(pairs: list[tuple[int, int]], scale: float) -> None:
    values, groups = np.array(pairs).T
    for found in (
        numeric_association(values * scale, groups, draws=20),
        categorical_association(values.astype(str), groups, draws=20),
    ):
        if isinstance(found, NotTested):
            assert found.reason
            continue
        assert 0 < made(found).p <= 1
        assert np.isfinite(found.statistic)
        assert found.n == len(pairs)
    other = numeric_association(values * scale, 10 - groups, draws=20)  # names of groups do not matter
    one = numeric_association(values * scale, groups, draws=20)
    if isinstance(one, Association):
        assert made(other).statistic == pytest.approx(one.statistic)
        assert made(other).p == pytest.approx(one.p, rel=0.6)


@pytest.mark.parametrize(("n", "levels"), [(12, 0), (60, 0), (150, 0), (12, 3), (60, 3), (150, 2)])
def test_p_keeps_its_level_where_nothing_differs(n: int, levels: int) -> None:
    generator = np.random.default_rng(n)
    groups, found = np.arange(n) % 3, []
    for _ in range(300):
        if levels:
            result = categorical_association(generator.integers(levels, size=n).astype(str), groups, draws=2)
        else:
            result = numeric_association(generator.normal(size=n), groups, draws=2)
        found.append(made(result).p if isinstance(result, Association) else 1)
    assert (np.array(found) <= 0.05).sum() <= stats.binom.ppf(0.999, 300, 0.05)


@pytest.mark.parametrize("shift", [0.0, 0.4, 1.0])
def test_intervals_hold_the_true_effect(shift: float) -> None:
    generator = np.random.default_rng(3)

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        groups = np.arange(n) % 3
        return generator.normal(size=n) + shift * groups, groups

    truth = made(numeric_association(*sample(200_000), draws=2)).effect if shift else 0.0
    found = [made(numeric_association(*sample(99), draws=300)) for _ in range(150)]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.9
    assert np.mean([one.high - one.low for one in found]) < 0.4


def test_benjamini_hochberg_as_statsmodels_has_it() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.55, 0.2])
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1])
    with_gap = benjamini_hochberg([0.01, np.nan, 0.04])
    assert with_gap[[0, 2]] == pytest.approx([0.02, 0.04])
    assert np.isnan(with_gap[1])
    assert np.isnan(benjamini_hochberg([np.nan])).all()
    assert len(benjamini_hochberg([])) == 0
