"""A plain DICOM header read without pydicom, many times faster; anything unusual is left to pydicom.

Plain is: file meta information, then little endian (PS3.5 section 7); wanted elements are ASCII, have their own VR and
are no sequences; every element up to the pixels is whole. Other sequences are stepped over.
"""

from __future__ import annotations

from struct import Struct, error
from typing import BinaryIO

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.uid import AllTransferSyntaxes, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from medstrata.images.dicom_frames import HEADER_TAGS
from medstrata.images.dicom_header import PIXEL_KEYWORDS, UNDEFINED_LENGTH, Header
from medstrata.images.dicom_values import PlainElements, PlainValues, plain_value, tags

START_BYTES = 2**14  # most headers are shorter
MORE_BYTES = 2**20  # how much longer one may be
MAX_DEPTH = 16  # of sequences in sequences
_OPEN = -1  # the end of what a delimiter ends

_FIRST = tuple(b"DICM\2\0" + head for head in (b"\0\0UL", b"\1\0OB", b"\2\0UI"))  # after the preamble
_ITEM, _ITEM_END, _ITEMS_END = (b"\xfe\xff" + number for number in (b"\0\xe0", b"\x0d\xe0", b"\xdd\xe0"))
_META, _DATA, _INSIDE = range(0x20000, 0x30000), range(0x30000, min(PIXEL_KEYWORDS)), range(0x30000, 0xFFFE0000)
_WANTED = HEADER_TAGS + tags("FileMetaInformationGroupLength TransferSyntaxUID SpecificCharacterSet")
_KEYWORDS = {int(tag): (keyword_for_tag(tag), dictionary_VR(tag).encode()) for tag in _WANTED}
_SHORT, _LONG = ({vr.encode() for vr in group} for group in (EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32))
_SYNTAXES = {str(uid): uid for uid in AllTransferSyntaxes if uid.is_little_endian and not uid.is_deflated}
_head, _length = Struct("<HH2sH").unpack_from, Struct("<L").unpack_from


def walk(start: bytes, file: BinaryIO) -> Header[PlainValues] | None:
    """Read a header; None where pydicom has to. ``start``: up to ``START_BYTES`` that were just read from ``file``."""
    for more in (0, MORE_BYTES):
        try:
            return _walk(start + file.read(more))
        except ValueError:  # unusual, or text that is not ASCII
            return None
        except error:  # the bytes end before the header does
            continue
    return None


def _walk(data: bytes) -> Header[PlainValues]:
    values: PlainElements = {}
    place = _elements(data, 132, False, _META, values, _OPEN, 0) if data.startswith(_FIRST, 128) else 0
    syntax = _SYNTAXES.get(str(values.get("TransferSyntaxUID")).rstrip("\0 "))
    implicit = syntax == ImplicitVRLittleEndian
    taken_for_a_vr = implicit and data[place + 4 : place + 6].isalpha()
    if syntax is None or taken_for_a_vr or values.get("FileMetaInformationGroupLength") == ():
        raise ValueError("an unusual syntax, or not the one that is stated")
    place = _elements(data, place, implicit, _DATA, values, _OPEN, 0)
    group, number, vr, _ = _head(data, place)
    keyword = PIXEL_KEYWORDS.get(group << 16 | number, "")
    encoding = str(values.get("SpecificCharacterSet", "")).rstrip()
    if not (keyword and (implicit or vr in _LONG) and values.get("SOPClassUID") and encoding in python_encoding):
        raise ValueError("no pixels, an unknown object, or several character sets")
    start = place + (8 if implicit else 12)
    length = _length(data, start - 4)[0]
    return Header(PlainValues(values), syntax, pixel_keyword=keyword, pixel_length=length, pixel_start=start)


def _elements(data: bytes, place: int, implicit: bool, span: range, values: PlainElements, end: int, depth: int) -> int:
    """Step over elements up to ``end`` or a tag out of ``span``; ``values`` takes those that are wanted."""
    while place != end:
        group, number, vr, length = _head(data, place)
        tag, start = group << 16 | number, place + 8
        if tag not in span:
            break
        if implicit or vr in _LONG:
            start += 0 if implicit else 4
            length = _length(data, start - 4)[0]
        elif vr not in _SHORT:
            raise ValueError("no VR")
        if tag in _KEYWORDS:
            keyword, own_vr = _KEYWORDS[tag]
            if own_vr == b"SQ" or not (implicit or vr == own_vr) or length == UNDEFINED_LENGTH:
                raise ValueError("not the element that it should be")
            if start + length > len(data):
                raise error
            values[keyword] = plain_value(data[start : start + length], own_vr)
        elif length == UNDEFINED_LENGTH:
            if (dictionary_has_tag(tag) and dictionary_VR(tag) != "SQ") if implicit else vr != b"SQ":
                raise ValueError("no sequence")
            start, length = _items_end(data, start, implicit, depth + 1), 0
        place = start + length
    return place


def _items_end(data: bytes, place: int, implicit: bool, depth: int) -> int:
    """Return where a sequence of undefined length ends that has its first item at ``place``."""
    inside: PlainElements = {}
    while not data.startswith(_ITEMS_END, place):
        length = _length(data, place + 4)[0]
        end = _OPEN if length == UNDEFINED_LENGTH else place + 8 + length
        if not data.startswith(_ITEM, place) or depth > MAX_DEPTH:
            raise ValueError("no item, or too deep")
        place = _elements(data, place + 8, implicit, _INSIDE, inside, end, depth)
        ended = data.startswith(_ITEM_END, place) if end == _OPEN else place == end
        if not ended or "SpecificCharacterSet" in inside:
            raise ValueError("an item that does not end, or has a character set of its own")
        place += 8 if end == _OPEN else 0
    return place + 8
