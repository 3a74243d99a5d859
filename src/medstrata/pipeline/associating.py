"""What a run's clusters go along with: technical data of the images, and a clinical table of the patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from medstrata.errors import RunFolderError
from medstrata.evidence.association.clinical import associate
from medstrata.evidence.association.clinical_table import read_clinical_table
from medstrata.evidence.association.patients import patient_clusters
from medstrata.evidence.association.table_one import table_one, write_table_one
from medstrata.evidence.confounders.confounders import find_confounders
from medstrata.evidence.confounders.measures import measure_pixels
from medstrata.evidence.confounders.technical import catalog_rows, kinds_of, read_technical
from medstrata.images.plan import load_plan
from medstrata.pipeline.patients import known_patients, patients_of, pseudonyms_of
from medstrata.report.wording import things

SOURCES = Path("private", "sources.parquet")
TOO_SURE = "so the tests are too sure where a patient has several"


def technical_associations(out: Path) -> dict[str, Any]:
    """Return how the clusters go along with how the images were made: ``find_confounders`` of a run folder."""
    plan = load_plan(out / "plan.json")
    assignments = pq.read_table(out / "assignments.parquet", columns=["image_id", "cluster"])
    ids = assignments["image_id"].to_pylist()
    of_row = pq.read_table(out / "images.parquet", columns=["image_id"])["image_id"].to_pylist()
    measures = measure_pixels(np.load(out / "pixels.npy", mmap_mode="r"), of_row)
    columns = read_technical(out, ids, measures, plan.goal)
    kinds = kinds_of(catalog_rows(out, ids), plan.goal)
    return find_confounders(
        columns, np.asarray(assignments["cluster"]), patients_of(out, ids).tolist(), plan.seed, kinds
    )


def clinical_associations(out: Path, file: Path, folder: Path) -> dict[str, Any]:
    """Return how the clusters of the patients go along with a clinical table; write Table 1 to ``folder``.

    What ``associate`` returns, with ``mixed`` and ``rejected`` of ``PatientClusters`` and a ``caution``: one sentence
    where the patients of images are not known, else "".

    Raises
    ------
    RunFolderError : the run's ``private/`` was removed, which joins original ids with the run
    InputError : the table cannot be used
    """
    if not (out / SOURCES).exists():
        raise RunFolderError(f"{out} has no private/ folder, which joins patients and table. Use the original folder.")
    table = read_clinical_table(file, pq.read_table(out / "catalog.parquet"), pq.read_table(out / SOURCES))
    assignments = pq.read_table(out / "assignments.parquet", columns=["image_id", "cluster"])
    ids = assignments["image_id"].to_pylist()
    soft = np.load(out / "soft_assignments.npy")
    names = dict(zip(ids, pseudonyms_of(out, ids), strict=True))
    units = patient_clusters(ids, np.asarray(assignments["cluster"]), soft, names)
    found = associate(table, units.patients, units.clusters, load_plan(out / "plan.json").seed)
    made, caution = table_one(table, units.patients, units.clusters, found), _caution(known_patients(out, ids))
    write_table_one(folder, replace(made, notes=(*made.notes, caution)) if caution else made)
    return {**found, "mixed": units.mixed, "rejected": units.rejected, "caution": caution}


def _caution(patients: Sequence[str | None]) -> str:
    """Say of how many images the patients are not known; "" where they are of all."""
    unknown = sum(patient is None for patient in patients)
    if unknown == len(patients):
        return f"The patients are not known: each image counts as one patient, {TOO_SURE}."
    if unknown:
        return f"The patients of {things(unknown, 'images')} are not known: each counts as one patient, {TOO_SURE}."
    return ""
