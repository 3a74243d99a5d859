"""The walk against pydicom: whatever the file, ``read_headers`` answers the same with the walk and without it."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import pytest
from pydicom.dataset import FileDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

import dicom_factory as factory
from medstrata.images import dicom, dicom_walk
from medstrata.images.dicom import FrameHeader, read_headers
from medstrata.images.dicom_header import Header
from medstrata.images.dicom_values import PlainValues
from medstrata.images.folder import FolderSource
from medstrata.images.records import SkippedFile

PLAIN_FILES = ("CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_RLE.dcm", "SC_rgb_small_odd.dcm")
FUZZED = 600
TOKENS = (  # what a damaged header is most easily misread by
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"SQ\0\0\xff\xff\xff\xff",
    b"UN\0\0\xff\xff\xff\xff",
    b"OB\0\0",
    b"\xfe\xff\0\xe0\xff\xff\xff\xff",
    b"\xfe\xff\x0d\xe0\0\0\0\0",
    b"\xfe\xff\xdd\xe0\0\0\0\0",
    b"\xe0\x7f\x10\0",
    b"\x02\0\x10\0UI\x02\x001.",
    b"\x08\0\x05\0CS\x0a\0ISO_IR 192",
    b"\x10\0\x20\0LO\x04\0\xc4\xb1ab",
    b"US\x02\0",
    b"DS\0\0",
)

Found = list[FrameHeader | SkippedFile]


def walked(path: Path) -> Header[PlainValues] | None:
    with path.open("rb") as file:
        return dicom_walk.walk(file.read(dicom_walk.START_BYTES), file)


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], tuple[Found, Found]]:
    """Return what is found in one file with the walk, and without it."""

    def read(path: Path) -> tuple[Found, Found]:
        source = FolderSource(path.parent)
        with_walk = read_headers(source, path.name)
        with monkeypatch.context() as patch:
            patch.setattr(dicom, "walk", lambda start, file: None)
            return with_walk, read_headers(source, path.name)

    return read


def plain(**values: Any) -> FileDataset:
    return factory.dataset(factory.slice_pixels(1), **values)


def with_sequences(undefined: bool, **values: Any) -> FileDataset:
    """Sequences that nothing is wanted from: empty, of two items, and with an item in an item."""
    inner = factory.item(ReferencedSOPInstanceUID="1.2.3", PurposeOfReferenceCodeSequence=factory.item(CodeValue="121"))
    found = plain(**values, ReferencedImageSequence=inner, RequestAttributesSequence=factory.item())
    found.ReferencedImageSequence.append(factory.item(ReferencedSOPClassUID="1.2")[0])
    block = found.private_block(0x0029, "PLANTED", create=True)
    block.add_new(0x10, "SQ", factory.item(CodeMeaning="private"))
    for element in found.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined
    return found


def variants() -> dict[str, FileDataset]:
    """Files of the factory: those that the walk reads, and those that it leaves to pydicom."""
    implicit = {"TransferSyntaxUID": ImplicitVRLittleEndian}
    position = {"ImagePositionPatient": [1.5, -2, 3], "ImageOrientationPatient": list(factory.AXIAL)}
    return {
        "plain": plain(**position, PixelSpacing=[0.5, 0.7], Manufacturer="SIEMENS", ImageType=["ORIGINAL", "PRIMARY"]),
        "implicit": plain(**position, **implicit, SeriesDescription="T2 TSE", EchoTime=99),
        "empty values": plain(ImageType="", EchoTime=None, ViewPosition="", StudyDate="", MagneticFieldStrength=""),
        "empty, implicit": plain(ImageType="", ViewPosition="", **implicit),
        "character set": plain(SpecificCharacterSet="ISO_IR 192", SeriesDescription="T1 axial"),
        "two character sets": plain(SpecificCharacterSet=["", "ISO 2022 IR 87"]),
        "other letters": plain(SpecificCharacterSet="ISO_IR 192", PatientID="Żółw", InstitutionName="Łódź"),
        "diffusion": plain(DiffusionBValue=800.0, DiffusionGradientOrientation=[0.0, 0.6, 0.8], TriggerTime="12.5"),
        "not a number": plain(DiffusionBValue=float("nan"), DiffusionGradientOrientation=[0.0, float("inf"), 1.0]),
        "defined": with_sequences(undefined=False),
        "undefined": with_sequences(undefined=True),
        "defined, implicit": with_sequences(undefined=False, **implicit),
        "undefined, implicit": with_sequences(undefined=True, **implicit),
        "long header": plain(TextValue="x" * 50_000, InstitutionName="after"),
        "longer header": plain(TextValue="x" * 2_000_000),
        "no class": plain(SOPClassUID=None),
        "table": plain(ModalityLUTSequence=factory.item(LUTDescriptor=[2, 0, 16], LUTData=b"\1\0\2\0")),
        "no pixels": plain(PixelData=None, SOPInstanceUID="1.2.3"),
        "short pixels": plain(Rows=600),
        "several frames": factory.cine(3),
        "enhanced": factory.enhanced_mr([0.0, 2.0]),
        "deflated": plain(TransferSyntaxUID=DeflatedExplicitVRLittleEndian),
        "big endian": plain(TransferSyntaxUID=ExplicitVRBigEndian),
    }


ANSWERED = {
    *("plain", "implicit", "empty values", "empty, implicit", "character set", "diffusion", "not a number", "defined"),
    *("undefined", "defined, implicit", "undefined, implicit", "long header", "short pixels", "several frames"),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("variants")
    paths = {name: folder / f"{number}.dcm" for number, name in enumerate(variants())}
    for name, found in variants().items():
        dcmwrite(paths[name], found)
    return paths


def test_files_of_the_factory(written: dict[str, Path], both: Callable[[Path], tuple[Found, Found]]) -> None:
    for name, path in written.items():
        with_walk, without = both(path)
        assert with_walk == without, name
        assert (walked(path) is not None) == (name in ANSWERED), name


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"1.5\\-2.0\\3.0 ", b"1.5\\-2.0\\x.0 "),
        (b"1.5\\-2.0\\3.0 ", b"1.5\\nan\\3.0  "),
        (b"1.5\\-2.0\\3.0 ", b"1_5\\-2.0\\3.0 "),
        (b"1.5\\-2.0\\3.0 ", b" 15\0\\2.0\\30 "),
        (b"(\0\x10\0US", b"(\0\x10\0SS"),
        (b"(\0\x10\0US", b"(\0\x10\0UN"),
        (b"(\0\x10\0US", b"(\0\x10\0zz"),
        (b"(\0\x10\0US", b"(\0\x11\0US"),  # the columns twice: the last one counts
        (b"CS\x02\0CT", b"LO\x02\0CT"),
        (b"CS\x02\0CT", b"CS\x02\0C\xfc"),
        (b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"),  # said to be implicit, and is not
        (b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1 "),
        (b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.1\0"),
        (b"\xe0\x7f\x10\0OW", b"\xe0\x7f\x10\0OB"),
        (b"\xe0\x7f\x10\0OW", b"\xe0\x7f\x10\0US"),
        (b"\xe0\x7f\x10\0OW", b"\xe1\x7f\x10\0OW"),
        (b"DICM", b"DICN"),
    ],
)
def test_one_thing_is_odd(
    old: bytes, new: bytes, written: dict[str, Path], tmp_path: Path, both: Callable[[Path], tuple[Found, Found]]
) -> None:
    content = written["plain"].read_bytes()
    assert old in content
    path = tmp_path / "file.dcm"
    path.write_bytes(content.replace(old, new, 1))
    with_walk, without = both(path)
    assert with_walk == without


@pytest.fixture(scope="module")
def real_files() -> list[Path]:
    return [path for path in (Path(pydicom.data.__file__).parent / "test_files").rglob("*") if path.is_file()]


def test_files_of_pydicom(real_files: list[Path], both: Callable[[Path], tuple[Found, Found]]) -> None:
    assert len(real_files) > 50
    for path in real_files:
        with_walk, without = both(path)
        assert with_walk == without, path.name
    named = {path.name: path for path in real_files}
    for name in PLAIN_FILES:
        assert walked(named[name]) is not None, name


def test_files_that_break_readers(data_dir: Path, tmp_path: Path, both: Callable[[Path], tuple[Found, Found]]) -> None:
    with tarfile.open(data_dir / "dicom_robustness.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    paths = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
    for path in paths:
        with_walk, without = both(path)
        assert with_walk == without, path.name
    assert len(paths) > 270 and sum(walked(path) is not None for path in paths) > 100


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """Change, insert or cut out a few bytes in the header, or end the file there."""
    header = len(content) if (end := content.find(b"\xe0\x7f\x10\0")) < 0 else end + 12
    for _ in range(random.integers(1, 4)):
        place = int(random.integers(128, header))
        match random.integers(6):
            case 0:
                piece, gone = random.bytes(1), 1
            case 1:
                piece, gone = random.bytes(int(random.integers(1, 9))), 0
            case 2:
                piece, gone = b"", int(random.integers(1, 9))
            case 3:
                piece = TOKENS[random.integers(len(TOKENS))]
                gone = len(piece) * int(random.integers(2))
            case 4:
                start = int(random.integers(128, header))
                piece, gone = content[start : start + 40], 0
            case _:
                piece, gone = b"", len(content) if random.integers(4) == 0 else 0
        content = content[:place] + piece + content[place + gone :]
    return content


def test_damaged_files(
    written: dict[str, Path], real_files: list[Path], tmp_path: Path, both: Callable[[Path], tuple[Found, Found]]
) -> None:
    random = np.random.default_rng(6)
    named = {path.name: path for path in real_files}
    whole = [written[name].read_bytes() for name in sorted(ANSWERED - {"long header"})]
    whole += [named[name].read_bytes() for name in PLAIN_FILES]
    path, answered = tmp_path / "file.dcm", 0
    for number in range(FUZZED):
        path.write_bytes(damaged(whole[number % len(whole)], random))
        with_walk, without = both(path)
        assert with_walk == without, number
        answered += walked(path) is not None
    assert FUZZED // 20 < answered < FUZZED  # enough damage that the walk does not see, and some that it does


def test_bytes_after_the_pixels_are_not_read(written: dict[str, Path]) -> None:
    content = written["plain"].read_bytes()
    file = BytesIO(content)
    assert dicom_walk.walk(file.read(dicom_walk.START_BYTES), file) is not None
    assert file.tell() == min(len(content), dicom_walk.START_BYTES)
