"""Reading single values of a DICOM header: fast, and a bad value is an absent one.

pydicom converts an element when it is first touched, which costs more than finding it. Here the few elements needed
are taken raw; everything unusual (other character sets, sequences) is left to pydicom.
"""

from __future__ import annotations

import logging
import math
import struct
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

PlainValue = str | tuple[float, ...]  # of a text or a binary element
PlainElements = dict[str, PlainValue]  # by keyword

_BINARY = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_PLAIN = {vr.encode(): struct.Struct("<" + letter) for vr, letter in _BINARY.items()}
_BLANK = " \0\t\r\n"

for _library in ("pydicom", "pylibjpeg", "openjpeg", "rle", "jpeg_ls"):  # their messages may quote header values
    logging.getLogger(_library).addHandler(logging.NullHandler())
    logging.getLogger(_library).propagate = False


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's warnings, which may quote header values, from leaving this block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def tags(keywords: str) -> list[BaseTag]:
    """Return the tags of DICOM keywords given in one string."""
    return [tag(keyword) for keyword in keywords.split()]


def tag(keyword: str) -> BaseTag:
    """Return the tag of a DICOM keyword; ValueError when DICOM has no such keyword."""
    number = _TAGS.get(keyword)
    if number is None:
        found = tag_for_keyword(keyword)
        if found is None:
            raise ValueError(f"DICOM has no keyword {keyword}")
        number = _TAGS[keyword] = BaseTag(found)
    return number


_TAGS: dict[str, BaseTag] = {}


class Values(ABC):
    """The values of one data set. Absent, empty and malformed values are "" or None."""

    @abstractmethod
    def texts(self, keyword: str) -> tuple[str, ...]:
        """Return all values of a text element, stripped."""

    @abstractmethod
    def numbers(self, keyword: str) -> tuple[float, ...]:
        """Return all values of a numeric element (text or binary); () when one of them is not a finite number."""

    @abstractmethod
    def items(self, keyword: str) -> list[Dataset]:
        """Return the items of a sequence, [] when it is absent or malformed."""

    @abstractmethod
    def has(self, keyword: str) -> bool:
        """Whether the element is present, with or without a value."""

    def text(self, keyword: str) -> str:
        """Return the first value of a text element, stripped, or ""."""
        return next(iter(self.texts(keyword)), "")

    def number(self, keyword: str) -> float | None:
        """Return the first value of a numeric element, or None."""
        values = self.numbers(keyword)
        return values[0] if values else None

    def integer(self, keyword: str) -> int | None:
        """Return the first value of a numeric element as an integer, or None."""
        value = self.number(keyword)
        return None if value is None else int(value)


class PlainValues(Values):
    """The values of a data set without sequences, by keyword, as ``plain_value`` returned them."""

    def __init__(self, elements: PlainElements) -> None:
        self._elements = elements

    def texts(self, keyword: str) -> tuple[str, ...]:
        """Return all values of a text element, stripped."""
        value = self._elements.get(keyword)
        return tuple([part.strip(_BLANK) for part in value.split("\\")]) if isinstance(value, str) else ()

    def text(self, keyword: str) -> str:
        """Return the first value of a text element, stripped, or ""."""
        value = self._elements.get(keyword)
        return value.split("\\", 1)[0].strip(_BLANK) if isinstance(value, str) else ""

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """Return all values of a numeric element (text or binary); () when one of them is not a finite number."""
        value = self._elements.get(keyword)
        if not isinstance(value, str):
            return () if value is None else value
        try:
            values = tuple([float(part.strip(_BLANK)) for part in value.split("\\")])
        except ValueError:
            return ()
        return values if all(map(math.isfinite, values)) else ()

    def items(self, keyword: str) -> list[Dataset]:
        """Return no items: there are no sequences here."""
        return []

    def has(self, keyword: str) -> bool:
        """Whether the element is present, with or without a value."""
        return keyword in self._elements


class DatasetValues(Values):
    """The values of a data set of pydicom."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def texts(self, keyword: str) -> tuple[str, ...]:
        """Return all values of a text element, stripped."""
        element = self._element(keyword)
        if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
            if element.value.isascii():
                return tuple(part.strip(_BLANK) for part in element.value.decode("ascii").split("\\"))
            element = self._converted(keyword)
        if element is None or element.value is None:
            return ()
        value = element.value
        parts = value if not isinstance(value, str) and hasattr(value, "__iter__") else [value]
        return tuple(str(part).strip(_BLANK) for part in parts)

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """Return all values of a numeric element (text or binary); () when one of them is not a finite number."""
        element = self._element(keyword)
        try:
            if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
                found = _unpacked(element)
                values = found if found is not None else tuple(float(text) for text in self.texts(keyword))
            else:
                values = tuple(float(text) for text in self.texts(keyword))
        except (ValueError, struct.error):
            return ()
        return values if all(math.isfinite(value) for value in values) else ()

    def items(self, keyword: str) -> list[Dataset]:
        """Return the items of a sequence, [] when it is absent or malformed."""
        element = self._converted(keyword)
        if element is None or element.VR != "SQ":
            return []
        return list(element.value or [])

    def has(self, keyword: str) -> bool:
        """Whether the element is present, with or without a value."""
        return tag(keyword) in self.dataset

    def _element(self, keyword: str) -> DataElement | RawDataElement | None:
        return self.dataset.get_item(tag(keyword))

    def _converted(self, keyword: str) -> DataElement | None:
        try:
            return self.dataset[tag(keyword)]
        except KeyError:
            return None


def plain_value(raw: bytes, vr: bytes) -> PlainValue:
    """Return the value of a little-endian element that is no sequence, numbers only if all of them are finite.

    Raises
    ------
    UnicodeDecodeError : text that is not ASCII
    """
    if vr not in _PLAIN:
        return raw.decode("ascii")
    layout = _PLAIN[vr]
    if vr == b"US" and len(raw) == layout.size:
        return layout.unpack(raw)
    count, rest = divmod(len(raw), layout.size)
    numbers: tuple[float, ...] = () if rest else struct.unpack(f"<{count}{_BINARY[vr.decode()]}", raw)
    return numbers if all(map(math.isfinite, numbers)) else ()


def _unpacked(element: RawDataElement) -> tuple[float, ...] | None:
    """Return the numbers of a binary element, None for a text element."""
    name = element.VR if element.VR not in (None, "UN") else dictionary_VR(element.tag)
    letter = _BINARY.get(str(name))
    if letter is None:
        return None
    order = "<" if element.is_little_endian else ">"
    assert element.value is not None
    count = len(element.value) // struct.calcsize(order + letter)
    return struct.unpack(f"{order}{count}{letter}", element.value)
