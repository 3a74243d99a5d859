"""One header per 2-D frame of a DICOM file: classic files, and enhanced ones through their functional groups.

Sources: DICOM PS3.3 C.7.6.2 (image plane), C.7.6.16 (functional groups), C.7.6.3 (image pixel).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from medstrata.images import vocabulary
from medstrata.images.dicom_kinds import SECONDARY_CAPTURE
from medstrata.images.dicom_values import DatasetValues, Values, tags
from medstrata.images.records import FrameSource

PLANE_TAGS = tags(
    """ImagePositionPatient ImageOrientationPatient PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence"""
)
HEADER_TAGS = PLANE_TAGS + tags(
    """SOPClassUID SOPInstanceUID PatientID StudyInstanceUID SeriesInstanceUID Modality ImageType SeriesDescription
    ProtocolName ViewPosition BodyPartExamined Manufacturer ManufacturerModelName ConvolutionKernel
    MagneticFieldStrength SliceThickness EchoTime DiffusionBValue DiffusionGradientOrientation
    TemporalPositionIdentifier TriggerTime AcquisitionNumber AcquisitionDateTime AcquisitionTime BurnedInAnnotation
    NumberOfFrames Rows Columns SamplesPerPixel BitsAllocated BitsStored PixelRepresentation
    PhotometricInterpretation RescaleSlope RescaleIntercept ModalityLUTSequence DirectoryRecordSequence
    InstitutionName StudyDate AcquisitionDate"""
)

_WORDS = ("Manufacturer", "ManufacturerModelName", "ViewPosition")  # and the kernel
_READERS = (vocabulary.manufacturer, vocabulary.model, vocabulary.view, vocabulary.kernel)

UNIT_TOLERANCE = 0.01  # how far direction cosines may be from unit length and from a right angle
GAUSS_ABOVE = 30.0  # field strengths above this are in gauss; tesla is meant
BYTE_BITS = 8


class Contrast(NamedTuple):
    """What tells frames of one series at the same place apart."""

    image_type: tuple[str, ...]
    echo_time: float | None  # ms
    b_value: float | None  # s/mm2
    gradient: tuple[float, ...]
    stack: str
    temporal_position: float | None
    acquisition_number: int | None
    trigger_time: float | None  # ms
    acquisition_time: str


class Plane(NamedTuple):
    """Where a frame lies in the patient: LPS millimetres (DICOM's own axes)."""

    position: tuple[float, float, float]  # centre of the first pixel
    row: tuple[float, float, float]  # direction of increasing column index (first triple of the DICOM element)
    column: tuple[float, float, float]  # direction of increasing row index


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """Everything that grouping and the catalog need to know of one frame. Text fields are plain codes, never free text.

    ``spacing`` is (between rows, between columns) in mm. ``bits`` is bits stored. ``sop_class``, ``localizer`` and
    ``contrast`` only tell frames of one series apart.
    """

    source: FrameSource
    frames_in_file: int
    modality: str
    rows: int
    columns: int
    channels: int
    bits: int
    photometric: str
    transfer_syntax: str
    plane: Plane | None
    spacing: tuple[float, float] | None
    series_class: str
    view: str
    body_part: str
    manufacturer: str
    model: str
    kernel: str
    slice_thickness: float | None
    field_strength: float | None
    burned_in: str
    value_low: float | None
    value_high: float | None
    sop_class: str
    localizer: bool
    contrast: Contrast


class FunctionalGroups:
    """The functional groups that hold for one frame: its own, else those shared by all frames."""

    def __init__(self, values: Values) -> None:
        self._shared = [DatasetValues(item) for item in values.items("SharedFunctionalGroupsSequence")[:1]]
        self._frames = [DatasetValues(item) for item in values.items("PerFrameFunctionalGroupsSequence")]

    def group(self, frame: int, keyword: str) -> Values | None:
        """Return the one item of the functional group ``keyword`` for ``frame``, or None."""
        if not self._shared and not self._frames:
            return None
        for holder in [*self._frames[frame : frame + 1], *self._shared]:
            items = holder.items(keyword)
            if items:
                return DatasetValues(items[0])
        return None

    def numbers(self, frame: int, group: str, keyword: str) -> tuple[float, ...]:
        """Return the values of a numeric element of a group; () when absent."""
        found = self.group(frame, group)
        return found.numbers(keyword) if found else ()

    def number(self, frame: int, group: str, keyword: str) -> float | None:
        """Return the first value of a numeric element of a group, or None."""
        return next(iter(self.numbers(frame, group, keyword)), None)


def plane_of(values: Values, groups: FunctionalGroups, frame: int) -> Plane | None:
    """Return the plane of one frame; None when position or orientation is absent or makes no sense."""
    position = groups.numbers(frame, "PlanePositionSequence", "ImagePositionPatient")
    orientation = groups.numbers(frame, "PlaneOrientationSequence", "ImageOrientationPatient")
    position = position or values.numbers("ImagePositionPatient")
    orientation = orientation or values.numbers("ImageOrientationPatient")
    if len(position) != 3 or len(orientation) != 6:
        return None
    row, column = _unit(orientation[:3]), _unit(orientation[3:])
    if row is None or column is None or abs(sum(a * b for a, b in zip(row, column, strict=True))) > UNIT_TOLERANCE:
        return None
    return Plane((position[0], position[1], position[2]), row, column)


def _unit(vector: tuple[float, ...]) -> tuple[float, float, float] | None:
    length = math.hypot(*vector)
    if abs(length - 1) > UNIT_TOLERANCE:
        return None
    return vector[0] / length, vector[1] / length, vector[2] / length


def spacing_of(values: Values, groups: FunctionalGroups, frame: int) -> tuple[float, float] | None:
    """Return mm between rows and between columns; for projections at the detector when nothing better is known."""
    found = groups.numbers(frame, "PixelMeasuresSequence", "PixelSpacing")
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        found = found or values.numbers(keyword)
    return (found[0], found[1]) if len(found) == 2 and min(found) > 0 else None


def frame_count(values: Values) -> int:
    """Return NumberOfFrames, 1 when it is absent or makes no sense."""
    return max(values.integer("NumberOfFrames") or 1, 1)


def frames_of(values: Values, file: str, modality: str, transfer_syntax: str) -> list[FrameHeader]:
    """Return a header for each frame of ``file``."""
    groups = FunctionalGroups(values)
    common = _common(values, groups, file, modality, transfer_syntax)
    if common.frames_in_file == 1:
        return [common]
    if not values.has("PerFrameFunctionalGroupsSequence"):
        return [replace(common, source=replace(common.source, frame=frame)) for frame in range(common.frames_in_file)]
    return [_own_frame(common, values, groups, frame) for frame in range(common.frames_in_file)]


def _own_frame(common: FrameHeader, values: Values, groups: FunctionalGroups, frame: int) -> FrameHeader:
    return replace(
        common,
        source=replace(common.source, frame=frame),
        plane=plane_of(values, groups, frame),
        spacing=spacing_of(values, groups, frame),
        contrast=_contrast(values, groups, frame),
    )


def _common(values: Values, groups: FunctionalGroups, file: str, modality: str, transfer_syntax: str) -> FrameHeader:
    image_type = tuple(part.upper() for part in values.texts("ImageType"))
    sop_class = values.text("SOPClassUID")
    described = (*values.texts("SeriesDescription"), *values.texts("ProtocolName"), *image_type[2:])
    photometric = vocabulary.photometric(values.text("PhotometricInterpretation"))
    channels = 3 if photometric == "PALETTE COLOR" or (values.integer("SamplesPerPixel") or 1) > 1 else 1
    low, high = _value_range(values, photometric)
    words = (*(values.text(name) for name in _WORDS), _kernel(values, groups))
    codes = tuple(reader(text) for reader, text in zip(_READERS, words, strict=True))
    return FrameHeader(
        source=_source(values, file, ["" if code else text for code, text in zip(codes, words, strict=True)]),
        frames_in_file=frame_count(values),
        modality=modality,
        rows=values.integer("Rows") or 0,
        columns=values.integer("Columns") or 0,
        channels=channels,
        bits=values.integer("BitsStored") or values.integer("BitsAllocated") or 0,
        photometric=photometric,
        transfer_syntax=transfer_syntax,
        plane=plane_of(values, groups, 0),
        spacing=spacing_of(values, groups, 0),
        series_class=vocabulary.series_class(described),
        view=codes[2],
        body_part=vocabulary.body_part(values.text("BodyPartExamined")),
        manufacturer=codes[0],
        model=codes[1],
        kernel=codes[3],
        slice_thickness=_first(
            groups.number(0, "PixelMeasuresSequence", "SliceThickness"), values.number("SliceThickness")
        ),
        field_strength=_tesla(values.number("MagneticFieldStrength")),
        burned_in=_burned_in(values, modality, sop_class, image_type),
        value_low=low,
        value_high=high,
        sop_class=sop_class,
        localizer=any(part in ("LOCALIZER", "SCOUT", "TOPOGRAM") for part in image_type),
        contrast=_contrast(values, groups, 0),
    )


def _source(values: Values, file: str, unknown: Sequence[str]) -> FrameSource:
    """Return where the first frame is found; ``unknown``: words that are in no vocabulary, else ""."""
    return FrameSource(
        file=file,
        patient_id=values.text("PatientID"),
        study_uid=values.text("StudyInstanceUID"),
        series_uid=values.text("SeriesInstanceUID"),
        instance_uid=values.text("SOPInstanceUID"),
        institution=values.text("InstitutionName"),
        study_date=values.text("StudyDate") or values.text("AcquisitionDate"),
        manufacturer=unknown[0],
        model=unknown[1],
        view=unknown[2],
        kernel=unknown[3],
    )


def _contrast(values: Values, groups: FunctionalGroups, frame: int) -> Contrast:
    content = groups.group(frame, "FrameContentSequence")
    diffusion = groups.group(frame, "MRDiffusionSequence")
    gradient = diffusion.items("DiffusionGradientDirectionSequence") if diffusion else []
    direction = DatasetValues(gradient[0]).numbers("DiffusionGradientOrientation") if gradient else ()
    own_type = groups.group(frame, "MRImageFrameTypeSequence") or groups.group(frame, "CTImageFrameTypeSequence")
    image_type = own_type.texts("FrameType") if own_type else values.texts("ImageType")
    own_time = content.text("FrameAcquisitionDateTime") if content else ""
    acquisition = content.number("FrameAcquisitionNumber") if content else None
    acquisition = _first(acquisition, values.number("AcquisitionNumber"))
    delay = groups.number(frame, "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime")
    return Contrast(
        image_type=tuple(part.upper() for part in image_type),
        echo_time=_first(groups.number(frame, "MREchoSequence", "EffectiveEchoTime"), values.number("EchoTime")),
        b_value=_first(
            diffusion.number("DiffusionBValue") if diffusion else None,
            values.number("DiffusionBValue"),
        ),
        gradient=direction or values.numbers("DiffusionGradientOrientation"),
        stack=content.text("StackID") if content else "",
        temporal_position=_first(
            content.number("TemporalPositionIndex") if content else None,
            values.number("TemporalPositionIdentifier"),
        ),
        acquisition_number=None if acquisition is None else int(acquisition),
        trigger_time=_first(delay, values.number("TriggerTime")),
        acquisition_time=own_time or values.text("AcquisitionDateTime") or values.text("AcquisitionTime"),
    )


def _first(own: float | None, other: float | None) -> float | None:
    return other if own is None else own


def _kernel(values: Values, groups: FunctionalGroups) -> str:
    found = groups.group(0, "CTReconstructionSequence")
    return (found.text("ConvolutionKernel") if found else "") or values.text("ConvolutionKernel")


def _tesla(strength: float | None) -> float | None:
    if strength is None or strength <= 0:
        return None
    return strength / 10_000 if strength > GAUSS_ABOVE else strength


def _burned_in(values: Values, modality: str, sop_class: str, image_type: tuple[str, ...]) -> str:
    """Return "yes" or "no" as the header says, "likely" for kinds of images that usually carry text, else "unknown"."""
    stated = {"YES": "yes", "NO": "no"}.get(values.text("BurnedInAnnotation").upper())
    if stated:
        return stated
    captured = sop_class == SECONDARY_CAPTURE or sop_class.startswith(SECONDARY_CAPTURE + ".")
    secondary = "SECONDARY" in image_type[1:2] and modality in ("OT", "SC")
    screen = any(part.startswith("SCREEN") for part in image_type)
    return "likely" if modality in ("US", "IVUS", "SC") or captured or secondary or screen else "unknown"


def _value_range(values: Values, photometric: str) -> tuple[float | None, float | None]:
    """Return the range of values that 8-bit pixels can take; None where a rescale or more bits leave it open."""
    if photometric == "PALETTE COLOR":
        return 0.0, 255.0
    bits = values.integer("BitsStored") or 0
    rescaled = values.has("RescaleSlope") or values.has("ModalityLUTSequence")
    if not 0 < bits <= BYTE_BITS or values.integer("PixelRepresentation") or rescaled:
        return None, None
    return 0.0, float(2**bits - 1)
