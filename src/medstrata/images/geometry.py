"""From frames to images: which frames form one volume, in which order, and what is wrong with its geometry.

Frames of one series are told apart by orientation, size, pixel spacing, echo, b-value and kind (localizers), and, where
several still lie at the same place, by time, direction, type or acquisition. What cannot be told apart is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from medstrata.images import vocabulary
from medstrata.images.dicom_frames import FrameHeader, Plane
from medstrata.images.records import ImageRecord, SkippedFile
from medstrata.images.slices import (
    IN_PLANE_TOLERANCE,
    SAME_POSITION,
    heights,
    normal_of,
    same_orientation,
    series_affine,
    stack_geometry,
)

__all__ = ["group_series", "series_affine", "stack_geometry"]

SPACING_DIFFERENCE = 1e-3  # relative; pixel spacings closer than this are the same
COVERED = 0.5  # a property tells frames apart only if each of its values covers this part of the positions
SEQUENCE_NOTE = "{} frames that follow each other (time, angle or energy); they are not slices of a volume."

Group = list[FrameHeader]


def group_series(frames: Sequence[FrameHeader]) -> list[ImageRecord | SkippedFile]:
    """Return one record per volume and per single image that the frames form, and a row per duplicate file.

    The frames may belong to any number of series and stand in any order; records come in the order in which their
    first frame is given. Slices are sorted by position along the normal, never by instance number or file name.
    """
    unique, duplicates = _without_duplicates(frames)
    records = [record for group in _hard_groups(unique) for record in _records(group)]
    return [*records, *duplicates]


def _without_duplicates(frames: Sequence[FrameHeader]) -> tuple[Group, list[SkippedFile]]:
    """Drop files that hold the same instance at the same place with the same size as a file before them."""
    first_file: dict[Hashable, str] = {}
    unique: Group = []
    duplicates: dict[str, SkippedFile] = {}
    for frame in frames:
        source = frame.source
        size = (frame.frames_in_file, frame.rows, frame.columns)
        # Some anonymisers give every file one SOPInstanceUID: another patient or series is another image.
        owner = (source.patient_id, source.study_uid, source.series_uid)
        key = (source.instance_uid or source.file, owner, source.frame, frame.plane, size)
        if first_file.setdefault(key, source.file) == source.file:
            unique.append(frame)
        elif source.file not in duplicates:
            duplicates[source.file] = _duplicate(frame)
    return [frame for frame in unique if frame.source.file not in duplicates], list(duplicates.values())


def _duplicate(frame: FrameHeader) -> SkippedFile:
    source = frame.source
    return SkippedFile(
        source.file,
        "duplicate_file",
        "Another file of INPUT is the same image instance.",
        format="dicom",
        modality=frame.modality,
        transfer_syntax=frame.transfer_syntax,
        patient_id=source.patient_id,
        study_uid=source.study_uid,
        series_uid=source.series_uid,
        instance_uid=source.instance_uid,
    )


def _hard_groups(frames: Sequence[FrameHeader]) -> list[Group]:
    """Split frames by everything that must be equal within one image."""
    buckets: dict[Hashable, list[Group]] = {}
    groups: list[Group] = []
    for frame in frames:
        candidates = buckets.setdefault(_hard_key(frame), [])
        group = next((group for group in candidates if _fits(group[0], frame)), None)
        if group is None:
            group = []
            candidates.append(group)
            groups.append(group)
        group.append(frame)
    return groups


def _hard_key(frame: FrameHeader) -> Hashable:
    source = frame.source
    series = (source.patient_id, source.study_uid, source.series_uid)
    apart = source.file if frame.plane is None or not source.series_uid else ""
    size = (frame.rows, frame.columns, frame.channels)
    contrast = (_rounded(frame.contrast.echo_time), _rounded(frame.contrast.b_value))
    return (series, apart, frame.sop_class, frame.localizer, size, contrast)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _fits(first: FrameHeader, frame: FrameHeader) -> bool:
    if first.plane is None or frame.plane is None:
        return True
    return _same_spacing(first.spacing, frame.spacing) and same_orientation(first.plane, frame.plane)


def _same_spacing(one: tuple[float, float] | None, other: tuple[float, float] | None) -> bool:
    if one is None or other is None:
        return one is other
    return all(math.isclose(a, b, rel_tol=SPACING_DIFFERENCE) for a, b in zip(one, other, strict=True))


def _records(group: Group) -> list[ImageRecord]:
    """Return the records of one hard group."""
    planes = [frame.plane for frame in group if frame.plane is not None]
    one_file = len({frame.source.file for frame in group}) == 1
    if len(group) > 1 and one_file and (not planes or len(set(_places(planes))) == 1):
        return [_record(group, "image", "none", SEQUENCE_NOTE.format(len(group)))]
    if not planes:
        return [_record([frame], "image", "none", "") for frame in group]
    return [_stack_record(part) for part in _separate(group, _SOFT_KEYS)]


def _stack_record(group: Group) -> ImageRecord:
    stack = stack_geometry([frame.plane for frame in group if frame.plane is not None])
    ordered = [group[index] for index in stack.order]
    record = _record(ordered, "image" if len(group) == 1 else "series", stack.geometry, stack.note)
    record.spacing_slices = stack.spacing
    return record


def _record(frames: Group, unit: str, geometry: str, note: str) -> ImageRecord:
    first = frames[0]
    return ImageRecord(
        unit=unit,
        format="dicom",
        frames=[frame.source for frame in frames],
        rows=first.rows,
        columns=first.columns,
        slices=len(frames),
        channels=first.channels,
        bits=first.bits,
        modality=first.modality,
        body_part=first.body_part,
        series_class="localizer" if first.localizer else first.series_class,
        view=first.view,
        manufacturer=first.manufacturer,
        model=first.model,
        kernel=first.kernel,
        field_strength=first.field_strength,
        slice_thickness=first.slice_thickness,
        spacing_rows=first.spacing[0] if first.spacing else None,
        spacing_columns=first.spacing[1] if first.spacing else None,
        orientation="" if first.plane is None else vocabulary.orientation_name(normal_of(first.plane).tolist()),
        geometry=geometry,
        geometry_note=note,
        photometric=first.photometric,
        transfer_syntax=first.transfer_syntax,
        burned_in=_worst([frame.burned_in for frame in frames]),
        value_low=first.value_low,
        value_high=first.value_high,
    )


def _worst(burned_in: Sequence[str]) -> str:
    return next((state for state in ("yes", "likely", "unknown") if state in burned_in), "no")


# --- frames at the same place ---


def _places(planes: Sequence[Plane]) -> list[int]:
    """Return for every plane the number of its place along the normal, counted from 0."""
    along = heights(planes)
    order = np.argsort(along, kind="stable")
    number = np.concatenate([[0], np.cumsum(np.diff(along[order]) > SAME_POSITION)])
    places = np.empty(len(planes), int)
    places[order] = number
    return [int(place) for place in places]


def _group_places(group: Group) -> list[int]:
    return _places([frame.plane for frame in group if frame.plane is not None])


def _in_plane(frame: FrameHeader) -> Hashable:
    """Return where the frame starts within its plane, in steps of the tolerance: stations of a composed scan differ."""
    assert frame.plane is not None
    position = np.asarray(frame.plane.position)
    return tuple(
        round(float(position @ np.asarray(axis)) / (20 * IN_PLANE_TOLERANCE))
        for axis in (frame.plane.row, frame.plane.column)
    )


_SOFT_KEYS: tuple[Callable[[FrameHeader], Hashable], ...] = (
    lambda frame: frame.source.file if frame.frames_in_file > 1 else "",
    lambda frame: frame.contrast.stack,
    lambda frame: frame.contrast.temporal_position,
    lambda frame: frame.contrast.image_type,
    lambda frame: frame.contrast.gradient,
    _in_plane,
    lambda frame: frame.contrast.acquisition_number,
)


def _separate(group: Group, keys: Sequence[Callable[[FrameHeader], Hashable]]) -> list[Group]:
    """Split a group in which places repeat by the properties that explain the repeats."""
    places = _group_places(group)
    if len(set(places)) == len(places):
        return [group]
    if not keys:
        return _by_time(group, places)
    parts: dict[Hashable, Group] = {}
    for frame in group:
        parts.setdefault(keys[0](frame), []).append(frame)
    needed = COVERED * len(set(places))
    if len(parts) > 1 and all(len(set(_group_places(part))) >= needed for part in parts.values()):
        return [final for part in parts.values() for final in _separate(part, keys[1:])]
    return _separate(group, keys[1:])


def _by_time(group: Group, places: Sequence[int]) -> list[Group]:
    """Split into time points by rank of time within each place, if every place has the same number of distinct times.

    Ranks, not values: in gated scans the delays of one phase differ a little from slice to slice.
    """
    at_place: dict[int, Group] = {}
    for frame, place in zip(group, places, strict=True):
        at_place.setdefault(place, []).append(frame)
    counts = {len(frames) for frames in at_place.values()}
    if len(counts) > 1:
        return [group]
    for time in (_trigger_time, _acquisition_time):
        if all(len({time(frame) for frame in frames}) == len(frames) for frames in at_place.values()):
            ranked = [sorted(frames, key=time) for frames in at_place.values()]
            return [list(point) for point in zip(*ranked, strict=True)]
    return [group]


def _trigger_time(frame: FrameHeader) -> float:
    return -1.0 if frame.contrast.trigger_time is None else frame.contrast.trigger_time


def _acquisition_time(frame: FrameHeader) -> str:
    return frame.contrast.acquisition_time
