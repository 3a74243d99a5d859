"""Small DICOM files with known content, and a source to read them from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

from medstrata.images.dicom import FrameHeader, read_headers
from medstrata.images.geometry import group_series
from medstrata.images.records import ImageRecord, SkippedFile
from medstrata.images.sources import open_source

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
NAME = "Grzegorzewska^Planted"


def uid(text: str) -> str:
    """A UID that depends on ``text`` alone."""
    return str(generate_uid(entropy_srcs=[text]))


def dataset(pixels: NDArray[Any], sop_class: str = CTImageStorage, **values: Any) -> FileDataset:
    """A data set with the elements every image needs; ``values`` replace or add elements (None removes one)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.TransferSyntaxUID = values.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    found = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    found.SOPClassUID = sop_class
    found.PatientName, found.PatientID = NAME, "planted-id"
    found.StudyInstanceUID, found.SeriesInstanceUID = uid("study"), uid("series")
    found.Modality = "CT"
    found.Rows, found.Columns = pixels.shape[-2:]
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = pixels.dtype.itemsize * 8
    found.BitsAllocated, found.BitsStored, found.HighBit = bits, bits, bits - 1
    found.PixelRepresentation = int(pixels.dtype.kind == "i")
    found.PixelData = pixels.tobytes()
    for keyword, value in values.items():
        if value is None:
            found.pop(keyword, None)
        else:
            setattr(found, keyword, value)
    if "SOPInstanceUID" not in found:
        found.SOPInstanceUID = uid(str(values) + str(found.PixelData[:64]))
    meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID
    return found


def save(found: FileDataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    found.save_as(path, enforce_file_format=True)
    return path


def slice_pixels(number: int, shape: tuple[int, int] = (6, 5)) -> NDArray[np.int16]:
    """Pixels that tell their slice number, row and column."""
    rows, columns = np.indices(shape)
    return (1000 * number + 10 * rows + columns).astype(np.int16)


def write_series(
    folder: Path,
    positions: Sequence[Sequence[float]],
    instance_numbers: Sequence[int] | None = None,
    orientation: Sequence[float] = AXIAL,
    spacing: Sequence[float] = (0.7, 0.6),
    **values: Any,
) -> list[Path]:
    """One classic CT slice per position; slice i has ``slice_pixels(i)`` and HU = stored - 1024."""
    paths = []
    for number, position in enumerate(positions):
        instance = number + 1 if instance_numbers is None else instance_numbers[number]
        elements: dict[str, Any] = {
            "ImagePositionPatient": list(position),
            "ImageOrientationPatient": list(orientation),
            "PixelSpacing": list(spacing),
            "InstanceNumber": instance,
            "SliceThickness": 9.0,
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
            "SOPInstanceUID": uid(f"{folder}{number}{values}"),
            "FrameOfReferenceUID": uid("frame of reference"),
        }
        found = dataset(slice_pixels(number), **elements | values)
        paths.append(save(found, folder / f"{instance:03d}_{number:03d}"))
    return paths


def straight(count: int, step: float = 2.5, start: float = -10.0) -> list[tuple[float, float, float]]:
    """Positions one above the other."""
    return [(-20.0, 30.0, start + step * number) for number in range(count)]


def item(**values: Any) -> Items:
    """A sequence of one item."""
    found = Dataset()
    for keyword, value in values.items():
        setattr(found, keyword, value)
    return Items([found])


def enhanced_mr(heights: Sequence[float], echo_times: Sequence[float] = (0.0,), **values: Any) -> FileDataset:
    """An enhanced MR file: for every echo time a frame at every height, frame i with ``slice_pixels(i)``."""
    places = [(height, echo) for echo in echo_times for height in heights]
    pixels = np.stack([slice_pixels(number) for number in range(len(places))])
    shared = item(
        PlaneOrientationSequence=item(ImageOrientationPatient=list(AXIAL)),
        PixelMeasuresSequence=item(PixelSpacing=[0.7, 0.6], SliceThickness=9.0),
    )
    own = Items()
    for number, (height, echo) in enumerate(places):
        frame = item(
            PlanePositionSequence=item(ImagePositionPatient=[-20.0, 30.0, height]),
            MREchoSequence=item(EffectiveEchoTime=echo),
            PixelValueTransformationSequence=item(RescaleSlope=number + 1, RescaleIntercept=-number, RescaleType="US"),
        )
        own.append(frame[0])
    return dataset(
        pixels,
        EnhancedMRImageStorage,
        **{
            "Modality": "MR",
            "NumberOfFrames": len(places),
            "SharedFunctionalGroupsSequence": shared,
            "PerFrameFunctionalGroupsSequence": own,
        }
        | values,
    )


def mr(pixels: NDArray[Any], **values: Any) -> FileDataset:
    return dataset(pixels, MRImageStorage, **{"Modality": "MR"} | values)


def cine(frames: int, shape: tuple[int, int] = (6, 5), **values: Any) -> FileDataset:
    """An ultrasound loop: frames over time, no positions."""
    pixels = np.stack([slice_pixels(number, shape) for number in range(frames)])
    values = {"Modality": "US", "NumberOfFrames": frames} | values
    return dataset(pixels, UltrasoundMultiFrameImageStorage, **values)


def headers(folder: Path) -> list[FrameHeader | SkippedFile]:
    source = open_source(folder)
    return [found for entry in source.listing() for found in read_headers(source, entry.name)]


def records(folder: Path) -> list[ImageRecord]:
    """The records of a folder in which every file is an image."""
    frames = [found for found in headers(folder) if isinstance(found, FrameHeader)]
    assert len(frames) == len(headers(folder))
    found = group_series(frames)
    assert all(isinstance(record, ImageRecord) for record in found)
    return [record for record in found if isinstance(record, ImageRecord)]
