"""The refits that validation needs, each kept on disk when done, so that it can be stopped and continued."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medstrata.evidence.typicality import assignments_table, fit_reference
from medstrata.evidence.validity import null
from medstrata.evidence.validity.stability import KINDS, PART, Refit, some_patients, thin
from medstrata.images.plan import Plan, load_plan
from medstrata.learning.adjustment import InBatches
from medstrata.methods.method import ClusteringMethod
from medstrata.pipeline.fitting import average_rows, clustered, method_of
from medstrata.pipeline.patients import patients_of
from medstrata.run import Progress, RunFolder, atomic, digest, read_json, write_json

MOST_IMAGES = 5000  # that refits are made on and compared over
MOST_IN_NULL = 2000
FIRST_SURROGATE = 1000  # in the seeds: below are the splits of the real images
RECIPE = 3  # of refits and surrogates; raised when they are made in another way
SEED_STEP = 1000  # between the seeds of the kinds of refit: more of one kind never repeat the other
SHORTER = 0.5  # of the epochs of a fit, in the short fits of the null
FOLDER = "validation"
REAL, WITHOUT_GROUPS = "real images", "images without groups"  # whose halves are fitted


@dataclass(frozen=True)
class Material:
    """What is refitted: images ``X`` of ``image_of`` (R,), rows of up to 5,000 images, in the batches of the fit.

    ``image_ids``, ``patients``, ``reference`` (N,): the images, their patients and clusters.
    """

    X: NDArray[Any] | InBatches
    image_of: NDArray[np.int64]
    image_ids: NDArray[np.str_]
    patients: NDArray[np.str_]
    reference: NDArray[np.int64]
    plan: Plan
    device: str

    def rows(self, images: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the rows of ``X`` that belong to some of the images (N,)."""
        return images[self.image_of]


def material_of(out: Path, device: str) -> Material:
    """Draw the images that validation works on from a run folder: all of them, or some of each patient."""
    table = pq.read_table(out / "assignments.parquet", columns=["image_id", "nearest"])
    ids = np.array(table["image_id"].to_pylist(), dtype=np.str_)
    patients = patients_of(out, ids.tolist())
    plan = load_plan(out / "plan.json")
    chosen = thin(patients, MOST_IMAGES, plan.seed)
    place = {image_id: number for number, image_id in enumerate(ids[chosen])}
    of_row = pq.read_table(out / "images.parquet", columns=["image_id"])["image_id"].to_pylist()
    image_of = np.array([place.get(image_id, -1) for image_id in of_row])
    rows = np.flatnonzero(image_of >= 0)
    reference = np.asarray(table["nearest"])[chosen].astype(np.int64)
    plan = replace(plan, n_clusters=int(read_json(out / "model.json")["n_clusters"]))  # "auto" is settled by now
    X = clustered(out, plan.method)
    X = X if len(rows) == len(X) else X[rows]
    return Material(X, image_of[rows], ids[chosen], patients[chosen], reference, plan, device)


def open_folder(out: Path) -> Path:
    """Return ``OUT/validation``, emptied where it holds results of another fit, or made in another way."""
    folder = out / FOLDER
    how = [RECIPE, PART, MOST_IMAGES, MOST_IN_NULL, SHORTER, SEED_STEP, null.SPLITS]
    token = digest(RunFolder(out).token("assign"), how)
    kept = folder / "token.json"
    if not kept.exists() or read_json(kept) != token:
        shutil.rmtree(folder, ignore_errors=True)
        write_json(kept, token)
    return folder


def refits(material: Material, folder: Path, count: int, progress: Progress) -> list[Refit]:
    """Make ``count`` refits of each kind, or read those that are there."""
    found = []
    for number in range(count):
        for kind, seed, seen in _planned(material, number):
            file = _file_of_refit(folder, kind, number)
            if not file.exists():
                name = f"refit {2 * number + KINDS.index(kind) + 1} of {2 * count}"
                labels, novelty_p = _refit(material, seen, seed, _named(progress, name))
                with atomic(file) as part, open(part, "wb") as stream:
                    np.savez(stream, labels=labels, novelty_p=novelty_p)
            with np.load(file) as stored:
                found.append(Refit(kind, stored["labels"], seen, stored["novelty_p"]))
    return found


def kept_refits(material: Material, folder: Path) -> int:
    """Return how many refits of each kind earlier calls have left behind."""
    number = 0
    while planned := _planned(material, number):
        if not all(_file_of_refit(folder, kind, number).exists() for kind, _, _ in planned):
            break
        number += 1
    return number


def kept_splits(folder: Path, name: str) -> int:
    """Return of how many splits of ``REAL`` images, or of those ``WITHOUT_GROUPS``, statistics are there already."""
    number = 0
    while _file_of_null(folder, name, number).exists():
        number += 1
    return number


def _planned(material: Material, number: int) -> list[tuple[str, int, NDArray[np.bool_]]]:
    """Return kind, seed and the images that are seen (N,) of the refits of this number.

    One that would not leave any patient out, or that would see fewer images than clusters, is not made.
    """
    found = []
    for kind in KINDS:
        seed = (material.plan.seed + 1 + number + SEED_STEP * KINDS.index(kind)) % (1 << 32)
        seen = some_patients(material.patients, PART if kind == "patients" else 1.0, seed)
        if not (kind == "patients" and seen.all()) and seen.sum() >= int(material.plan.n_clusters):
            found.append((kind, seed, seen))
    return found


def _file_of_refit(folder: Path, kind: str, number: int) -> Path:
    return folder / f"refit-{kind}-{number}.npz"


def _file_of_null(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name.replace(' ', '-')}-{number}.json"


def _named(progress: Progress, name: str) -> Progress:
    return lambda what, done, total: progress(f"{name}: {what}", done, total)


def _refit(
    material: Material, seen: NDArray[np.bool_], seed: int, progress: Progress
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Fit on the images that are ``seen``; return labels and p-values of novelty of all (N,), as of new images."""
    method = _fitted(replace(material.plan, seed=seed), material.device, material.X[material.rows(seen)], progress)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        z, q = method.embed_and_assign(material.X)
    _, z, q = average_rows(material.image_of, z, q)
    names = material.patients.tolist()
    reference = fit_reference(z[seen], q[seen], material.patients[seen].tolist())
    table = assignments_table(material.image_ids.tolist(), z, q, reference, names)
    return q.argmax(1), np.asarray(table["novelty_p"])


def _fitted(plan: Plan, device: str, images: NDArray[Any] | InBatches, progress: Progress) -> ClusteringMethod:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the refit's own clusters: they are not the result
        return method_of(plan, device).fit(images, progress=progress)


def null_statistics(
    material: Material, folder: Path, surrogates: int, progress: Progress
) -> tuple[list[null.Statistics], list[null.Statistics]]:
    """Return the statistics of splits of the real images and of ``surrogates`` images without groups."""
    rows = _rows_in_null(material)
    images, patients = material.X[rows], material.patients[material.image_of[rows]]
    plan = shorter(material.plan)

    def fit(some: NDArray[Any] | InBatches, seed: int) -> ClusteringMethod:
        return _fitted(replace(plan, seed=seed), material.device, some, lambda *_: None)

    def real(number: int) -> null.Statistics:
        return null.half_and_half(images, patients, fit, [plan.seed, number])

    def without_groups(number: int) -> null.Statistics:
        return null.surrogate_split(images, patients, fit, [plan.seed, FIRST_SURROGATE + number])

    return (
        list(_kept(folder, REAL, real, null.SPLITS, progress)),
        list(_kept(folder, WITHOUT_GROUPS, without_groups, surrogates, progress)),
    )


def _rows_in_null(material: Material) -> NDArray[np.bool_]:
    """Return the rows that the null is made of: all, or some of each patient."""
    return thin(material.patients[material.image_of], MOST_IN_NULL, material.plan.seed)


def settings_used(material: Material) -> dict[str, Any]:
    """Return what is fixed about the refits, for a methods section: shares, splits and the images of the null."""
    facts = {"share_of_patients": PART, "splits": null.SPLITS, "images_in_null": int(_rows_in_null(material).sum())}
    trained = shorter(material.plan) != material.plan
    return facts | ({"share_of_epochs": SHORTER} if trained else {})


def _kept(
    folder: Path, name: str, work: Callable[[int], null.Statistics], count: int, progress: Progress
) -> Iterator[null.Statistics]:
    """Yield ``count`` results of ``work``, each written when done and read when there."""
    for number in range(count):
        file = _file_of_null(folder, name, number)
        if not file.exists():
            progress(f"null: {name}", number, count)
            write_json(file, work(number))
        yield read_json(file)
    progress(f"null: {name}", count, count)


def shorter(plan: Plan) -> Plan:
    """Return the plan of a short fit: half of the epochs, and one run where several are fused."""
    usual = method_of(plan, "cpu").get_params(deep=False)
    settings: dict[str, Any] = dict(plan.settings)
    if (training := usual.get("training")) is not None:
        half = {name: max(1, round(SHORTER * getattr(training, name))) for name in ("warmup_epochs", "epochs")}
        half["warmup_steps"] = round(SHORTER * training.warmup_steps)
        settings["training"] = {**settings.get("training", {}), **half}
    if usual.get("runs", 1) > 1:
        settings["runs"] = 1
    return replace(plan, settings=settings)
