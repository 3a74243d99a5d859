"""Which images a model is fitted on: all of them, or of a large set some drawn at random. The rest is assigned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medstrata.images.pixel_file import write_header
from medstrata.images.plan import Plan
from medstrata.learning.adjustment import InBatches
from medstrata.pipeline.inputs import FIT_PIXELS
from medstrata.run import atomic

COPIED_AT_ONCE = 64 << 20  # bytes

Masks = NDArray[np.bool_]


def image_numbers(out: Path) -> tuple[pa.Array, NDArray[np.int64]]:
    """Return the ids (M,) of the decoded images in the order of their first row, and the image (R,) of each row."""
    column = pq.read_table(out / "images.parquet", columns=["image_id"])["image_id"].combine_chunks()
    coded = column.dictionary_encode()
    return coded.dictionary, coded.indices.to_numpy().astype(np.int64)


def fitted_images(count: int, plan: Plan) -> Masks:
    """Return which of ``count`` images (count,) the plan's model is fitted on, a function of the plan's seed."""
    chosen = np.ones(count, np.bool_)
    if count > plan.fit_images:
        chosen[:] = False
        chosen[np.random.default_rng(plan.seed).permutation(count)[: plan.fit_images]] = True
    return chosen


def copy_drawn(out: Path, X: NDArray[Any] | InBatches, rows: Masks) -> None:
    """Copy ``rows`` (R,) of X into a file of the run folder, where not all are wanted.

    A file, since what is drawn may be larger than memory, and mapped rows here and there are slow to read.
    """
    if rows.all():
        return
    images = X.images if isinstance(X, InBatches) else X
    places = np.flatnonzero(rows)
    step = max(1, COPIED_AT_ONCE // max(1, images[0].nbytes))
    with atomic(out / FIT_PIXELS) as part, open(part, "wb") as file:
        write_header(file, (len(places), *images.shape[1:]), images.dtype)
        for start in range(0, len(places), step):
            file.write(images[places[start : start + step]].data)


def drawn(out: Path, X: NDArray[Any] | InBatches, rows: Masks) -> NDArray[Any] | InBatches:
    """Return ``rows`` (R,) of X as ``copy_drawn`` left them, mapped from its file; X itself where all are wanted."""
    if rows.all():
        return X
    copied: NDArray[Any] = np.load(out / FIT_PIXELS, mmap_mode="r")
    return InBatches(copied, X.numbers[rows], X.count) if isinstance(X, InBatches) else copied
