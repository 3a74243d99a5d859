"""Known classes of images, read from a file for ``medstrata score`` and for nothing else.

A LABELS file is either

- an ``.npz`` with the key ``labels``: one label per image of an INPUT that is an array, in the order of the array,
- or a CSV with a header line, a column ``label`` and a column ``image_id`` or ``file`` (relative to INPUT).

Labels may cover a part of the images only. Messages give counts and the first line, and never list ids or file names.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medstrata.errors import InputError
from medstrata.images.sources import portable_name

ARRAY_SUFFIXES = (".npz", ".npy")
MISSING = ""


@dataclass(frozen=True)
class KnownLabels:
    """``values`` (M,) text, one per image in the order asked for, ``""`` where there is none; ``known`` (M,) bool."""

    values: NDArray[np.str_]
    known: NDArray[np.bool_]

    @property
    def count(self) -> int:
        """Number of images that have a label."""
        return int(self.known.sum())


@dataclass(frozen=True)
class _Row:
    line: int
    key: str
    label: str


def read_labels(path: Path | str, sources_table: pa.Table, image_ids: Sequence[str]) -> KnownLabels:
    """Read a LABELS file and align it with ``image_ids`` (M,).

    ``sources_table`` is ``private/sources.parquet`` (columns ``image_id``, ``file``, ``frame``). With a column ``file``
    a series has the label on which all its listed files agree.

    Raises
    ------
    InputError : the file is missing, empty, of another kind, does not belong to this run, or contradicts itself
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Check the path of LABELS.") from None
    if not start:
        raise InputError(f"{path} is empty. Give an .npz with the key 'labels' or a CSV with a header line.")
    by_image = _from_npz(path, sources_table) if start[:2] == b"PK" else read_column(path, sources_table, "label")
    values = np.array([by_image.get(image_id, MISSING) for image_id in image_ids], dtype=np.str_)
    known = values != MISSING
    if not known.any():
        raise InputError(f"{path} has no label for any of the {len(values)} clustered images. Is it of another INPUT?")
    return KnownLabels(values, known)


def _from_npz(path: Path, sources: pa.Table) -> dict[str, str]:
    labels = _npz_labels(path)
    return {image_id: labels[frame] for image_id, frame in frames_of(path, sources, len(labels), "labels").items()}


def frames_of(path: Path, sources: pa.Table, count: int, what: str) -> dict[str, int]:
    """Return the place in the array INPUT of each image; ``path`` holds ``count`` of ``what`` in that order.

    Raises
    ------
    InputError : INPUT is not one array, or holds another number of images
    """
    names = sources["file"].to_pylist()
    arrays = sorted({name for name in names if name.lower().endswith(ARRAY_SUFFIXES)})
    own = [name for name in arrays if name.rsplit("/", 1)[-1] == portable_name(path.name)]
    if len(own or arrays) != 1:
        found = "no array" if not arrays else f"{len(arrays)} arrays"
        raise InputError(
            f"{path} holds {what} in the order of one array, and INPUT holds {found}. "
            f"Give a CSV with the columns file and {what.removesuffix('s')} instead."
        )
    wanted = (own or arrays)[0]
    rows = zip(names, sources["frame"].to_pylist(), sources["image_id"].to_pylist(), strict=True)
    frames = {image_id: frame for name, frame, image_id in rows if name == wanted}
    images = max(frames.values()) + 1
    if count != images:
        raise InputError(
            f"{path} has {count} {what} and the array in INPUT has {images} images. "
            f"Give the {what} of the same array, in its order."
        )
    return frames


def _npz_labels(path: Path) -> list[str]:
    try:
        # Opened here because numpy leaves a damaged file open.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            if "labels" not in file.files:
                raise InputError(
                    f"{path} has no key 'labels' (it has: {', '.join(file.files)}). Save it under that key."
                )
            labels = file["labels"]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"The labels in {path} cannot be read. Save them with numpy.savez(..., labels=labels) as numbers or text."
        ) from error
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.size == 0 or labels.dtype.kind not in "biufUS":
        raise InputError(
            f"The labels in {path} have shape {labels.shape} and type {labels.dtype}. "
            "Give one number or text per image."
        )
    return [_text(label) for label in labels.tolist()]


def _text(label: Any) -> str:
    """Return a label as text; 3.0 and 3 are the same class, NaN is missing."""
    if isinstance(label, bytes):
        return label.decode("utf-8", errors="replace").strip()
    if isinstance(label, float):
        if np.isnan(label):
            return MISSING
        return str(int(label)) if label.is_integer() else str(label)
    return str(label).strip()


def read_column(path: Path, sources: pa.Table, wanted: str) -> dict[str, str]:
    """Read the column ``wanted`` of a CSV, ``label`` or another, for each image that it names: image id to text.

    Raises
    ------
    InputError : the file is not a CSV with that column, does not belong to this run, or contradicts itself
    """
    column, rows = _csv_rows(path, wanted)
    images_of: dict[str, list[str]] = {}
    for key, image_id in zip(sources[column].to_pylist(), sources["image_id"].to_pylist(), strict=True):
        images_of.setdefault(key, []).append(image_id)
    if column == "file":
        rows = [replace(row, key=as_listed(row.key, images_of)) for row in rows]
    _check_repeats(path, column, wanted, rows)
    unknown = [row.line for row in rows if row.key not in images_of]
    if unknown:
        what = "an image_id" if column == "image_id" else "a file"
        raise InputError(
            f"{path}: {len(unknown)} of {len(rows)} rows name {what} that this run does not know, the first in line "
            f"{unknown[0]}. {_advice(column)}"
        )
    found: dict[str, str] = {}
    for row in rows:
        for image_id in images_of[row.key] if row.label else ():
            if found.setdefault(image_id, row.label) != row.label:
                raise InputError(
                    f"{path}: line {row.line} gives an image another {wanted} than an earlier line gave to a file "
                    f"of the same series. Give all files of a series one {wanted}."
                )
    return found


def _advice(column: str) -> str:
    if column == "image_id":
        return "Take the ids from catalog.parquet of the same OUT folder, or remove these rows."
    return "Give files relative to INPUT, with / between folders, or remove these rows."


def _check_repeats(path: Path, column: str, wanted: str, rows: Iterable[_Row]) -> None:
    first: dict[str, _Row] = {}
    for row in rows:
        earlier = first.setdefault(row.key, row)
        if earlier.label != row.label:
            raise InputError(
                f"{path}: lines {earlier.line} and {row.line} give the same {column} different {wanted}s. Keep one."
            )


def _csv_rows(path: Path, wanted: str) -> tuple[str, list[_Row]]:
    """Return the key column, ``image_id`` or ``file``, and all rows that have a key."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            delimiter = max(",;\t", key=header.count)
            names = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
            key, label = _columns(path, names, wanted)
            lines = csv.reader(file, delimiter=delimiter)
            rows = [
                _Row(lines.line_num + 1, cells[key].strip(), cells[label].strip() if label < len(cells) else MISSING)
                for cells in lines
                if key < len(cells) and cells[key].strip()
            ]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise InputError(
            f"{path} is neither an .npz nor a CSV in UTF-8 ({type(error).__name__}). Save the table as CSV, UTF-8."
        ) from error
    if not rows:
        raise InputError(f"{path} has a header line and no rows. Add one row per image.")
    return names[key], rows


def _columns(path: Path, names: Sequence[str], wanted: str) -> tuple[int, int]:
    key = next((names.index(name) for name in ("image_id", "file") if name in names), None)
    if key is None or wanted not in names:
        missing = f"'{wanted}'" if key is not None else "'image_id' or 'file'"
        raise InputError(
            f"{path} has no column {missing} in its first line. The header must name '{wanted}' and 'image_id' or "
            "'file'."
        )
    return key, names.index(wanted)


def as_listed(name: str, listed: Container[str]) -> str:
    """Return ``name`` in the form in which the run lists its files: portable, / between folders, no leading ./"""
    forms = [name, portable_name(name), portable_name(name.replace("\\", "/").removeprefix("./"))]
    return next((form for form in forms if form in listed), name)
