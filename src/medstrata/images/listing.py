"""What every kind of INPUT offers: a list of named files that can be opened.

Names are portable: relative to INPUT, "/" between folders, valid UTF-8, no control characters.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from medstrata.errors import FileProblem, InputError, MedstrataError
from medstrata.images.records import SkippedFile

SYSTEM_FILES = frozenset({".DS_Store", "Thumbs.db", "ehthumbs.db", "desktop.ini", ".directory"})
SYSTEM_FOLDERS = frozenset({"__MACOSX", ".git", ".Trashes", ".Spotlight-V100", "$RECYCLE.BIN", "@eaDir", "lost+found"})

SYSTEM_REASON = "A file that an operating system leaves beside others; not an image."

_ESCAPED = re.compile("[\x00-\x1f%\x7f\udc80-\udcff]")
_ESCAPE = re.compile("%([0-9A-F]{2})")


def portable_name(os_name: str) -> str:
    """Return ``os_name`` (as ``os.fsdecode`` gives it) as text that is valid UTF-8 without control characters.

    Bytes that are no UTF-8, control characters and "%" itself are written "%XX". ``native_name`` undoes it.
    """
    return _ESCAPED.sub(lambda match: f"%{ord(match[0]) & 0xFF:02X}", os_name)


def native_name(portable: str) -> str:
    """Return the operating system's name of a portable name."""
    return _ESCAPE.sub(lambda match: _unescape(int(match[1], 16)), portable)


def _unescape(byte: int) -> str:
    return chr(byte) if byte < 0x80 else chr(0xDC00 + byte)


def is_system_file(base_name: str) -> bool:
    """Whether a file of this name (without folders) is left by an operating system: also macOS's "._name" files."""
    return base_name in SYSTEM_FILES or base_name.startswith("._")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of INPUT. ``modified`` is seconds since 1970; ``problem`` says why it must not be opened."""

    name: str
    size: int
    modified: float
    problem: SkippedFile | None = None

    @property
    def signature(self) -> tuple[str, int, float]:
        """(name, size, modified): equal signatures mean an unchanged file."""
        return self.name, self.size, self.modified


def problem_entry(name: str, code: str, reason: str, size: int = 0, modified: float = 0.0) -> Entry:
    """Return an entry for a file that is listed but never opened."""
    return Entry(name, size, modified, SkippedFile(name, code, reason))


class Source(ABC):
    """INPUT. Picklable; every process opens it for itself."""

    kind: Literal["folder", "zip", "file"]

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def listing(self) -> list[Entry]:
        """Return all files sorted by name. InputError: there is none, or INPUT is gone."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Open one file for reading; the result can be sought. InputError, FileProblem: see ``explain``."""

    def read(self, name: str) -> bytes:
        """Return the bytes of one file. InputError: INPUT itself is gone. FileProblem: this file cannot be read."""
        try:
            with self.open(name) as file:
                return file.read()
        except OSError as error:
            raise self.explain(error) from None

    def local_path(self, name: str) -> Path | None:
        """Return where the file lies on disk, or None inside a zip."""
        return None

    def reachable(self) -> bool:
        """Whether INPUT itself is still there."""
        return self.path.exists()

    def explain(self, error: OSError) -> MedstrataError:
        """Turn an operating system's error while reading a file of INPUT into one of ours."""
        if not self.reachable():
            return InputError(f"INPUT is no longer reachable: {self.path}. Connect it again and repeat the command.")
        if isinstance(error, PermissionError):
            return FileProblem("no_permission", "This file may not be read by the current user.")
        if isinstance(error, FileNotFoundError):
            return FileProblem("file_gone", "This file has been removed since INPUT was listed.")
        return FileProblem("read_failed", f"Reading this file failed ({os.strerror(error.errno or 5)}).")
