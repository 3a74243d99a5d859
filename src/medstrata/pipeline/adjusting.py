"""Batches that a run adjusts for: told by columns of the catalog, small ones pooled, the same ones in new images.

``adjustment.json`` goes with the model and names its batches; ``batches.parquet`` says the batch of each image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medstrata.evidence.association.effect_sizes import cramers_v
from medstrata.images.batch_columns import Values, batch_values
from medstrata.images.plan import Plan
from medstrata.learning.adjustment import UNKNOWN, InBatches
from medstrata.methods.method import ClusteringMethod
from medstrata.pipeline.patients import patients_of
from medstrata.report.wording import things
from medstrata.run import read_json, write_json, write_table

FILE, TABLE = "adjustment.json", "batches.parquet"
FEWEST_PATIENTS = 10  # whose images have a mean and a scale that can be told from those of others
ONE_CLUSTER = 0.9  # share of a batch in one cluster from which it is said that the batch may hold one group only
STILL_STRONG = 0.3  # Cramér's V from which it is said that the batches were not removed from the clusters
POOLED, ALONE, NOT_IN_FIT = (
    f"fewer than {FEWEST_PATIENTS} patients: pooled with the other small batches",
    f"fewer than {FEWEST_PATIENTS} patients, together with the other small batches: left as it is",
    "no image of this batch was in the fit: the mean over the batches is taken, which leaves it as it is",
)
STAYS = (
    "The clusters still go along with the batches: what the batches do to the embedding is more than a shift and a "
    "stretch, and adjusting did not remove it. Try another method, such as pca."
)
VALID = (
    "Whatever else differs between the batches in mean and scale was removed too, such as a group that is more common "
    "in one of them: this run is valid only if every group is in every batch."
)


def prepare_batches(out: Path, plan: Plan, fitted: NDArray[np.bool_]) -> None:
    """Write ``adjustment.json`` and ``batches.parquet`` for a fit; remove them where the plan adjusts for nothing.

    ``fitted`` (M,): the images that the model is going to be fitted on, whose patients count. Batches of fewer than 10
    of them are pooled; where even these together are of fewer, they are left as they are.
    """
    for name in (FILE, TABLE):
        (out / name).unlink(missing_ok=True)
    if not plan.adjust_for:
        return
    ids = _images(out)
    values = batch_values(out, plan.adjust_for, ids)
    patients: dict[Values, set[str]] = {one: set() for one in sorted(set(values))}
    for one, patient, seen in zip(values, patients_of(out, ids).tolist(), fitted.tolist(), strict=True):
        if seen:
            patients[one].add(patient)
    counted = {one: len(some) for one, some in patients.items()}
    large = [one for one, count in counted.items() if count >= FEWEST_PATIENTS]
    small = [one for one in counted if one not in large]
    pool = len(large) if sum(counted[one] for one in small) >= FEWEST_PATIENTS else UNKNOWN
    number_of = {one: number for number, one in enumerate(large)} | dict.fromkeys(small, pool)
    images = Counter(values)
    batches = [
        {"values": list(one), "number": number, "images": images[one], "patients": counted[one]}
        for one, number in number_of.items()
    ]
    count = len(large) + (pool != UNKNOWN)
    facts = {"columns": list(plan.adjust_for), "count": count, "batches": batches}
    write_json(out / FILE, facts | {"sentences": _about_batches(facts)})
    why = dict.fromkeys(large, "") | dict.fromkeys(small, POOLED if pool != UNKNOWN else ALONE)
    _write_table(out, ids, values, number_of, why)


def look_up_batches(out: Path) -> str:
    """Write ``batches.parquet`` for images that are new to a copied model; say how many are of no batch of the fit.

    "" where the model does not adjust.
    """
    if not _count(out):
        return ""
    facts, ids = read_json(out / FILE), _images(out)
    values = batch_values(out, facts["columns"], ids)
    known = {tuple(batch["values"]): batch["number"] for batch in facts["batches"]}
    reasons = {UNKNOWN: ALONE, **dict.fromkeys(range(facts["count"]), "")}
    why = {one: reasons[known[one]] if one in known else NOT_IN_FIT for one in set(values)}
    _write_table(out, ids, values, {one: known.get(one, UNKNOWN) for one in why}, why)
    unseen = sum(one not in known for one in values)
    said = f"The model adjusts for {_in_words(facts)}."
    if unseen:
        said += (
            f" {things(unseen, 'images')} of {len(ids)} are of batches that were not in the fit; they are left as they "
            f"are, which suits an average batch only ({TABLE} says which)."
        )
    write_json(out / FILE, facts | {"sentences": [said]})
    return said


def in_batches(out: Path, X: NDArray[Any]) -> NDArray[Any] | InBatches:
    """Return the rows ``X`` of a run with their batches, where the run adjusts for some."""
    if not _count(out):
        return X
    table = pq.read_table(out / TABLE, columns=["image_id", "number"])
    number_of = dict(zip(table["image_id"].to_pylist(), table["number"].to_pylist(), strict=True))
    of_row = pq.read_table(out / "images.parquet", columns=["image_id"])["image_id"].to_pylist()
    numbers = np.array([number_of[image_id] for image_id in of_row], dtype=np.int64)
    return InBatches(X, numbers, _count(out))


def judge_adjustment(out: Path, method: ClusteringMethod, material: NDArray[Any] | InBatches) -> list[str]:
    """Add to ``adjustment.json`` how far batches go along with the clusters before and after; return its sentences.

    ``method`` was fitted on ``material``. Among the sentences is a warning of each batch that was nearly one cluster
    before. None where the plan adjusts for nothing.
    """
    if not isinstance(material, InBatches):
        return list(read_json(out / FILE)["sentences"]) if (out / FILE).exists() else []
    facts = read_json(out / FILE)
    known = material.numbers >= 0
    numbers = material.numbers[known]
    tables = [_table(numbers, of[known], facts["count"]) for of in (method.unadjusted_labels_, method.labels_)]
    effects = [cramers_v(table) for table in tables]
    said = (
        f"Adjusted for {_in_words(facts)}: Cramér's V of batches and clusters is {effects[0]:.2f} before and "
        f"{effects[1]:.2f} after. {VALID}"
    )
    left = [STAYS] if effects[1] >= STILL_STRONG else []
    sentences = [said, *left, *facts["sentences"], *_one_cluster(facts, tables[0])]
    write_json(out / FILE, facts | {"before": effects[0], "after": effects[1], "sentences": sentences})
    return sentences


def copy_batches(trained: Path) -> list[str]:
    """Return the files that go with a model that adjusts for batches."""
    return [FILE] if (trained / FILE).exists() else []


def _count(out: Path) -> int:
    """How many batches the model of a run knows; 0 where it does not adjust, or knows one only."""
    count = int(read_json(out / FILE)["count"]) if (out / FILE).exists() else 0
    return count if count > 1 else 0


def _images(out: Path) -> list[str]:
    of_row = pq.read_table(out / "images.parquet", columns=["image_id"])["image_id"].to_pylist()
    return list(dict.fromkeys(of_row))


def _write_table(
    out: Path, ids: list[str], values: Sequence[Values], number_of: dict[Values, int], why: dict[Values, str]
) -> None:
    columns = {
        "image_id": pa.array(ids, pa.string()),
        "batch": pa.array([_name(one) for one in values], pa.string()),
        "number": pa.array([number_of[one] for one in values], pa.int32()),
        "why": pa.array([why[one] for one in values], pa.string()),
    }
    write_table(out / TABLE, pa.table(columns))


def _name(values: Sequence[str]) -> str:
    return ", ".join(value or "unknown" for value in values)


def _in_words(facts: dict[str, Any]) -> str:
    return " and ".join(facts["columns"])


def _about_batches(facts: dict[str, Any]) -> list[str]:
    """Say that there is one batch only, or which images are pooled or left as they are."""
    if facts["count"] < 2:
        return [
            f"adjust_for changes nothing: by {_in_words(facts)} there are no two batches of at least "
            f"{FEWEST_PATIENTS} patients."
        ]
    last = facts["count"] - 1
    pooled = [one for one in facts["batches"] if one["number"] == last and one["patients"] < FEWEST_PATIENTS]
    alone = [one for one in facts["batches"] if one["number"] == UNKNOWN]
    said = []
    for some, end in ((pooled, "pooled to one"), (alone, "left as they are")):
        if some:
            images = sum(one["images"] for one in some)
            said.append(
                f"{things(images, 'images')} are of batches of fewer than {FEWEST_PATIENTS} patients, which are {end}."
            )
    return said


def _table(numbers: NDArray[np.int64], labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    table = np.zeros((count, int(labels.max()) + 1), np.int64)
    np.add.at(table, (numbers, labels), 1)
    return table


def _one_cluster(facts: dict[str, Any], table: NDArray[np.int64]) -> list[str]:
    """Warn of batches (rows of ``table``) that lie in one cluster, but where nearly all images do."""
    said = []
    whole = table.sum(0) / max(table.sum(), 1)
    for number, row in enumerate(table):
        cluster = int(row.argmax())
        share = row[cluster] / max(row.sum(), 1)
        if share >= ONE_CLUSTER > whole[cluster]:
            names = [_name(one["values"]) for one in facts["batches"] if one["number"] == number]
            said.append(
                f"Before, {share:.0%} of the images of batch {' or '.join(names)} were in one cluster. Either its "
                "technique made that cluster, or it holds one group only, and adjusting for it removed a true "
                "difference. The images cannot tell which: look whether every group is known to be in this batch."
            )
    return said
