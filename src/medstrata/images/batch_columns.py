"""Which columns of the catalog batches of images can be told by, and what an image has in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medstrata.errors import PlanError, RunFolderError
from medstrata.images.catalog import CATALOG_FILE, SOURCES_FILE, keyed_hash

SITE = "site"  # no column of the catalog: the institution, which is kept in private/ alone
NO_BATCHES = (  # ids, remarks, and measures of single images
    *("image_id", "patient", "study", "skipped", "reason", "geometry_note", "value_low", "value_high"),
)
MOST_NUMBERS = 20  # different values of a column of numbers, above which it is a measure and tells no batches
Values = tuple[str, ...]
"""What an image has in each column; "" where it is not known."""


def check_adjust_for(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Raise ``PlanError`` where batches cannot be told by ``columns`` of ``rows``, those of the catalog that take part.

    That is where the catalog has no such column, or where it holds more than 20 different numbers.
    """
    known = [SITE, *(name for name in rows[0] if name not in NO_BATCHES)]
    for column in columns:
        if column not in known:
            raise PlanError(f"adjust_for: batches cannot be told by '{column}'. The columns are: {', '.join(known)}.")
        values = [row[column] for row in rows] if column != SITE else []
        count = len({value for value in values if isinstance(value, int | float)})
        if count > MOST_NUMBERS:
            raise PlanError(
                f"adjust_for: '{column}' holds {count} different numbers, but batches can be told by {MOST_NUMBERS} at "
                "most. Name a column with few values, such as manufacturer."
            )


def batch_values(out: Path, columns: Sequence[str], image_ids: Sequence[str]) -> list[Values]:
    """Return what each of ``image_ids`` (M,) has in ``columns`` of the catalog; sites as keyed hashes.

    Raises
    ------
    RunFolderError : a table is missing or does not know an image; sites are asked for and ``private/`` was removed
    """
    catalog = _read(out / CATALOG_FILE, image_ids)
    found = [_sites(out, image_ids) if name == SITE else _texts(catalog[name]) for name in columns]
    return list(zip(*found, strict=True))


def _texts(column: Any) -> list[str]:
    return [f"{value:g}" if isinstance(value, float) else str(value or "") for value in column.to_pylist()]


def _sites(out: Path, image_ids: Sequence[str]) -> list[str]:
    salt = out / "private" / "salt"
    if not (out / SOURCES_FILE).exists() or not salt.exists():
        raise RunFolderError(
            f"adjust_for: sites are kept in private/ alone, which {out} does not have. Use the original folder."
        )
    sources = _read(out / SOURCES_FILE, image_ids)
    if "institution" not in sources.column_names:
        raise RunFolderError(f"adjust_for: {out} was scanned before sites were kept. Run again with --redo scan.")
    key = salt.read_text().strip()
    plain = [" ".join(name.casefold().split()) for name in _texts(sources["institution"])]
    return [f"site {keyed_hash(key, name)}" if name else "" for name in plain]


def _read(path: Path, image_ids: Sequence[str]) -> pa.Table:
    """Return the first row of each image in a table."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException):
        raise RunFolderError(f"{path} is missing or cannot be read. Run: medstrata run INPUT OUT") from None
    row_of: dict[str, int] = {}
    for row, image_id in enumerate(table["image_id"].to_pylist()):
        row_of.setdefault(image_id, row)
    if missing := sum(image_id not in row_of for image_id in image_ids):
        raise RunFolderError(f"{missing} images are not in {path.name}. Run again with --redo scan.")
    return table.take([row_of[image_id] for image_id in image_ids])
