"""The dip against linear programming, its level, and gaps of planted clusters."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from medstrata.evidence.validity.dip import critical_dip, dip, gap


def dip_by_linear_programming(values: np.ndarray) -> float:
    """The definition: for each mode, the least d within which a convex and a concave piece stay; the best of all."""
    x = np.sort(values)
    n = len(x)
    return min(_of_mode(x, mode) for mode in range(n))


def _of_mode(x: np.ndarray, mode: int) -> float:
    """Variables: the values of the function at x_0..x_mode from the left, at x_mode.. from the right, and d."""
    n = len(x)
    size = n + 2
    rows: list[np.ndarray] = []
    bounds: list[float] = []

    def at_most(terms: dict[int, float], bound: float) -> None:
        row = np.zeros(size)
        for index, factor in terms.items():
            row[index] += factor
        rows.append(row)
        bounds.append(bound)

    distance = size - 1
    for i in range(n):
        for index in ([i] if i <= mode else []) + ([i + 1] if i >= mode else []):
            if index != mode:  # just left of the mode the jump there has not happened yet
                at_most({index: -1, distance: -1}, -(i + 1) / n)
            else:
                at_most({index: -1, distance: -1}, -i / n)
            if index != mode + 1:
                at_most({index: 1, distance: -1}, i / n)
            else:
                at_most({index: 1, distance: -1}, (i + 1) / n)
    for index in range(n):
        at_most({index: 1, index + 1: -1}, 0)  # ascending
    for i in range(1, mode):
        a, b = x[i] - x[i - 1], x[i + 1] - x[i]
        at_most({i + 1: -a, i: a + b, i - 1: -b}, 0)
    for i in range(mode + 1, n - 1):
        a, b = x[i] - x[i - 1], x[i + 1] - x[i]
        at_most({i + 2: a, i + 1: -(a + b), i: b}, 0)
    found = linprog(np.eye(size)[-1], A_ub=np.array(rows), b_ub=bounds, bounds=[(None, None)] * (size - 1) + [(0, 1)])
    return float(found.fun)


@pytest.mark.parametrize("seed", range(12))
def test_dip_is_the_definition(seed: int) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(4, 12))
    values = random.random(count) if seed % 2 else np.append(random.normal(size=count), random.normal(5, 1, count // 2))
    assert dip(values) == pytest.approx(dip_by_linear_programming(values), abs=1e-6)


def test_dip_at_its_ends() -> None:
    assert dip(np.arange(10.0)) == pytest.approx(1 / 20)  # even steps: as near one mode as ten values can be
    assert dip(np.repeat([0.0, 1.0], 50)) == pytest.approx(1 / 4)
    assert dip(np.zeros(7)) == pytest.approx(1 / 14)


def test_dip_does_not_depend_on_scale_or_direction() -> None:
    values = np.random.default_rng(0).normal(size=60) ** 3
    assert dip(values) == pytest.approx(dip(-3 * values + 5))


def test_one_mode_is_refuted_in_5_percent() -> None:
    random = np.random.default_rng(1)
    uniform = [dip(random.random(60)) > critical_dip(60) for _ in range(300)]
    normal = [dip(random.normal(size=60)) > critical_dip(60) for _ in range(300)]
    assert 0.02 < np.mean(uniform) < 0.09
    assert np.mean(normal) < 0.02


def middles(z: np.ndarray, labels: np.ndarray) -> dict[int, np.ndarray]:
    return {number: z[labels == number].mean(0) for number in np.unique(labels).tolist()}


def test_groups_have_gaps_and_pieces_have_none() -> None:
    random = np.random.default_rng(0)
    line = np.column_stack([random.random(600), random.normal(0, 0.05, (600, 2))])
    pieces = np.digitize(line[:, 0], [1 / 3, 2 / 3])
    groups = random.normal(0, 0.1, (600, 3)) + np.eye(3)[pieces]
    assert gap(line[:300], pieces[:300], middles(line[300:], pieces[300:])) < 1
    assert gap(groups[:300], pieces[:300], middles(groups[300:], pieces[300:])) > 1.5


@pytest.mark.parametrize("draw", ["standard_normal", "standard_exponential", "random"])
def test_pieces_of_any_one_mode_have_no_gap(draw: str) -> None:
    """Cut at a place that leaves unequal pieces, along one long axis of ten."""
    random = np.random.default_rng(1)
    z = random.normal(0, 0.05, (1000, 10))
    z[:, 0] = getattr(random, draw)(1000)
    pieces = (z[:, 0] > np.quantile(z[:, 0], 0.7)).astype(int)
    assert gap(z[:500], pieces[:500], middles(z[500:], pieces[500:])) < 1


def test_less_than_two_clusters_have_no_gap() -> None:
    z = np.random.default_rng(0).normal(size=(10, 2))
    assert gap(z, np.zeros(10, dtype=int), {0: z[0]}) == 0
    assert gap(z, np.array([0] * 9 + [1]), {0: z[0], 1: z[9]}) == 0
    assert gap(z, np.array([0] * 5 + [1] * 5), {0: z[0]}) == 0
