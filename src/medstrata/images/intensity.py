"""Pixel values to [0, 1]: one rule per class of images, written in the plan and applied to each image alone.

Rules, as they stand in ``plan.json``::

    {"rule": "window", "low": -1000, "high": 400, "units": "HU"}      fixed bounds, in the image's own units
    {"rule": "percentile", "low": 1, "high": 99, "of": "foreground"}  bounds measured in each image
    {"rule": "range", "low": 0, "high": 255}                          fixed bounds; null: the image's own extremes

Each leaves ``out = clip((value - low) / (high - low), 0, 1)``, and zeros where ``low == high`` (a constant image).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medstrata.errors import FileProblem
from medstrata.images.records import FloatArray, Pixels

Rule = dict[str, Any]

WINDOWS = {  # Hounsfield units: what differs between patients in that region lies inside
    "CT chest": (-1000.0, 400.0),
    "CT head": (0.0, 80.0),
    "CT abdomen": (-150.0, 250.0),
    "CT": (-1000.0, 1000.0),
}
REGIONS = {  # DICOM's defined terms for BodyPartExamined (PS3.16 annex L); those over two regions are not here
    "chest": "CT chest",
    "lung": "CT chest",
    "thorax": "CT chest",
    "head": "CT head",
    "brain": "CT head",
    "skull": "CT head",
    "abdomen": "CT abdomen",
    "abdomenpelvis": "CT abdomen",
    "pelvis": "CT abdomen",
    "liver": "CT abdomen",
    "kidney": "CT abdomen",
    "pancreas": "CT abdomen",
}
TISSUE_SCALED = ("MR", "PT", "NM")  # values have no fixed unit from one image to the next
XRAY = ("CR", "DX", "MG", "XA", "RF", "PX", "IO", "RG")
MEASURED_SAMPLES = 2**20  # percentiles are measured on a regular sub-grid of at most about this many pixels
FOREGROUND_PERCENTILES: Rule = {"rule": "percentile", "low": 1, "high": 99, "of": "foreground"}
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


def intensity_class(row: Mapping[str, Any]) -> str:
    """Name the class of a catalog row whose rule scales its values: a key of ``plan.intensity``."""
    modality, eight_bit = row["modality"], 0 < row["bits"] <= 8
    if eight_bit and row["channels"] >= 3:
        return "8-bit"
    if modality == "CT":
        return REGIONS.get(row["body_part"].replace("_", "").replace(" ", ""), "CT")
    if modality in TISSUE_SCALED:
        return str(modality)
    if row["format"] == "nifti":
        return "NIfTI"
    if eight_bit:
        return "8-bit"
    if modality in XRAY:
        return "X-ray"
    return "array" if row["format"] == "array" else "other"


def rule_for(name: str, low: float | None, high: float | None) -> Rule:
    """Return the default rule of the class ``name``.

    ``low``, ``high``: range of the stored values over all images of that class, ``None`` where not known from the
    headers.
    """
    if name in WINDOWS:
        return {"rule": "window", "low": WINDOWS[name][0], "high": WINDOWS[name][1], "units": "HU"}
    if name in (*TISSUE_SCALED, "NIfTI"):
        return dict(FOREGROUND_PERCENTILES)
    if name in ("X-ray", "other"):
        return {"rule": "percentile", "low": 1, "high": 99, "of": "all"}
    if name == "8-bit" and (low or 0) >= 0:
        masks = high is not None and high < 32  # label masks and the like would be black in 0..255
        return {"rule": "range", "low": 0.0, "high": high if masks else 255.0}
    return {"rule": "range", "low": low, "high": high}


def describe_rule(rule: Rule) -> str:
    """Say a rule in a few words: ``window -1000..400 HU``."""
    if rule["rule"] == "percentile":
        return f"percentiles {rule['low']}..{rule['high']} of {rule['of']}"
    if rule["low"] is None or rule["high"] is None:
        return "each image's own range"
    return " ".join(f"{rule['rule']} {rule['low']:g}..{rule['high']:g} {rule.get('units', '')}".split())


def bounds(array: NDArray[Any], rule: Rule, units: str = "stored") -> tuple[float, float, str]:
    """Return ``(low, high, note)`` for one image under ``rule``.

    A percentile rule of the foreground takes ``low`` from all pixels, so that the background becomes 0, and ``high``
    from the foreground, so that the share of background does not change the scale: the foreground is what lies above
    the mean of the image. A window in units that the image does not have falls back on it, and says so in ``note``.
    """
    note = ""
    if rule["rule"] == "window" and rule.get("units", units) != units:
        note = f"Values are not in {rule['units']}: scaled by percentiles instead of the window."
        rule = FOREGROUND_PERCENTILES
    if rule["rule"] == "percentile":
        sample = _sample(array)
        low = float(np.percentile(sample, rule["low"]))
        inside = sample[sample > sample.mean(dtype=np.float64)] if rule["of"] == "foreground" else sample
        high = float(np.percentile(inside if inside.size else sample, rule["high"]))
        if low < high:
            return low, high, note
        rule = {"low": None, "high": None}  # nearly all pixels have one value: a mask, an angiogram
    low = float(array.min()) if rule["low"] is None else float(rule["low"])
    high = float(array.max()) if rule["high"] is None else float(rule["high"])
    return low, high, note


def _sample(array: NDArray[Any]) -> NDArray[Any]:
    """Every n-th pixel along the last two axes, about ``MEASURED_SAMPLES`` of them."""
    every = max(1, int(np.sqrt(array.size / MEASURED_SAMPLES)))
    return array[..., ::every, ::every].ravel()


def check_finite(array: NDArray[Any]) -> None:
    """Raise ``FileProblem``: ``not_finite`` where a pixel is NaN or infinite, ``no_pixels`` where there is none."""
    if not array.size:
        raise FileProblem("no_pixels", "The image has no pixels.")
    finite = int(np.count_nonzero(np.isfinite(array)))
    if finite < array.size:
        raise FileProblem("not_finite", f"{array.size - finite} of {array.size} pixels are not finite numbers.")


def scale(array: NDArray[Any], low: float, high: float) -> FloatArray:
    """Return ``clip((array - low) / (high - low), 0, 1)`` as float32; zeros where ``high <= low``."""
    if not high > low:
        return np.zeros(array.shape, dtype=np.float32)
    out: FloatArray = np.subtract(array, np.float32(low), dtype=np.float32)
    out *= np.float32(1.0 / (high - low))
    np.clip(out, 0.0, 1.0, out=out)
    return out


def normalise(pixels: Pixels, rule: Rule) -> FloatArray:
    """Scale one image to [0, 1] by the formula at the top of this module.

    Returns float32 of the same shape. A remark (a window that did not apply) is appended to ``pixels.notes``.

    Raises
    ------
    FileProblem : some pixels are not finite (``not_finite``), or there are none (``no_pixels``)
    """
    check_finite(pixels.array)
    low, high, note = bounds(pixels.array, rule, pixels.units)
    if note:
        pixels.notes.append(note)
    return scale(pixels.array, low, high)


def to_channels(array: FloatArray, channels: int) -> FloatArray:
    """Bring ``(C, ...)`` to 1 channel (luminance of colour) or 3 (grey repeated); a fourth channel is dropped."""
    found = array.shape[0]
    if found == channels:
        return array
    if channels == 3:
        return array[:3] if found > 3 else np.repeat(array[:1], 3, axis=0)
    return np.tensordot(LUMINANCE, array[:3], axes=1)[None] if found >= 3 else array[:1]
