"""How large a difference between groups is: effect sizes, of one sample or of many bootstrap samples at once.

Shapes: n units, K groups, R levels, D samples. A bootstrap sample is given as counts (D, n), how often it holds each
unit; ``member`` (n, K) is 1 where a unit is in a group.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medstrata.evidence.association.resampling import Floats

SPREAD = 1e-7  # standard deviation below which all values of a group count as the same; values are about 1


def cramers_v(table: ArrayLike) -> float:
    """Return the bias-corrected Cramér's V of counts (R, K), between 0 and 1; 0 where only one row or column is used.

    Source: Bergsma, A bias-correction for Cramér's V and Tschuprow's T, 2013, equation 8.
    """
    return float(cramers_vs(np.asarray(table)))


def epsilon_squared(values: ArrayLike, groups: ArrayLike) -> float:
    """Return (H - K + 1) / (n - K), 0 where that is negative: the share of the ranks' variance between groups, 0 to 1.

    H is that of Kruskal and Wallis. This is Kelley's epsilon squared of the ranks, free of the bias of H / (n - 1),
    which is about (K - 1) / (n - 1) where nothing differs. ``values`` (n,) finite, ``groups`` (n,). Sources: Kelley,
    PNAS 21, 1935; Cohen, Explaining psychological statistics, 2008 (there eta squared of H).
    """
    x = np.asarray(values, dtype=np.float64)
    order = np.argsort(x, kind="stable")
    names, group = np.unique(np.asarray(groups)[order], return_inverse=True)
    return float(kruskal(x[order], np.eye(len(names))[group], np.ones((1, len(x))))[1][0])


def omega_squared(values: ArrayLike, groups: ArrayLike) -> float:
    """Return (K - 1)(F - 1) / ((K - 1)(F - 1) + n) with Welch's F, 0 where that is negative, at most 1.

    ``values`` (n,) finite, ``groups`` (n,) of two units or more. Source: Carroll, Nordholm, Educational and
    Psychological Measurement 35, 1975.
    """
    x = np.asarray(values, dtype=np.float64)
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    return float(welch(x, np.eye(len(names))[group], np.ones((1, len(x))))[1][0])


def moments(x: Floats, member: Floats, counts: Floats) -> tuple[Floats, Floats, Floats]:
    """Return sizes, means and variances (D, K) of the groups in D samples; groups of one unit have a variance of 0."""
    sizes = counts @ member
    means = counts @ (member * x[:, None]) / np.maximum(sizes, 1)
    squares = counts @ (member * x[:, None] ** 2) - sizes * means**2
    return sizes, means, squares.clip(0) / np.maximum(sizes - 1, 1)


def welch(x: Floats, member: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Return Welch's F and omega squared (D,) of D samples; a group without spread in one of them is left out of it."""
    sizes, means, variances = moments(x, member, counts)
    used = (sizes >= 2) & (variances > SPREAD**2)
    weights = np.where(used, sizes / np.where(used, variances, 1), 0)
    total, groups = np.maximum(weights.sum(1), 1e-300), used.sum(1)
    centre = (weights * means).sum(1) / total
    between = (weights * (means - centre[:, None]) ** 2).sum(1) / np.maximum(groups - 1, 1)
    spread = (used * (1 - weights / total[:, None]) ** 2 / np.maximum(sizes - 1, 1)).sum(1)
    statistic = between / (1 + 2 * (groups - 2) * spread / np.maximum(groups**2 - 1, 1))
    above = ((groups - 1) * (statistic - 1)).clip(0)
    return statistic, above / (above + sizes.sum(1))


def kruskal(x: Floats, member: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Return Kruskal and Wallis's H, corrected for ties, and epsilon squared (D,) of D samples; ``x`` (n,) ascends."""
    centred = centred_ranks(x, counts)
    sizes, n = counts @ member, counts.sum(1)
    between = (((counts * centred) @ member) ** 2 / np.maximum(sizes, 1)).sum(1)
    total = (counts * centred**2).sum(1)
    statistic = (n - 1) * between / np.where(total > 0, total, 1)
    groups = (sizes > 0).sum(1)
    effect = (statistic - (groups - 1)) / np.maximum(n - groups, 1)
    return statistic, effect.clip(0, 1)


def centred_ranks(x: Floats, counts: Floats) -> Floats:
    """Return the ranks (D, n) of ascending ``x`` in D samples, tied values sharing their mean, less the mean rank."""
    new = np.append(False, x[1:] != x[:-1])
    block, last = np.cumsum(new), np.flatnonzero(np.append(new[1:], True))
    upto = counts.cumsum(1)[:, last]
    before = np.concatenate([np.zeros((len(counts), 1)), upto[:, :-1]], axis=1)
    return np.asarray(((before + upto - upto[:, -1:]) / 2)[:, block])


def chi_square(tables: NDArray[np.int64]) -> Floats:
    """Return chi-square of tables (..., R, K) with R rows and K columns; empty ones add nothing."""
    expected = tables.sum(-1, keepdims=True) * tables.sum(-2, keepdims=True) / tables.sum((-2, -1), keepdims=True)
    return np.asarray(((tables - expected) ** 2 / np.where(expected > 0, expected, 1)).sum((-2, -1)))


def cramers_vs(tables: NDArray[np.int64]) -> Floats:
    """Return ``cramers_v`` of each of the tables (..., R, K)."""
    n = tables.sum((-2, -1))
    rows, columns = (tables.sum(-1) > 0).sum(-1), (tables.sum(-2) > 0).sum(-1)
    spare = np.maximum(n - 1, 1)
    square = (chi_square(tables) / n - (rows - 1) * (columns - 1) / spare).clip(0)
    limit = np.minimum(rows - (rows - 1) ** 2 / spare, columns - (columns - 1) ** 2 / spare) - 1
    return np.asarray(np.sqrt((square / np.where(limit > 0, limit, 1)).clip(0, 1) * (limit > 0)))
