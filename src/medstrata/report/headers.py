"""What the headers say about the clusters: coded columns, association with the scanner, profiles, provisional names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medstrata.images.vocabulary import is_other

Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]

SHOWN_VALUES = 30  # values of one column kept apart; rarer ones count as "other values"
NUMBER_BINS = 5  # a number column with more different values than 2 x this is cut at its quantiles
OTHER = "other values"

NAMING = ("modality", "body_part", "series_class", "view", "orientation")
"""Columns that may name a cluster: what is in the image, in the order in which people say it."""
SCANNER = ("manufacturer", "model", "kernel", "field_strength", "spacing_rows", "spacing_slices", "matrix")
"""Columns that tell how an image was made: a cluster that follows them may be about the scanner."""
ALWAYS_SHOWN = ("modality", "body_part", "manufacturer")
LABELS = {
    "modality": "Modality",
    "body_part": "Body part",
    "series_class": "Kind of series",
    "view": "View",
    "orientation": "Orientation",
    "manufacturer": "Manufacturer",
    "model": "Scanner model",
    "kernel": "Reconstruction kernel",
    "field_strength": "Field strength",
    "spacing_rows": "Pixel spacing",
    "spacing_slices": "Slice spacing",
    "slice_thickness": "Slice thickness",
    "matrix": "Image size",
    "format": "File format",
    "photometric": "Photometric",
}
UNITS = {"field_strength": "T", "spacing_rows": "mm", "spacing_slices": "mm", "slice_thickness": "mm"}


@dataclass(frozen=True)
class Column:
    """One header column over the clustered images: ``codes`` index into ``values``, -1 where unknown."""

    key: str
    values: tuple[str, ...]
    codes: Codes

    @property
    def label(self) -> str:
        """The column's name in plain words."""
        return LABELS[self.key]


@dataclass(frozen=True)
class ProfileRow:
    """One value of one column: its share in the cluster and over all clustered images (0..1)."""

    label: str
    value: str
    share: float
    overall: float
    stands_out: bool


@dataclass(frozen=True)
class Name:
    """A provisional name from the headers: ``share`` of the cluster and ``elsewhere`` of all other images (0..1)."""

    words: str
    share: float
    elsewhere: float
    from_scanner: bool = False


def header_columns(rows: pa.Table) -> list[Column]:
    """Code the columns of ``rows`` (catalog rows of the clustered images, in their order) that hold any value."""
    columns = []
    for key in LABELS:
        if key == "matrix":
            column = _text_column(key, _matrix_size(rows))
        elif key in UNITS:
            column = _number_column(key, rows[key].to_numpy().astype(np.float64))
        else:
            column = _text_column(key, rows[key])
        if (column.codes >= 0).any():
            columns.append(column)
    return columns


def _matrix_size(rows: pa.Table) -> pa.Array:
    columns, lines = (pc.cast(rows[name], pa.string()) for name in ("columns", "rows"))
    return pc.binary_join_element_wise(columns, lines, " × ")


def _text_column(key: str, texts: pa.ChunkedArray | pa.Array) -> Column:
    chunk = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    coded = pc.dictionary_encode(pc.fill_null(chunk, ""))
    values = [str(value) for value in coded.dictionary.to_pylist()]
    return _keep_frequent(key, values, coded.indices.to_numpy(zero_copy_only=False).astype(np.int64))


def _keep_frequent(key: str, values: Sequence[str], codes: Codes) -> Column:
    """Order values by frequency, drop the empty one, merge the tail: a column of a thousand kernels says nothing."""
    counts = np.bincount(codes, minlength=len(values))
    order = [code for code in np.argsort(-counts, kind="stable").tolist() if values[code].strip()]
    kept, merged = order[:SHOWN_VALUES], order[SHOWN_VALUES:]
    new = np.full(len(values), -1, dtype=np.int64)
    new[kept] = np.arange(len(kept))
    new[merged] = len(kept)
    names = [values[code] for code in kept] + ([OTHER] if merged else [])
    return Column(key, tuple(names), new[codes])


def _number_column(key: str, numbers: NDArray[np.float64]) -> Column:
    """Code numbers by their value to 3 digits, or by quantiles where there are many; NaN is unknown."""
    known = np.isfinite(numbers)
    rounded = np.array([float(f"{number:.3g}") for number in np.unique(numbers[known])])
    distinct = np.unique(rounded)
    codes = np.full(len(numbers), -1, dtype=np.int64)
    if len(distinct) <= 2 * NUMBER_BINS:
        nearest = np.abs(numbers[known, None] - distinct[None, :]).argmin(axis=1) if len(distinct) else []
        codes[known] = nearest
        return _keep_frequent_numbers(key, [f"{value:g} {UNITS[key]}" for value in distinct], codes)
    edges = np.unique(np.quantile(numbers[known], np.linspace(0, 1, NUMBER_BINS + 1)))
    codes[known] = np.clip(np.searchsorted(edges, numbers[known], side="right") - 1, 0, len(edges) - 2)
    names = [f"{low:.3g} to {high:.3g} {UNITS[key]}" for low, high in pairwise(edges.tolist())]
    return _keep_frequent_numbers(key, names, codes)


def _keep_frequent_numbers(key: str, names: Sequence[str], codes: Codes) -> Column:
    return _keep_frequent(key, [*names, ""], np.where(codes < 0, len(names), codes))


def contingency(first: Codes, second: Codes) -> NDArray[np.int64]:
    """Count pairs of codes (all >= 0) in a table (first values, second values)."""
    if len(first) == 0:
        return np.zeros((0, 0), dtype=np.int64)
    rows, columns = int(first.max()) + 1, int(second.max()) + 1
    return np.bincount(first * columns + second, minlength=rows * columns).reshape(rows, columns)


def profile(columns: Sequence[Column], members: Mask, top: int = 2) -> list[ProfileRow]:
    """List the header values of the images ``members`` (N,): those that stand out, and always the three main columns.

    A value stands out where its share in the cluster differs from its share over all images by 15 points or more.
    """
    rows = []
    for column in columns:
        inside, overall = _shares(column, members), _shares(column, np.ones(len(members), dtype=bool))
        for code in np.argsort(-inside, kind="stable")[:top].tolist():
            stands_out = bool(abs(inside[code] - overall[code]) >= 0.15)
            if inside[code] >= 0.05 and (stands_out or column.key in ALWAYS_SHOWN):
                value = column.values[code]
                rows.append(ProfileRow(column.label, value, float(inside[code]), float(overall[code]), stands_out))
    return rows


def _shares(column: Column, members: Mask) -> NDArray[np.float64]:
    """Share of every value among the images ``members``, whether the value is known or not."""
    codes = column.codes[members]
    return np.bincount(codes[codes >= 0], minlength=len(column.values)) / max(1, len(codes))


def provisional_name(columns: Sequence[Column], members: Mask) -> Name | None:
    """Name a cluster after the header values that are most over-represented in it; None where nothing stands out.

    Greedy: the value with the largest difference between its share inside and elsewhere, then further columns as long
    as the joint value sets the cluster apart better. Values of the scanner name a cluster only where no other does.
    """
    if members.sum() < 5 or members.all():
        return None
    content = _greedy_name([column for column in columns if column.key in NAMING], members)
    if content:
        return content
    scanner = _greedy_name([column for column in columns if column.key in (*SCANNER, "format")], members)
    return Name(scanner.words, scanner.share, scanner.elsewhere, from_scanner=True) if scanner else None


def _greedy_name(columns: Sequence[Column], members: Mask) -> Name | None:
    joint, chosen, best = np.ones(len(members), dtype=bool), dict[str, str](), 0.0
    while len(chosen) < 3:
        gain, key, value, mask = _best_value([column for column in columns if column.key not in chosen], joint, members)
        if gain < best + 0.05:
            break
        best, joint, chosen[key] = gain, mask, value
    share, elsewhere = float(joint[members].mean()), float(joint[~members].mean())
    if not chosen or best < 0.2 or share < 0.5 or share < 1.5 * elsewhere:
        return None
    for main in ("modality", "body_part"):  # "CT abdomen" reads better than "abdomen" and is as true
        further = [column for column in columns if column.key == main and main not in chosen]
        _, key, value, mask = _best_value(further, joint, members)
        if key and mask[members].mean() >= 0.9 * share:
            chosen[key], joint = value, mask
    share, elsewhere = float(joint[members].mean()), float(joint[~members].mean())
    return Name(" ".join(_spoken(key, chosen[key]) for key in LABELS if key in chosen), share, elsewhere)


def _spoken(key: str, value: str) -> str:
    return f"{LABELS[key].lower()} {value}" if is_other(value) else value


def _best_value(columns: Sequence[Column], joint: Mask, members: Mask) -> tuple[float, str, str, Mask]:
    best: tuple[float, str, str, Mask] = (-1.0, "", "", joint)
    for column in columns:
        counts = np.bincount(column.codes[joint & members & (column.codes >= 0)], minlength=1)
        code = int(counts.argmax())  # a value that names the cluster holds at least half of it, so it is the commonest
        if counts[code] < 0.5 * members.sum() or column.values[code] == OTHER:
            continue
        mask = joint & (column.codes == code)
        gain = float(mask[members].mean() - mask[~members].mean())
        if gain > best[0]:
            best = (gain, column.key, column.values[code], mask)
    return best
