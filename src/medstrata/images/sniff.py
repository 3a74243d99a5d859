"""What kind of file is this? Told from its first bytes, never from its suffix."""

from __future__ import annotations

import zlib

FIRST_BYTES = 4096  # enough for every signature below, also for a NIfTI header inside gzip

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),  # BigTIFF
    (b"MM\x00+", "tiff"),
    (b"\x93NUMPY", "npy"),
    (b"7z\xbc\xaf\x27\x1c", "archive"),
    (b"Rar!\x1a\x07", "archive"),
    (b"\xfd7zXZ\x00", "archive"),
    (b"BZh", "archive"),
    (b"\x28\xb5\x2f\xfd", "archive"),  # zstandard
)
_NIFTI_MAGIC = {348: (344, (b"n+1\x00", b"ni1\x00")), 540: (4, (b"n+2\x00\r\n\x1a\n", b"ni2\x00\r\n\x1a\n"))}
_BMP_HEADER_SIZES = tuple(bytes([size, 0, 0, 0]) for size in (12, 40, 52, 56, 108, 124))
_TAR_MAGIC_OFFSET = 257
_ZIP_NAME_LENGTH, _ZIP_NAME = 26, 30  # offsets in the local header of a zip's first member
_BARE_DICOM_GROUPS = (0x0002, 0x0008)  # groups that a DICOM data set without preamble starts with
_MAX_FIRST_ELEMENT = 4096  # bytes; the first elements of a data set are short


def sniff(first_bytes: bytes) -> str:
    """Return the format of a file from its first ``FIRST_BYTES`` bytes.

    "dicom", "nifti" (also inside gzip), "png", "jpeg", "bmp", "tiff", "npy", "npz"; "zip" and "archive" for what must
    be unpacked first; "" for anything else.
    """
    if first_bytes[128:132] == b"DICM":
        return "dicom"
    for signature, name in _SIGNATURES:
        if first_bytes.startswith(signature):
            return name
    if first_bytes.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return "npz" if _first_zip_member(first_bytes).endswith(b".npy") else "zip"
    if first_bytes.startswith(b"BM") and first_bytes[14:18] in _BMP_HEADER_SIZES:
        return "bmp"
    if first_bytes.startswith(b"\x1f\x8b"):
        return "nifti" if _is_nifti(_gunzip_start(first_bytes)) else "archive"
    if _is_nifti(first_bytes):
        return "nifti"
    if first_bytes[_TAR_MAGIC_OFFSET : _TAR_MAGIC_OFFSET + 5] == b"ustar":
        return "archive"
    return "dicom" if _is_bare_dicom(first_bytes) else ""


def _first_zip_member(start: bytes) -> bytes:
    length = int.from_bytes(start[_ZIP_NAME_LENGTH : _ZIP_NAME_LENGTH + 2], "little")
    return start[_ZIP_NAME : _ZIP_NAME + length]


def _gunzip_start(start: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(start, FIRST_BYTES)
    except zlib.error:
        return b""


def _is_nifti(start: bytes) -> bool:
    for order in ("little", "big"):
        size = int.from_bytes(start[:4], order)
        if size in _NIFTI_MAGIC:
            offset, magics = _NIFTI_MAGIC[size]
            if start[offset:].startswith(magics):
                return True
    return False


def _is_bare_dicom(start: bytes) -> bool:
    """Whether ``start`` looks like a DICOM data set without the 128-byte preamble, explicit or implicit, any order."""
    if len(start) < 16:
        return False
    for order in ("little", "big"):
        group = int.from_bytes(start[0:2], order)
        element = int.from_bytes(start[2:4], order)
        if group not in _BARE_DICOM_GROUPS or element > 0x0100:
            continue
        if start[4:6] in (b"UL", b"OB", b"CS", b"DA", b"TM", b"UI", b"SH", b"LO", b"DT"):
            return True
        length = int.from_bytes(start[4:8], order)
        if 0 < length <= _MAX_FIRST_ELEMENT and length % 2 == 0 and order == "little":
            return start[8 + length : 10 + length] in (b"\x08\x00", b"\x10\x00", b"\x02\x00")
    return False
