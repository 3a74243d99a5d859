"""The stage assign: every image gets its cluster from the fitted model, and how sure that is."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medstrata.evidence.contradictions import COLUMNS, contradictions, images_like
from medstrata.evidence.drift import Batch
from medstrata.evidence.novelty import FALSE_ALARMS
from medstrata.evidence.typicality import assignments_table, fit_reference, patient_names
from medstrata.images.manifest import Sharding
from medstrata.images.plan import load_plan
from medstrata.learning.adjustment import InBatches
from medstrata.methods.files import load
from medstrata.methods.method import ClusteringMethod
from medstrata.pipeline import calibrating
from medstrata.pipeline.adjusting import look_up_batches
from medstrata.pipeline.copied_model import REFERENCE
from medstrata.pipeline.embedding import embed, embed_share, write_embeddings
from medstrata.pipeline.fitted_images import fitted_images, image_numbers
from medstrata.pipeline.fitting import clustered
from medstrata.pipeline.patients import by_appearance, known_patients, patients_of
from medstrata.run import Progress, read_json, write_json, write_table

Floats = NDArray[np.float32]


def assign(
    out: Path, device: str, sharding: Sharding, progress: Progress, say: Callable[[str], None]
) -> dict[str, Any]:
    """Assign every decoded image by the model's own soft assignment; the slices of one volume are averaged."""
    method = load(out, device)
    if (out / REFERENCE[0]).exists() and (sentence := look_up_batches(out)):
        say(f"assign: {sentence}")
    ids, image_of = image_numbers(out)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        write_embeddings(out, embed(out, method, material_of, sharding, progress), image_of, method.n_clusters_)
    for warning in caught:
        say(f"assign: {warning.message}")
    z, q = np.load(out / "embeddings.npy", mmap_mode="r"), np.load(out / "soft_assignments.npy")
    table = _sure(out, method, ids.to_pylist(), z, q, progress, say)
    write_table(out / "assignments.parquet", table)
    write_table(out / "contradictions.parquet", _contradictions(out, table, z))
    rejected = int((np.asarray(table["cluster"]) < 0).sum())
    sizes = np.bincount(np.asarray(table["nearest"]), minlength=q.shape[1])
    novel = int(np.asarray(table["novel"]).sum())
    say(
        f"assign: {len(table)} images, sizes {', '.join(map(str, sizes))}; {rejected} rejected as unlike the rest, "
        f"{novel} flagged as novel (nominal rate of false alarms: {FALSE_ALARMS:.0%})"
    )
    return {"rejected": rejected, "novel": novel}


def assign_share(out: Path, device: str, sharding: Sharding, progress: Progress) -> None:
    """Do one job's share of what ``assign`` does for each row."""
    embed_share(out, device, material_of, sharding, progress)


def material_of(out: Path) -> NDArray[Any] | InBatches:
    """Return what the fitted model of a run is given. Raises as ``clustered`` does."""
    return clustered(out, str(read_json(out / "model.json")["method"]))


def _sure(
    out: Path,
    method: ClusteringMethod,
    image_ids: list[str],
    z: Floats,
    q: Floats,
    progress: Progress,
    say: Callable[[str], None],
) -> pa.Table:
    """Return the table of assignments; write calibration.json and, for images new to the model, drift.json."""
    own = patient_names(known_patients(out, image_ids), len(z), "new").tolist()
    copied = (out / REFERENCE[0]).exists()  # the model was fitted elsewhere: these images are new to it
    if copied:
        fitted = np.zeros(len(z), np.bool_)
        fit_z, fit_q = (np.load(out / name) for name in REFERENCE)
        of_fit = patient_names(calibrating.fit_patients(out), len(fit_z), "fit").tolist()
        of_fit, names = np.split(by_appearance([*of_fit, *own]), [len(fit_z)])
        reference = fit_reference(fit_z, fit_q, of_fit.tolist())
        facts = calibrating.read_calibration(out, reference)
    else:
        names = by_appearance(own)
        fitted = fitted_images(len(z), load_plan(out / "plan.json"))
        fit_z, fit_q, of_fit = z[fitted], q[fitted], names[fitted]
        reference = fit_reference(fit_z, fit_q, of_fit.tolist())
        facts = calibrating.learn_calibration(method, fit_z, fit_q, reference, of_fit, progress)
    table = assignments_table(image_ids, z, q, reference, names.tolist())
    write_json(out / calibrating.CALIBRATION, facts)
    say(f"assign: {calibrating.calibration_sentence(facts, copied)}")
    if copied:
        batch = Batch(np.asarray(z), q.argmax(axis=1), np.asarray(table["novelty"]), names)
        say(f"assign: {calibrating.write_drift(out, batch, reference, fit_q)}")
    return calibrating.add_calibrated(table, q, facts, fitted)


def _contradictions(out: Path, assignments: pa.Table, z: Floats) -> pa.Table:
    """Compare the headers of the catalog with those of the images that look alike."""
    catalog = pq.read_table(out / "catalog.parquet", columns=["image_id", *COLUMNS])
    row_of = {name: row for row, name in enumerate(catalog["image_id"].to_pylist())}
    ids = assignments["image_id"].to_pylist()
    rows = catalog.take([row_of[name] for name in ids])
    headers = {column: [value or "" for value in rows[column].to_pylist()] for column in COLUMNS}
    told = {column: values for column, values in headers.items() if len(set(values) - {""}) > 1}
    near = images_like(z, patients_of(out, ids)) if told else np.zeros((0, 0), np.int64)
    return contradictions(ids, near, told, np.asarray(assignments["cluster"]))
