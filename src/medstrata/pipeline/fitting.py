"""The stages that need torch: fit and assign."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from medstrata.errors import FitError, RunFolderError
from medstrata.evidence.contradictions import COLUMNS, contradictions, images_like
from medstrata.evidence.drift import Batch
from medstrata.evidence.maps.cohort_file import COHORT, COPIED
from medstrata.evidence.novelty import FALSE_ALARMS
from medstrata.evidence.typicality import assignments_table, fit_reference, patient_names
from medstrata.images.plan import Plan
from medstrata.learning.adjustment import InBatches
from medstrata.learning.reading import read_clusters
from medstrata.methods.files import load
from medstrata.methods.method import ClusteringMethod
from medstrata.methods.principal import PrincipalComponents
from medstrata.methods.settings import make_method
from medstrata.pipeline import calibrating
from medstrata.pipeline.adjusting import copy_batches, in_batches, judge_adjustment, look_up_batches, prepare_batches
from medstrata.pipeline.inputs import forget_checkpoints
from medstrata.pipeline.patients import known_patients, patients_of
from medstrata.run import Progress, RunFolder, atomic, processors, read_json, write_json, write_table

Floats = NDArray[np.float32]
REFERENCE = ("fit_embeddings.npy", "fit_soft_assignments.npy")  # of the images a copied model was fitted on


def method_of(plan: Plan, device: str) -> ClusteringMethod:
    """Construct the plan's method with the plan's settings."""
    settings = dict(plan.settings)
    own = {"n_clusters": plan.n_clusters, "random_state": plan.seed, "device": device}
    defaults = make_method(plan.method, {}).get_params(deep=False).get("training")
    training = settings.get("training", {})
    if defaults is not None and isinstance(training, dict):
        chosen: dict[str, Any] = {"batch_size": plan.batch_size}
        if defaults.augmentation != "none":  # the others learn from images as they are
            chosen["augmentation"] = plan.augmentation
        settings["training"] = chosen | training
    return make_method(plan.method, own | settings)


def fit(
    out: Path, plan: Plan, device: str, token: str, progress: Progress, say: Callable[[str], None]
) -> dict[str, Any]:
    """Fit the plan's method on ``pixels.npy``; write the model, its history and the baselines' labels.

    ``token`` names the inputs: a checkpoint of other inputs is thrown away, one of the same inputs is continued.
    """
    pixels = np.load(out / "pixels.npy", mmap_mode="r")
    checkpoint = _checkpoint(out, token)
    prepare_batches(out, plan)
    material = clustered(out, plan.method)
    method = method_of(plan, device).fit(material, checkpoint=checkpoint, progress=progress)
    adjusted = judge_adjustment(out, method, material)
    for sentence in [*method.warnings_, *adjusted]:
        say(f"fit: {sentence}")
    method.save(out)
    with atomic(out / "history.jsonl") as part:
        part.write_text("".join(json.dumps(record) + "\n" for record in method.history_), encoding="utf-8")
    _baselines(out, pixels, method.n_clusters_, plan.seed)
    forget_checkpoints(out)
    used = len(np.unique(method.labels_))
    epochs = f" in {len(method.history_)} epochs" if method.history_ else ""
    say(f"fit: the method {plan.method} made {used} clusters{epochs}")
    return {"clusters_used": used, "warnings": method.warnings_, "threads": processors(), "device": str(method.device_)}


def _checkpoint(out: Path, token: str) -> Path:
    folder, file = RunFolder(out), out / "checkpoint.safetensors"
    if folder.state().get("fitting") != token:
        forget_checkpoints(out)
        folder.note("fitting", token)
    return file


def clustered(out: Path, method: str) -> NDArray[Any] | InBatches:
    """Return what is clustered, with its batches where they are adjusted for.

    That is the pixels, or the vectors that the user gave for the same images.

    Raises
    ------
    FitError : not one vector per decoded image
    RunFolderError : the vectors are not there
    """
    pixels: NDArray[Any] = np.load(out / "pixels.npy", mmap_mode="r")
    if method != "features":
        return in_batches(out, pixels)
    if not (out / "features.npy").exists():
        raise RunFolderError(f"features.npy is missing in {out}. Run again with --features FILE.npy.")
    vectors: NDArray[Any] = np.load(out / "features.npy", mmap_mode="r")
    if len(vectors) != len(pixels):
        raise FitError(
            f"--features holds {len(vectors)} vectors, but {len(pixels)} images were decoded. Give one for each row of "
            "OUT/images.parquet, in its order."
        )
    return in_batches(out, vectors)


def _baselines(out: Path, pixels: NDArray[Any], n_clusters: int, seed: int) -> None:
    """Cluster the same pixels without training, so that the deep clustering never stands alone."""
    rows = np.asarray(pq.read_table(out / "images.parquet", columns=["image_id"])["image_id"])
    image_ids, components = average_rows(
        rows, PrincipalComponents(n_clusters, random_state=seed).fit(pixels).transform(pixels)
    )
    table = {"image_id": image_ids}
    z = torch.from_numpy(components)
    for name, how in (("pca_kmeans", "kmeans"), ("pixel_graph", "graph")):
        table[name] = read_clusters(z, how, min(n_clusters, len(z)), seed).reader(z).argmax(1).numpy()
    write_table(out / "baselines.parquet", pa.table(table))


def assign(out: Path, device: str, progress: Progress, say: Callable[[str], None]) -> dict[str, Any]:
    """Assign every decoded image by the model's own soft assignment; the slices of one volume are averaged."""
    method = load(out, device)
    if (out / REFERENCE[0]).exists() and (sentence := look_up_batches(out)):
        say(f"assign: {sentence}")
    ids = np.asarray(pq.read_table(out / "images.parquet", columns=["image_id"])["image_id"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        z, q = method.embed_and_assign(clustered(out, _method_name(out)), progress)
    for warning in caught:
        say(f"assign: {warning.message}")
    image_ids, z, q = average_rows(ids, z, q)
    table = _sure(out, method, image_ids.tolist(), z, q, progress, say)
    _write_array(out / "embeddings.npy", z)
    _write_array(out / "soft_assignments.npy", q)
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
    patients = known_patients(out, image_ids)
    copied = (out / REFERENCE[0]).exists()  # the model was fitted elsewhere: these images are new to it
    names = patient_names(patients, len(z), "new" if copied else "fit")
    if copied:
        fit_z, fit_q = (np.load(out / name) for name in REFERENCE)
        reference = fit_reference(fit_z, fit_q, calibrating.fit_patients(out))
        facts = calibrating.read_calibration(out, reference)
    else:
        reference = fit_reference(z, q, names.tolist())
        facts = calibrating.learn_calibration(method, z, q, reference, names, progress)
    table = assignments_table(image_ids, z, q, reference, names.tolist())
    write_json(out / calibrating.CALIBRATION, facts)
    say(f"assign: {calibrating.calibration_sentence(facts, copied)}")
    if copied:
        batch = Batch(z, q.argmax(axis=1), np.asarray(table["novelty"]), names)
        say(f"assign: {calibrating.write_drift(out, batch, reference, fit_q)}")
    return calibrating.add_calibrated(table, q, facts, copied)


def _contradictions(out: Path, assignments: pa.Table, z: Floats) -> pa.Table:
    """Compare the headers of the catalog with those of the images that look alike."""
    catalog = pq.read_table(out / "catalog.parquet", columns=["image_id", *COLUMNS])
    row_of = {name: row for row, name in enumerate(catalog["image_id"].to_pylist())}
    ids = assignments["image_id"].to_pylist()
    rows = catalog.take([row_of[name] for name in ids])
    headers = {column: [value or "" for value in rows[column].to_pylist()] for column in COLUMNS}
    near = images_like(z, patients_of(out, ids))
    return contradictions(ids, near, headers, np.asarray(assignments["cluster"]))


def _method_name(out: Path) -> str:
    return str(read_json(out / "model.json")["method"])


def average_rows(ids: NDArray[Any], *arrays: Floats) -> tuple[NDArray[Any], ...]:
    """Average the rows of each image, images in the order of their first row: image ids, then the averaged arrays."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(first)
    group = np.argsort(order)[inverse]
    counts = np.bincount(group)[:, None]
    means = []
    for values in arrays:
        sums = np.zeros((len(first), values.shape[1]))
        np.add.at(sums, group, values)
        means.append((sums / counts).astype(np.float32))
    return ids[np.sort(first)], *means


def _write_array(path: Path, array: NDArray[Any]) -> None:
    with atomic(path) as part, open(part, "wb") as file:
        np.save(file, array)


def copy_model(trained: Path, out: Path) -> None:
    """Copy a fitted model, and the embeddings that tell what is usual for it, into another run folder.

    Raises
    ------
    RunFolderError : the model's run is not finished
    """
    names = {name: name for name in ("model.safetensors", "model.json", "history.jsonl")}
    again = (trained / REFERENCE[0]).exists()  # a copy of a copy: what is usual is told by the images of the fit
    names |= {name: name for name in copy_batches(trained)}
    names |= dict(zip(REFERENCE if again else ("embeddings.npy", "soft_assignments.npy"), REFERENCE, strict=True))
    for source, target in names.items():
        if not (trained / source).exists():
            raise RunFolderError(f"{source} is missing in {trained}. Run: medstrata run INPUT OUT")
        with atomic(out / target) as part:
            shutil.copyfile(trained / source, part)
    _copy_patients(trained, out, again)
    if (trained / calibrating.CALIBRATION).exists():  # not in a folder of an earlier version
        with atomic(out / calibrating.CALIBRATION) as part:
            shutil.copyfile(trained / calibrating.CALIBRATION, part)
    cohorts = [file for file in (trained / COPIED, trained / "maps" / COHORT) if file.exists()]
    if cohorts:  # none where the method has no maps
        with atomic(out / COPIED) as part:
            shutil.copyfile(cohorts[0], part)


def _copy_patients(trained: Path, out: Path, again: bool) -> None:
    """Keep the pseudonyms of the fit's patients, so that images of one patient are never compared with each other."""
    if again:
        patients = calibrating.fit_patients(trained)
    else:
        table = pq.read_table(trained / "assignments.parquet", columns=["image_id"])
        patients = known_patients(trained, table["image_id"].to_pylist())
    if patients is not None:
        write_table(out / calibrating.FIT_PATIENTS, pa.table({"patient": pa.array(patients, pa.string())}))


def copy_plan(trained: Path, out: Path) -> None:
    """Copy the plan of a model, so that new images come onto its grid by its rules."""
    with atomic(out / "plan.json") as part:
        shutil.copyfile(trained / "plan.json", part)
