"""Validate a run: ``OUT/validation.json``. What ``run`` writes is provisional; ``medstrata validate`` refits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from medstrata.evidence.validity.agreement import consensus_matrix
from medstrata.evidence.validity.cluster_number import number_of_clusters
from medstrata.evidence.validity.null import SPLITS, null_test
from medstrata.evidence.validity.stability import PART, Refit, consensus, some_patients, stability
from medstrata.evidence.validity.verdict import NOT_FULLY_TESTED, judge
from medstrata.images.plan import load_plan
from medstrata.learning.cluster_number import possible
from medstrata.learning.reading import read_clusters, sample
from medstrata.pipeline.associating import clinical_associations, technical_associations
from medstrata.pipeline.calibrating import measure_false_alarms
from medstrata.pipeline.patients import patients_of
from medstrata.pipeline.refits import (
    REAL,
    WITHOUT_GROUPS,
    Material,
    kept_refits,
    kept_splits,
    material_of,
    null_statistics,
    open_folder,
    refits,
    settings_used,
)
from medstrata.pipeline.scoring import score_run
from medstrata.pipeline.validation_settings import ValidationSettings
from medstrata.report.wording import things
from medstrata.run import Progress, atomic, read_json, write_json, write_table

FILE = "validation.json"
PROVISIONAL_REFITS = 5
SHOWN_IMAGES = 200  # of the consensus matrix
PROVISIONAL_IMAGES = 2000
FEWEST_PATIENTS = 20  # of which halves can be fitted
MOST_CLUSTERS = 10
SAID_FINDINGS = 10  # on the console; all are in the report
SAID_COLUMNS = 5  # that are named on the console for one reason
NOT_LOOKED_AT: dict[str, Any] = {
    "used": None,
    "recommended": None,
    "plausible": [],
    "sentence": "The number of clusters was not looked at yet.",
    "images": 0,
    "curves": {},
}


def provisional(out: Path) -> dict[str, Any]:
    """Read clusters off the fixed embedding again, for random 80 % of the patients each; write ``validation.json``.

    Never supports anything: a network that was trained to show clusters shows the same ones whenever it is asked.
    """
    result = {
        "supported": False,
        "provisional": True,
        "sentence": "Not validated yet: what follows looks at one fixed embedding and supports nothing. "
        "Run: medstrata validate OUT",
        "verdict": NOT_FULLY_TESTED,
        "remark": "",
        "clusters": [],
        "n_clusters": NOT_LOOKED_AT | {"used": int(read_json(out / "model.json")["n_clusters"])},
        "confounders": technical_associations(out),
        "associations": None,
        "labels": None,
        "stability": _on_the_fixed_embedding(out),
        "null": None,
        "settings": {"share_of_patients": PART},
    }
    write_json(out / FILE, result)
    return result


def _on_the_fixed_embedding(out: Path) -> dict[str, Any]:
    table = pq.read_table(out / "assignments.parquet", columns=["image_id", "nearest"])
    model = read_json(out / "model.json")
    how = model["settings"].get("assignment", "graph")
    how = "kmeans" if how == "own" else how  # prototypes are not trained again here; k-means is where they start
    some = sample(torch.arange(len(table))[:, None], PROVISIONAL_IMAGES, 0)[:, 0].numpy()
    patients = patients_of(out, table["image_id"].to_pylist())[some]
    reference = np.asarray(table["nearest"])[some].astype(np.int64)
    z = torch.from_numpy(np.load(out / "embeddings.npy")[some])
    found = []
    for number in range(PROVISIONAL_REFITS):
        seen = some_patients(patients, PART, number)
        if seen.sum() >= model["n_clusters"]:
            chosen, seed = z[torch.from_numpy(seen)], (model["settings"]["random_state"] + 1 + number) % (1 << 32)
            reader = read_clusters(chosen, how, model["n_clusters"], seed, model["settings"].get("runs", 1)).reader
            found.append(Refit("patients", reader(z).argmax(1).numpy(), seen))
    return stability(reference, found, model["n_clusters"])


def validate(
    out: Path, device: str, settings: ValidationSettings, progress: Progress, say: Callable[[str], None]
) -> dict[str, Any]:
    """Refit, try images without groups, look for confounders and associations; write ``validation.json``.

    ``validation/`` keeps each refit when it is done: what was done before the command was stopped is not done again.

    Raises
    ------
    InputError : the clinical table or the labels cannot be used
    """
    material = material_of(out, device)
    folder = open_folder(out)
    # First what can fail by a file that the user has to mend, then what takes long.
    clinical = None if settings.clinical is None else clinical_associations(out, settings.clinical, folder)
    clinical = _kept(folder / "clinical.json", clinical, "the clinical table", say)
    labels = None if settings.labels is None else score_run(out, settings.labels)
    labels = _kept(folder / "labels.json", labels, "the comparison with known classes", say)
    settings = _with_kept(settings, material, folder, say)
    confounders = technical_associations(out)
    nearest = np.asarray(pq.read_table(out / "assignments.parquet", columns=["nearest"])["nearest"])
    sizes = np.bincount(nearest, minlength=int(material.plan.n_clusters)).tolist()
    say(f"validate: {_announcement(material, folder, settings, len(sizes))}")
    made = refits(material, folder, settings.refits, progress)
    _write_consensus(folder, material, made)
    found = stability(material.reference, made, len(sizes))
    null = _null(material, folder, settings.surrogates, len(sizes), progress)
    number = _number(out, len(sizes), settings.numbers, progress)
    verdict = judge(found, null, sizes)
    result = {
        "supported": verdict["supported"],
        "verdict": verdict["verdict"],
        "provisional": False,
        "sentence": verdict["sentence"],
        "remark": verdict["remark"],
        "images": len(material.image_ids),
        "patients": len(np.unique(material.patients)),
        "n_clusters": number,
        "clusters": verdict["clusters"],
        "confounders": confounders,
        "associations": clinical,
        "labels": labels,
        "stability": found,
        "null": null,
        "settings": settings_used(material),
    }
    write_json(out / FILE, result)
    false_alarms = measure_false_alarms(out, material.patients, made, material.plan.seed)
    for sentence in filter(None, [*_sentences(result), false_alarms]):
        say(f"validate: {sentence}")
    return result


def _kept(file: Path, found: dict[str, Any] | None, what: str, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Return what was found now; else what an earlier call found of the same fit, whose ``file`` is still there."""
    if found is not None:
        write_json(file, found)
        return found
    if not file.exists():
        return None
    say(f"validate: {what} of the earlier call is kept")
    kept: dict[str, Any] = read_json(file)
    return kept


def _with_kept(
    settings: ValidationSettings, material: Material, folder: Path, say: Callable[[str], None]
) -> ValidationSettings:
    """Return the settings with as many refits and surrogates as are there: a smaller number never takes any away."""
    there = kept_refits(material, folder), kept_splits(folder, WITHOUT_GROUPS)
    if there[0] > settings.refits or there[1] > settings.surrogates:
        say(
            f"validate: earlier calls have left {things(there[0], 'refits')} of each kind and "
            f"{things(there[1], 'sets')} of images without groups; all of them are used"
        )
    return replace(settings, refits=max(settings.refits, there[0]), surrogates=max(settings.surrogates, there[1]))


def _number(out: Path, used: int, numbers: tuple[int, int] | None, progress: Progress) -> dict[str, Any]:
    """Return what the embedding of the run says of the number of clusters, and the number that was used."""
    ids = pq.read_table(out / "assignments.parquet", columns=["image_id"])["image_id"].to_pylist()
    low, high = numbers or (1, max(MOST_CLUSTERS, used + 4))
    z, seed = np.load(out / "embeddings.npy"), load_plan(out / "plan.json").seed
    found = {"used": used, **number_of_clusters(z, patients_of(out, ids), range(low, high + 1), seed, progress)}
    most = max(possible(range(low, high + 1), found["images"]))
    if numbers is not None and most < high:
        found["sentence"] += (
            f" Numbers above {most} were asked for and left out: clusters of fewer than three of the "
            f"{things(found['images'], 'images')} looked at say nothing."
        )
    return found


def _announcement(material: Material, folder: Path, settings: ValidationSettings, n_clusters: int) -> str:
    """Say what is going to be done, so that nobody waits without knowing for what."""
    patients = len(np.unique(material.patients))
    work = [f"{things(2 * (settings.refits - kept_refits(material, folder)), 'whole fits')} again"]
    if settings.surrogates and patients < _fewest(n_clusters):
        work.append(
            f"no images without groups, since {things(patients, 'patients')} are too few for fits on halves of them "
            f"(at least {_fewest(n_clusters)})"
        )
    elif settings.surrogates:
        splits = SPLITS + settings.surrogates - sum(kept_splits(folder, name) for name in (REAL, WITHOUT_GROUPS))
        count = things(2 * splits, "short fits")
        work.append(f"{count} of halves, of these images and of images without groups")
    images = things(len(material.image_ids), "images")
    if patients < len(material.image_ids):
        images += f" of {things(patients, 'patients')}"
    return f"{' and '.join(work)}, on {images}; what is done is kept if this is stopped"


def _fewest(n_clusters: int) -> int:
    """Return of how many patients, at least, halves can be fitted."""
    return max(FEWEST_PATIENTS, 4 * n_clusters)


def _null(
    material: Material, folder: Path, surrogates: int, n_clusters: int, progress: Progress
) -> dict[str, Any] | None:
    """Return ``null_test``, None where it was not asked for or halves of so few patients cannot be fitted."""
    if not surrogates or len(np.unique(material.patients)) < _fewest(n_clusters):
        return None
    return null_test(*null_statistics(material, folder, surrogates, progress))


def _sentences(result: dict[str, Any]) -> list[str]:
    """Return what is said at the end: the whole, each cluster, and what was found of clinical data."""
    scanners = [one["sentence"] for one in result["confounders"]["named"] if one["origin"] == "header"]
    said = [" ".join(filter(None, [result["sentence"], result["remark"]])), *scanners]
    said += [*(one["sentence"] for one in result["clusters"]), result["n_clusters"]["sentence"]]
    if labels := result["labels"]:
        said.append(
            f"compared with known classes of {things(labels['labelled'], 'images')}: adjusted Rand index "
            f"{labels['ari']:.2f}; nothing above rests on them"
        )
    if (clinical := result["associations"]) is None:
        return said
    said += [clinical["caution"]] if clinical["caution"] else []
    said += [one["sentence"] for one in clinical["associations"] if one["finding"]][:SAID_FINDINGS]
    found = f"{clinical['findings'] or 'none'} of {things(clinical['tests'], 'tests')}"
    said.append(
        f"differences between clusters were found by {found} of clinical data"
        if clinical["tests"]
        else "nothing in the clinical table could be tested"
    )
    said += clinical["remarks"]
    untested: dict[str, dict[str, None]] = {}  # a column once, though its missing values are a test of their own
    for one in clinical["associations"]:
        if one["reason"]:
            untested.setdefault(one["reason"], {})[one["variable"]] = None
    said += [
        f"{things(len(names), 'columns')} not tested: {why} ({_named(list(names))})" for why, names in untested.items()
    ]
    said += [f"{things(count, 'rows')} not used: {reason}" for reason, count in clinical["rows_not_used"].items()]
    columns = clinical["columns_not_used"].items()
    return said + [f"{things(len(names), 'columns')} not used: {why} ({_named(names)})" for why, names in columns]


def _named(names: Sequence[str]) -> str:
    """Return "a, b", the first few of many; a column without one is said to have none."""
    named = [name or "no name" for name in names[:SAID_COLUMNS]]
    more = len(names) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _write_consensus(folder: Path, material: Material, made: list[Refit]) -> None:
    """Write the share of refits that agree with each image's cluster, and the consensus matrix of some images."""
    if not made:  # those of an earlier call are not about this one
        for name in ("consensus.parquet", "consensus_matrix.npy", "consensus_clusters.npy"):
            (folder / name).unlink(missing_ok=True)
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
