"""What the readers of all formats hand on: one record per image, one per file that is left out.

A record holds original names and ids. It lives in memory and in ``OUT/private/`` only; the catalog gets keyed hashes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FrameSource:
    """Where one 2-D frame (or a whole NIfTI / raster file) of an image is found.

    ``file`` is relative to INPUT in portable form (see ``sources.portable_name``); ``frame`` is the 0-based frame of
    a multi-frame file, the page of a TIFF, the row of an array, and 0 otherwise. Original ids are "" where unknown, and
    so are ``institution`` and ``study_date`` (YYYYMMDD as DICOM has it). ``manufacturer``, ``model``,
    ``view`` and ``kernel`` are the header's own words where ``vocabulary`` does not know them, else "".
    """

    file: str
    frame: int = 0
    patient_id: str = ""
    study_uid: str = ""
    series_uid: str = ""
    instance_uid: str = ""
    institution: str = ""
    study_date: str = ""
    manufacturer: str = ""
    model: str = ""
    view: str = ""
    kernel: str = ""


@dataclass(slots=True)
class ImageRecord:
    """One image: a 2-D image, or a series of slices that form one volume. Field by field a row of the catalog.

    ``frames`` stand in order along the slice normal. Spacings are in mm. ``affine`` is not stored: the readers of
    pixels compute it again from the same headers.
    """

    unit: str  # "image" (2-D) or "series" (a stack of slices)
    format: str  # "dicom", "nifti", "png", "jpeg", "tiff", "array", ...
    frames: list[FrameSource]
    rows: int = 0
    columns: int = 0
    slices: int = 1
    channels: int = 1
    bits: int = 0  # bits stored per sample
    modality: str = ""  # "CT", "MR", ...; "" where the format does not say
    body_part: str = ""  # DICOM BodyPartExamined in lower case, "" where unknown or not a plain code
    series_class: str = ""  # class of the series description ("t1", "localizer", "lung", ...): never free text
    view: str = ""  # ViewPosition or the like, a plain code
    manufacturer: str = ""  # in the catalog, this, model, view and kernel are "other 3f2a9c" where no code is known
    model: str = ""
    kernel: str = ""  # CT reconstruction kernel
    field_strength: float | None = None  # tesla
    slice_thickness: float | None = None  # mm, as the header says; never used as a spacing
    spacing_rows: float | None = None  # mm between rows
    spacing_columns: float | None = None  # mm between columns
    spacing_slices: float | None = None  # mm between slices, from positions
    orientation: str = ""  # "axial", "coronal", "sagittal", "oblique", ""
    geometry: str = ""  # "regular", "single", "none", "missing_slice", "duplicate_position", "tilted", "uneven"
    geometry_note: str = ""  # one sentence; positions in mm along the normal where geometry is not regular
    photometric: str = ""
    transfer_syntax: str = ""  # UID of the syntax (a public constant, not an id)
    burned_in: str = "unknown"  # "yes", "no", "unknown", "likely" (ultrasound, secondary capture, screenshots)
    value_low: float | None = None  # range of stored values where the format fixes it (8-bit: 0..255; arrays: measured)
    value_high: float | None = None


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """One file that is not an image for us: it becomes a catalog row with ``skipped`` and ``reason``."""

    file: str
    code: str
    reason: str
    format: str = ""
    modality: str = ""
    transfer_syntax: str = ""
    patient_id: str = ""
    study_uid: str = ""
    series_uid: str = ""
    instance_uid: str = ""


@dataclass(slots=True)
class Pixels:
    """Decoded pixels of one image.

    ``array``: float32 ``(C, H, W)`` or ``(C, D, H, W)`` in ``units`` ("HU", "stored", ...), MONOCHROME1 not inverted
    unless stated by the reader in ``notes``. ``affine``: ``(4, 4)`` from array indices ``(d, h, w)`` to RAS mm, or
    None where the file has no geometry. ``spacing``: mm per step of the array's spatial axes, or None.
    ``decoder``: name and version of what decoded it.
    """

    array: FloatArray
    affine: NDArray[np.float64] | None = None
    spacing: tuple[float, ...] | None = None
    units: str = "stored"
    decoder: str = ""
    notes: list[str] = field(default_factory=list)
