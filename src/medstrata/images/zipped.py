"""A zip as INPUT. It is read in place and never unpacked to disk.

Limits against archives made to do harm: a member never yields more bytes than it declares (``zipfile`` stops there and
checks the sum), and an archive is refused before anything is read when it declares sizes that real images never have.
"""

from __future__ import annotations

import calendar
import io
import lzma
import os
import re
import stat
import struct
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from medstrata.errors import FileProblem, InputError
from medstrata.images.listing import (
    SYSTEM_FOLDERS,
    SYSTEM_REASON,
    Entry,
    Source,
    is_system_file,
    portable_name,
    problem_entry,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_RATIO = 200  # declared bytes per byte of a whole archive; images reach about 50
RATIO_MATTERS_ABOVE = 10**9  # bytes; below this an archive of any ratio is harmless
MAX_MEMBER_BYTES = 16 * 2**30  # one file inside an archive; it must fit into memory

_PROTECTED = 0x1 | 0x40 | 0x2000  # flag bits: password, strong encryption, masked directory
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error)
_UNSAFE_NAME = re.compile(r"(^|[/\\])\.\.([/\\]|$)|^[/\\]|^[A-Za-z]:|^$")


class ZipSource(Source):
    """A zip file.

    Raises
    ------
    InputError : damaged, protected by a password, too large for what it holds, or empty
    """

    kind = "zip"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        _check(path, self._opened()[0].infolist())

    def listing(self) -> list[Entry]:
        """Return all files sorted by name; of files with one name only the last can be read, as in every zip."""
        entries: dict[str, Entry] = {}
        for info in self._opened()[0].infolist():
            if not info.filename.endswith("/"):
                entry = _entry(info)
                entries[entry.name] = entry
        return sorted(entries.values(), key=lambda entry: entry.name)

    def open(self, name: str) -> BinaryIO:
        """Open one member; seeking backwards decompresses it again from its start."""
        archive, members = self._opened()
        if name not in members:
            raise FileProblem("file_gone", "This file is no longer in the zip.")
        try:
            member = archive.open(members[name])
        except _DAMAGE:
            raise _damaged_member() from None
        except (NotImplementedError, RuntimeError):
            raise FileProblem(
                "zip_method", "This file is packed in a way that is not supported here; unpack the zip."
            ) from None
        except OSError as error:
            raise self.explain(error) from None
        return io.BufferedReader(_Member(member))

    def _opened(self) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
        try:
            status = self.path.stat()
            return _open_archive(self.path, status.st_mtime_ns, status.st_size, os.getpid())
        except OSError as error:
            raise self.explain(error) from None
        except (*_DAMAGE, ValueError, NotImplementedError, OverflowError):
            raise InputError(
                f"{self.path} is a damaged or incomplete zip. Copy or download it again, then repeat the command."
            ) from None


@lru_cache(maxsize=2)
def _open_archive(
    path: Path, modified: int, size: int, process: int
) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """Open a zip once per process and state of the file; a handle shared with a parent would be sought by both."""
    archive = zipfile.ZipFile(path)
    return archive, {portable_name(info.filename): info for info in archive.infolist()}


class _Member(io.RawIOBase):
    """A member whose damage is reported as a problem of that file."""

    def __init__(self, member: Any) -> None:
        self._member = member

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        try:
            data = self._member.read(len(view))
        except _DAMAGE:
            raise _damaged_member() from None
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return int(self._member.seek(offset, whence))
        except _DAMAGE:
            raise _damaged_member() from None

    def tell(self) -> int:
        return int(self._member.tell())

    def close(self) -> None:
        if not self.closed:
            self._member.close()
        super().close()


def _damaged_member() -> FileProblem:
    return FileProblem("damaged_in_archive", "This file is damaged inside the zip.")


def _check(path: Path, members: list[zipfile.ZipInfo]) -> None:
    files = [info for info in members if not info.filename.endswith("/")]
    if not files:
        raise InputError(f"{path} holds no file. Name a zip that holds the images.")
    if any(info.flag_bits & _PROTECTED for info in files):
        raise InputError(f"{path} is protected by a password. Unpack it with its password and name the folder instead.")
    total = sum(info.file_size for info in files)
    bomb = total > RATIO_MATTERS_ABOVE and total > MAX_RATIO * path.stat().st_size
    if bomb or max(info.file_size for info in files) > MAX_MEMBER_BYTES:
        raise InputError(
            f"{path} would unpack to {total / 1e9:.0f} GB, far more than images of its size can, and is not opened. "
            "If you trust it, unpack it yourself and name the folder instead."
        )


def _entry(info: zipfile.ZipInfo) -> Entry:
    name, modified = portable_name(info.filename), _modified(info)
    if _UNSAFE_NAME.search(info.filename):
        reason = "The name of this file in the zip points outside of the zip; the file is not opened."
        return problem_entry(name, "unsafe_name", reason, info.file_size, modified)
    if stat.S_ISLNK(info.external_attr >> 16):
        return problem_entry(name, "link", "A link inside a zip is not followed.", info.file_size, modified)
    *folders, base_name = info.filename.split("/")
    if is_system_file(base_name) or not SYSTEM_FOLDERS.isdisjoint(folders):
        return problem_entry(name, "system_file", SYSTEM_REASON, info.file_size, modified)
    return Entry(name, info.file_size, modified)


def _modified(info: zipfile.ZipInfo) -> float:
    try:
        return float(calendar.timegm((*info.date_time, 0, 0, 0)))
    except ValueError:
        return 0.0  # a date that no calendar has
