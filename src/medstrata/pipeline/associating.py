"""What a run's clusters go along with: technical data of the images, and a clinical table of the patients."""

from __future__ import annotations

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
from medstrata.pipeline.patients import patients_of

SOURCES = Path("private", "sources.parquet")


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
    names = dict(zip(ids, patients_of(out, ids).tolist(), strict=True))
    units = patient_clusters(ids, np.asarray(assignments["cluster"]), soft, names)
    found = associate(table, units.patients, units.clusters, load_plan(out / "plan.json").seed)
    write_table_one(folder, table_one(table, units.patients, units.clusters, found))
    return {**found, "mixed": units.mixed, "rejected": units.rejected}
