"""One technical column over the clustered images, and how it is spoken of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Origin = Literal["header", "pixels"]

FEW_NUMBERS = 10  # a number with at most this many different values is spoken of by its values, such as 1.5 T and 3 T
MOST_VALUES = 30  # of a category; the rarer ones count as one
OTHER_VALUES = "other values"

LABELS = {
    "manufacturer": "manufacturer",
    "model": "scanner",
    "kernel": "reconstruction kernel",
    "site": "site",
    "study_date": "date of the study",
    "field_strength": "field strength",
    "slice_thickness": "slice thickness",
    "spacing_rows": "pixel spacing",
    "spacing_slices": "slice spacing",
    "rows": "rows of the image",
    "columns": "columns of the image",
    "slices": "number of slices",
    "channels": "channels",
    "bits": "bits per pixel",
    "photometric": "photometric interpretation",
    "transfer_syntax": "transfer syntax",
    "format": "file format",
    "burned_in": "flag of burned-in text",
    "modality": "modality",
    "body_part": "body part",
    "series_class": "kind of series",
    "view": "view",
    "orientation": "orientation",
    "sharpness": "sharpness",
    "noise": "noise",
    "padding": "padding",
    "coverage": "coverage",
    "mean_intensity": "mean intensity",
    "intensity_spread": "spread of intensity",
}
UNITS = {"field_strength": "T", "slice_thickness": "mm", "spacing_rows": "mm", "spacing_slices": "mm"}
LOW_AND_HIGH = {
    "study_date": ("of earlier studies", "of later studies"),
    "slice_thickness": ("with thin slices", "with thick slices"),
    "spacing_rows": ("with small pixels", "with large pixels"),
    "spacing_slices": ("with narrow slice spacing", "with wide slice spacing"),
    "slices": ("with few slices", "with many slices"),
    "rows": ("with few rows", "with many rows"),
    "columns": ("with few columns", "with many columns"),
    "sharpness": ("that are blurred", "that are sharp or noisy"),
    "noise": ("that are smooth or blurred", "that are noisy or finely textured"),
    "padding": ("with little padding", "with much padding"),
    "coverage": ("whose content fills little of the frame", "whose content fills much of the frame"),
    "mean_intensity": ("that are dark", "that are bright"),
    "intensity_spread": ("of low contrast", "of high contrast"),
}


@dataclass(frozen=True)
class TechnicalColumn:
    """``values`` (M,) are text, "" unknown, or float64, NaN unknown; ``key`` is one of ``LABELS``.

    ``origin`` says whether a header tells it or the pixels do.
    """

    key: str
    origin: Origin
    values: NDArray[np.str_] | NDArray[np.float64]

    @property
    def label(self) -> str:
        """The column's name in plain words."""
        return LABELS[self.key]

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers."""
        return self.values.dtype.kind == "f"

    @property
    def dated(self) -> bool:
        """Whether the values are ranks of dates, which are never shown."""
        return self.key == "study_date"

    def take(self, rows: NDArray[np.integer]) -> TechnicalColumn:
        """Return the column of these images."""
        return TechnicalColumn(self.key, self.origin, self.values[rows])

    def as_text(self) -> NDArray[np.str_] | None:
        """Return the values (M,) as text to speak of, "" where unknown; None where they are too many numbers."""
        if not self.numeric:
            return common_values(self.values.tolist())
        unit = f" {UNITS[self.key]}" if self.key in UNITS else ""
        texts = [f"{value:.4g}{unit}" if np.isfinite(value) else "" for value in self.values.tolist()]
        few = len(set(texts) - {""}) <= FEW_NUMBERS
        return np.array(texts, dtype=np.str_) if few and not self.dated else None


def common_values(texts: Sequence[str]) -> NDArray[np.str_]:
    """Return the texts (M,), all but the ``MOST_VALUES`` commonest as ``OTHER_VALUES``; "" stays."""
    counts = Counter(text for text in texts if text)
    kept = {text for text, _ in counts.most_common(MOST_VALUES)}
    return np.array([text if text in kept or not text else OTHER_VALUES for text in texts], dtype=np.str_)
