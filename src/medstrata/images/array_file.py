"""Opening ``.npy`` and ``.npz`` files: one array is read as a stream, and whatever is damaged becomes a reason."""

from __future__ import annotations

import errno
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from tokenize import TokenError
from typing import IO

from medstrata.errors import FileProblem, InputError
from medstrata.images.listing import Source

KEY = "images"

_DAMAGE = (
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    SyntaxError,
    OverflowError,
    RuntimeError,
    TokenError,
)


@contextmanager
def open_array(source: Source, name: str, key: str = KEY) -> Iterator[IO[bytes]]:
    """Yield the stream of a ``.npy``, or of the member ``key`` of an ``.npz``; damage becomes a FileProblem.

    Raises
    ------
    FileProblem : ``array_key``, ``too_large``, ``truncated``
    InputError : the ``.npz`` is INPUT itself and has no such key; the message names the keys it has
    """
    with source.open(name) as file, _damage_told():
        if not _packed(file):
            yield file
            return
        with zipfile.ZipFile(file) as archive, archive.open(_member(source, archive.namelist(), key)) as member:
            yield member


def keys_of(source: Source, name: str) -> list[str]:
    """Return the keys of an ``.npz``, [] for a ``.npy``.

    Raises
    ------
    FileProblem : ``truncated``
    """
    with source.open(name) as file, _damage_told():
        if not _packed(file):
            return []
        with zipfile.ZipFile(file) as archive:
            return [member.removesuffix(".npy") for member in archive.namelist() if member.endswith(".npy")]


@contextmanager
def _damage_told() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an oddly written header is read all the same
            yield
    except MemoryError:
        raise FileProblem("too_large", "The array does not fit into memory; save it as .npy.") from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # not the disk: an offset in the zip's directory points nowhere
            raise
        raise _damaged() from None
    except _DAMAGE:
        raise _damaged() from None


def _packed(file: IO[bytes]) -> bool:
    packed = file.read(2) == b"PK"
    file.seek(0)
    return packed


def _damaged() -> FileProblem:
    return FileProblem("truncated", "The array is damaged or cut short; save it again.")


def _member(source: Source, names: list[str], key: str) -> str:
    if f"{key}.npy" in names:
        return f"{key}.npy"
    if source.kind == "file":
        keys = ", ".join(sorted(name.removesuffix(".npy") for name in names)) or "none"
        raise InputError(f"{source.path} has no key '{key}' (keys: {keys}). Save the images under the key '{key}'.")
    reason = f"The .npz has {len(names)} keys, none of them '{key}'; save the images under the key '{key}'."
    raise FileProblem("array_key", reason)
