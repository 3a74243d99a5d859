"""Is there a gap between clusters, or are they pieces of a continuum?

A continuum that is cut in pieces can be cut in the same pieces again and again, so that stability does not tell.
Between two groups there are few images: along the line from the middle of one to that of the other their density has
two modes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Array = NDArray[np.floating]

LEVEL = 0.05
DRAWS = 500  # of uniform samples, of which the critical value is a quantile
MOST_OF_A_PAIR = 400  # images of two clusters together: more change little, and take longer


def dip(values: NDArray[np.floating]) -> float:
    """Return how far ``values`` (n,) are from having one mode, 1 / (2 n) to 1/4.

    The largest distance between their distribution function and the nearest one that is convex up to a mode and concave
    from there on. Source: Hartigan and Hartigan, The dip test of unimodality, 1985.
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    if x[0] == x[-1]:
        return 0.5 / len(x)
    n, low, high, found = len(x), 0, len(x) - 1, 1.0 / len(x)
    while True:
        part = x[low : high + 1]
        before, after = np.arange(low, high + 1) / n, np.arange(low + 1, high + 2) / n
        minorant = _convex_minorant(part, before)
        majorant = len(part) - 1 - _convex_minorant(-part[::-1], -after[::-1])[::-1]
        convex = np.interp(part, part[minorant], before[minorant])
        concave = np.interp(part, part[majorant], after[majorant])
        apart = np.abs(concave - convex)
        widest = max(apart[minorant].max(), apart[majorant].max())
        if apart[minorant].max() > apart[majorant].max():
            left = int(minorant[apart[minorant].argmax()])
            right = int(majorant[majorant >= left][0])
        else:
            right = int(majorant[apart[majorant].argmax()])
            left = int(minorant[minorant <= right][-1])
        if widest <= found or (left == 0 and right == len(part) - 1):
            return found / 2
        beside = max(np.abs(after - convex)[: left + 1].max(), np.abs(before - concave)[right:].max())
        found = max(found, float(beside)) if left > 0 or right < len(part) - 1 else found
        if widest <= found:
            return found / 2
        low, high = low + left, low + right


def _convex_minorant(x: Floats, y: Floats) -> NDArray[np.int64]:
    """Return the corners of the greatest convex function below the points (x, y), x ascending."""
    corners = [0]
    for i in range(1, len(x)):
        while len(corners) > 1:
            one, two = corners[-2], corners[-1]
            if (y[two] - y[one]) * (x[i] - x[two]) < (y[i] - y[two]) * (x[two] - x[one]):
                break
            corners.pop()
        corners.append(i)
    return np.array(corners)


@cache
def critical_dip(n: int) -> float:
    """Return the dip that 5 % of uniform samples of ``n`` values exceed; no other single mode has larger ones."""
    random = np.random.default_rng(n)
    return float(np.quantile([dip(random.random(n)) for _ in range(DRAWS)], 1 - LEVEL))


def gap(z: Array, labels: NDArray[np.integer], middles: Mapping[int, Array]) -> float:
    """Return the mean over clusters of the gap to the nearest other cluster, of embeddings z (n, Z).

    The gap of two clusters is the dip of their images on the line between their ``middles`` over the critical value:
    above 1, one mode is refuted. The middles must be of other images: a line that is drawn through the same ones parts
    them better than by chance. Clusters without a middle or with fewer than 2 images are left out; 0 where fewer than
    two clusters are left.
    """
    names = [number for number in middles if (labels == number).sum() > 1]
    if len(names) < 2:
        return 0.0
    gaps = np.full((len(names), len(names)), np.inf)
    for one in range(len(names)):
        for two in range(one + 1, len(names)):
            line = middles[names[two]] - middles[names[one]]
            gaps[one, two] = gaps[two, one] = _gap(z[np.isin(labels, [names[one], names[two]])] @ line)
    return float(gaps.min(1).mean())


def _gap(values: Array) -> float:
    some = np.random.default_rng(0).permutation(len(values))[:MOST_OF_A_PAIR]
    return dip(values[some]) / critical_dip(len(some))
