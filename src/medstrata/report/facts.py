"""What the report says, as plain dataclasses: counts, clusters, agreement, training. Reads tables, draws nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medstrata.images.plan import MADE, in_words, reasons_now
from medstrata.report.comparison import Agreement, list_agreements
from medstrata.report.folder import RunFolder, numbers, rows_of, sureness
from medstrata.report.headers import (
    Column,
    Name,
    ProfileRow,
    header_columns,
    profile,
    provisional_name,
)
from medstrata.report.training import Phase, read_phases

Labels = NDArray[np.int64]
Numbers = NDArray[np.float64]

SHOWN_KINDS = 15
ALL_MAPS = -2  # no cluster: those have numbers from -1 (rejected) upwards


@dataclass(frozen=True)
class Kind:
    """Images of one kind among those that were clustered."""

    format: str
    modality: str
    body_part: str
    units: str
    count: int


@dataclass(frozen=True)
class Reason:
    """Files or images left out for one reason in one stage."""

    stage: str
    code: str
    sentence: str
    count: int


@dataclass(frozen=True)
class Decision:
    """One line of the plan."""

    key: str
    value: str
    reason: str


@dataclass(frozen=True)
class Cluster:
    """One cluster, or with ``number`` -1 the images that fit none. Medians are NaN where the cluster is empty."""

    number: int
    size: int
    share: float
    probability: float
    margin: float
    name: Name | None
    profile: list[ProfileRow]
    cautions: list[str]
    map_check: str = ""

    @property
    def title(self) -> str:
        """The provisional name in words."""
        if self.number < 0:
            return "Fits none of the clusters"
        if self.size == 0:
            return "Empty"
        if self.name is None:
            return "No header value stands out"
        return f"Mostly {self.name.words}"


@dataclass(frozen=True)
class Facts:
    """Everything that the page states."""

    noun: str
    clustered: int
    fitted: int  # of them, images that the model was fitted on
    n_clusters: int
    clusters: list[Cluster]
    labels: Labels
    margins: Numbers
    kinds: list[Kind]
    other_kinds: int
    reasons: list[Reason]
    notes: list[tuple[str, int]]
    decisions: list[Decision]
    agreements: list[Agreement]
    disagreement: float | None  # of the runs that were fused: 1 - mean adjusted Rand index
    contradictions: int  # header values that contradict the image's cluster
    phases: list[Phase]

    @property
    def left_out(self) -> int:
        """Number of files and images left out."""
        return sum(reason.count for reason in self.reasons)

    def members(self, number: int) -> NDArray[np.intp]:
        """Rows of ``assignments`` of one cluster."""
        return np.flatnonzero(self.labels == number)


def gather_facts(run: RunFolder) -> Facts:
    """Read every fact of the report from the tables of a run."""
    labels = run.assignments["cluster"].to_numpy().astype(np.int64)
    n_clusters = max(_asked(run.plan), int(labels.max()) + 1, 1)
    rows = rows_of(run.catalog, run.assignments["image_id"])
    columns = header_columns(rows)
    clusters = list_clusters(run, labels, n_clusters, columns)
    kinds = count_kinds(rows, rows_of(run.images, run.assignments["image_id"]))
    return Facts(
        noun=image_noun(run.plan, rows),
        clustered=len(labels),
        fitted=_fitted(run.assignments),
        n_clusters=n_clusters,
        clusters=clusters,
        labels=labels,
        margins=numbers(run.assignments, "margin"),
        kinds=kinds[:SHOWN_KINDS],
        other_kinds=sum(kind.count for kind in kinds[SHOWN_KINDS:]),
        reasons=count_reasons(run.catalog, run.left_out),
        notes=count_notes(run.images),
        decisions=list_decisions(run.plan, run.model, run.run.get(MADE)),
        agreements=list_agreements(run, labels),
        disagreement=run.model.get("reading", {}).get("disagreement"),
        contradictions=0 if run.contradictions is None else len(run.contradictions),
        phases=read_phases(run.history),
    )


def _asked(plan: dict[str, Any]) -> int:
    asked = plan.get("n_clusters")
    return asked if isinstance(asked, int) else 0


def image_noun(plan: dict[str, Any], rows: pa.Table) -> str:
    """Say what one clustered thing is: volumes, series of slices, or images."""
    if plan.get("dimensions") == 3:
        return "volumes"
    return "series" if set(pc.unique(rows["unit"]).to_pylist()) == {"series"} else "images"


def count_kinds(catalog_rows: pa.Table, image_rows: pa.Table) -> list[Kind]:
    """Count the clustered images by format, modality, body part and units of their values, commonest first."""
    keys = ["format", "modality", "body_part"]
    table = catalog_rows.select(keys).append_column("units", image_rows["units"])
    grouped = table.group_by([*keys, "units"]).aggregate([([], "count_all")]).to_pylist()
    kinds = [
        Kind(row["format"] or "", row["modality"] or "", row["body_part"] or "", row["units"] or "", row["count_all"])
        for row in grouped
    ]
    return sorted(kinds, key=lambda kind: (-kind.count, kind.format, kind.modality, kind.body_part, kind.units))


def count_reasons(catalog: pa.Table, left_out: pa.Table) -> list[Reason]:
    """Count what was left out by stage and code with the commonest sentence of each; skipped files count once."""
    skipped = catalog.filter(pc.not_equal(pc.fill_null(catalog["skipped"], ""), ""))
    absent = pc.invert(pc.is_in(skipped["image_id"], value_set=left_out["image_id"].combine_chunks()))
    counts: dict[tuple[str, str], Counter[str]] = {}
    for table, code_name, stage in ((left_out, "code", None), (skipped.filter(absent), "skipped", "scan")):
        keys = [code_name, "reason"] + (["stage"] if stage is None else [])
        for row in table.group_by(keys).aggregate([([], "count_all")]).to_pylist():
            sentences = counts.setdefault((stage or row["stage"], row[code_name]), Counter())
            sentences[row["reason"] or ""] += row["count_all"]
    found = [Reason(stage, code, _commonest(all_), all_.total()) for (stage, code), all_ in counts.items()]
    return sorted(found, key=lambda reason: (-reason.count, reason.stage, reason.code))


def _commonest(sentences: Counter[str]) -> str:
    return min(sentences, key=lambda sentence: (-sentences[sentence], sentence))


def count_notes(images: pa.Table, top: int = 5) -> list[tuple[str, int]]:
    """Return the commonest remarks of the readers with the number of images."""
    if "note" not in images.column_names:
        return []
    counted = pc.value_counts(pc.fill_null(images["note"], "")).to_pylist()
    remarks = [(str(row["values"]), int(row["counts"])) for row in counted if row["values"]]
    return sorted(remarks, key=lambda pair: (-pair[1], pair[0]))[:top]


def list_decisions(plan: dict[str, Any], model: dict[str, Any], made: dict[str, Any] | None = None) -> list[Decision]:
    """List the plan's decisions in its order, then the reasons that belong to no single value of it.

    ``model``: what was fitted; where it changed no image, the plan's augmentation had no effect and is not claimed.
    ``made``: the plan before anybody edited it.
    """
    reasons = reasons_now(plan, made)
    fitted = model.get("settings", {}).get("training", {}).get("augmentation")
    if model and fitted in (None, "none") and "augmentation" in plan:
        plan = plan | {"augmentation": None}
        reasons["augmentation"] = f"The method {plan['method']} learns from the images as they are."
    values = {key: in_words(value) for key, value in plan.items() if key not in ("version", "reasons")}
    values |= {key: "" for key in reasons if key not in values}
    return [Decision(key, value, str(reasons.get(key, ""))) for key, value in values.items()]


def list_clusters(run: RunFolder, labels: Labels, n_clusters: int, columns: list[Column]) -> list[Cluster]:
    """Describe clusters 0..K-1, and -1 where some images fit none."""
    probability, margin = sureness(run.assignments), numbers(run.assignments, "margin")
    summary = run.maps.summary if run.maps else {}
    cautions = map_cautions(summary)
    checks = {entry["cluster"]: entry.get("check", "") for entry in summary.get("clusters", [])}
    described = []
    for number in [*range(n_clusters), *([-1] if (labels < 0).any() else [])]:
        members = labels == number
        named = number >= 0 and members.any()
        described.append(
            Cluster(
                number=number,
                size=int(members.sum()),
                share=float(members.mean()),
                probability=_median(probability[members]),
                margin=_median(margin[members]),
                name=provisional_name(columns, members) if named else None,
                profile=profile(columns, members) if members.any() else [],
                cautions=cautions.get(number, []),
                map_check=checks.get(number, ""),
            )
        )
    return described


def _median(values: Numbers) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def map_cautions(summary: dict[str, Any]) -> dict[int, list[str]]:
    """Collect the sentences of maps/summary.json: about all maps under ``ALL_MAPS``, about cluster k under k.

    ``caution`` is a sentence or ""; ``clusters`` lists objects with ``cluster`` and their own ``caution``.
    """
    entries = [{**summary, "cluster": ALL_MAPS}, *summary.get("clusters", [])]
    return {int(entry["cluster"]): [str(entry["caution"])] if entry.get("caution") else [] for entry in entries}


def _fitted(assignments: pa.Table) -> int:
    if "fitted" not in assignments.column_names:  # a run of an earlier version, which fitted on all
        return len(assignments)
    return int(pc.sum(assignments["fitted"]).as_py() or 0)
