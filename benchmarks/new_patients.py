"""Does ``assign`` say the truth of new patients? Fills "New patients" in docs/results.md.

    python -m benchmarks.new_patients calibration SET METHOD K FIT_IMAGES REFITS
    python -m benchmarks.new_patients drift SET METHOD K FIT_IMAGES NEW_IMAGES SPLITS

One JSON a line. Every image is a patient of its own. Labels only make the planted change of a batch.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medstrata.evidence.calibration import calibrate, calibration_error, confidence
from medstrata.evidence.drift import Batch, drift, farther_out
from medstrata.evidence.held_back import How, held_back_agreement
from medstrata.evidence.typicality import FitReference, assignments_table, fit_reference, relative_novelty
from medstrata.evidence.validity.agreement import matching
from medstrata.methods.settings import make_method

OTHER_KIND = "fashionmnist_test10k"  # among digits


def images(name: str) -> Any:
    """One of the sets of docs/data.md."""
    return np.load(Path(os.environ["MEDSTRATA_DATA"]) / f"{name}.npz")


def fitted(method: str, clusters: int, seed: int, pixels: NDArray[Any]) -> Any:
    """Fit with all defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_method(method, {"n_clusters": clusters, "random_state": seed, "device": "cpu"}).fit(pixels)


def calibration(name: str, method: str, clusters: int, count: int, refits: int) -> None:
    """The calibrated probability of fit and of new images against fits of other images with other seeds."""
    pixels = images(name)["images"]
    order = np.random.default_rng(0).permutation(len(pixels))
    fit, new = pixels[order[:count]], pixels[order[count : 2 * count]]
    model = fitted(method, clusters, 0, fit)
    (z, q), q_new = model.embed_and_assign(fit), model.predict_proba(new)
    names = np.arange(count).astype(str)
    found = held_back_agreement(z, q.argmax(1), names, How(model.assignment, 0, model.runs))
    assert found is not None
    agreed: dict[str, list[NDArray[np.bool_]]] = {"fit": [], "new": []}
    for refit in range(refits):
        first = (2 + refit) * count
        if len(pixels) >= (2 + refits) * count:
            others = pixels[order[first : first + count]]
        else:  # too few images for fits that share none: those that are neither fit nor new are drawn anew
            others = pixels[np.sort(np.random.default_rng(2 + refit).choice(order[2 * count :], count, replace=False))]
        other = fitted(method, clusters, 100 + refit, others)
        match = matching(model.predict(others), other.labels_)
        agreed["fit"].append(match[other.predict(fit)] == q.argmax(1))
        agreed["new"].append(match[other.predict(new)] == q_new.argmax(1))
    for kind, source, target in (("fit", q[found.rows], q), ("new", found.soft, q_new)):
        learned = calibrate(source, found.agreed, names[found.rows])
        truth, p = np.array(agreed[kind]), confidence(target, learned.temperature)
        row: dict[str, Any] = {"set": name, "method": method, "images": kind, "held_back": learned.agreement["mean"]}
        row |= {"refits": float(truth.mean()), "temperature": learned.temperature}
        row |= {"reported": [learned.error_before, learned.error_after]}
        for title, values in (("before", target.max(1).astype(np.float64)), ("after", p)):
            band = (values >= 0.6) & (values <= 0.8)
            error = calibration_error(np.tile(values, refits), truth.ravel(), np.tile(names, refits))
            said = float(values[band].mean()) if band.any() else None
            row[title] = {"error": error, "of .6 to .8": [int(band.sum()), said, truth[:, band].mean(1).tolist()]}
        print(json.dumps(row), flush=True)


def batches(name: str, method: str, clusters: int, count: int, size: int, splits: int) -> None:
    """How often new images of the same kind are flagged or called different, and how often those that differ are."""
    stored = images(name)
    pixels, labels = stored["images"], stored["labels"]
    rows: list[dict[str, Any]] = []
    for split in range(splits):
        generator = np.random.default_rng(split)
        order = generator.permutation(len(pixels))
        fit, new = pixels[order[:count]], pixels[order[count : count + size]]
        model = fitted(method, clusters, split, fit)
        z, q = model.embed_and_assign(fit)
        reference = fit_reference(z, q)
        rare = (labels[order[count : count + size]] != 0) | (generator.random(size) < 0.3)
        changed = {"same": new, "contrast x 0.75": (new * 0.75).astype(np.uint8), "class 0 at 30 %": new[rare]}
        if pixels.shape[1:] == images(OTHER_KIND)["images"].shape[1:]:
            changed["fashion"] = images(OTHER_KIND)["images"][split * 20 : split * 20 + size]
        rows.append({kind: judged(model, batch, reference, q, split) for kind, batch in changed.items()})
        means: dict[str, Any] = {"set": name, "method": method, "splits": split + 1}
        for kind, entry in rows[0].items():
            means[kind] = {key: float(np.mean([row[kind][key] for row in rows])) for key in entry}
        print(json.dumps(means), flush=True)


def judged(model: Any, batch: NDArray[Any], reference: FitReference, q: NDArray[Any], seed: int) -> dict[str, float]:
    """Shares of a batch that are flagged and rejected; whether drift was found, by which test."""
    z_new, q_new = model.embed_and_assign(batch)
    table = assignments_table([""] * len(batch), z_new, q_new, reference)
    novelty, of_fit = np.asarray(table["novelty"]), relative_novelty(reference.spread, reference.scale)
    names = np.array([f"new {row}" for row in range(len(batch))])
    fit = Batch(reference.embeddings, q.argmax(1)[reference.chosen], of_fit, reference.patients)
    facts = drift(Batch(z_new, q_new.argmax(1), novelty, names), fit, seed)
    found = {"flagged": float(np.mean(table["novel"])), "rejected": float(np.mean(np.asarray(table["cluster"]) < 0))}
    found |= {"drift": float(facts["drift"]), "farther out": farther_out(novelty, of_fit)[1]}
    return found | {name: float(entry["p"] <= 0.05) for name, entry in facts["tests"].items()}


if __name__ == "__main__":
    what, name, method, *numbers = sys.argv[1:]
    chosen: dict[str, Any] = {"calibration": calibration, "drift": batches}
    chosen[what](name, method, *(int(number) for number in numbers))
