from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmwrite
from pydicom.uid import (
    MPEG4HP41,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
)

import dicom_factory as factory
from dicom_factory import dataset, headers, item, save, slice_pixels, straight, write_series
from medstrata.errors import InputError
from medstrata.images.dicom import FrameHeader, read_headers
from medstrata.images.dicom_kinds import REASONS
from medstrata.images.geometry import group_series
from medstrata.images.records import SkippedFile
from medstrata.images.sources import open_source

STORAGE = "1.2.840.10008.5.1.4.1.1."


def header(path: Path) -> FrameHeader:
    (found,) = read_headers(open_source(path.parent), path.name)
    assert isinstance(found, FrameHeader)
    return found


def skipped(path: Path) -> SkippedFile:
    (found,) = read_headers(open_source(path.parent), path.name)
    assert isinstance(found, SkippedFile)
    assert found.reason == REASONS[found.code]
    return found


def saved(folder: Path, **values: Any) -> FrameHeader:
    return header(save(dataset(slice_pixels(0), **values), folder / "image"))


# --- what a header says ---


def test_every_field_of_a_ct_slice(tmp_path: Path) -> None:
    found = saved(
        tmp_path,
        ImagePositionPatient=[-20, 30.5, 7],
        ImageOrientationPatient=list(factory.AXIAL),
        PixelSpacing=[0.7, 0.6],
        SliceThickness=5,
        SeriesDescription="THORAX LUNG 5.0 Grzegorzewska",
        BodyPartExamined="CHEST",
        Manufacturer="SIEMENS",
        ManufacturerModelName="SOMATOM Force",
        ConvolutionKernel=["Br64d", "3"],
        BurnedInAnnotation="NO",
        ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
        AcquisitionNumber=3,
        AcquisitionTime="101112.5",
        BitsStored=12,
        HighBit=11,
        RescaleSlope=1,
        RescaleIntercept=-1024,
    )
    assert (found.source.file, found.source.frame, found.frames_in_file) == ("image", 0, 1)
    assert (found.source.patient_id, found.source.series_uid) == ("planted-id", factory.uid("series"))
    assert (found.modality, found.rows, found.columns, found.channels, found.bits) == ("CT", 6, 5, 1, 12)
    assert found.plane is not None
    assert found.plane == ((-20.0, 30.5, 7.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    assert (found.spacing, found.slice_thickness) == ((0.7, 0.6), 5.0)
    assert (found.series_class, found.body_part, found.manufacturer) == ("lung", "chest", "Siemens")
    assert (found.model, found.kernel, found.burned_in) == ("somatom force", "br64d", "no")
    assert (found.photometric, found.transfer_syntax) == ("MONOCHROME2", "1.2.840.10008.1.2.1")
    assert (found.value_low, found.value_high) == (None, None)
    assert (found.contrast.acquisition_number, found.contrast.acquisition_time) == (3, "101112.5")
    assert not found.localizer


def test_mr_fields(tmp_path: Path) -> None:
    values = {"MagneticFieldStrength": 15000, "EchoTime": "4.6 ", "DiffusionBValue": 1000.0, "TriggerTime": 20}
    found = header(save(factory.mr(slice_pixels(0), **values), tmp_path / "mr"))
    assert found.field_strength == 1.5
    assert (found.contrast.echo_time, found.contrast.b_value, found.contrast.trigger_time) == (4.6, 1000.0, 20.0)


def test_words_that_are_in_no_vocabulary_stay_with_the_source(tmp_path: Path) -> None:
    values = {"Manufacturer": "Zzyzxowa Inc", "ManufacturerModelName": "Zzyzx 1", "ConvolutionKernel": ["SOFTISH", "3"]}
    found = saved(tmp_path, **values, ViewPosition="STANDING")
    assert (found.manufacturer, found.model, found.kernel) == ("", "", "")
    source = found.source
    assert (source.manufacturer, source.model, source.kernel) == ("Zzyzxowa Inc", "Zzyzx 1", "SOFTISH")
    assert (found.view, source.view) == ("", "STANDING")
    found = saved(tmp_path, Manufacturer="SIEMENS", ManufacturerModelName="Avanto", ConvolutionKernel="B30f")
    assert (found.manufacturer, found.model, found.kernel) == ("Siemens", "avanto", "b30f")
    assert (found.source.manufacturer, found.source.model, found.source.kernel) == ("", "", "")


def test_absent_fields_are_empty(tmp_path: Path) -> None:
    found = saved(tmp_path, Modality="CR")
    assert (found.plane, found.spacing, found.slice_thickness, found.field_strength) == (None,) * 4
    assert {found.series_class, found.view, found.body_part, found.manufacturer, found.model, found.kernel} == {""}


@pytest.mark.parametrize("bad", ["0\\0", "-1\\1", "0.7", "abc\\0.6", "nan\\1", ""])
def test_bad_spacing_is_absent(tmp_path: Path, bad: str) -> None:
    found = dataset(slice_pixels(0))
    found.save_as(tmp_path / "image", enforce_file_format=True)
    elements = Dataset()
    elements.add_new("PixelSpacing", "LO", bad)  # LO takes any text
    buffer = io.BytesIO()
    found.update(elements)
    found.save_as(buffer, enforce_file_format=True)
    path = tmp_path / "image"
    path.write_bytes(buffer.getvalue().replace(b"\x28\x00\x30\x00LO", b"\x28\x00\x30\x00DS"))
    assert header(path).spacing is None


def test_spacing_at_the_detector_is_taken_when_there_is_no_other(tmp_path: Path) -> None:
    assert saved(tmp_path, ImagerPixelSpacing=[0.2, 0.1]).spacing == (0.2, 0.1)
    assert saved(tmp_path, ImagerPixelSpacing=[0.2, 0.1], PixelSpacing=[0.4, 0.3]).spacing == (0.4, 0.3)


@pytest.mark.parametrize(
    ("sop_class", "values", "expected"),
    [
        ("2", {"BurnedInAnnotation": "YES"}, "yes"),
        ("7", {"BurnedInAnnotation": "NO"}, "no"),
        ("7", {}, "likely"),
        ("7.4", {}, "likely"),
        ("6.1", {"Modality": "US"}, "likely"),
        ("2", {"Modality": "OT", "ImageType": ["DERIVED", "SECONDARY"]}, "likely"),
        ("2", {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "likely"),
        ("2", {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "unknown"),
        ("77.1.4", {"Modality": "XC"}, "unknown"),
        ("12.1", {"Modality": "XA"}, "unknown"),
    ],
)
def test_burned_in(tmp_path: Path, sop_class: str, values: dict[str, Any], expected: str) -> None:
    found = dataset(slice_pixels(0), STORAGE + sop_class, **values)
    assert header(save(found, tmp_path / "image")).burned_in == expected


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (np.uint8, {}, (0.0, 255.0)),
        (np.uint8, {"BitsStored": 6, "HighBit": 5}, (0.0, 63.0)),
        (np.uint8, {"RescaleSlope": 2, "RescaleIntercept": 0}, (None, None)),
        (np.int8, {}, (None, None)),
        (np.uint16, {}, (None, None)),
    ],
)
def test_range_of_values(tmp_path: Path, kind: type, values: dict[str, Any], expected: tuple[Any, Any]) -> None:
    found = header(save(dataset(np.zeros((3, 4), kind), **values), tmp_path / "image"))
    assert (found.value_low, found.value_high) == expected


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_other_encodings_say_the_same(tmp_path: Path, syntax: str) -> None:
    values: dict[str, Any] = {
        "ImagePositionPatient": [-20, 30.5, 7],
        "ImageOrientationPatient": list(factory.AXIAL),
        "PixelSpacing": [0.7, 0.6],
        "DiffusionBValue": 800.0,
        "SOPInstanceUID": factory.uid("one"),
    }
    plain = saved(tmp_path, **values)
    found = dataset(slice_pixels(0), **values)
    found.file_meta.TransferSyntaxUID = UID(syntax)
    if syntax == ExplicitVRBigEndian:
        found.PixelData = slice_pixels(0).byteswap().tobytes()
    path = tmp_path / "other"
    dcmwrite(
        path,
        found,
        enforce_file_format=True,
        little_endian=syntax != ExplicitVRBigEndian,
        implicit_vr=syntax == ImplicitVRLittleEndian,
    )
    other = header(path)
    assert other.transfer_syntax == syntax
    same = dataclasses.replace(other.source, file="image")
    assert dataclasses.replace(other, transfer_syntax=plain.transfer_syntax, source=same) == plain


def test_patient_id_in_another_character_set(tmp_path: Path) -> None:
    found = saved(tmp_path, SpecificCharacterSet="ISO_IR 192", PatientID="Zoë-7")
    assert found.source.patient_id == "Zoë-7"


def test_data_set_without_preamble_and_meta_information(tmp_path: Path) -> None:
    write_series(tmp_path, straight(1))
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    start = content.index(b"\x08\x00\x16\x00UI")
    path.write_bytes(content[start:])
    found = header(path)
    assert (found.modality, found.rows, found.transfer_syntax) == ("CT", 6, "1.2.840.10008.1.2.1")


# --- enhanced multi-frame ---


def test_functional_groups_of_each_frame(tmp_path: Path) -> None:
    path = save(factory.enhanced_mr([5.0, -5.0], [2.3, 4.6]), tmp_path / "enhanced")
    found = read_headers(open_source(tmp_path), path.name)
    frames = [frame for frame in found if isinstance(frame, FrameHeader)]
    assert [frame.source.frame for frame in frames] == [0, 1, 2, 3]
    assert [frame.plane.position[2] for frame in frames if frame.plane] == [5.0, -5.0, 5.0, -5.0]
    assert [frame.contrast.echo_time for frame in frames] == [2.3, 2.3, 4.6, 4.6]
    assert {frame.spacing for frame in frames} == {(0.7, 0.6)}
    assert {frame.slice_thickness for frame in frames} == {9.0}


def test_time_direction_and_stack_of_frames(tmp_path: Path) -> None:
    found = factory.enhanced_mr([0.0])
    groups = found.PerFrameFunctionalGroupsSequence[0]
    groups.FrameContentSequence = item(TemporalPositionIndex=4, StackID="2", FrameAcquisitionNumber=9)
    direction = item(DiffusionGradientOrientation=[0.0, 0.0, 1.0])
    groups.MRDiffusionSequence = item(DiffusionBValue=800.0, DiffusionGradientDirectionSequence=direction)
    groups.CardiacSynchronizationSequence = item(NominalCardiacTriggerDelayTime=125.0)
    groups.MRImageFrameTypeSequence = item(FrameType=["ORIGINAL", "PRIMARY", "ADC", "NONE"])
    found.NumberOfFrames = 2
    found.PerFrameFunctionalGroupsSequence.append(Dataset())
    found.PixelData = found.PixelData * 2
    save(found, tmp_path / "enhanced")
    first, second = (frame.contrast for frame in headers(tmp_path) if isinstance(frame, FrameHeader))
    assert (first.temporal_position, first.stack, first.acquisition_number) == (4.0, "2", 9)
    assert (first.b_value, first.gradient, first.trigger_time) == (800.0, (0.0, 0.0, 1.0), 125.0)
    assert first.image_type == ("ORIGINAL", "PRIMARY", "ADC", "NONE")
    assert (second.temporal_position, second.b_value, second.gradient) == (None, None, ())


# --- what is left out ---


@pytest.mark.parametrize(
    ("number", "modality", "code"),
    [
        ("88.11", "SR", "structured_report"),
        ("88.59", "KO", "key_object"),
        ("481.2", "RTDOSE", "radiotherapy"),
        ("481.3", "RTSTRUCT", "radiotherapy"),
        ("481.5", "RTPLAN", "radiotherapy"),
        ("11.1", "PR", "presentation_state"),
        ("66", "MR", "raw_data"),
        ("66.1", "REG", "registration"),
        ("66.4", "SEG", "segmentation"),
        ("9.1.1", "ECG", "waveform"),
        ("104.1", "DOC", "document"),
        ("77.1.6", "SM", "whole_slide"),
        ("4.2", "MR", "spectroscopy"),
        ("91.1", "ANN", "annotation"),
    ],
)
def test_objects_that_are_no_images(tmp_path: Path, number: str, modality: str, code: str) -> None:
    path = save(dataset(slice_pixels(0), STORAGE + number, Modality=modality), tmp_path / "object")
    found = skipped(path)
    assert (found.code, found.modality, found.format) == (code, modality, "dicom")
    assert (found.patient_id, found.instance_uid != "") == ("planted-id", True)


def test_radiograph_of_radiotherapy_is_an_image(tmp_path: Path) -> None:
    path = save(dataset(slice_pixels(0), STORAGE + "481.1", Modality="RTIMAGE"), tmp_path / "image")
    assert header(path).modality == "RTIMAGE"


def test_modality_tells_when_there_is_no_class(tmp_path: Path) -> None:
    found = dataset(slice_pixels(0), "1.2.3", Modality="SEG")
    assert skipped(save(found, tmp_path / "object")).code == "segmentation"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"PixelData": None}, "no_pixels"),
        ({"Rows": None}, "incomplete_header"),
        ({"Columns": 0}, "incomplete_header"),
        ({"BitsAllocated": None}, "incomplete_header"),
        ({"Rows": 7}, "truncated"),
        ({"NumberOfFrames": 2}, "truncated"),
        ({"NumberOfFrames": 2_000_000_000}, "too_many_frames"),
        ({"SamplesPerPixel": 3}, "truncated"),
        ({"Rows": 60_000, "Columns": 60_000}, "too_large"),
        ({"Rows": 9_000, "Columns": 9_000, "NumberOfFrames": 5_000}, "too_large"),
    ],
)
def test_headers_that_do_not_describe_pixels(tmp_path: Path, values: dict[str, Any], code: str) -> None:
    found = dataset(slice_pixels(0), SOPInstanceUID=factory.uid("one"))
    for keyword, value in values.items():
        if value is None:
            del found[keyword]
        else:
            setattr(found, keyword, value)
    assert skipped(save(found, tmp_path / "image")).code == code


@pytest.mark.parametrize("cut", [1, 40])
def test_pixels_cut_off_are_seen_without_reading_them(tmp_path: Path, cut: int) -> None:
    path = save(dataset(slice_pixels(0)), tmp_path / "image")
    path.write_bytes(path.read_bytes()[:-cut])
    assert skipped(path).code == "truncated"


def test_header_cut_off(tmp_path: Path) -> None:
    path = save(dataset(slice_pixels(0), SeriesDescription="x" * 60), tmp_path / "image")
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"x" * 60) + 5])
    assert skipped(path).code == "truncated"


def test_nested_pixels_are_no_pixels(tmp_path: Path) -> None:
    icon = item(Rows=2, Columns=2, PixelData=b"1234")
    icon[0]["PixelData"].VR = "OB"
    found = dataset(slice_pixels(0), PixelData=None, IconImageSequence=icon, SOPInstanceUID=factory.uid("one"))
    assert skipped(save(found, tmp_path / "image")).code == "no_pixels"


def test_video(tmp_path: Path) -> None:
    found = factory.mr(slice_pixels(0))
    found.compress(RLELossless, generate_instance_uid=False)
    found.file_meta.TransferSyntaxUID = MPEG4HP41
    assert skipped(save(found, tmp_path / "video")).code == "video"


@pytest.mark.parametrize("content", [b"", b"GIF89a" + bytes(500), b"name,age\nDoe,7\n" * 50, bytes(1000)])
def test_other_files_are_not_dicom(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "Grzegorzewska.dcm"
    path.write_bytes(content)
    found = skipped(path)
    assert (found.code, found.format) == ("not_dicom", "")


def test_file_and_folder_that_are_gone(tmp_path: Path) -> None:
    path = save(dataset(slice_pixels(0)), tmp_path / "folder" / "image")
    source = open_source(path.parent)
    path.unlink()
    (found,) = read_headers(source, "image")
    assert isinstance(found, SkippedFile) and found.code == "file_gone"
    path.parent.rmdir()
    with pytest.raises(InputError):
        read_headers(source, "image")


@settings(deadline=None)
@given(cut=st.integers(0, 900), garbage=st.binary(min_size=1, max_size=40))
def test_damage_anywhere_is_a_row(tmp_path_factory: pytest.TempPathFactory, cut: int, garbage: bytes) -> None:
    buffer = io.BytesIO()
    factory.enhanced_mr([0.0, 5.0]).save_as(buffer, enforce_file_format=True)
    content = buffer.getvalue()
    path = tmp_path_factory.mktemp("damage") / "image"
    path.write_bytes(content[:cut] + garbage + content[cut + len(garbage) :])
    found = read_headers(open_source(path.parent), "image")
    frames = [frame for frame in found if isinstance(frame, FrameHeader)]
    assert found and group_series(frames) is not None
    assert all(row.reason.endswith(".") for row in found if isinstance(row, SkippedFile))


# --- privacy ---


def test_free_text_never_reaches_the_record(tmp_path: Path) -> None:
    text = "Grzegorzewska"
    elements = (
        "PatientName SeriesDescription ProtocolName StudyDescription BodyPartExamined Manufacturer InstitutionName "
        "ManufacturerModelName ConvolutionKernel ViewPosition Modality ImageType PhotometricInterpretation "
        "OperatorsName AcquisitionTime StationName"
    )
    found = dataset(slice_pixels(0), SecondaryCaptureImageStorage)
    for keyword in elements.split():
        buffer = Dataset()
        buffer.add_new(keyword, "LO", text)
        found.update(buffer)
    save(found, tmp_path / "image")
    frames = [frame for frame in headers(tmp_path) if isinstance(frame, FrameHeader)]
    (record,) = group_series(frames)
    fields = dataclasses.asdict(record)
    fields.pop("frames")
    assert text.lower() not in str(fields).lower()
