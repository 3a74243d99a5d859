"""A probability that means something: the chance that another fit, on other patients, agrees.

Without labels no probability is the chance that a cluster is right. What can be checked is agreement: of the images
whose calibrated probability is .8, readers that never saw their patients put about .8 into the same (matched) cluster.

One temperature T is learned: softmax(log q / T). Measured against whole refits on other patients it did as well as two
parameters; isotonic regression, which follows chance differences between few readers, did no better (docs/results.md).
A head is surer of the images it was learned from: q of the model's own fit images says nothing of new ones. So there
are two temperatures, one learned from the model's q of its fit images, one from readers' q of images they did not see.

Source: Guo, Pleiss, Sun, Weinberger: On calibration of modern neural networks. ICML 2017. Targets just inside 0 and 1:
Platt: Probabilistic outputs for support vector machines, 1999.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from medstrata.errors import InputError
from medstrata.evidence.intervals import COVERAGE, mean_interval

Floats = NDArray[np.float64]
Interval = dict[str, float | None]

TEMPERATURES = (0.05, 20.0)  # among which T is sought
BINS = 10
FOLDS = 5
DRAWS = 500  # of the bootstrap
TINY = 1e-12  # soft assignments below it are raised to it, so that their logarithm is finite


@dataclass(frozen=True)
class Calibration:
    """What was learned from ``comparisons`` of one image with one fit that did not see its patient.

    ``patients``: their number; ``agreement``: share that was put into the same cluster; ``error_before`` and
    ``error_after``: expected calibration error (0..1) of the model's own probability, and of the calibrated one on
    patients that T was not learned from. Each is ``mean``, ``low`` and ``high``: 95 % intervals by a bootstrap of
    patients. ``applied``: False where calibrated probabilities are the worse ones on patients that T was not learned
    from, by the logarithmic loss; ``temperature`` is 1 then, which leaves the model's probability as it is, and
    ``error_after`` is ``error_before``. The loss decides because the calibration error of few images is mostly
    chance.
    """

    temperature: float
    comparisons: int
    patients: int
    agreement: Interval
    error_before: Interval
    error_after: Interval
    applied: bool


def calibrate(
    soft: NDArray[np.floating], agreed: NDArray[np.bool_], patients: NDArray[np.str_], seed: int = 0
) -> Calibration:
    """Learn the temperature from held-back images.

    ``soft`` (n, K), the model's soft assignments; ``agreed`` (n,), whether a fit that did not see the image's patient
    put it into the model's cluster; ``patients`` (n,). An image may stand in several rows, one for each such fit.

    Raises
    ------
    InputError : different lengths, no rows, or values that are not finite
    """
    q, right = np.asarray(soft, np.float64), np.asarray(agreed, np.bool_)
    if q.ndim != 2 or not len(q) == len(right) == len(patients) or not len(q) or not np.isfinite(q).all():
        raise InputError(
            f"Soft assignments {q.shape}, {len(right)} agreements and {len(patients)} patients cannot be calibrated. "
            "Give one row of finite numbers, one agreement and one patient for each held-back image."
        )
    names, code = np.unique(patients, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(names))[code] % FOLDS
    after = np.empty(len(q))
    for number in range(FOLDS):
        back = fold == number
        learned = fold != number if (fold != number).any() else back  # a single patient
        after[back] = confidence(q[back], _temperature(q[learned], right[learned]))
    before, error = (
        calibration_error(q.max(axis=1), right, patients, seed),
        calibration_error(after, right, patients, seed),
    )
    applied = _log_loss(after, right) <= _log_loss(q.max(axis=1), right)
    return Calibration(
        temperature=_temperature(q, right) if applied else 1.0,
        comparisons=len(q),
        patients=len(names),
        agreement=mean_interval(right.astype(np.float64), seed, patients.tolist()),
        error_before=before,
        error_after=error if applied else before,
        applied=applied,
    )


def confidence(soft: NDArray[np.floating], temperature: float) -> Floats:
    """Return the largest value of softmax(log q / T) for each row of ``soft`` (M, K): (M,), in 1/K..1."""
    logits = np.log(np.maximum(np.asarray(soft, np.float64), TINY)) / temperature
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(1 / shifted.sum(axis=1))


def calibration_error(
    probability: Floats, agreed: NDArray[np.bool_], patients: NDArray[np.str_], seed: int = 0
) -> Interval:
    """Return the expected calibration error and its 95 % interval over a bootstrap of patients.

    The mean over 10 bins of like size of |mean probability - share that agreed|, weighted by the bins' images; equal
    probabilities stay in one bin. A perfect probability has an error above 0 too: shares of few images vary. A sample
    of the bootstrap varies twice, by its own chance and the data's, so that its errors are larger, and their
    percentiles may leave the error of the data out. So the interval is that of the percentiles moved by the bias that
    the bootstrap shows (its mean less the error), within 0..1, and always holds the error.
    """
    inner = np.unique(np.quantile(probability, np.linspace(0, 1, BINS + 1)[1:-1]))
    bins = np.searchsorted(inner, probability, side="left")
    _, code = np.unique(patients, return_inverse=True)
    count = int(code.max()) + 1
    gaps = np.zeros((count, len(inner) + 1))  # by patient and bin, sums of what the error is made of
    np.add.at(gaps, (code, bins), probability - agreed)
    images = np.bincount(code).astype(np.float64)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=DRAWS)
    errors = np.abs(drawn @ gaps).sum(axis=1) / (drawn @ images)
    error = float(np.abs(gaps.sum(axis=0)).sum() / len(code))
    low, high = np.quantile(errors, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]) - (errors.mean() - error)
    return {"mean": error, "low": float(low.clip(0, error)), "high": float(high.clip(error, 1))}


def _log_loss(probability: Floats, agreed: NDArray[np.bool_]) -> float:
    p = probability.clip(TINY, 1 - TINY)
    return float(-np.where(agreed, np.log(p), np.log1p(-p)).mean())


def _temperature(q: Floats, agreed: NDArray[np.bool_]) -> float:
    """Return the T of largest likelihood of the agreements."""
    yes = int(agreed.sum())
    target = np.where(agreed, (yes + 1) / (yes + 2), 1 / (len(agreed) - yes + 2))

    def loss(log_temperature: float) -> float:
        p = confidence(q, float(np.exp(log_temperature))).clip(TINY, 1 - TINY)
        return float(-(target * np.log(p) + (1 - target) * np.log1p(-p)).mean())

    found = minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded")
    return float(np.exp(found.x))
