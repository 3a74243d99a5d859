"""Is a new batch of patients different from the patients of the fit? Three tests, corrected together, in one sentence.

One image of each patient is drawn, so that a patient with many images counts once and every test has the patient as its
unit. A test of few patients finds large differences only: no finding is no proof of sameness.

Sources: shares of clusters, chi-square with all margins fixed (permutation null); novelty, Mann and Whitney 1947;
classifier two-sample test, Lopez-Paz and Oquab, Revisiting classifier two-sample tests, ICLR 2017; correction,
Benjamini and Hochberg 1995, whose smallest adjusted p-value is Simes' test of "no difference at all".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, mannwhitneyu, rankdata

from medstrata.evidence.association.patients import draw_one_each

Floats = NDArray[np.float64]

FEWEST_PATIENTS = 10  # on either side
MOST_PATIENTS = 1000  # of either side in the classifier test
LEVEL = 0.05
TABLES, PERMUTATIONS = 9999, 999
FOLDS = 5
SLIGHT = 0.6
"""Up to this probability of lying farther out than a fit image, new images are not called farther out.

Fit images lie nearer to each other because the network learned from them; measured were .52 to .55 (docs/results.md).
"""
RIDGE = 0.1  # per image that is learned from, of standardised embeddings
WORDS = {
    "clusters": "clusters have other shares",
    "novelty": "images lie farther from those of the fit",
    "embedding": "a classifier can tell the two apart",
}


@dataclass(frozen=True)
class Batch:
    """n images: ``embeddings`` (n, Z), ``clusters`` (n,), ``novelty`` (n,) and ``patients`` (n,), one name each."""

    embeddings: NDArray[np.floating]
    clusters: NDArray[np.integer]
    novelty: Floats
    patients: NDArray[np.str_]

    def of(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Batch:
        """Return these rows."""
        return Batch(self.embeddings[rows], self.clusters[rows], self.novelty[rows], self.patients[rows])


def drift(new: Batch, fit: Batch, seed: int = 0) -> dict[str, Any]:
    """Compare a new batch with the images of the fit.

    A patient in both counts as new only. Returns ``tested``, ``drift`` (bool, None where not tested), ``patients``
    (``new``, ``fit``, ``in_both``), ``level``, ``tests`` and ``sentence``. Each of ``tests`` has ``p``, ``adjusted``
    and ``effect``: for ``clusters`` Cramér's V (0..1); for ``novelty`` the probability that a new image lies farther
    out than one of the fit; for ``embedding`` the cross-validated probability that a linear classifier holds a new
    image for newer than one of the fit (.5 = cannot tell them apart).
    """
    generator = np.random.default_rng(seed)
    again = np.isin(fit.patients, new.patients)
    in_both = len(np.unique(fit.patients[again]))
    old = fit.of(~again)
    one, other = (batch.of(draw_one_each(batch.patients, generator)) for batch in (new, old))
    counts = {"new": len(one.patients), "fit": len(other.patients), "in_both": in_both}
    facts: dict[str, Any] = {"tested": False, "drift": None, "patients": counts, "level": LEVEL, "tests": {}}
    if min(counts["new"], counts["fit"]) < FEWEST_PATIENTS:
        return facts | {"sentence": _too_few(counts)}
    found = {
        "clusters": cluster_shares(one.clusters, other.clusters, generator),
        "novelty": farther_out(one.novelty, other.novelty),
        "embedding": told_apart(one.embeddings, other.embeddings, generator),
    }
    adjusted = false_discovery_control([p for p, _ in found.values()])
    tests = {
        name: {"p": p, "adjusted": float(corrected), "effect": effect}
        for (name, (p, effect)), corrected in zip(found.items(), adjusted, strict=True)
    }
    facts |= {"tested": True, "drift": bool(adjusted.min() <= LEVEL), "tests": tests}
    return facts | {"sentence": _sentence(tests, counts)}


def cluster_shares(
    new: NDArray[np.integer], fit: NDArray[np.integer], generator: np.random.Generator
) -> tuple[float, float]:
    """Compare the clusters (a,) and (b,): p-value of the chi-square statistic under permutation, and Cramér's V."""
    _, code = np.unique(np.concatenate([new, fit]), return_inverse=True)
    totals = np.bincount(code)
    if len(totals) < 2:
        return 1.0, 0.0
    expected = totals * len(new) / len(code)
    # Counts of one side under permutation; those of the other follow, and so does the statistic, up to one factor.
    drawn = generator.multivariate_hypergeometric(totals, len(new), size=TABLES)
    factor = len(code) / len(fit)
    statistics = factor * (np.square(drawn - expected) / expected).sum(axis=1)
    observed = factor * (np.square(np.bincount(code[: len(new)], minlength=len(totals)) - expected) / expected).sum()
    p = (1 + int((statistics >= observed * (1 - 1e-9)).sum())) / (TABLES + 1)
    return p, float(np.sqrt(observed / len(code)))


def farther_out(new: Floats, fit: Floats) -> tuple[float, float]:
    """Compare novelty (a,) and (b,): one-sided p-value of Mann and Whitney, and the probability that new > fit.

    Where that probability is no more than ``SLIGHT``, the p-value is 1.
    """
    result = mannwhitneyu(new, fit, alternative="greater")
    effect = float(result.statistic) / (len(new) * len(fit))
    return (float(result.pvalue) if effect > SLIGHT else 1.0), effect


def told_apart(
    new: NDArray[np.floating], fit: NDArray[np.floating], generator: np.random.Generator
) -> tuple[float, float]:
    """Compare embeddings (a, Z) and (b, Z) of different patients: permutation p-value and area under the curve.

    A ridge regression of the batch (the linear discriminant of two classes), cross-validated over 5 folds of patients;
    its solution is linear in the batch labels, so that all permutations are solved at once. The area under the curve
    does not depend on how many patients either side has.
    """
    sides = [part[np.sort(generator.permutation(len(part))[:MOST_PATIENTS])] for part in (new, fit)]
    x = np.concatenate(sides).astype(np.float64)
    spread = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    labels = np.repeat([1.0, 0.0], [len(sides[0]), len(sides[1])])
    permuted = np.column_stack([labels, *(generator.permutation(labels) for _ in range(PERMUTATIONS))])
    fold = generator.permutation(len(x)) % FOLDS
    scores = np.empty_like(permuted)
    for number in range(FOLDS):
        back, kept = fold == number, fold != number
        middle = x[kept].mean(axis=0)
        known = x[kept] - middle
        gram = known.T @ known + RIDGE * len(known) * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, known.T @ (permuted[kept] - permuted[kept].mean(axis=0)))
        scores[back] = (x[back] - middle) @ weights
    ranks = rankdata(scores, axis=0)
    positive, negative = len(sides[0]), len(sides[1])
    areas = ((ranks * permuted).sum(axis=0) - positive * (positive + 1) / 2) / (positive * negative)
    p = (1 + int((areas[1:] >= areas[0] - 1e-9).sum())) / (PERMUTATIONS + 1)
    return p, float(areas[0])


def _too_few(counts: dict[str, int]) -> str:
    side = "new patients" if counts["new"] < FEWEST_PATIENTS else "patients of the fit that are not among the new ones"
    number = min(counts["new"], counts["fit"]) if counts["new"] >= FEWEST_PATIENTS else counts["new"]
    return f"Drift was not tested: {number} {side} are too few, {FEWEST_PATIENTS} are needed."


def _sentence(tests: dict[str, dict[str, float]], counts: dict[str, int]) -> str:
    compared = f"{counts['new']} new patients against {counts['fit']} of the fit"
    numbers = ", ".join(f"{name} {entry['adjusted']:.2g}" for name, entry in tests.items())
    reasons = [WORDS[name] for name, entry in tests.items() if entry["adjusted"] <= LEVEL]
    if reasons:
        return f"The new batch differs from the fit: {'; '.join(reasons)} ({compared}; corrected p: {numbers})."
    return f"No drift was found ({compared}; corrected p: {numbers}); few patients show large differences only."
