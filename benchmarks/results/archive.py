"""An archive whose truth is known: pictures of the shared data sets as DICOM files of many makes and headers.

Eleven kinds of image (``KINDS``) are written under random names into random folders, with random UIDs. Size and
padding are drawn alike for all kinds, so that they tell nothing of the kind; bit depth, photometric interpretation,
rescale, window and pixel spacing vary as they do in practice. Some headers are wrong or have gaps, and the truth says
which. The data sets are pictures for display, whose units are lost: CT gets Hounsfield units back by a guess, see
``Kind.units``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    MRImageStorage,
    UltrasoundImageStorage,
    VLPhotographicImageStorage,
    generate_uid,
)

Picture = NDArray[np.uint8]
Knots = tuple[tuple[int, ...], tuple[int, ...]]

SIDES = (64, 96, 128, 160, 192, 224, 256)
LONGEST = 1.5  # of the sides of one image, the longer through the shorter one
FALSIFIED = 0.02  # share of images whose header names the modality or the body part of another kind
MISSING = 0.10  # share of images whose header names no body part
CLASSES = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "CR": ComputedRadiographyImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
    "US": UltrasoundImageStorage,
    "XC": VLPhotographicImageStorage,
}


@dataclass(frozen=True)
class Kind:
    """Where the pictures of one kind come from, and what their headers say.

    Attributes
    ----------
    file : data set; ``label`` : the class of it that is taken, None for all
    modalities : one of them is drawn for each image
    units : for CT, grey levels and the Hounsfield units they become, linear in between. The sources show a narrow
        window: its lowest grey becomes air, its highest bone, and the window itself keeps its contrast.
    """

    file: str
    label: str | None
    modalities: tuple[str, ...]
    body_part: str
    bits: tuple[int, ...]
    inverted: float  # share of images stored as MONOCHROME1
    units: Knots | None = None


_BODY = (-1024, -1000, -150, 250, 1000)
KINDS = {
    "abdomen CT": Kind("mednist.npz", "AbdomenCT", ("CT",), "ABDOMEN", (12, 16), 0, ((0, 101, 106, 170, 255), _BODY)),
    "breast MR": Kind("mednist.npz", "BreastMRI", ("MR",), "BREAST", (12, 16), 0.1),
    "chest radiograph": Kind("mednist.npz", "CXR", ("CR", "DX"), "CHEST", (8, 12, 16), 0.4),
    "chest CT": Kind("mednist.npz", "ChestCT", ("CT",), "CHEST", (12, 16), 0, ((0, 126, 132, 170, 255), _BODY)),
    "hand radiograph": Kind("mednist.npz", "Hand", ("CR",), "HAND", (8, 12, 16), 0.4),
    "head CT": Kind(
        "mednist.npz", "HeadCT", ("CT",), "HEAD", (12, 16), 0, ((0, 25, 35, 230, 255), (-1024, -1000, 0, 80, 1000))
    ),
    "cardiac MR": Kind("acdc_cine_sax.npz", None, ("MR",), "HEART", (12, 16), 0.1),
    "breast ultrasound": Kind("busi_breast_us.npz", None, ("US",), "BREAST", (8,), 0.1),
    "lung CT": Kind(
        "iqoth_lungct.npz", None, ("CT",), "CHEST", (12, 16), 0, ((0, 8, 240, 255), (-1000, -160, 240, 1000))
    ),
    "skin photograph": Kind("ham10000_64.npz", None, ("XC",), "SKIN", (8,), 0),
    "paediatric chest radiograph": Kind("pneumoniamnist_trainval.npz", None, ("CR", "DX"), "CHEST", (8, 12, 16), 0.4),
}


def balanced_counts(total: int = 3000) -> dict[str, int]:
    """Return equal counts per kind that sum to ``total`` or a little less."""
    return dict.fromkeys(KINDS, total // len(KINDS))


def geometric_counts(seed: int, total: int = 3000) -> dict[str, int]:
    """Return counts in the proportions 1:2:4:8:..., at least 1 each; ``seed`` rotates which kind is the rarest."""
    names = list(KINDS)
    first = seed % len(names)
    shares = 2.0 ** np.arange(len(names))
    counts = np.maximum(1, np.rint(total * shares / shares.sum())).astype(int)
    return dict(zip(names[first:] + names[:first], counts.tolist(), strict=True))


def write_archive(folder: Path, truth: Path, data_dir: Path, counts: Mapping[str, int], seed: int) -> list[str]:
    """Write the archive into ``folder`` and the truth into the CSV file ``truth``, which must lie outside of it.

    ``counts`` : images of each kind, drawn without repetition; a kind that has fewer gives all it has. The truth has
    one row per file: ``file`` (relative to ``folder``), ``label`` (kind), ``falsified`` (the element that is wrong, or
    nothing), ``body_part_missing`` (0 or 1) and ``number`` (which picture of its kind, in the set's order). Returns the
    labels in the order of the sorted file names, as ``size_features`` has them. The same arguments give the same bytes.

    Raises ValueError where ``truth`` lies in ``folder``, FileExistsError where ``folder`` has files already.
    """
    if folder.resolve() in truth.resolve().parents:
        raise ValueError(f"{truth} lies inside the archive, where a clustering could see it. Name a file outside.")
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty. Name a new folder, or remove this one first.")
    rng = np.random.default_rng([seed, 0])
    drawn = [(kind, number) for kind, count in counts.items() for number in _drawn(kind, count, data_dir, rng)]
    order = rng.permutation(len(drawn))
    wrong, gaps = round(FALSIFIED * len(drawn)), round(MISSING * len(drawn))
    rows = []
    for place, (index, name) in enumerate(zip(order, _file_names(len(drawn), rng), strict=True)):
        kind, number = drawn[index]
        own = np.random.default_rng([seed, 1, place])
        dataset = _dicom(KINDS[kind], _pictures(data_dir, kind)[number], own, f"{seed} {place}")
        falsified = _falsify(dataset, KINDS[kind], own) if place < wrong else ""
        missing = wrong <= place < wrong + gaps
        if missing:
            del dataset.BodyPartExamined
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(folder / name, enforce_file_format=True)
        rows.append((name, kind, falsified, int(missing), number))
    rows.sort()
    with open(truth, "w", newline="", encoding="utf-8") as file:
        header = ("file", "label", "falsified", "body_part_missing", "number")
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return [row[1] for row in rows]


def size_features(folder: Path) -> NDArray[np.float64]:
    """Return (N, 4) in the order of the sorted file names: rows, columns, bits stored, share of padding pixels.

    Padding: rows and columns at the border that hold nothing but the value of the first pixel. This is the trivial
    baseline: what can be told from the shape of an image without looking at what it shows.
    """
    return np.array([_size(dcmread(folder / name)) for name in sorted(_files(folder))], np.float64)


def _files(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _size(dataset: Dataset) -> tuple[float, float, float, float]:
    pixels = dataset.pixel_array
    shown = pixels != pixels[0, 0]
    if shown.ndim == 3:
        shown = shown.any(axis=2)
    extents = [np.flatnonzero(shown.any(axis=axis)) for axis in (1, 0)]
    inside = float(np.prod([extent[-1] + 1 - extent[0] if len(extent) else 0 for extent in extents]))
    return dataset.Rows, dataset.Columns, dataset.BitsStored, 1 - inside / shown.size


@cache
def _pictures(data_dir: Path, kind: str) -> Picture:
    """Return all pictures (N, H, W) or (N, H, W, 3) of a kind."""
    source = KINDS[kind]
    with np.load(data_dir / source.file) as arrays:
        images: Picture = arrays["images"]
        if source.label is not None:
            images = images[arrays["labels"] == list(arrays["label_names"]).index(source.label)]
    return images


def _drawn(kind: str, count: int, data_dir: Path, rng: np.random.Generator) -> list[int]:
    numbers: list[int] = rng.permutation(len(_pictures(data_dir, kind)))[:count].tolist()
    return numbers


def _file_names(count: int, rng: np.random.Generator) -> list[str]:
    """Return different random hexadecimal names in about one folder per 20 files, some of them one level deeper."""
    folders = [rng.bytes(3).hex() for _ in range(count // 20 + 1)]
    folders = [f"{folders[i // 3]}/{name}" if i % 3 == 1 else name for i, name in enumerate(folders)]
    names: dict[str, None] = {}
    while len(names) < count:
        names[f"{folders[rng.integers(len(folders))]}/{rng.bytes(8).hex()}"] = None
    return list(names)


def _resized(picture: Picture, rng: np.random.Generator) -> Picture:
    """Bring a picture to a random size and shape: its proportions stay, and the rest is cut off or padded black."""
    rows = int(rng.choice(SIDES))
    columns = int(rng.choice([side for side in SIDES if max(side / rows, rows / side) <= LONGEST]))
    ratios = rows / picture.shape[0], columns / picture.shape[1]
    scale = min(ratios) if rng.random() < 0.5 else max(ratios)
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    scaled = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))
    top, left = max(0, height - rows) // 2, max(0, width - columns) // 2
    cut = scaled[top : top + rows, left : left + columns]
    out = np.zeros((rows, columns, *picture.shape[2:]), np.uint8)
    top, left = (rows - cut.shape[0]) // 2, (columns - cut.shape[1]) // 2
    out[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return out


def _dicom(kind: Kind, picture: Picture, rng: np.random.Generator, name: str) -> Dataset:
    modality = str(rng.choice(kind.modalities))
    dataset = Dataset()
    dataset.SOPClassUID = CLASSES[modality]
    for level in ("Study", "Series", "SOP"):
        setattr(dataset, f"{level}InstanceUID", generate_uid(entropy_srcs=[level, name]))
    dataset.Modality, dataset.BodyPartExamined = modality, kind.body_part
    dataset.PatientID, dataset.PatientName = rng.bytes(4).hex(), "Nobody"
    dataset.InstanceNumber = 1
    picture = _resized(picture, rng)
    dataset.Rows, dataset.Columns = picture.shape[:2]
    if picture.ndim == 3:
        _colour(dataset, picture, rng)
    elif kind.units is not None:
        _hounsfield(dataset, picture, kind.units, rng)
    else:
        _grey(dataset, picture, kind, rng)
    if modality != "XC" and rng.random() < 0.5:
        spacing = round(float(rng.uniform(0.3, 1.5)), 4)
        setattr(dataset, "ImagerPixelSpacing" if modality in ("CR", "DX") else "PixelSpacing", [spacing, spacing])
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _store(dataset: Dataset, stored: NDArray[Any], bits: int, photometric: str, signed: bool = False) -> None:
    """Put integers (H, W) or (H, W, 3) into the data set."""
    allocated = 8 if bits <= 8 else 16
    dataset.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    pixels = stored.astype(f"<{'i' if signed else 'u'}{allocated // 8}")
    dataset.add_new("PixelData", "OB" if allocated == 8 else "OW", pixels.tobytes())


def _colour(dataset: Dataset, picture: Picture, rng: np.random.Generator) -> None:
    photometric = "YBR_FULL" if rng.random() < 0.3 else "RGB"
    if photometric == "YBR_FULL":
        picture = convert_color_space(picture, "RGB", photometric)
    dataset.PlanarConfiguration = int(rng.random() < 0.3)
    _store(dataset, picture, 8, photometric)
    if dataset.PlanarConfiguration:
        dataset.PixelData = np.ascontiguousarray(picture.transpose(2, 0, 1)).tobytes()


def _hounsfield(dataset: Dataset, picture: Picture, units: Knots, rng: np.random.Generator) -> None:
    """CT as scanners store it: 12 bits from -1024 HU on, or 16 bits with a sign. Never MONOCHROME1: HU stay HU."""
    hounsfield = np.interp(picture, *units)
    signed = rng.random() < 0.5
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0 if signed else -1024
    if rng.random() < 0.5:
        dataset.RescaleType = "HU"
    _store(dataset, np.rint(hounsfield - dataset.RescaleIntercept), 16 if signed else 12, "MONOCHROME2", signed)
    if rng.random() < 0.5:
        dataset.WindowCenter, dataset.WindowWidth = 40, 400


def _grey(dataset: Dataset, picture: Picture, kind: Kind, rng: np.random.Generator) -> None:
    """Grey values of no fixed unit: over most of the bits stored, inverted where MONOCHROME1 says so."""
    bits = int(rng.choice(kind.bits))
    highest = 2**bits - 1
    gain = 1.0 if bits == 8 else float(rng.uniform(0.3, 1.0))
    stored = np.rint(picture.astype(np.float64) * (gain * highest / 255))
    inverted = rng.random() < kind.inverted
    _store(dataset, highest - stored if inverted else stored, bits, "MONOCHROME1" if inverted else "MONOCHROME2")
    slope, intercept = 1.0, 0.0
    if bits > 8 and rng.random() < 0.5:
        slope, intercept = round(float(rng.uniform(0.2, 3.0)), 4), round(float(rng.uniform(-100, 100)), 1)
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = slope, intercept, "US"
    if rng.random() < 0.5:
        middle = (highest + 1) / 2 * (2 - gain if inverted else gain)
        dataset.WindowCenter, dataset.WindowWidth = round(middle * slope + intercept), round(gain * highest * slope) + 1


def _falsify(dataset: Dataset, kind: Kind, rng: np.random.Generator) -> str:
    """Give the modality or the body part of another kind, and return which element is wrong now."""
    keyword = str(rng.choice(["Modality", "BodyPartExamined"]))
    own = kind.modalities if keyword == "Modality" else (kind.body_part,)
    all_values = sorted(CLASSES if keyword == "Modality" else {other.body_part for other in KINDS.values()})
    setattr(dataset, keyword, str(rng.choice([value for value in all_values if value not in own])))
    return keyword
