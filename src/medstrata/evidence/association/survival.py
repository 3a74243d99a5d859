"""Times to an event by cluster: the log-rank test and Kaplan-Meier curves. Needs the extra ``survival``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medstrata.evidence.association.columns import TimeToEvent
from medstrata.evidence.association.effects import ALL_MISSING, FEW_UNITS, PERMUTED, NotTested
from medstrata.evidence.association.resampling import Floats, permutation_p

EXPECTED_EVENTS = 5  # in every cluster if nothing differed, for the chi-square distribution of the log-rank test
AT_RISK_TIMES = 5  # at which the numbers at risk are given, from 0 to the last time

NOT_INSTALLED = "lifelines is not installed; install medstrata[survival]"
NO_EVENT = "no event was observed"
ONE_TIME = "all who were at risk at a time of an event had it"
LOG_RANK = "log-rank"


@dataclass(frozen=True)
class Curve:
    """The Kaplan-Meier curve of one cluster.

    times, survival, low, high : (T,), the share still free of the event from each time on, with its 95 % interval
    at_risk_times, at_risk : (A,), patients still observed just before these times
    n, events : patients, and those who had the event
    """

    cluster: int
    times: list[float]
    survival: list[float]
    low: list[float]
    high: list[float]
    at_risk_times: list[float]
    at_risk: list[int]
    n: int
    events: int


@dataclass(frozen=True)
class SurvivalAssociation:
    """A time to an event that was tested: the log-rank chi-square, its p-value (not corrected), a curve per cluster."""

    test: str
    statistic: float
    p: float
    n: int
    missing: int
    events: int
    curves: tuple[Curve, ...]


def survival_association(
    column: TimeToEvent, clusters: NDArray[np.integer], seed: int = 0
) -> SurvivalAssociation | NotTested:
    """Test whether the times to an event differ between ``clusters`` (n,), and describe them.

    The p-value is that of chi-square where every cluster expects ``EXPECTED_EVENTS`` events or more, else by
    permutation of the log-rank scores (event less Nelson-Aalen cumulative hazard at the patient's time), which takes
    censoring as alike in all clusters. Sources: Mantel, Cancer Chemotherapy Reports 50, 1966; Peto, Peto, Journal of
    the Royal Statistical Society A 135, 1972.
    """
    known = ~np.isnan(column.time)
    time, event, group = column.time[known], column.event[known], np.asarray(clusters)[known]
    n, missing = len(time), int((~known).sum())
    names, member = np.unique(group, return_inverse=True)
    if not n:
        return NotTested(ALL_MISSING, n, missing)
    if (np.bincount(member) >= 2).sum() < 2:
        return NotTested(FEW_UNITS, n, missing)
    if not event.any():
        return NotTested(NO_EVENT, n, missing)
    try:
        from lifelines.statistics import multivariate_logrank_test
    except ImportError:
        return NotTested(NOT_INSTALLED, n, missing)
    scores = log_rank_scores(time, event)
    if not scores.any():
        return NotTested(ONE_TIME, n, missing)
    indicator = np.eye(len(names))[member]
    if ((event - scores) @ indicator).min() >= EXPECTED_EVENTS:
        found = multivariate_logrank_test(time, group, event)
        test, statistic, p = LOG_RANK, float(found.test_statistic), float(found.p_value)
    else:
        test = f"{LOG_RANK}{PERMUTED}"
        statistic, p = _permuted(scores, indicator, np.random.default_rng(seed))
    curves = tuple(_curve(int(name), time[group == name], event[group == name], time.max()) for name in names)
    return SurvivalAssociation(test, statistic, p, n, missing, int(event.sum()), curves)


def log_rank_scores(time: Floats, event: NDArray[np.bool_]) -> Floats:
    """Return each patient's event (0 or 1) less the events expected until its time (n,), by Nelson and Aalen."""
    times, place = np.unique(time, return_inverse=True)
    at_risk = np.bincount(place)[::-1].cumsum()[::-1]
    hazard = np.cumsum(np.bincount(place, event, len(times)) / at_risk)
    return np.asarray(event - hazard[place])


def _permuted(scores: Floats, member: Floats, generator: np.random.Generator) -> tuple[float, float]:
    """Return the score statistic of the groups (n, K) and its p-value by permutation; scores sum to 0."""
    sizes, variance = member.sum(0), (scores**2).sum() / (len(scores) - 1)

    def statistic(values: Floats) -> Floats:
        return np.asarray(((values @ member) ** 2 / sizes).sum(-1) / variance)

    def draw(count: int) -> Floats:
        return statistic(generator.permuted(np.broadcast_to(scores, (count, len(scores))), axis=1))

    own = float(statistic(scores[None])[0])
    return own, permutation_p(own, draw, len(scores))


def _curve(cluster: int, time: Floats, event: NDArray[np.bool_], last: float) -> Curve:
    from lifelines import KaplanMeierFitter

    fitted: Any = KaplanMeierFitter().fit(time, event)
    interval = fitted.confidence_interval_.to_numpy()
    marks = np.linspace(0, last, AT_RISK_TIMES)
    return Curve(
        cluster,
        [float(value) for value in fitted.survival_function_.index],
        fitted.survival_function_.to_numpy()[:, 0].tolist(),
        interval[:, 0].tolist(),
        interval[:, 1].tolist(),
        marks.tolist(),
        [int((time >= mark).sum()) for mark in marks],
        len(time),
        int(event.sum()),
    )
