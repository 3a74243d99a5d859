"""Catalogs made by hand: a few values per image, the defaults of ``ImageRecord`` for the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from medstrata.images.catalog import Catalog
from medstrata.images.records import FrameSource, ImageRecord

NUMBERS = ("field_strength", "slice_thickness", "spacing_rows", "spacing_columns", "spacing_slices")
FLOATS = (*NUMBERS, "value_low", "value_high")


@pytest.fixture
def catalog_of() -> Callable[..., Catalog]:
    """``catalog_of([{"modality": "CT", ...}, ...])``; key ``file`` (default ``image_<n>``) is where its frames lie."""
    return make_catalog


def make_catalog(images: list[dict[str, Any]]) -> Catalog:
    rows, sources = [], []
    for number, values in enumerate(images):
        values = dict(values)
        image_id = values.pop("image_id", f"{number:016x}")
        frames = values.pop("frames", [FrameSource(values.pop("file", f"image_{number}"))])
        extra = {name: values.pop(name, "") for name in ("patient", "study", "skipped", "reason")}
        record = ImageRecord(**{"unit": "image", "format": "png", "rows": 64, "columns": 64, "frames": []} | values)
        row = dataclasses.asdict(record) | extra | {"image_id": image_id}
        del row["frames"]
        rows.append(row)
        sources += [
            {"image_id": image_id, "position": position, "file": frame.file, "frame": frame.frame}
            for position, frame in enumerate(frames)
        ]
    schema = pa.schema([(name, _type(name, value)) for name, value in rows[0].items()])
    return Catalog(table=pa.Table.from_pylist(rows, schema=schema), sources=pa.Table.from_pylist(sources))


def _type(name: str, value: Any) -> pa.DataType:
    if name in FLOATS:
        return pa.float64()
    return pa.string() if isinstance(value, str) else pa.int64()
