"""What the stage ``assign`` says beyond the cluster: calibrated probability, the rate of false alarms, drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medstrata.evidence.calibration import calibrate, confidence
from medstrata.evidence.drift import Batch, drift
from medstrata.evidence.held_back import How, held_back_agreement
from medstrata.evidence.intervals import mean_interval
from medstrata.evidence.novelty import FALSE_ALARMS, flags, share_beyond
from medstrata.evidence.typicality import REJECT_NOVELTY, FitReference, relative_novelty
from medstrata.evidence.validity.stability import Refit
from medstrata.learning.reading import READERS
from medstrata.methods.method import ClusteringMethod
from medstrata.run import Progress, read_json, write_json

CALIBRATION, DRIFT = "calibration.json", "drift.json"
FIT_PATIENTS = "fit_patients.parquet"  # of the images a copied model was fitted on
TOO_FEW = "Too few patients to hold some back: at least 30, and several images a cluster, are needed."
UNKNOWN = "The model's run holds no calibration.json. Run medstrata assign on it, then sort the new images again."

Floats = NDArray[np.float32]


def fit_patients(out: Path) -> list[str | None] | None:
    """Return the patients of the images a copied model was fitted on; None: not kept."""
    file = out / FIT_PATIENTS
    patients: list[str | None] | None = pq.read_table(file)["patient"].to_pylist() if file.exists() else None
    return patients


def learn_calibration(
    method: ClusteringMethod, z: Floats, q: Floats, reference: FitReference, names: NDArray[np.str_], progress: Progress
) -> dict[str, Any]:
    """Return the facts of calibration.json, from the images of the fit: z (N, Z), q (N, K), ``names`` of patients (N,).

    The readers are new, the embedding is that of the fit.
    """
    how = How(method.assignment, method.random_state, method.runs)
    found = held_back_agreement(z, q.argmax(axis=1), names, how, progress)
    if found is None:
        return unknown_calibration(reference, TOO_FEW)
    unseen = found.soft if method.assignment in READERS else q[found.rows]  # prototypes of k-means: another scale
    by_reader = [float(found.agreed[found.reader == number].mean()) for number in np.unique(found.reader)]
    learned = {
        name: asdict(calibrate(soft, found.agreed, names[found.rows], method.random_state))
        for name, soft in (("fit", q[found.rows]), ("new", unseen))
    }
    return {"calibrated": True, "by_reader": by_reader, **learned, "novelty": _novelty(reference)}


def measure_false_alarms(out: Path, patients: NDArray[np.str_], refits: Sequence[Refit], seed: int) -> str:
    """Write into calibration.json how often refits flag images of patients whom they had not seen; say it.

    ``patients`` (N,): of the images that ``refits`` are about. "" and nothing written where a refit had too few
    patients to flag any image. Probabilities are not calibrated again by these refits: they share most of their
    patients with the model and agree with it more than a fit on others would (docs/results.md).
    """
    unseen = [one for one in refits if not one.seen.all()]
    if not unseen or not all(_can_flag(len(np.unique(patients[one.seen]))) for one in unseen):
        return ""
    flagged = np.concatenate([flags(one.novelty_p[~one.seen]) for one in unseen])
    units = np.concatenate([patients[~one.seen] for one in unseen]).tolist()
    found = mean_interval(flagged.astype(np.float64), seed, units)
    facts: dict[str, Any] = read_json(out / CALIBRATION)
    facts["novelty"]["measured"] = found | {"refits": len(unseen), "images": len(flagged)}
    write_json(out / CALIBRATION, facts)
    return (
        f"refits flagged {found['mean']:.1%} of the images of patients whom they had not seen as novel "
        f"(nominal {FALSE_ALARMS:.0%})"
    )


def _can_flag(patients: int) -> bool:
    """Whether an image can be flagged by comparing it with so many patients."""
    return bool(flags(np.array([1 / (patients + 1)]))[0])


def unknown_calibration(reference: FitReference, reason: str = UNKNOWN) -> dict[str, Any]:
    """Return the facts of calibration.json where no temperature is known."""
    return {"calibrated": False, "reason": reason, "novelty": _novelty(reference)}


def add_calibrated(table: pa.Table, q: Floats, facts: dict[str, Any], fitted: NDArray[np.bool_]) -> pa.Table:
    """Return ``table`` with ``calibrated`` after ``probability``, null where no temperature is known, and ``fitted``.

    ``fitted`` (M,): whether the model was fitted on the image. It is surer of these than of others.
    """
    values = pa.nulls(len(q), pa.float64())
    if facts["calibrated"]:
        of_fit, new = (confidence(q, facts[name]["temperature"]) for name in ("fit", "new"))
        values = pa.array(np.where(fitted, of_fit, new))
    table = table.add_column(table.column_names.index("probability") + 1, "calibrated", values)
    return table.append_column("fitted", pa.array(fitted))


def calibration_sentence(facts: dict[str, Any], new: bool) -> str:
    """Say what the calibration found. ``new``: for images that are new to the model."""
    if not facts["calibrated"]:
        return f"probabilities are not calibrated. {facts['reason']}"
    learned = facts["new" if new else "fit"]
    before, after = (learned[name]["mean"] for name in ("error_before", "error_after"))
    agreed = f"{learned['agreement']['mean']:.0%} of held-back images came into the same cluster; calibration error"
    if not learned.get("applied", True):
        return (
            f"{agreed} {before:.3f}; calibrating makes the probabilities of held-back patients worse, so "
            "they are left as they are (on the finished embedding)"
        )
    chance = ", a difference of few images: their likelihood is better" if after > before else ""
    return f"{agreed} {before:.3f}, after calibration {after:.3f}{chance} (on the finished embedding)"


def write_drift(out: Path, batch: Batch, reference: FitReference, q: Floats) -> str:
    """Compare new images with those of the fit (soft assignments q (N, K)); write drift.json, return its sentence."""
    of_fit = Batch(
        reference.embeddings,
        q.argmax(axis=1)[reference.chosen],
        relative_novelty(reference.spread, reference.scale),
        reference.patients,
    )
    facts = drift(batch, of_fit)
    write_json(out / DRIFT, facts)
    return str(facts["sentence"])


def read_calibration(out: Path, reference: FitReference) -> dict[str, Any]:
    """Return what came with a copied model, or that nothing did."""
    file = out / CALIBRATION
    facts: dict[str, Any] = read_json(file) if file.exists() else unknown_calibration(reference)
    return facts


def _novelty(reference: FitReference) -> dict[str, Any]:
    """How often the flag and the rejection are false alarms for patients like those of the fit."""
    patients = np.unique(reference.patients, return_inverse=True)[1]
    share, bound = share_beyond(REJECT_NOVELTY * reference.scale, reference.spread, patients)
    return {
        "false_alarm_rate": FALSE_ALARMS,
        "patients": int(patients.max()) + 1,
        "can_flag": _can_flag(int(patients.max()) + 1),
        "rejected_share": share,
        "rejected_share_below": bound,
    }
