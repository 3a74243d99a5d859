"""TIFF: every planted pixel comes back; slides, stacks in one page and damage become reasons."""

from __future__ import annotations

import io
import logging
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from medstrata.errors import FileProblem
from medstrata.images import raster, tiff
from medstrata.images.records import FrameSource, ImageRecord, Pixels, SkippedFile
from medstrata.images.sources import open_source

GREY = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30)


def headers(path: Path) -> list[ImageRecord]:
    found = tiff.read_headers(open_source(path), path.name)
    records = [record for record in found if isinstance(record, ImageRecord)]
    assert len(records) == len(found), found
    return records


def skipped(path: Path) -> str:
    (found,) = tiff.read_headers(open_source(path), path.name)
    assert isinstance(found, SkippedFile)
    assert found.format == "tiff"
    return found.code


def pixels(path: Path, page: int = 0) -> Pixels:
    return tiff.read_pixels(open_source(path), [FrameSource(path.name, page)])


def written(path: Path, array: np.ndarray, **options: object) -> Path:
    tifffile.imwrite(path, array, **options)
    return path


@pytest.mark.parametrize(
    ("array", "bits", "channels", "high"),
    [
        (GREY.astype(np.uint8), 8, 1, 255),
        (GREY * 100, 16, 1, 65535),
        (GREY.astype(np.int16) - 300, 16, 1, None),
        (GREY.astype(np.float32) / 7, 32, 1, None),
        (np.stack([GREY, GREY * 2, GREY * 3], -1), 16, 3, 65535),
        (np.stack([GREY, GREY * 2, GREY * 3], -1).astype(np.uint8), 8, 3, 255),
    ],
)
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_values_come_back(
    tmp_path: Path, array: np.ndarray, bits: int, channels: int, high: int | None, byteorder: str, compression: str
) -> None:
    photometric = "rgb" if channels == 3 else "minisblack"
    path = written(tmp_path / "a.tif", array, photometric=photometric, byteorder=byteorder, compression=compression)
    (record,) = headers(path)
    assert (record.format, record.rows, record.columns, record.channels) == ("tiff", 20, 30, channels)
    assert (record.bits, record.value_high, record.value_low) == (bits, high, None if high is None else 0)
    result = pixels(path)
    expected = array[None] if channels == 1 else np.moveaxis(array, -1, 0)
    np.testing.assert_array_equal(result.array, expected.astype(np.float32))
    assert result.decoder.startswith("tifffile ")


def test_planar_colour_and_opacity(tmp_path: Path) -> None:
    planes = np.stack([GREY, GREY * 2, GREY * 3])
    path = written(tmp_path / "p.tif", planes, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(pixels(path).array, planes)
    opaque = np.full((20, 30), 255, np.uint8)
    quarter = np.dstack([np.full((20, 30, 3), (200, 100, 40), np.uint8), opaque // 5])
    path = written(tmp_path / "u.tif", quarter, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(pixels(path).array[:, 0, 0], [40, 20, 8])
    path = written(tmp_path / "a.tif", quarter, photometric="rgb", extrasamples=["assocalpha"])
    np.testing.assert_array_equal(pixels(path).array[:, 0, 0], [200, 100, 40])  # already laid over black


def test_white_is_zero_is_inverted_once(tmp_path: Path) -> None:
    path = written(tmp_path / "w.tif", GREY, photometric="miniswhite")
    assert headers(path)[0].photometric == "MONOCHROME2"
    np.testing.assert_array_equal(pixels(path).array[0], 65535 - GREY)
    assert pixels(path).notes == ["Inverted: zero was white."]


def test_1_bit(tmp_path: Path) -> None:
    mask = GREY % 7 == 0
    path = written(tmp_path / "m.tif", mask, photometric="minisblack")
    assert (headers(path)[0].bits, headers(path)[0].value_high) == (8, 255)
    np.testing.assert_array_equal(pixels(path).array[0], mask * 255)


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "packbits", "tiff_adobe_deflate"])
@pytest.mark.parametrize("packed", [False, True])
def test_compressions_and_inside_a_zip(tmp_path: Path, compression: str, packed: bool) -> None:
    grey = np.full((24, 32), 90, np.uint8)
    path = tmp_path / "c.tif"
    Image.fromarray(grey).save(path, compression=compression)
    if packed:
        with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
            archive.write(path, "c.tif")
        source = open_source(tmp_path / "in.zip")
    else:
        source = open_source(path)
    result = tiff.read_pixels(source, [FrameSource("c.tif")])
    assert np.abs(result.array - 90).max() <= (1 if compression == "jpeg" else 0)


def test_palette_and_cmyk_through_pillow(tmp_path: Path) -> None:
    indices = (GREY % 3).astype(np.uint8)
    image = Image.fromarray(indices)
    image.putpalette([10, 20, 30, 200, 100, 50, 7, 8, 9])
    image.save(tmp_path / "p.tif")
    table = np.array([[10, 20, 30], [200, 100, 50], [7, 8, 9]])
    assert headers(tmp_path / "p.tif")[0].channels == 3
    np.testing.assert_array_equal(pixels(tmp_path / "p.tif").array, np.moveaxis(table[indices], -1, 0))
    Image.new("CMYK", (8, 8), (55, 155, 205, 0)).save(tmp_path / "k.tif")
    assert headers(tmp_path / "k.tif")[0].channels == 3
    np.testing.assert_array_equal(pixels(tmp_path / "k.tif").array[:, 0, 0], [200, 100, 50])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_orientation(tmp_path: Path, orientation: int, compression: str | None) -> None:
    image = Image.fromarray((GREY % 251).astype(np.uint8))
    image.save(tmp_path / "o.tif", tiffinfo={274: orientation}, compression=compression)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "o.png", exif=exif)
    with Image.open(tmp_path / "o.png") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(pixels(tmp_path / "o.tif").array[0], expected)
    (record,) = headers(tmp_path / "o.tif")
    assert (record.rows, record.columns) == expected.shape


def test_each_page_is_an_image_and_no_stack_is_guessed(tmp_path: Path) -> None:
    stack = np.stack([GREY + 1000 * page for page in range(3)])
    path = written(tmp_path / "s.tif", stack, photometric="minisblack")
    records = headers(path)
    assert [record.frames for record in records] == [[FrameSource("s.tif", page)] for page in range(3)]
    assert {record.unit for record in records} == {"image"}
    assert "not as a stack" in records[0].geometry_note
    for page in range(3):
        np.testing.assert_array_equal(pixels(path, page).array[0], stack[page])


def test_thumbnail_of_a_small_image_is_no_image(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "t.tif") as writer:
        writer.write(GREY, metadata=None)
        writer.write(GREY[::4, ::4].copy(), subfiletype=1, metadata=None)
    (record,) = headers(tmp_path / "t.tif")
    assert (record.rows, record.columns, record.geometry_note) == (20, 30, "")


def test_files_that_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as writer:
        writer.write(np.zeros((256, 256), np.uint8), subifds=1, tile=(64, 64))
        writer.write(np.zeros((128, 128), np.uint8), subfiletype=1, tile=(64, 64))
    assert skipped(tmp_path / "pyramid.tif") == "whole_slide"
    svs = written(
        tmp_path / "a.svs", np.zeros((64, 64, 3), np.uint8), description="Aperio Image Library", metadata=None
    )
    assert skipped(svs) == "whole_slide"
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as writer:
        writer.write(GREY, metadata=None)
        writer.write(GREY.T.copy(), metadata=None)
    assert skipped(tmp_path / "mixed.tif") == "mixed_pages"
    complex_values = written(tmp_path / "complex.tif", GREY.astype(np.complex64))
    assert skipped(complex_values) == "data_type"
    five = written(tmp_path / "five.tif", np.zeros((20, 30, 5), np.uint8), photometric="minisblack", planarconfig=1)
    assert skipped(five) == "channels"
    hidden = written(tmp_path / "ij.tif", np.zeros((4, 20, 30), np.uint8), imagej=True, truncate=True)
    assert skipped(hidden) == "stack_in_page"
    hidden = written(tmp_path / "sh.tif", np.zeros((4, 20, 30), np.uint8), photometric="minisblack", truncate=True)
    assert skipped(hidden) == "stack_in_page"
    monkeypatch.setattr(raster, "MAX_PIXELS", 599)
    assert skipped(written(tmp_path / "big.tif", GREY)) == "too_large"


def test_pages_are_not_built_when_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "film.tif", np.stack([GREY] * 5), photometric="minisblack", metadata=None)
    monkeypatch.setattr(tiff, "MAX_PAGES", 5)
    assert len(headers(path)) == 5
    monkeypatch.setattr(tiff, "MAX_PAGES", 4)
    monkeypatch.delattr(tifffile.TiffPages, "__iter__")
    assert skipped(path) == "too_many_pages"


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    array = GREY.astype(np.float32)
    array[3, 3] = np.nan
    with pytest.raises(FileProblem, match="not_finite"):
        pixels(written(tmp_path / "n.tif", array))


def test_truncated(tmp_path: Path) -> None:
    for compression in (None, "zlib"):
        path = written(tmp_path / "t.tif", np.random.default_rng(0).random((64, 64)), compression=compression)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(FileProblem):
            headers(path)
            pixels(path)


def test_a_first_page_that_is_nowhere(tmp_path: Path) -> None:
    path = written(tmp_path / "n.tif", GREY)
    raw = bytearray(path.read_bytes())
    raw[4] = 9
    path.write_bytes(raw)
    for function in (headers, pixels):
        with pytest.raises(FileProblem, match="damaged"):
            function(path)


def test_4_bit_grey_through_pillow(tmp_path: Path) -> None:
    packed = bytes([0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF])  # 16 pixels 0..15, TIFF 6.0 section 4
    tags = [(256, 16), (257, 1), (258, 4), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 8)]
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path = tmp_path / "four.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 16) + packed + struct.pack("<H", 9) + fields + b"\0" * 4)
    np.testing.assert_array_equal(pixels(path).array, 17 * np.arange(16)[None, None])
    assert (headers(path)[0].bits, headers(path)[0].value_high) == (8, 255)


def test_no_file_name_reaches_a_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path / "SMITH_JOHN.tif", GREY)
    path.write_bytes(path.read_bytes()[:-300])
    with caplog.at_level(logging.DEBUG):
        try:
            headers(path)
            pixels(path)
        except FileProblem as problem:
            assert "SMITH" not in str(problem)
    assert "SMITH" not in caplog.text


@given(st.data())
def test_damage_gives_a_file_problem_or_an_image_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    buffer = io.BytesIO()
    compression = data.draw(st.sampled_from([None, "tiff_lzw", "tiff_adobe_deflate"]))
    Image.fromarray((GREY % 256).astype(np.uint8)).save(buffer, "tiff", compression=compression)
    raw = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(4, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "x.tif"
    path.write_bytes(raw[: data.draw(st.integers(16, len(raw)))])
    source = open_source(path)
    try:
        for record in tiff.read_headers(source, path.name):
            if isinstance(record, ImageRecord):
                result = tiff.read_pixels(source, record.frames)
                assert result.array.shape == (record.channels, record.rows, record.columns)
    except FileProblem as problem:
        assert problem.sentence
