"""The catalog: one row per image and one per file that is left out, from headers alone.

``catalog.parquet`` holds no name, no path and no original id: ``image_id``, ``patient`` and ``study`` are keyed hashes
(HMAC-SHA256, RFC 2104) under the run's salt, and so are manufacturers, models, views and kernels that are not
in the vocabulary. What they stand for is kept in ``private/sources.parquet``.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medstrata.errors import FileProblem, InputError, RunFolderError
from medstrata.images import vocabulary
from medstrata.images.listing import Entry, Source
from medstrata.images.manifest import Manifest, Sharding, cut
from medstrata.images.readers import headers_of, read_pixels
from medstrata.images.records import FrameSource, ImageRecord, SkippedFile
from medstrata.images.shards import Work, run_shards
from medstrata.images.sniff import sniff
from medstrata.images.workers import in_processes
from medstrata.run import Progress, digest, no_progress, write_table

__all__ = ["Catalog", "keyed_hash", "read_pixels", "scan", "sniff"]

CATALOG_FILE = "catalog.parquet"
SOURCES_FILE = "private/sources.parquet"
FILES_IN_THIS_PROCESS = 10_000  # measured: a process reads ~8,000 headers/s and a pool takes ~1 s to start
FILES_PER_SHARD = 2000  # headers that a worker reads before it hands them back: a quarter of a second
ID_DIGITS, HASH_DIGITS = 16, 12  # hexadecimal digits of image_id, and of patient and study

_ARROW: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), float | None: pa.float64()}
_FIELDS = [field.name for field in fields(ImageRecord) if field.name != "frames"]
_HASHES = ("patient", "study")
_TYPED = (
    "manufacturer",
    "model",
    "view",
    "kernel",
)  # by people: what no vocabulary has becomes a hash
_SKIP = ("skipped", "reason")
_FRAME_FIELDS = [field.name for field in fields(FrameSource)]

TABLE_SCHEMA = pa.schema(
    [("image_id", pa.string())]
    + [(name, _ARROW[get_type_hints(ImageRecord)[name]]) for name in _FIELDS]
    + [(name, pa.string()) for name in (*_HASHES, *_SKIP)]
)
SOURCES_SCHEMA = pa.schema(
    [("image_id", pa.string()), ("position", pa.int64())]
    + [(name, _ARROW[get_type_hints(FrameSource)[name]]) for name in _FRAME_FIELDS]
)

Found = ImageRecord | SkippedFile


@dataclass
class Catalog:
    """``table`` is catalog.parquet (``TABLE_SCHEMA``), ``sources`` private/sources.parquet (``SOURCES_SCHEMA``)."""

    table: pa.Table
    sources: pa.Table

    def images(self) -> pa.Table:
        """Return the rows of images, without the files that are left out."""
        return self.table.filter(pc.equal(self.table["skipped"], ""))

    def frames_of(self, image_id: str) -> list[FrameSource]:
        """Return where the frames of one image are, in order along the stack. KeyError: no such image."""
        start, stop = self._spans[image_id]
        rows = self.sources.slice(start, stop - start).to_pylist()
        return [FrameSource(**{name: row[name] for name in _FRAME_FIELDS if name in row}) for row in rows]

    def record(self, image_id: str) -> ImageRecord:
        """Return the record of one image. KeyError: no such image."""
        row = self.table.slice(self._rows[image_id], 1).to_pylist()[0]
        return ImageRecord(frames=self.frames_of(image_id), **{name: row[name] for name in _FIELDS})

    def write(self, folder: Path) -> None:
        """Write both tables into the run folder; ``private`` can be entered by its owner alone."""
        private = folder / "private"
        private.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(private, 0o700)
        write_table(folder / SOURCES_FILE, self.sources)
        write_table(folder / CATALOG_FILE, self.table)

    @classmethod
    def read(cls, folder: Path) -> Catalog:
        """Read both tables of a run folder. RunFolderError: one is missing or damaged."""
        try:
            return cls(pq.read_table(folder / CATALOG_FILE), pq.read_table(folder / SOURCES_FILE))
        except (OSError, pa.ArrowException):
            raise RunFolderError(
                f"{folder} holds no readable catalog ({CATALOG_FILE}, {SOURCES_FILE}). Run the scan again."
            ) from None

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {image_id: number for number, image_id in enumerate(self.table["image_id"].to_pylist())}

    @cached_property
    def _spans(self) -> dict[str, tuple[int, int]]:
        spans: dict[str, tuple[int, int]] = {}
        for number, image_id in enumerate(self.sources["image_id"].to_pylist()):
            spans[image_id] = (spans.get(image_id, (number,))[0], number + 1)
        return spans


def keyed_hash(salt: str, text: str, digits: int = HASH_DIGITS) -> str:
    """Return ``digits`` hexadecimal digits of HMAC-SHA256(salt, text), or "" for an empty text."""
    if not text:
        return ""
    return hmac.new(salt.encode(), text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:digits]


def scan(
    source: Source,
    salt: str,
    workers: int = 1,
    progress: Progress = no_progress,
    sharding: Sharding | None = None,
) -> Catalog:
    """Read the headers of every file of INPUT and return the catalog.

    Rows stand in order of the first file name of each image, then of the frame, whoever reads: the workers of
    ``sharding``, without it ``workers`` processes. Up to ``FILES_IN_THIS_PROCESS`` files are read in this process.

    Raises
    ------
    InputError : INPUT holds no file, is gone, or is a single file that cannot be used
    """
    entries = source.listing()
    readable = [entry for entry in entries if entry.problem is None]
    results: Iterable[list[Any]]
    if len(readable) <= FILES_IN_THIS_PROCESS:
        results = _read_here(source, readable, progress)
    elif sharding is None:
        with tempfile.TemporaryDirectory(prefix="medstrata-") as folder:
            results = _read_in_shards(
                source, readable, Sharding(Path(folder) / "scan", "", in_processes(workers)), progress
            )
    else:
        results = _read_in_shards(source, readable, sharding, progress)
    found = [one for several in results for one in several]
    found += [entry.problem for entry in entries if entry.problem is not None]
    records = _grouped(found)
    if source.kind == "file" and records and all(isinstance(record, SkippedFile) for record in records):
        raise InputError(f"{source.path} cannot be used: {records[0].reason}")  # type: ignore[union-attr]
    return build_catalog(records, salt)


def scan_share(source: Source, sharding: Sharding, progress: Progress = no_progress) -> None:
    """Read the headers of one job's share of INPUT; ``scan`` with the same folder and token then finds them read."""
    readable = [entry for entry in source.listing() if entry.problem is None]
    if len(readable) > FILES_IN_THIS_PROCESS:
        _read_in_shards(source, readable, sharding, progress)


def build_catalog(found: Iterable[Found], salt: str) -> Catalog:
    """Return the catalog of these images and files left out."""
    ordered = sorted(found, key=_first_source)
    image_ids = _image_ids(ordered, salt)
    rows: list[dict[str, Any]] = []
    sources: list[dict[str, Any]] = []
    for image_id, one in zip(image_ids, ordered, strict=True):
        frames = one.frames if isinstance(one, ImageRecord) else [_frame_of(one)]
        rows.append(_row(one, image_id, frames[0], salt))
        for position, frame in enumerate(frames):
            values = {name: getattr(frame, name) for name in _FRAME_FIELDS}
            sources.append({"image_id": image_id, "position": position, **values})
    return Catalog(
        pa.Table.from_pylist(rows, schema=TABLE_SCHEMA), pa.Table.from_pylist(sources, schema=SOURCES_SCHEMA)
    )


def _read_here(source: Source, entries: list[Entry], progress: Progress) -> Iterator[list[Any]]:
    for number, entry in enumerate(entries, start=1):
        yield headers_of(source, entry)
        progress("scan", number, len(entries))


def _read_in_shards(source: Source, entries: list[Entry], sharding: Sharding, progress: Progress) -> list[list[Any]]:
    listed = digest([entry.signature for entry in entries])
    manifest = Manifest(
        sharding.folder, digest(sharding.token, listed), len(entries), cut(len(entries), FILES_PER_SHARD)
    )
    manifest.begin()
    work = Work("scan", entries, partial(_headers, source), _lost)
    return list(run_shards(manifest, work, sharding, progress))


def _headers(source: Source, entries: Sequence[Entry]) -> list[list[Any]]:
    return [headers_of(source, entry) for entry in entries]


def _lost(entry: Entry, problem: FileProblem) -> list[Any]:
    return [SkippedFile(entry.name, problem.code, problem.sentence)]


def _grouped(found: list[Any]) -> list[Found]:
    """Replace the DICOM frames among ``found`` by the images that they form."""
    frames = [one for one in found if not isinstance(one, ImageRecord | SkippedFile)]
    records = [one for one in found if isinstance(one, ImageRecord | SkippedFile)]
    if frames:
        from medstrata.images.geometry import group_series  # imports pydicom, which other formats do not need

        records += group_series(frames)
    return records


def _first_source(one: Found) -> tuple[str, int, bool]:
    if isinstance(one, SkippedFile):
        return one.file, 0, True
    file, frame = min((frame.file, frame.frame) for frame in one.frames)
    return file, frame, False


def _image_ids(ordered: Sequence[Found], salt: str) -> list[str]:
    """Hash the sources of images; rows of files left out are told apart from the images of the same file."""
    skipped: Counter[str] = Counter()
    ids = []
    for one in ordered:
        if isinstance(one, ImageRecord):
            text = "\n".join(f"{frame.file}#{frame.frame}" for frame in one.frames)
        else:
            text = f"{one.file}#skipped{skipped[one.file]}"
            skipped[one.file] += 1
        ids.append(keyed_hash(salt, text, ID_DIGITS))
    return ids


def _frame_of(skipped: SkippedFile) -> FrameSource:
    return FrameSource(**{name: getattr(skipped, name) for name in _FRAME_FIELDS if hasattr(skipped, name)})


def _row(one: Found, image_id: str, first: FrameSource, salt: str) -> dict[str, Any]:
    if isinstance(one, ImageRecord):
        row = {name: getattr(one, name) for name in _FIELDS}
        row |= {name: row[name] or _other(salt, getattr(first, name)) for name in _TYPED}
        code = reason = ""
    else:
        blank = ImageRecord(unit="", format=one.format, frames=[], slices=0, channels=0, burned_in="")
        row = {name: getattr(blank, name) for name in _FIELDS}
        row |= {"modality": one.modality, "transfer_syntax": one.transfer_syntax}
        code, reason = one.code, one.reason
    hashes = {"patient": keyed_hash(salt, first.patient_id), "study": keyed_hash(salt, first.study_uid)}
    return {"image_id": image_id, **row, **hashes, "skipped": code, "reason": reason}


def _other(salt: str, words: str) -> str:
    """Return a short name such as "other 3f2a9c"; upper and lower case and spaces make no difference."""
    plain = " ".join(words.casefold().split())
    return vocabulary.other(keyed_hash(salt, plain, vocabulary.OTHER_DIGITS)) if plain else ""
