from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    ParametricMapStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

import dicom_factory as factory
from dicom_factory import dataset, item, save, slice_pixels, straight, write_series
from medstrata.errors import FileProblem, InputError
from medstrata.images import dicom, raster
from medstrata.images.dicom_pixels import INVERTED, NOT_INVERTED, NOT_RESCALED, PADDED, read_pixels
from medstrata.images.records import FrameSource, Pixels
from medstrata.images.sources import open_source

GREY = slice_pixels(2)


def read(path: Path, numbers: Sequence[int] = (0,), slices: Sequence[int] | None = None) -> Pixels:
    return read_pixels(open_source(path.parent), [FrameSource(path.name, number) for number in numbers], slices)


def saved(folder: Path, pixels: NDArray[Any] = GREY, **values: Any) -> Pixels:
    return read(save(dataset(pixels, **values), folder / "image"))


# --- what the values mean ---


def test_ct_is_in_hounsfield_units(tmp_path: Path) -> None:
    found = saved(tmp_path, RescaleSlope=2, RescaleIntercept=-1024.5, RescaleType="HU")
    assert found.array.dtype == np.float32 and found.units == "HU" and found.notes == []
    assert np.array_equal(found.array[0], 2.0 * GREY - 1024.5)


def test_ct_without_rescale_is_not_in_hounsfield_units(tmp_path: Path) -> None:
    found = saved(tmp_path)
    assert (found.units, found.notes) == ("stored", [NOT_RESCALED])
    assert np.array_equal(found.array[0], GREY)


def test_ct_with_another_rescale_type_is_not_in_hounsfield_units(tmp_path: Path) -> None:
    assert saved(tmp_path, RescaleSlope=1, RescaleIntercept=0, RescaleType="ED").units == "rescaled"


def test_slope_of_zero_is_no_rescale(tmp_path: Path) -> None:
    found = saved(tmp_path, RescaleSlope=0, RescaleIntercept=5)
    assert found.units == "stored" and np.array_equal(found.array[0], GREY)


def test_every_slice_has_its_own_slope(tmp_path: Path) -> None:
    for number, position in enumerate(straight(4)):
        write_series(tmp_path, [position], [number], Modality="PT", RescaleSlope=0.5 + number, RescaleIntercept=0)
    record = factory.records(tmp_path)[0]
    found = read_pixels(open_source(tmp_path), record.frames)
    expected = np.stack([slice_pixels(0) * (0.5 + number) for number in range(4)])
    assert found.units == "rescaled" and np.array_equal(found.array[0], expected.astype(np.float32))


def test_slices_with_and_without_rescale_are_not_mixed(tmp_path: Path) -> None:
    write_series(tmp_path, straight(2))
    write_series(tmp_path, [(-20.0, 30.0, -5.0)], [9], RescaleSlope=None, RescaleIntercept=None)
    record = factory.records(tmp_path)[0]
    with pytest.raises(FileProblem, match="frames_differ"):
        read_pixels(open_source(tmp_path), record.frames)


def test_modality_lookup_table(tmp_path: Path) -> None:
    table = item(LUTDescriptor=[4, 10, 16], ModalityLUTType="US")
    table[0].add_new("LUTData", "US", [7, 100, 3, 60])
    pixels = np.array([[9, 10, 11], [12, 13, 14]], np.uint16)
    found = saved(tmp_path, pixels, Modality="CR", ModalityLUTSequence=table)
    assert found.array[0].tolist() == [[7, 7, 100], [3, 60, 60]] and found.units == "rescaled"


def test_float_pixels_and_what_is_not_finite(tmp_path: Path) -> None:
    pixels = np.array([[0.5, -2.25], [np.nan, np.inf]], np.float32)
    found = dataset(
        pixels, ParametricMapStorage, Modality="OT", PixelRepresentation=None, BitsStored=None, HighBit=None
    )
    del found.PixelData
    found.FloatPixelData = pixels.tobytes()
    result = read(save(found, tmp_path / "map"))
    assert result.array[0].tolist() == [[0.5, -2.25], [-2.25, -2.25]] and result.notes == [PADDED]


# --- MONOCHROME1 ---


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16])
def test_monochrome1_is_inverted_once(tmp_path: Path, kind: type) -> None:
    ends = np.iinfo(kind)
    pixels: NDArray[Any] = np.array([[ends.min, 3, 100], [7, 8, ends.max]], kind)
    found = saved(tmp_path, pixels, Modality="DX", PhotometricInterpretation="MONOCHROME1")
    assert found.array[0].tolist() == (int(ends.min) + int(ends.max) - pixels.astype(np.int64)).tolist()
    assert found.notes == [INVERTED]


def test_monochrome1_uses_bits_stored_and_the_rescale(tmp_path: Path) -> None:
    pixels = np.array([[0, 4095]], np.uint16)
    values = {"BitsStored": 12, "HighBit": 11, "RescaleSlope": 2, "RescaleIntercept": 10}
    found = saved(tmp_path, pixels, Modality="CR", PhotometricInterpretation="MONOCHROME1", **values)
    assert found.array[0].tolist() == [[8200, 10]]


def test_measurements_are_never_inverted(tmp_path: Path) -> None:
    found = saved(tmp_path, RescaleSlope=1, RescaleIntercept=-1024, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(found.array[0], GREY - 1024.0) and found.notes == [NOT_INVERTED]


def test_window_is_not_applied(tmp_path: Path) -> None:
    found = saved(tmp_path, RescaleSlope=1, RescaleIntercept=0, WindowCenter=0, WindowWidth=2)
    assert np.array_equal(found.array[0], GREY)


# --- padding ---


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"PixelPaddingValue": -2000}, [[5, 5, 7], [5, 9, 11]]),
        ({"PixelPaddingValue": 63536}, [[5, 5, 7], [5, 9, 11]]),  # -2000 written unsigned
        ({"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": 5}, [[7, 7, 7], [7, 9, 11]]),
        ({}, [[-2000, 5, 7], [-2000, 9, 11]]),
    ],
)
def test_padding_becomes_the_lowest_valid_value(
    tmp_path: Path, values: dict[str, int], expected: list[list[int]]
) -> None:
    pixels = np.array([[-2000, 5, 7], [-2000, 9, 11]], np.int16)
    found = dataset(pixels, RescaleSlope=1, RescaleIntercept=0)
    for keyword, value in values.items():
        found.add_new(keyword, "US" if value > 2**15 else "SS", value)
    result = read(save(found, tmp_path / "padded"))
    assert result.array[0].tolist() == expected
    assert result.notes == ([PADDED] if values else [])


def test_padding_of_an_inverted_image_is_dark(tmp_path: Path) -> None:
    pixels = np.array([[0, 200, 255]], np.uint8)
    values = {"Modality": "DX", "PhotometricInterpretation": "MONOCHROME1"}
    found = dataset(pixels, **values)
    found.add_new("PixelPaddingValue", "US", 0)
    assert read(save(found, tmp_path / "padded")).array[0].tolist() == [[0, 55, 0]]


# --- colour ---


def colour(photometric: str, array: NDArray[Any], **values: Any) -> Any:
    found = dataset(array[..., 0], SecondaryCaptureImageStorage, Modality="OT", **values)
    found.SamplesPerPixel, found.PhotometricInterpretation = 3, photometric
    planar = values.get("PlanarConfiguration", 0)
    found.PlanarConfiguration = planar
    found.PixelData = (np.moveaxis(array, -1, 0) if planar else array).tobytes()
    return found


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_is_three_channels_for_both_planar_configurations(tmp_path: Path, planar: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    found = read(save(colour("RGB", array, PlanarConfiguration=planar), tmp_path / "rgb"))
    assert found.array.shape == (3, 4, 6) and np.array_equal(found.array, np.moveaxis(array, -1, 0))


def test_ybr_becomes_rgb(tmp_path: Path) -> None:
    array = np.array([[[76, 85, 255], [150, 44, 21]], [[29, 255, 107], [128, 128, 128]]], np.uint8)
    found = read(save(colour("YBR_FULL", array), tmp_path / "ybr"))
    red, green, blue, grey = np.moveaxis(found.array, 0, -1).reshape(4, 3)
    for colours, expected in ((red, (255, 0, 0)), (green, (0, 255, 0)), (blue, (0, 0, 255)), (grey, (128, 128, 128))):
        assert np.abs(colours - expected).max() <= 2


def test_palette_is_applied_and_brought_to_bytes(tmp_path: Path) -> None:
    pixels = np.array([[0, 1], [2, 1]], np.uint8)
    found = dataset(pixels, SecondaryCaptureImageStorage, PhotometricInterpretation="PALETTE COLOR")
    for name, entries in (("Red", [0, 65535, 257]), ("Green", [1 * 257, 2 * 257, 3 * 257]), ("Blue", [0, 0, 65535])):
        setattr(found, f"{name}PaletteColorLookupTableDescriptor", [3, 0, 16])
        setattr(found, f"{name}PaletteColorLookupTableData", np.array(entries, "<u2").tobytes())
    result = read(save(found, tmp_path / "palette"))
    assert result.array.tolist() == [[[0, 255], [1, 255]], [[1, 2], [3, 2]], [[0, 0], [255, 0]]]


# --- stacks and slices ---


def test_only_the_slices_asked_for_are_read(tmp_path: Path) -> None:
    paths = write_series(tmp_path, straight(6))
    frames = factory.records(tmp_path)[0].frames
    source = open_source(tmp_path)
    whole = read_pixels(source, frames)
    paths[1].write_bytes(b"broken")
    some = read_pixels(source, frames, [4, 2])
    assert whole.array.shape == (1, 6, 6, 5) and some.array.shape == (1, 2, 6, 5)
    assert np.array_equal(some.array, whole.array[:, [4, 2]])
    assert some.affine is not None and whole.affine is not None and np.allclose(some.affine, whole.affine)
    assert some.spacing == whole.spacing == (2.5, 0.7, 0.6)


def test_a_slice_in_the_wrong_place_has_no_affine(tmp_path: Path) -> None:
    positions = straight(7)
    del positions[2]
    write_series(tmp_path, positions)
    frames = factory.records(tmp_path)[0].frames
    assert read_pixels(open_source(tmp_path), frames, [2]).affine is None


def test_single_slice_has_two_axes_and_a_plane(tmp_path: Path) -> None:
    write_series(tmp_path, [(-20.0, 30.0, 7.0)])
    found = read_pixels(open_source(tmp_path), factory.records(tmp_path)[0].frames)
    assert found.array.shape == (1, 6, 5) and found.spacing == (0.7, 0.6)
    assert found.affine is not None
    assert np.allclose(found.affine, np.array([[0, 0, -0.6, 20], [0, -0.7, 0, -30], [1, 0, 0, 7], [0, 0, 0, 1]]))


def test_enhanced_frames_are_rescaled_each_by_its_own_group(tmp_path: Path) -> None:
    path = save(factory.enhanced_mr([5.0, -5.0, 0.0]), tmp_path / "enhanced")
    record = factory.records(tmp_path)[0]
    found = read_pixels(open_source(tmp_path), record.frames)
    expected = [(number + 1.0) * slice_pixels(number) - number for number in (1, 2, 0)]
    assert np.array_equal(found.array[0], np.stack(expected)) and found.units == "rescaled"
    assert found.affine is not None and np.allclose(found.affine[:3, 3], [20, -30, -5]) and found.affine[2, 0] == 5.0
    assert np.array_equal(read(path, [1, 2, 0], [1]).array[0, 0], expected[1])


def test_central_frame_of_a_loop(tmp_path: Path) -> None:
    path = save(factory.cine(7), tmp_path / "cine")
    found = read(path, range(7), [3])
    assert found.array.shape == (1, 1, 6, 5) and np.array_equal(found.array[0, 0], slice_pixels(3))
    assert found.affine is None and found.spacing is None


@given(pixels=arrays(st.sampled_from([np.int16, np.uint16, np.uint8]), (3, 4)))
def test_any_stored_value_comes_back(tmp_path_factory: pytest.TempPathFactory, pixels: NDArray[Any]) -> None:
    path = save(dataset(pixels, Modality="MR"), tmp_path_factory.mktemp("any") / "image")
    assert np.array_equal(read(path).array[0], pixels)


# --- transfer syntaxes ---


@pytest.mark.parametrize(
    ("syntax", "decoder"),
    [
        (RLELossless, "pylibjpeg-rle"),
        (JPEG2000Lossless, "pylibjpeg-openjpeg"),
        (JPEGLSLossless, "pyjpegls"),
        (ImplicitVRLittleEndian, "pydicom"),
        (DeflatedExplicitVRLittleEndian, "pydicom"),
    ],
)
@pytest.mark.parametrize("frames", [1, 3])
def test_lossless_syntaxes_give_the_same_pixels(tmp_path: Path, syntax: str, decoder: str, frames: int) -> None:
    shape = (40, 36)
    found = factory.cine(frames, shape) if frames > 1 else factory.mr(slice_pixels(0, shape))
    if syntax in (RLELossless, JPEG2000Lossless, JPEGLSLossless):
        found.compress(syntax, generate_instance_uid=False)
    else:
        found.file_meta.TransferSyntaxUID = UID(syntax)
    path = save(found, tmp_path / "image")
    result = read(path, range(frames), [frames - 1])
    assert np.array_equal(result.array.reshape(shape), slice_pixels(frames - 1, shape))
    assert result.decoder.startswith(decoder + " ") and result.decoder[-1].isdigit()


def test_files_inside_a_zip(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "files", straight(3))
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in paths:
            archive.write(path, path.name)
    frames = factory.records(packed)[0].frames
    unpacked = factory.records(tmp_path / "files")[0].frames
    found = read_pixels(open_source(packed), frames)
    assert np.array_equal(found.array, read_pixels(open_source(tmp_path / "files"), unpacked).array)


# --- damage ---


def problem(path: Path, numbers: Sequence[int] = (0,)) -> FileProblem:
    with pytest.raises(FileProblem) as caught:
        read(path, numbers)
    assert factory.NAME not in str(caught.value) and path.name not in str(caught.value)
    return caught.value


def test_truncated_pixels(tmp_path: Path) -> None:
    path = save(dataset(GREY), tmp_path / "Grzegorzewska")
    path.write_bytes(path.read_bytes()[:-20])
    assert problem(path).code == "truncated"


def test_frame_that_is_not_there(tmp_path: Path) -> None:
    assert problem(save(factory.cine(3), tmp_path / "Grzegorzewska"), [3]).code == "truncated"


def test_damaged_compressed_pixels_name_the_syntax_and_the_decoders(tmp_path: Path) -> None:
    found = factory.mr(slice_pixels(0))
    found.compress(RLELossless, generate_instance_uid=False)
    path = save(found, tmp_path / "Grzegorzewska")
    content = path.read_bytes()
    start = content.rindex(b"\xfe\xff\x00\xe0") + 8
    path.write_bytes(content[:start] + b"\xff" * 64 + content[start + 64 :])
    caught = problem(path)
    assert caught.code == "decode_failed" and "RLE Lossless" in caught.sentence and "pylibjpeg-rle" in caught.sentence


def test_decoders_log_nothing_to_the_application(tmp_path: Path) -> None:
    found = factory.mr(slice_pixels(0, (40, 36)))
    found.compress(JPEG2000Lossless, generate_instance_uid=False)
    path = save(found, tmp_path / "Grzegorzewska")
    path.write_bytes(path.read_bytes()[:-200] + bytes(200))
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    logging.getLogger().addHandler(handler)
    try:
        assert problem(path).code == "decode_failed"
    finally:
        logging.getLogger().removeHandler(handler)
    assert lines.getvalue() == ""


def test_unknown_syntax(tmp_path: Path) -> None:
    found = factory.mr(slice_pixels(0))
    found.compress(RLELossless, generate_instance_uid=False)
    path = save(found, tmp_path / "Grzegorzewska")
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.9\0"))
    assert problem(path).code == "unsupported_syntax"


def test_file_and_folder_that_are_gone(tmp_path: Path) -> None:
    path = save(dataset(GREY), tmp_path / "folder" / "Grzegorzewska")
    source = open_source(path.parent)
    path.unlink()
    with pytest.raises(FileProblem, match="file_gone"):
        read_pixels(source, [FrameSource(path.name)])
    path.parent.rmdir()
    with pytest.raises(InputError, match="no longer reachable"):
        read_pixels(source, [FrameSource(path.name)])


@given(cut=st.integers(0, 900), garbage=st.binary(max_size=30))
def test_damage_anywhere_is_a_file_problem(tmp_path_factory: pytest.TempPathFactory, cut: int, garbage: bytes) -> None:
    buffer = io.BytesIO()
    dataset(GREY, RescaleSlope=1, RescaleIntercept=0).save_as(buffer, enforce_file_format=True)
    content = buffer.getvalue()
    path = tmp_path_factory.mktemp("damage") / "image"
    path.write_bytes(content[:cut] + garbage + content[cut + len(garbage) :])
    try:
        assert read(path).array.dtype == np.float32
    except FileProblem as caught:
        assert caught.code and caught.sentence.endswith(".")


def test_absurd_sizes_are_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = factory.cine(3, BitsAllocated=16)
    found.compress(RLELossless, generate_instance_uid=False)
    save(found, tmp_path / "image")
    source, frames = open_source(tmp_path), [FrameSource("image", number) for number in range(3)]
    frame = found.Rows * found.Columns
    monkeypatch.setattr(raster, "MAX_PIXELS", frame)
    monkeypatch.setattr(dicom, "MAX_BYTES", 2 * frame * 2)  # two frames of 16 bits
    assert read_pixels(source, frames, [0, 2]).array.shape[1] == 2
    with pytest.raises(FileProblem, match="too_large"):
        read_pixels(source, frames)
    monkeypatch.setattr(raster, "MAX_PIXELS", frame - 1)
    with pytest.raises(FileProblem, match="too_large"):
        read_pixels(source, frames, [0])
