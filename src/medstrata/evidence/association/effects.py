"""One variable against the clusters: the test, its p-value, and the size of the effect with an interval.

Which test is taken depends on the sizes of the groups and on the values, and never on a p-value. Shapes: n units, K
groups, R levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from medstrata.evidence.association.effect_sizes import (
    SPREAD,
    centred_ranks,
    chi_square,
    cramers_v,
    cramers_vs,
    epsilon_squared,
    kruskal,
    moments,
    omega_squared,
    welch,
)
from medstrata.evidence.association.resampling import Floats, permutation_p, resample
from medstrata.evidence.intervals import COVERAGE

__all__ = [
    "Association",
    "NotTested",
    "benjamini_hochberg",
    "categorical_association",
    "cramers_v",
    "epsilon_squared",
    "numeric_association",
    "omega_squared",
]

DRAWS = 1000  # of the bootstrap

WELCH_UNITS = 30  # in every group, for a test of means
WELCH_SKEWNESS = 1.0  # of the values about their group's mean, at most, for a test of means
RANK_UNITS = 5  # in every group, for the chi-square distribution of Kruskal and Wallis
EXPECTED, EXPECTED_SHARE = 5, 0.2  # Cochran's rule: at most this share of cells expects fewer, and none fewer than 1

WELCH, RANKS, LEVELS = "Welch's analysis of variance", "Kruskal-Wallis", "chi-square"
PERMUTED = ", by permutation"

ALL_MISSING = "all values are missing"
ONE_VALUE = "all values are the same"
FEW_UNITS = "fewer than two clusters have two values or more"


@dataclass(frozen=True)
class Association:
    """A variable that was tested against the groups.

    test, statistic : the test in plain words and its statistic (H, Welch's F or chi-square)
    p : between 0 and 1, not corrected
    effect, effect_name : between 0 and 1; "epsilon squared", "omega squared" or "Cramér's V"
    low, high : 95 % bootstrap interval of the effect, units resampled
    n, missing : units that have a value, and that have none
    """

    test: str
    statistic: float
    p: float
    effect: float
    effect_name: str
    low: float
    high: float
    n: int
    missing: int


@dataclass(frozen=True)
class NotTested:
    """A variable that cannot be tested: why, how many units have a value and how many have none."""

    reason: str
    n: int
    missing: int


def numeric_association(
    values: ArrayLike, groups: ArrayLike, seed: int = 0, draws: int = DRAWS
) -> Association | NotTested:
    """Test whether a number differs between groups.

    ``values`` (n,) may hold NaN or infinite values: they are missing. ``groups`` (n,) are integers, every one of them
    a group. Welch's analysis of variance is taken if every group has at least ``WELCH_UNITS`` values that are not all
    the same, and the standardised values about their group's mean have a skewness within ``WELCH_SKEWNESS``; else
    Kruskal-Wallis, its p-value by permutation where a group has fewer than ``RANK_UNITS`` values.

    Sources: Welch, Biometrika 38, 1951; Kruskal, Wallis, JASA 47, 1952.
    """
    every = np.asarray(values, dtype=np.float64)
    known = np.isfinite(every)
    x, missing = every[known], int((~known).sum())
    names, group = np.unique(np.asarray(groups)[known], return_inverse=True)
    reason = _untestable(x, group)
    if reason:
        return NotTested(reason, len(x), missing)
    test = _welch_test if _suits_welch(x, np.eye(len(names))[group]) else _rank_test
    return test(x, np.eye(len(names))[group], np.random.default_rng(seed), draws, missing)


def categorical_association(
    values: ArrayLike, groups: ArrayLike, seed: int = 0, draws: int = DRAWS
) -> Association | NotTested:
    """Test whether the levels of a category are spread differently over groups.

    ``values`` (n,) is text, "" missing; ``groups`` (n,) are integers, every one of them a group. The p-value of
    chi-square is that of its distribution where Cochran's rule allows it, else by permutation with both margins kept.

    Sources: Cochran, Biometrics 10, 1954; Bergsma, Journal of the Korean Statistical Society 42, 2013.
    """
    text = np.asarray(values, dtype=np.str_)
    known = text != ""
    missing = int((~known).sum())
    levels, level = np.unique(text[known], return_inverse=True)
    names, group = np.unique(np.asarray(groups)[known], return_inverse=True)
    reason = _untestable(level, group)
    if reason:
        return NotTested(reason, len(level), missing)
    table = np.zeros((len(levels), len(names)), dtype=np.int64)
    np.add.at(table, (level, group), 1)
    generator = np.random.default_rng(seed)
    expected = stats.contingency.expected_freq(table)
    statistic = float(chi_square(table))
    test, p = LEVELS, float(stats.chi2.sf(statistic, (len(levels) - 1) * (len(names) - 1)))
    if (expected < EXPECTED).mean() > EXPECTED_SHARE or expected.min() < 1:
        margins = stats.random_table(table.sum(1), table.sum(0), seed=generator)
        test = f"{LEVELS}{PERMUTED}"
        p = permutation_p(statistic, lambda count: chi_square(margins.rvs(count)), table.size)
    drawn = generator.multinomial(len(level), table.ravel() / len(level), size=draws).reshape(draws, *table.shape)
    effect = cramers_v(table)
    low, high = _interval(effect, cramers_vs(drawn))
    return Association(test, statistic, p, effect, "Cramér's V", low, high, len(level), missing)


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """Return the q-values of ``p`` (m,): p-values corrected for the number of tests; NaN stays NaN and is no test.

    Source: Benjamini, Hochberg, Journal of the Royal Statistical Society B 57, 1995.
    """
    q = np.array(p, dtype=np.float64)
    tested = ~np.isnan(q)
    if tested.any():
        q[tested] = stats.false_discovery_control(q[tested], method="bh")
    return q


def _untestable(values: NDArray[np.generic], groups: NDArray[np.int64]) -> str:
    if not len(values):
        return ALL_MISSING
    if (np.bincount(groups) >= 2).sum() < 2:
        return FEW_UNITS
    return ONE_VALUE if (values == values[0]).all() else ""


def _interval(effect: float, drawn: Floats) -> tuple[float, float]:
    """Return the percentile interval, moved by the bias that the bootstrap shows, its mean less ``effect``.

    Without the move the interval lies too high: a bootstrap sample has the chance differences of the sample and its
    own. With it 90 to 100 of 100 intervals held the true effect, for 12 to 300 units in 3 and 5 groups.
    """
    low, high = np.quantile(drawn, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]) - (drawn.mean() - effect)
    return float(low.clip(0, effect)), float(high.clip(effect, 1))


def _suits_welch(values: Floats, member: Floats) -> bool:
    sizes = member.sum(0)
    if sizes.min() < WELCH_UNITS:
        return False
    x = _scaled(values)
    centred = x - member @ (x @ member / sizes)
    spread = np.sqrt(centred**2 @ member / sizes)
    if spread.min() <= SPREAD:
        return False
    return bool(abs(stats.skew(centred / (member @ spread))) <= WELCH_SKEWNESS)


def _scaled(values: Floats) -> Floats:
    """Return values between -2 and 2 about 0, so that squares of large numbers keep their digits."""
    x = values / np.abs(values).max()
    x = x - np.median(x)
    return np.asarray(x / np.abs(x).max())


def _welch_test(
    values: Floats, member: Floats, generator: np.random.Generator, draws: int, missing: int
) -> Association:
    x, n = _scaled(values), len(values)
    statistic, effect = (float(of[0]) for of in welch(x, member, np.ones((1, n))))
    sizes, _, variances = (of[0] for of in moments(x, member, np.ones((1, n))))
    weights, groups = sizes / variances, len(sizes)
    spread = ((1 - weights / weights.sum()) ** 2 / (sizes - 1)).sum()
    p = float(stats.f.sf(statistic, groups - 1, (groups**2 - 1) / (3 * spread)))
    low, high = _interval(effect, resample(lambda counts: welch(x, member, counts)[1], n, draws, generator))
    return Association(WELCH, statistic, p, effect, "omega squared", low, high, n, missing)


def _rank_test(values: Floats, member: Floats, generator: np.random.Generator, draws: int, missing: int) -> Association:
    order, n = np.argsort(values, kind="stable"), len(values)
    x, member = values[order], member[order]
    statistic, effect = (float(of[0]) for of in kruskal(x, member, np.ones((1, n))))
    sizes = member.sum(0)
    test, p = RANKS, float(stats.chi2.sf(statistic, len(sizes) - 1))
    if sizes.min() < RANK_UNITS:
        ranks = centred_ranks(x, np.ones((1, n)))[0]
        variance = (ranks**2).sum() / (n - 1)

        def draw(count: int) -> Floats:
            permuted = generator.permuted(np.broadcast_to(ranks, (count, n)), axis=1)
            return np.asarray(((permuted @ member) ** 2 / sizes).sum(1) / variance)

        test, p = f"{RANKS}{PERMUTED}", permutation_p(statistic, draw, n)
    low, high = _interval(effect, resample(lambda counts: kruskal(x, member, counts)[1], n, draws, generator))
    return Association(test, statistic, p, effect, "epsilon squared", low, high, n, missing)
