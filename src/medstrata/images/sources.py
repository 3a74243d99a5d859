"""INPUT as a set of named files: a folder, a zip (never unpacked to disk) or one file.

A zip that could do harm (bomb, password, damage) is refused as a whole; one bad file inside INPUT becomes an entry with
its problem.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from medstrata.errors import InputError
from medstrata.images.folder import FolderSource
from medstrata.images.listing import Entry, Source, native_name, portable_name
from medstrata.images.sniff import FIRST_BYTES, sniff
from medstrata.images.zipped import ZipSource

__all__ = ["Entry", "Source", "native_name", "open_source", "portable_name"]


class FileSource(Source):
    """One file."""

    kind = "file"

    def listing(self) -> list[Entry]:
        """Return the one file."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise self.explain(error) from None
        return [Entry(portable_name(self.path.name), status.st_size, status.st_mtime)]

    def open(self, name: str) -> BinaryIO:
        """Open the file for reading."""
        try:
            return open(self.path, "rb")
        except OSError as error:
            raise self.explain(error) from None

    def local_path(self, name: str) -> Path:
        """Return the file itself."""
        return self.path


def open_source(path: Path | str) -> Source:
    """Return INPUT as a source: a folder, a zip or one file (also .npz, .npy).

    Raises
    ------
    InputError : missing, unreadable, empty, protected by a password, damaged, unsafe, or an archive to unpack first
    """
    path = Path(os.path.abspath(path))
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            with os.scandir(path) as found:
                if next(found, None) is None:
                    raise InputError(f"{path} is empty. Name the folder that holds the images.")
            return FolderSource(path)
        if not stat.S_ISREG(mode):
            raise InputError(f"{path} is neither a folder nor a file. Name a folder, a zip or a file of images.")
        with open(path, "rb") as file:
            start = file.read(FIRST_BYTES)
    except OSError as error:
        raise _cannot_open(path, error) from None
    return _file_or_zip(path, start)


def _file_or_zip(path: Path, start: bytes) -> Source:
    if not start:
        raise InputError(f"{path} is an empty file. Name a folder, a zip or a file of images.")
    kind = sniff(start)
    if kind == "zip":
        return ZipSource(path)
    if kind == "archive":
        raise InputError(f"{path} is an archive that is not read directly. Unpack it first ({_unpack(path.name)}).")
    return FileSource(path)


def _unpack(name: str) -> str:
    lower = name.lower()
    if lower.endswith(".7z"):
        return "7z x FILE"
    if lower.endswith(".rar"):
        return "unrar x FILE"
    if ".tar" in lower or lower.endswith(".tgz"):
        return "tar -xf FILE"
    return "gunzip FILE, or tar -xf FILE" if lower.endswith(".gz") else "tar -xf FILE, or the program that made it"


def _cannot_open(path: Path, error: OSError) -> InputError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return InputError(f"{path} does not exist. Check the spelling of INPUT and that its drive is connected.")
    if isinstance(error, PermissionError):
        return InputError(f"{path} may not be read by the current user. Ask its owner for read permission.")
    return InputError(f"{path} cannot be opened ({error.strerror}). Check the path and its drive.")
