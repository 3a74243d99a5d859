"""Images whose header says something else than the headers of the images that look like them.

An archive that was sorted by what images show tells which headers are wrong: among a thousand hands one that says
"chest". Images "like" another are its nearest ones in the embedding, of other patients, since a wrong header is
mostly that of a whole series. They are surer witnesses than the cluster, which may hold several kinds. Nothing here
is fitted, and nothing of it reaches a fit.

Shapes: M images, Z dimensions, V values of a column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medstrata.learning.graph import neighbours

COLUMNS = ("modality", "body_part")  # of the catalog, codes from a closed vocabulary, "" where the header has none
LIKE = 20  # images that are asked what their headers say
MAJORITY = 0.8  # share of them that must agree before a header is doubted
WITNESSES = 3  # images of one patient that may be asked
MOST_WITNESSES = 20_000
ASKED_AT_ONCE = 1 << 16  # images; their directions are held in memory

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("column", pa.string()),
        ("header_value", pa.string()),
        ("usual_value", pa.string()),
        ("cluster", pa.int32()),
        ("certainty", pa.float64()),
    ]
)


def contradictions(
    image_ids: Sequence[str], near: NDArray[np.int64], headers: Mapping[str, Sequence[str]], clusters: NDArray[np.int32]
) -> pa.Table:
    """List the images whose header contradicts the images like them, most certain first.

    Parameters
    ----------
    near : (M, ``LIKE``), rows of the images like each, as ``images_like`` returns them
    headers : for each column the values (M,) of all images; "" means that the header has none
    clusters : (M,), -1 for rejected images: they are like no other, so that nothing contradicts them

    Returns
    -------
    image_id, column, header_value, usual_value (of the images like it), cluster, and ``certainty``: the share of the
    images like it that have the usual value, less the share that have its own (``shares``). Listed are images with
    ``MAJORITY`` or more of the usual value; without a value an image contradicts nothing.
    """
    found: list[dict[str, object]] = []
    for column, values in headers.items():
        text = np.asarray(values, dtype=str)
        names = np.unique(text[text != ""])
        if not len(names):
            continue
        codes = np.where(text == "", -1, np.searchsorted(names, text))
        like = shares(near, codes, len(names))
        usual, rows = like.argmax(1), np.arange(len(codes))
        most, own = like[rows, usual], like[rows, codes]
        listed = (codes >= 0) & (usual != codes) & (most >= MAJORITY) & (clusters >= 0)
        found += [
            {
                "image_id": image_ids[row],
                "column": column,
                "header_value": str(names[codes[row]]),
                "usual_value": str(names[usual[row]]),
                "cluster": int(clusters[row]),
                "certainty": float(most[row] - own[row]),
            }
            for row in np.flatnonzero(listed).tolist()
        ]
    found.sort(key=lambda entry: (-float(str(entry["certainty"])), str(entry["image_id"])))
    return pa.Table.from_pylist(found, schema=SCHEMA)


def images_like(embeddings: NDArray[np.float32], patients: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return for each image the rows of the images of other patients that are most like it, -1 where there are fewer.

    ``embeddings`` (M, Z), compared by their directions from the mean, as readers do; ``patients`` (M,). Returns
    (M, ``LIKE``), nearest first. ``WITNESSES`` images of each patient, of at most ``MOST_WITNESSES`` in all, are asked.
    """
    codes = np.unique(patients, return_inverse=True)[1]
    witnesses, mean = _witnesses(codes), embeddings.mean(axis=0)
    known = _directions(embeddings[witnesses], mean)
    near = np.full((len(codes), LIKE), -1)
    for start in range(0, len(codes), ASKED_AT_ONCE):
        part = slice(start, start + ASKED_AT_ONCE)
        found = witnesses[neighbours(known, _directions(embeddings[part], mean), LIKE + WITNESSES)]
        others = codes[found] != codes[part, None]
        nearest_first = np.argsort(~others, axis=1, kind="stable")[:, :LIKE]
        chosen = np.take_along_axis(np.where(others, found, -1), nearest_first, axis=1)
        near[part, : chosen.shape[1]] = chosen
    return near


def _directions(embeddings: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.float32]:
    z = embeddings - mean
    length = np.maximum(np.linalg.norm(z, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return np.asarray(z / length)


def _witnesses(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of a few images of each patient, drawn at random, ascending."""
    order = np.random.default_rng(0).permutation(len(codes))
    by_patient = order[np.argsort(codes[order], kind="stable")]
    first = np.r_[True, np.diff(codes[by_patient]) > 0]
    place = np.arange(len(codes)) - np.maximum.accumulate(np.where(first, np.arange(len(codes)), 0))
    chosen = by_patient[place < WITNESSES]
    return np.sort(np.random.default_rng(1).permutation(chosen)[:MOST_WITNESSES])


def shares(near: NDArray[np.int64], codes: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Return for each image the shares (M, V) of the values among the images like it, ``near`` (M, L), -1 for none.

    With n_v of them stating value v, it is (1 / V + n_v) / (1 + sum_v n_v): its expectation under a
    Dirichlet(1 / V, ..., 1 / V) prior, as if one further image stated every value alike, so that one or two images
    are no majority. ``codes`` (M,) are the numbers of the V = ``count`` values, -1 for none.
    """
    said = np.append(codes, -1)[near]  # row -1: no image, no value
    stated = np.stack([(said == value).sum(axis=1) for value in range(count)], axis=1)
    result: NDArray[np.float64] = (stated + 1 / count) / (stated.sum(axis=1, keepdims=True) + 1)
    return result
