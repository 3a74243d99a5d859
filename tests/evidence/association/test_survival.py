"""Times to an event: the log-rank test of textbooks, its permutation, Kaplan-Meier curves, and no lifelines."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from lifelines import NelsonAalenFitter
from scipy import stats
from statsmodels.duration.survfunc import SurvfuncRight, survdiff

from medstrata.evidence.association import survival
from medstrata.evidence.association.columns import TimeToEvent
from medstrata.evidence.association.effects import ALL_MISSING, FEW_UNITS, NotTested
from medstrata.evidence.association.survival import SurvivalAssociation, log_rank_scores, survival_association

# Freireich et al., Blood 21, 1963: weeks of remission of leukaemia under placebo and 6-MP.
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]
TREATED = [6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
TIME = np.array(PLACEBO + TREATED, dtype=float)
EVENT = np.array([True] * 30 + [False] * 12)
GROUP = np.repeat([0, 1], 21)


def made(found: SurvivalAssociation | NotTested) -> SurvivalAssociation:
    assert isinstance(found, SurvivalAssociation)
    return found


def test_log_rank_of_a_textbook() -> None:
    found = made(survival_association(TimeToEvent("remission", TIME, EVENT), GROUP))
    assert found.test == "log-rank"
    assert found.statistic == pytest.approx(16.79, abs=0.01)  # as printed in Kleinbaum, Klein, Survival analysis
    assert found.p == pytest.approx(survdiff(TIME, EVENT, GROUP)[1])
    assert (found.n, found.missing, found.events) == (42, 0, 30)


def test_kaplan_meier_as_statsmodels_has_it() -> None:
    found = made(survival_association(TimeToEvent("remission", TIME, EVENT), GROUP))
    assert [curve.cluster for curve in found.curves] == [0, 1]
    treated = found.curves[1]
    assert (treated.n, treated.events) == (21, 9)
    other = SurvfuncRight(TIME[21:], EVENT[21:].astype(int))
    ours = dict(zip(treated.times, treated.survival, strict=True))
    for time, share in zip(other.surv_times, other.surv_prob, strict=True):
        assert ours[time] == pytest.approx(share)
    assert all(
        low <= share <= high for low, share, high in zip(treated.low, treated.survival, treated.high, strict=True)
    )
    assert treated.at_risk_times == pytest.approx([0, 8.75, 17.5, 26.25, 35])
    assert treated.at_risk == [21, 16, 9, 4, 1]
    assert (treated.times[0], treated.survival[0]) == (0, 1)


def test_scores_are_events_less_cumulative_hazard() -> None:
    hazard = NelsonAalenFitter(nelson_aalen_smoothing=False).fit(TIME, EVENT).cumulative_hazard_.iloc[:, 0]
    assert log_rank_scores(TIME, EVENT) == pytest.approx(EVENT - hazard.loc[TIME].to_numpy(), abs=1e-12)
    assert log_rank_scores(TIME, EVENT).sum() == pytest.approx(0)


def test_few_events_are_tested_by_permutation() -> None:
    generator = np.random.default_rng(0)
    found = []
    for seed in range(120):
        time, event = generator.exponential(size=15), generator.random(15) < 0.4
        if event.any() and np.argmax(time) != np.flatnonzero(event)[0]:  # nobody to compare an only, last event with
            one = made(survival_association(TimeToEvent("os", time, event), np.arange(15) % 3, seed))
            assert one.test == "log-rank, by permutation"
            found.append(one.p)
    assert (np.array(found) <= 0.05).sum() <= stats.binom.ppf(0.999, len(found), 0.05)


def test_a_difference_is_found_by_permutation() -> None:
    time = np.array([1.0, 2, 3, 4, 11, 12, 13, 14])
    found = made(survival_association(TimeToEvent("os", time, np.ones(8, dtype=bool)), np.repeat([0, 1], 4)))
    assert found.p == pytest.approx(2 / 70, rel=0.3)  # 2 of the 70 ways to part eight patients are as far apart


def test_missing_times_are_counted() -> None:
    time = np.append(TIME, [np.nan, np.nan])
    column = TimeToEvent("os", time, np.append(EVENT, [False, False]))
    found = made(survival_association(column, np.append(GROUP, [0, 7])))
    assert (found.n, found.missing) == (42, 2)
    assert found.p == made(survival_association(TimeToEvent("os", TIME, EVENT), GROUP)).p


@pytest.mark.parametrize(
    ("time", "event", "group", "reason"),
    [
        ([np.nan, np.nan], [0, 0], [0, 1], ALL_MISSING),
        ([1, 2, 3], [1, 1, 1], [0, 1, 2], FEW_UNITS),
        ([1, 2, 3], [1, 1, 1], [0, 0, 0], FEW_UNITS),
        ([1, 2, 3, 4], [0, 0, 0, 0], [0, 0, 1, 1], survival.NO_EVENT),
    ],
)
def test_what_cannot_be_tested(time: list[float], event: list[int], group: list[int], reason: str) -> None:
    column = TimeToEvent("os", np.array(time, dtype=float), np.array(event, dtype=bool))
    found = survival_association(column, np.array(group))
    assert isinstance(found, NotTested)
    assert found.reason == reason
    assert found.n + found.missing == len(time)


def test_without_lifelines_nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lifelines", None)
    monkeypatch.setitem(sys.modules, "lifelines.statistics", None)
    found = survival_association(TimeToEvent("remission", TIME, EVENT), GROUP)
    assert found == NotTested(survival.NOT_INSTALLED, 42, 0)


@pytest.mark.parametrize("event", [np.ones(12, dtype=bool), np.arange(12) < 1])
def test_ties_and_times_of_zero_give_finite_numbers(event: np.ndarray) -> None:
    found = survival_association(TimeToEvent("os", np.zeros(12), event), np.arange(12) % 2)
    if event.all():
        assert isinstance(found, NotTested) and found.reason == survival.ONE_TIME
        return
    assert isinstance(found, SurvivalAssociation)
    assert 0 < found.p <= 1
    for curve in found.curves:
        assert np.isfinite([*curve.low, *curve.high, *curve.survival]).all()
