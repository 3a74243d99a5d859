"""What is known of how the images of a run were made: the technical columns, and the kinds of images apart from them.

A header column is technical where it tells of the scanner, the site, the day or the file. Modality, body part, kind of
series, view and orientation tell what an image shows. For the goal ``categories`` these are what the clusters are meant
to find, so that they are no confounders; and they bring their scanners with them (no CT scanner makes an ultrasound
image), so that confounders are looked for within each kind of image (``kinds_of``). For the goal ``subtypes`` the
images are of one kind, and a cluster that is a view or a body part is no subtype: there they count as technical.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medstrata.errors import RunFolderError
from medstrata.evidence.confounders.columns import TechnicalColumn
from medstrata.evidence.confounders.measures import MEASURES
from medstrata.images.catalog import CATALOG_FILE, SOURCES_FILE
from medstrata.images.vocabulary import is_other

TEXTS = ("manufacturer", "model", "kernel", "burned_in", "format", "photometric", "transfer_syntax")
NUMBERS = (
    *("field_strength", "slice_thickness", "spacing_rows", "spacing_slices"),
    *("rows", "columns", "slices", "channels", "bits"),
)
CONTENT = ("modality", "body_part", "series_class", "view", "orientation")


def read_technical(out: Path, image_ids: Sequence[str], measures: pa.Table, goal: str) -> list[TechnicalColumn]:
    """Return the technical columns of a run, aligned with ``image_ids`` (M,), such as those of assignments.parquet.

    ``measures`` is what ``measure_pixels`` returned. Site and date of the study are read from ``private/``, where that
    is present and holds them: sites come out as "site 1", "site 2", the largest first, and dates as their rank.

    Raises
    ------
    RunFolderError : a table is missing or damaged, or does not know one of the images
    """
    headers = catalog_rows(out, image_ids)
    places = _rows_of(measures["image_id"].to_pylist(), image_ids, "the measures of the pixels")
    found = header_columns(headers, goal) + _private_columns(out, image_ids)
    return found + [
        TechnicalColumn(key, "pixels", np.asarray(measures[key], dtype=np.float64)[places]) for key in MEASURES
    ]


def catalog_rows(out: Path, image_ids: Sequence[str]) -> pa.Table:
    """Return the rows of catalog.parquet for ``image_ids`` (M,), in their order.

    Raises
    ------
    RunFolderError : the table is missing or damaged, or does not know one of the images
    """
    table = _read(out / CATALOG_FILE)
    return table.take(_rows_of(table["image_id"].to_pylist(), image_ids, CATALOG_FILE))


def header_columns(headers: pa.Table, goal: str) -> list[TechnicalColumn]:
    """Return the technical columns that rows of the catalog (M,) hold; see the top of this module for ``goal``."""
    texts = TEXTS if goal == "categories" else (*TEXTS, *CONTENT)
    found = [TechnicalColumn(key, "header", _texts(headers[key])) for key in texts]
    return found + [TechnicalColumn(key, "header", _numbers(headers[key])) for key in NUMBERS]


def kinds_of(headers: pa.Table, goal: str) -> list[str]:
    """Return the kind of each image (M,), such as "CT chest axial"; "" for all with the goal ``subtypes``.

    A view that is in no vocabulary makes no kind of its own: it may be another word for a known one.
    """
    if goal != "categories":
        return [""] * len(headers)
    rows = zip(*(_texts(headers[key]).tolist() for key in CONTENT), strict=True)
    return [" ".join(value for value in row if value and not is_other(value)) for row in rows]


def sites(institutions: Sequence[str]) -> NDArray[np.str_]:
    """Return "site 1" for the institution of most images (M,), "site 2" for the next, "" where none is given.

    Upper and lower case and spaces make no difference. Of equally large sites the first to come is first.
    """
    plain = [" ".join(name.casefold().split()) for name in institutions]
    order = [name for name, _ in Counter(name for name in plain if name).most_common()]
    numbers = {name: f"site {number}" for number, name in enumerate(order, 1)}
    return np.array([numbers.get(name, "") for name in plain], dtype=np.str_)


def date_ranks(dates: Sequence[str]) -> NDArray[np.float64]:
    """Return the ranks (M,) of DICOM dates, 1 for the earliest and the same for the same; NaN for what is no date."""
    days = np.array([_day(text) for text in dates], dtype=np.float64)
    known = np.isfinite(days)
    days[known] = np.unique(days[known], return_inverse=True)[1] + 1
    return days


def _day(text: str) -> float:
    try:
        return float(date.fromisoformat(text.strip().replace(".", "-")).toordinal())  # 2004.01.19 is ACR-NEMA's
    except ValueError:
        return float("nan")


def _private_columns(out: Path, image_ids: Sequence[str]) -> list[TechnicalColumn]:
    if not (out / SOURCES_FILE).exists():
        return []
    table = _read(out / SOURCES_FILE)
    if "institution" not in table.column_names:  # a folder from before these were kept
        return []
    ids = table["image_id"].to_pylist()
    first = np.asarray(_rows_of(ids, image_ids, SOURCES_FILE))
    institution, day = (_texts(table[name])[first].tolist() for name in ("institution", "study_date"))
    return [
        TechnicalColumn("site", "header", sites(institution)),
        TechnicalColumn("study_date", "header", date_ranks(day)),
    ]


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException):
        raise RunFolderError(f"{path} is missing or cannot be read. Run: medstrata run INPUT OUT") from None


def _rows_of(known: Sequence[str], image_ids: Sequence[str], name: str) -> list[int]:
    """Return the first row of each image."""
    row_of: dict[str, int] = {}
    for row, image_id in enumerate(known):
        row_of.setdefault(image_id, row)
    missing = sum(image_id not in row_of for image_id in image_ids)
    if missing:
        raise RunFolderError(f"{missing} of {len(image_ids)} images are not in {name}. Run again with --redo scan.")
    return [row_of[image_id] for image_id in image_ids]


def _texts(column: Any) -> NDArray[np.str_]:
    return np.array([value or "" for value in column.to_pylist()], dtype=np.str_)


def _numbers(column: Any) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in column.to_pylist()], dtype=np.float64)
