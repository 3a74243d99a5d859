"""A folder as INPUT. Links are followed only to files inside it, and never twice to the same file."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from medstrata.errors import InputError
from medstrata.images.listing import (
    SYSTEM_FOLDERS,
    SYSTEM_REASON,
    Entry,
    Source,
    is_system_file,
    native_name,
    portable_name,
    problem_entry,
)


class FolderSource(Source):
    """A folder with everything below it."""

    kind = "folder"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._identity = _identity(path)

    def listing(self) -> list[Entry]:
        """Return all files below the folder sorted by name; links are followed only to files inside it."""
        if not self.reachable():
            raise self.explain(FileNotFoundError())
        entries, links = _walk(self.path)
        entries += _linked(self.path, entries, links)
        if not entries:
            raise InputError(f"{self.path} holds no file. Name the folder that holds the images.")
        return sorted(entries, key=lambda entry: entry.name)

    def open(self, name: str) -> BinaryIO:
        """Open one file for reading."""
        try:
            return open(os.path.join(self.path, native_name(name)), "rb")
        except OSError as error:
            raise self.explain(error) from None

    def local_path(self, name: str) -> Path:
        """Return where the file lies on disk."""
        return self.path / native_name(name)

    def reachable(self) -> bool:
        """Whether the folder is there and the same one: an unmounted drive leaves an empty folder of the same name."""
        return _identity(self.path) == self._identity


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _walk(root: Path) -> tuple[list[Entry], list[str]]:
    """Return the entries below ``root`` and, apart, the relative OS names of its symbolic links."""
    entries: list[Entry] = []
    links: list[str] = []
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as found:
                children = list(found)
        except OSError as error:
            entries.append(_unreadable(folder + "/", error))
            continue
        if folder and _is_run_folder(root / folder, children):
            reason = "A run folder of medstrata lies inside INPUT; its files are results, not images."
            entries.append(problem_entry(portable_name(folder + "/"), "run_folder", reason))
            continue
        for child in children:
            name = f"{folder}/{child.name}" if folder else child.name
            if child.is_symlink():
                links.append(name)
            elif child.is_dir(follow_symlinks=False) and child.name not in SYSTEM_FOLDERS:
                folders.append(name)
            else:
                entries.append(_file_entry(child, name))
    return entries, links


def _is_run_folder(folder: Path, children: list[os.DirEntry[str]]) -> bool:
    names = {child.name for child in children}
    if {"run.json", "catalog.parquet"} <= names:  # also one that was passed on without private/
        return True
    return "private" in names and (folder / "private" / "salt").is_file()


def _file_entry(child: os.DirEntry[str], name: str) -> Entry:
    portable = portable_name(name)
    if child.is_dir(follow_symlinks=False):
        return problem_entry(portable + "/", "system_file", SYSTEM_REASON)
    try:
        status = child.stat(follow_symlinks=False)
    except OSError as error:
        return _unreadable(name, error)
    if not stat.S_ISREG(status.st_mode):
        return problem_entry(portable, "not_a_file", "A device, pipe or socket is not an image.")
    if is_system_file(child.name):
        return problem_entry(portable, "system_file", SYSTEM_REASON, status.st_size, status.st_mtime)
    return Entry(portable, status.st_size, status.st_mtime)


def _unreadable(name: str, error: OSError) -> Entry:
    if isinstance(error, PermissionError):
        reason = "The current user may not read this folder or file."
        return problem_entry(portable_name(name), "no_permission", reason)
    return problem_entry(portable_name(name), "read_failed", "This folder or file could not be listed.")


def _linked(root: Path, entries: list[Entry], links: list[str]) -> list[Entry]:
    """Return an entry per symbolic link; a link is followed when its target is a file of INPUT not yet listed."""
    inside = os.path.realpath(root) + os.sep
    taken = {inside + native_name(entry.name) for entry in entries} if links else set()
    result = []
    for name in sorted(links):
        target = os.path.realpath(root / name)
        problem = _link_problem(target, inside, taken)
        if problem:
            result.append(problem_entry(portable_name(name), "link", problem))
            continue
        taken.add(target)
        status = os.stat(target)
        result.append(Entry(portable_name(name), status.st_size, status.st_mtime))
    return result


def _link_problem(target: str, inside: str, taken: set[str]) -> str:
    if not (target + os.sep).startswith(inside):
        return "A link that leads out of INPUT is not followed."
    if os.path.isdir(target):
        return "A link to a folder is not followed; a folder of INPUT is read in its own place."
    if target in taken:
        return "A link to another file of INPUT, which is read in its own place."
    return "" if os.path.isfile(target) else "A link that leads nowhere."
