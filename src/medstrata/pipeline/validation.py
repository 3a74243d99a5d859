"""Validate a run: ``OUT/validation.json``. What ``run`` writes is provisional; ``medstrata validate`` refits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from medstrata.evidence.validity.agreement import consensus_matrix
from medstrata.evidence.validity.null import null_test
from medstrata.evidence.validity.stability import PART, Refit, consensus, some_patients, stability
from medstrata.evidence.validity.verdict import judge
from medstrata.learning.reading import read_clusters, sample
from medstrata.pipeline.patients import patients_of
from medstrata.pipeline.refits import Material, material_of, null_statistics, open_folder, refits
from medstrata.pipeline.validation_settings import ValidationSettings
from medstrata.run import Progress, atomic, read_json, write_json, write_table

FILE = "validation.json"
PROVISIONAL_REFITS = 5
SHOWN_IMAGES = 200  # of the consensus matrix
FEWEST_IMAGES = 20  # of which halves can be fitted


def provisional(out: Path) -> dict[str, Any]:
    """Read clusters off the fixed embedding again, for random 80 % of the patients each; write ``validation.json``.

    Never supports anything: a network that was trained to show clusters shows the same ones whenever it is asked.
    """
    table = pq.read_table(out / "assignments.parquet", columns=["image_id", "nearest"])
    reference = np.asarray(table["nearest"]).astype(np.int64)
    patients = patients_of(out, table["image_id"].to_pylist())
    model = read_json(out / "model.json")
    how = model["settings"].get("assignment", "graph")
    how = "kmeans" if how == "own" else how
    rows = torch.from_numpy(np.arange(len(reference), dtype=np.int64))
    rows = sample(rows[:, None], 2000, 0)[:, 0]
    z = torch.from_numpy(np.load(out / "embeddings.npy"))[rows]
    reference, patients = reference[rows.numpy()], patients[rows.numpy()]
    found = []
    for number in range(PROVISIONAL_REFITS):
        seen = some_patients(patients, PART, number)
        if seen.sum() < model["n_clusters"]:
            break
        reader = read_clusters(z[torch.from_numpy(seen)], how, model["n_clusters"], number).reader
        found.append(Refit("patients", reader(z).argmax(1).numpy(), seen))
    result = {
        "supported": False,
        "provisional": True,
        "sentence": "Not validated yet: what follows looks at one fixed embedding and supports nothing. "
        "Run: medstrata validate OUT",
        "stability": stability(reference, found, model["n_clusters"]),
        "clusters": [],
        "null": None,
    }
    write_json(out / FILE, result)
    return result


def validate(
    out: Path, device: str, settings: ValidationSettings, progress: Progress, say: Callable[[str], None]
) -> dict[str, Any]:
    """Refit, try images without groups, judge; write ``validation.json`` and ``validation/``.

    What was done before the command was stopped is not done again.
    """
    material = material_of(out, device)
    folder = open_folder(out, settings.refits)
    sizes = np.bincount(material.reference, minlength=int(material.plan.n_clusters)).tolist()
    made = refits(material, folder, settings.refits, progress)
    found = stability(material.reference, made, len(sizes))
    _write_consensus(out, folder, material, made)
    null = None
    if settings.surrogates and len(material.image_ids) >= max(FEWEST_IMAGES, 4 * len(sizes)):
        null = null_test(*null_statistics(material, folder, settings.surrogates, progress))
    verdict = judge(found, null, sizes)
    result = {
        "supported": verdict["supported"],
        "provisional": False,
        "sentence": verdict["sentence"],
        "images": len(material.image_ids),
        "patients": len(np.unique(material.patients)),
        "clusters": verdict["clusters"],
        "stability": found,
        "null": null,
    }
    write_json(out / FILE, result)
    for sentence in [result["sentence"], *(one["sentence"] for one in result["clusters"])]:
        say(f"validate: {sentence}")
    return result


def _write_consensus(out: Path, folder: Path, material: Material, made: list[Refit]) -> None:
    """Write the share of refits that agree with each image's cluster, and the consensus matrix of some images."""
    if not made:
        return
    share = consensus(material.reference, made)
    table = {"image_id": material.image_ids.tolist(), "cluster": material.reference, "consensus": share}
    write_table(folder / "consensus.parquet", pa.table(table))
    rows = np.random.default_rng(0).permutation(len(share))[:SHOWN_IMAGES]
    rows = rows[np.lexsort((-share[rows], material.reference[rows]))]
    matrix = consensus_matrix([one.labels for one in made], rows).astype(np.float32)
    for name, array in (("consensus_matrix.npy", matrix), ("consensus_clusters.npy", material.reference[rows])):
        with atomic(folder / name) as part, open(part, "wb") as file:
            np.save(file, array)
