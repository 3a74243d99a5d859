"""PNG, JPEG and BMP: every planted pixel comes back, and every damaged file becomes a reason."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from medstrata.errors import FileProblem
from medstrata.images import raster
from medstrata.images.records import FrameSource, ImageRecord, Pixels, SkippedFile
from medstrata.images.sources import open_source

GREY = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30)


def header(path: Path) -> ImageRecord:
    (record,) = raster.read_headers(open_source(path), path.name)
    assert isinstance(record, ImageRecord)
    return record


def pixels(path: Path) -> Pixels:
    return raster.read_pixels(open_source(path), [FrameSource(path.name)])


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def png(path: Path, bit_depth: int, colour_type: int, raw: NDArray[np.generic], extra: bytes = b"") -> Path:
    """Write a PNG by hand (PNG 1.2): Pillow cannot write 16-bit colour."""
    rows, columns = raw.shape[:2]
    lines = b"".join(b"\0" + line.tobytes() for line in raw)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", columns, rows, bit_depth, colour_type, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    path.write_bytes(data + extra)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_8_bit_grey_and_colour(tmp_path: Path, suffix: str) -> None:
    grey = GREY.astype(np.uint8)
    path = saved(tmp_path / f"g.{suffix}", Image.fromarray(grey))
    record = header(path)
    assert (record.format, record.unit, record.rows, record.columns, record.channels) == (suffix, "image", 20, 30, 1)
    assert (record.bits, record.value_low, record.value_high, record.photometric) == (8, 0, 255, "MONOCHROME2")
    assert (record.burned_in, record.geometry, record.modality) == ("unknown", "none", "")
    assert record.frames == [FrameSource(path.name, 0)]
    result = pixels(path)
    np.testing.assert_array_equal(result.array, grey[None])
    assert result.array.dtype == np.float32
    assert (result.affine, result.spacing, result.units) == (None, None, "stored")
    assert result.decoder.startswith("pillow ")

    colour = np.stack([grey, grey // 2, 255 - grey], axis=-1)
    path = saved(tmp_path / f"c.{suffix}", Image.fromarray(colour))
    assert (header(path).channels, header(path).photometric) == (3, "RGB")
    np.testing.assert_array_equal(pixels(path).array, np.moveaxis(colour, -1, 0))


def test_16_bit_grey_keeps_its_bits(tmp_path: Path) -> None:
    path = saved(tmp_path / "g.png", Image.fromarray(GREY * 100))
    assert (header(path).bits, header(path).value_high, header(path).channels) == (16, 65535, 1)
    np.testing.assert_array_equal(pixels(path).array[0], GREY * 100)
    assert pixels(path).notes == []


def test_16_bit_colour_is_read_with_8_bits(tmp_path: Path) -> None:
    colour = np.stack([GREY * 100, GREY * 50, GREY * 9], axis=-1).astype(">u2")
    path = png(tmp_path / "c.png", 16, 2, colour)
    assert (header(path).bits, header(path).channels) == (8, 3)
    assert np.abs(pixels(path).array - np.moveaxis(colour, -1, 0) / 256).max() <= 1
    assert pixels(path).notes == ["Stored with 16 bits per channel, read with 8."]


def test_16_bit_grey_with_opacity_is_one_channel(tmp_path: Path) -> None:
    raw = np.stack([GREY * 100, np.full_like(GREY, 65535)], axis=-1).astype(">u2")
    path = png(tmp_path / "c.png", 16, 4, raw)
    assert (header(path).bits, header(path).channels) == (8, 1)
    assert pixels(path).array.shape == (1, 20, 30)
    assert np.abs(pixels(path).array[0] - GREY * 100 / 256).max() <= 1
    assert pixels(path).notes == ["Stored with 16 bits per channel, read with 8."]


def test_1_bit_becomes_0_and_255(tmp_path: Path) -> None:
    mask = (GREY % 7 == 0).astype(np.uint8)
    path = saved(tmp_path / "m.png", Image.fromarray(mask * 255).convert("1"))
    assert (header(path).bits, header(path).value_high) == (8, 255)
    np.testing.assert_array_equal(pixels(path).array[0], mask * 255)


def test_palette_and_transparency(tmp_path: Path) -> None:
    indices = (GREY % 3).astype(np.uint8)
    image = Image.fromarray(indices)
    image.putpalette([10, 20, 30, 200, 100, 50, 7, 8, 9])
    path = saved(tmp_path / "p.png", image)
    table = np.array([[10, 20, 30], [200, 100, 50], [7, 8, 9]])
    assert header(path).channels == 3
    result = pixels(path)
    np.testing.assert_array_equal(result.array, np.moveaxis(table[indices], -1, 0))
    assert result.notes == ["Converted from P to RGB."]

    colour = np.full((20, 30, 4), (200, 100, 50, 255), np.uint8)
    path = saved(tmp_path / "opaque.png", Image.fromarray(colour))
    assert pixels(path).notes == []
    colour[:10, :, 3] = 51  # one fifth
    path = saved(tmp_path / "half.png", Image.fromarray(colour))
    result = pixels(path)
    np.testing.assert_array_equal(result.array[:, 0, 0], [40, 20, 10])
    np.testing.assert_array_equal(result.array[:, 15, 0], [200, 100, 50])
    assert result.notes == ["Transparency laid over black."]

    path = saved(tmp_path / "la.png", Image.fromarray(colour[..., 2:]))
    assert header(path).channels == 1
    np.testing.assert_array_equal(pixels(path).array[0, :, 0], [10] * 10 + [50] * 10)


def test_jpeg_colour_cmyk_and_grey_stored_as_colour(tmp_path: Path) -> None:
    flat = Image.new("RGB", (32, 24), (200, 100, 50))
    path = saved(tmp_path / "c.jpg", flat, quality=100)
    assert (header(path).format, header(path).rows, header(path).columns) == ("jpeg", 24, 32)
    assert np.abs(pixels(path).array[:, 5, 5] - [200, 100, 50]).max() <= 2
    path = saved(tmp_path / "k.jpg", flat.convert("CMYK"), quality=100)
    assert header(path).channels == 3
    assert np.abs(pixels(path).array[:, 5, 5] - [200, 100, 50]).max() <= 3
    assert pixels(path).notes == ["Converted from CMYK to RGB."]
    path = saved(tmp_path / "g.jpg", Image.new("RGB", (32, 24), (90, 90, 90)), quality=100)
    assert header(path).channels == 3
    assert pixels(path).notes == ["Stored in colour but shows only grey."]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_camera_rotation_is_applied_as_pillow_does(tmp_path: Path, orientation: int, suffix: str) -> None:
    image = Image.fromarray((GREY % 251).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"r.{suffix}", image, exif=exif)
    with Image.open(path) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    result = pixels(path)
    np.testing.assert_array_equal(result.array[0], expected)
    assert (header(path).rows, header(path).columns) == expected.shape
    assert bool(result.notes) == (orientation != 1)


def test_too_large_is_told_from_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = png(tmp_path / "bomb.png", 8, 0, np.zeros((1, 1), np.uint8))
    data = bytearray(path.read_bytes())
    ihdr = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)  # 3.6 gigapixels: more than Pillow opens
    data[16:33] = ihdr + struct.pack(">I", zlib.crc32(b"IHDR" + ihdr))
    path.write_bytes(data)
    with pytest.raises(FileProblem, match="too_large"):
        raster.read_headers(open_source(path), path.name)
    monkeypatch.setattr(raster, "MAX_PIXELS", 599)
    path = saved(tmp_path / "g.png", Image.fromarray(GREY.astype(np.uint8)))
    (skipped,) = raster.read_headers(open_source(path), path.name)
    assert isinstance(skipped, SkippedFile)
    assert (skipped.code, skipped.format) == ("too_large", "png")
    with pytest.raises(FileProblem, match="too_large"):
        pixels(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    path = saved(tmp_path / f"t.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert header(path).rows == 64  # the header is whole
    with pytest.raises(FileProblem) as caught:
        pixels(path)
    assert caught.value.code == "truncated"
    assert path.name not in str(caught.value)


def test_only_a_signature(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(FileProblem, match="damaged"):
        header(path)


def test_first_image_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (10, 20)]
    path = tmp_path / "a.png"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert "first image" in header(path).geometry_note
    assert pixels(path).array.max() == 10


@given(st.data())
def test_damage_gives_a_file_problem_or_an_image_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    suffix = data.draw(st.sampled_from(["png", "jpeg", "bmp"]))
    buffer = io.BytesIO()
    Image.fromarray(np.stack([GREY % 256] * 3, -1).astype(np.uint8)).save(buffer, suffix)
    raw = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / f"x.{suffix}"
    path.write_bytes(raw[: data.draw(st.integers(8, len(raw)))])
    source = open_source(path)
    try:
        for record in raster.read_headers(source, path.name):
            if isinstance(record, ImageRecord):
                raster.read_pixels(source, record.frames)
    except FileProblem as problem:
        assert problem.sentence
