"""A cluster that is a scanner is called that: sentences for clusters that technical data tell from the others.

A cluster is named after a column if the column goes along with the clusters (q < ``SIGNIFICANT``) and tells this
cluster from all others with a cross-validated balanced accuracy of ``NAMED`` or more; if no column does so alone, after
all of them together. Shapes: n independent units, one image each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from medstrata.evidence.confounders.columns import LOW_AND_HIGH, OTHER_VALUES, TechnicalColumn
from medstrata.evidence.confounders.prediction import SIGNIFICANT
from medstrata.images.vocabulary import is_other

NAMED = 0.8  # balanced accuracy from which on a cluster is named
STRONG = 0.9  # and from which on this is called strong
PLAIN = 0.75  # (share + 1 - elsewhere) / 2 of values, or AUC, from which on they describe the cluster well
FEWEST_OF_CLUSTER = 0.05  # share of the cluster that a value must hold to be spoken of
MOST_SPOKEN = 3  # values in one sentence
BLUR = 0.05  # by which noise must tell a cluster better than sharpness does: blur takes away noise too
TOGETHER = {"header": "its technical headers together", "pixels": "simple measures of its pixels together"}
OF_VALUES = {
    "manufacturer": "of the manufacturer",
    "model": "of the scanner",
    "site": "of",
    "kernel": "with the reconstruction kernel",
}

Integers = NDArray[np.int64]
Masks = NDArray[np.bool_]
Apart = Mapping[str, Mapping[int, float]]


def name_clusters(
    columns: Sequence[TechnicalColumn],
    clusters: Integers,
    apart: Apart,
    together: Mapping[str, Mapping[str, Any] | None],
    kind: str,
) -> list[dict[str, Any]]:
    """Name the clusters that technical data tell from the others, at most once for headers and once for pixels.

    Parameters
    ----------
    columns : (n,) each, only those that go along with the clusters
    clusters : (n,)
    apart : for each column and cluster the balanced accuracy of the column alone
    together : for each origin what ``prediction`` returned, or None
    kind : of image, for the sentences; "" where all are of one kind

    Returns
    -------
    For each: ``cluster``, ``kind``, ``origin``, ``column`` ("" for all together), ``label``, ``also`` (labels of
    further columns that tell it), ``alone`` and ``together`` (balanced accuracy of this column and of all; None where
    it tells nothing), ``balanced_accuracy`` (the better of both), ``severity`` ("strong" or "clear"), ``share`` and
    ``elsewhere``, or ``auc`` (.5 to 1) with ``direction`` ("low" or "high": the cluster's values), None where they do
    not describe it, ``short`` (the sentence without its numbers), ``sentence``.
    """
    found = []
    for cluster in np.unique(clusters).tolist():
        for origin in TOGETHER:
            own = [column for column in columns if column.origin == origin]
            entry = _named(cluster, own, clusters == cluster, apart, _of_cluster(together[origin], cluster))
            if entry:
                if not entry["sentence"]:
                    entry |= _generic(cluster, TOGETHER[origin], entry["together"])
                among = f" Compared were {kind} images." if kind else ""
                found.append({**entry, "kind": kind, "origin": origin, "sentence": entry["sentence"] + among})
    return found


def _of_cluster(prediction: Mapping[str, Any] | None, cluster: int) -> float:
    """Return the balanced accuracy of all columns together for this cluster; 0 where it may be chance.

    Clusters are looked at one by one only where all of them together are told better than by chance: with many clusters
    one would be told by chance alone.
    """
    if prediction is None or prediction["adjusted"] > SIGNIFICANT:
        return 0.0
    for entry in prediction["clusters"]:
        if entry["cluster"] == cluster and entry["p"] <= SIGNIFICANT:
            return float(entry["balanced_accuracy"])
    return 0.0


def _named(
    cluster: int, columns: Sequence[TechnicalColumn], members: Masks, apart: Apart, together: float
) -> dict[str, Any] | None:
    """Name one cluster by headers or by pixels; None where neither one column nor all together tell it."""
    alone = {column.key: apart[column.key].get(cluster, 0.0) for column in columns}
    telling = sorted((c for c in columns if alone[c.key] >= NAMED), key=lambda c: -alone[c.key])
    if not telling and together < NAMED:
        return None
    best = max([together, *alone.values()])
    entry = {"cluster": cluster, "severity": "strong" if best >= STRONG else "clear", "balanced_accuracy": best}
    facts: dict[str, Any] = {"column": "", "label": "", "also": []}
    facts |= dict.fromkeys(("share", "elsewhere", "auc", "direction"))
    facts |= {"alone": None, "together": together or None, "short": "", "sentence": ""}
    if not telling:
        return {**entry, **facts}
    first = _first(telling, alone)
    facts |= {"column": first.key, "label": first.label, "also": [c.label for c in telling if c is not first]}
    facts["alone"] = alone[first.key]
    return {**entry, **facts, **_described(cluster, first, members, alone[first.key])}


def _first(telling: Sequence[TechnicalColumn], alone: Mapping[str, float]) -> TechnicalColumn:
    """Return the column that tells the cluster best; sharpness in place of noise where that is hardly better."""
    for column in telling:
        if telling[0].key == "noise" and column.key == "sharpness" and alone["noise"] - alone["sharpness"] <= BLUR:
            return column
    return telling[0]


def _described(cluster: int, column: TechnicalColumn, members: Masks, accuracy: float) -> dict[str, Any]:
    """Return both sentences about a column, with the shares or the AUC that they state."""
    texts = column.as_text() if column.origin == "header" else None
    if texts is not None:
        values, share, elsewhere = _values(texts, members)
        if (share + 1 - elsewhere) / 2 >= PLAIN:
            much = "mostly images" if share >= 0.5 else "for a large part images"
            shares = f"{100 * share:.0f} % of it, {100 * elsewhere:.0f} % elsewhere"
            said = _said(f"Cluster {cluster} is {much} {_of(column, values)}", shares)
            return {"share": share, "elsewhere": elsewhere, **said}
    elif column.numeric:
        of_high = _auc(np.asarray(column.values, dtype=np.float64), members)
        direction, auc = ("high", of_high) if of_high > 0.5 else ("low", 1 - of_high)
        if auc >= PLAIN:
            words = LOW_AND_HIGH.get(column.key, (f"of low {column.label}", f"of high {column.label}"))
            short = f"Cluster {cluster} holds mostly images {words[direction == 'high']}"
            said = _said(short, f"{column.label}: AUC {auc:.2f} against the rest")
            return {"auc": auc, "direction": direction, **said}
    return _generic(cluster, f"the {column.label}", accuracy)


def _generic(cluster: int, by: str, accuracy: float) -> dict[str, str]:
    short = f"Cluster {cluster} can be told from the others by {by}"
    return _said(short, f"balanced accuracy {accuracy:.2f}, by chance 0.50")


def _said(short: str, numbers: str) -> dict[str, str]:
    return {"short": f"{short}.", "sentence": f"{short} ({numbers})."}


def _of(column: TechnicalColumn, values: Sequence[str]) -> str:
    quoted = [value if column.numeric or column.key == "site" else f"'{value}'" for value in values]
    listed = " or ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)
    hashed = sum(is_other(value) for value in values)
    where = f", whose name{'s stand' if hashed > 1 else ' stands'} in private/ alone" if hashed else ""
    return f"{OF_VALUES.get(column.key, f'with the {column.label}')} {listed}{where}"


def _values(texts: NDArray[np.str_], members: Masks) -> tuple[list[str], float, float]:
    """Return the values that are commoner in the cluster than elsewhere, with their shares in it and elsewhere."""
    shares = []
    for value in np.unique(texts[texts != ""]).tolist():
        share, elsewhere = (float((texts[where] == value).mean()) for where in (members, ~members))
        if share - elsewhere >= FEWEST_OF_CLUSTER and value != OTHER_VALUES:
            shares.append((share - elsewhere, share, elsewhere, value))
    spoken = sorted(shares, key=lambda each: (-each[0], each[3]))[:MOST_SPOKEN]
    return [each[3] for each in spoken], sum(each[1] for each in spoken), sum(each[2] for each in spoken)


def _auc(values: NDArray[np.float64], members: Masks) -> float:
    """Return the share of pairs in which the image of the cluster has the larger value; .5 where none can be formed."""
    inside, outside = (values[where & np.isfinite(values)] for where in (members, ~members))
    if not len(inside) or not len(outside):
        return 0.5
    return float(mannwhitneyu(inside, outside).statistic / (len(inside) * len(outside)))
