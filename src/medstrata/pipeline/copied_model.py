"""A model that was fitted in another run folder: what goes with it into the folder of new images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medstrata.errors import RunFolderError
from medstrata.evidence.maps.cohort_file import COHORT, COPIED
from medstrata.images.plan import MADE, reasons_now
from medstrata.pipeline import calibrating
from medstrata.pipeline.adjusting import copy_batches
from medstrata.pipeline.patients import known_patients
from medstrata.run import atomic, read_json, write_json, write_table

REFERENCE = ("fit_embeddings.npy", "fit_soft_assignments.npy")  # of the images a copied model was fitted on


def copy_model(trained: Path, out: Path) -> None:
    """Copy a fitted model, and the embeddings that tell what is usual for it, into another run folder.

    Raises
    ------
    RunFolderError : the model's run is not finished
    """
    again = (trained / REFERENCE[0]).exists()  # a copy of a copy: what is usual is told by the images of the fit
    arrays = REFERENCE if again else ("embeddings.npy", "soft_assignments.npy")
    names = ["model.safetensors", "model.json", "history.jsonl", *copy_batches(trained)]
    for name in [*names, *arrays]:
        if not (trained / name).exists():
            raise RunFolderError(f"{name} is missing in {trained}. Run: medstrata run INPUT OUT")
    for name in names:
        with atomic(out / name) as part:
            shutil.copyfile(trained / name, part)
    table = pq.read_table(trained / "assignments.parquet")
    fitted = np.s_[:] if again or "fitted" not in table.column_names else np.asarray(table["fitted"])
    for source, target in zip(arrays, REFERENCE, strict=True):
        with atomic(out / target) as part, open(part, "wb") as file:
            np.save(file, np.load(trained / source, mmap_mode="r")[fitted])
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
        table = pq.read_table(trained / "assignments.parquet")
        if "fitted" in table.column_names:  # not in a folder of an earlier version
            table = table.filter(table["fitted"])
        patients = known_patients(trained, table["image_id"].to_pylist())
    if patients is not None:
        write_table(out / calibrating.FIT_PATIENTS, pa.table({"patient": pa.array(patients, pa.string())}))


def copy_plan(trained: Path, out: Path) -> None:
    """Copy the plan of a model, so that new images come onto its grid by its rules."""
    plan = read_json(trained / "plan.json")
    made = read_json(trained / "run.json").get(MADE)  # what a person set there, nobody set here
    write_json(out / "plan.json", plan | {"reasons": reasons_now(plan, made)})
