"""Images whose header says something else than the headers of the images that look like them.

An archive that was sorted by what images show tells which headers are wrong: among a thousand hands one that says
"chest". Nothing here is fitted, and nothing of it reaches a fit.

Shapes: M images, K clusters, V values of a column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

COLUMNS = ("modality", "body_part")  # of the catalog, codes from a closed vocabulary, "" where the header has none
MAJORITY = 0.8  # share of the images like this one that must agree before a header is doubted

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
    image_ids: Sequence[str], q: NDArray[np.float32], headers: Mapping[str, Sequence[str]], clusters: NDArray[np.int32]
) -> pa.Table:
    """List the images whose header contradicts their cluster, most certain first.

    Parameters
    ----------
    q : (M, K), soft assignments
    headers : for each column the values (M,) of all images; "" means that the header has none
    clusters : (M,), -1 for rejected images: they are like no other, so that nothing contradicts them

    Returns
    -------
    image_id, column, header_value, usual_value (of the images like it), cluster, and ``certainty``: the share of the
    images like it that have the usual value, less the share that have its own. "Like it" is by soft assignment, the
    image itself left out (``shares``). Listed are images with ``MAJORITY`` or more of the usual value; without a value
    an image contradicts nothing.
    """
    found: list[dict[str, object]] = []
    for column, values in headers.items():
        text = np.asarray(values, dtype=str)
        names = np.unique(text[text != ""])
        if not len(names):
            continue
        codes = np.where(text == "", -1, np.searchsorted(names, text))
        like = shares(q, codes, len(names))
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


def shares(q: NDArray[np.float32], codes: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Return for each image the shares (M, V) of the values among the images like it.

    Image i weighs cluster k by q_ik; in cluster k value v has the share of the others j that state a value
        (1 / V + sum_(j != i) q_jk [v_j = v]) / (1 + sum_(j != i) q_jk [v_j known]),
    its expectation under a Dirichlet(1 / V, ..., 1 / V) prior: as if one further image stated every value alike, so
    that one or two neighbours alone are no majority. ``codes`` (M,) are the numbers of the V = ``count`` values, -1 for
    none. An image without any like it gets 1 / V everywhere.
    """
    q = np.asarray(q, np.float64)
    stated = np.zeros((len(codes), count))
    stated[np.flatnonzero(codes >= 0), codes[codes >= 0]] = 1
    totals = q.T @ stated  # (K, V)
    result = np.zeros((len(codes), count))
    for cluster, weights in enumerate(q.T):  # by cluster: (M, V) at once, never (M, K, V)
        others = totals[cluster] - weights[:, None] * stated
        result += weights[:, None] * (others + 1 / count) / (others.sum(1, keepdims=True) + 1)
    return result.clip(0, 1)
