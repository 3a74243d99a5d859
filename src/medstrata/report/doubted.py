"""Images whose header contradicts those of the images like them, with a picture each, for the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from medstrata.report.cards import showable
from medstrata.report.folder import RunFolder, rows_of
from medstrata.report.pictures import Picture, Pictures

MOST_DOUBTED = 50

COLUMN_WORDS = {"modality": "modality", "body_part": "body part"}


@dataclass(frozen=True)
class Doubted:
    """One header value that contradicts the images like it; ``pictures`` is empty where the image may not be shown."""

    image_id: str
    column: str
    header_value: str
    usual_value: str
    cluster: int
    certainty: float
    pictures: list[Picture]


def list_doubted(run: RunFolder) -> list[Doubted]:
    """Return the most certain of ``contradictions.parquet``, at most 50."""
    if run.contradictions is None or not len(run.contradictions):
        return []
    rows: list[dict[str, Any]] = run.contradictions.slice(0, MOST_DOUBTED).to_pylist()
    ids = run.assignments["image_id"]
    allowed = showable(rows_of(run.catalog, ids), bool(run.plan.get("include_burned_in")))
    pictures, found = Pictures(run), []
    for row in rows:
        member = pc.index(ids, row["image_id"]).as_py()
        shown = member >= 0 and bool(allowed[member])
        window = pictures.window(np.array([member])) if shown else (0.0, 1.0)
        thumbnail = pictures.thumbnail(member, window) if shown else []
        row["column"] = COLUMN_WORDS.get(row["column"], row["column"])
        found.append(Doubted(**row, pictures=thumbnail))
    return found
