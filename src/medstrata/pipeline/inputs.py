"""How a run folder knows its INPUT: where it is, what was in it, and whether that has changed.

Everything here stands in ``OUT/private/``.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medstrata.errors import InputError, RunFolderError
from medstrata.images.sources import Entry, Source, open_source
from medstrata.run import RunFolder, atomic, digest, flocked, read_json, write_json, write_table

_NO_PRIVATE = (
    "{} has no private/ folder, so its INPUT is unknown. Use the folder where the run was made, or another OUT."
)


def check_places(input_path: Path, out: Path) -> None:
    """Refuse places that would mix the run with its input.

    Raises
    ------
    InputError : INPUT does not exist
    RunFolderError : OUT inside INPUT, or INPUT inside OUT, or OUT is a file
    """
    if not input_path.exists():
        raise InputError(f"{input_path} does not exist. Check the path of INPUT and that its drive is connected.")
    source, target = input_path.resolve(), out.resolve()
    if target == source or source in target.parents:
        raise RunFolderError(f"OUT ({out}) lies inside INPUT ({input_path}). Choose an OUT elsewhere.")
    if target in source.parents and (target / "run.json").exists():
        raise RunFolderError(f"INPUT ({input_path}) lies inside OUT ({out}). Choose an OUT elsewhere.")
    if out.exists() and not out.is_dir():
        raise RunFolderError(f"{out} is a file. Choose a folder for OUT.")


def connect(folder: RunFolder, input_path: Path, salt_from: RunFolder | None = None) -> None:
    """Tie OUT to INPUT on the first run; check on later ones that it is the same INPUT.

    ``salt_from``: a run whose pseudonyms are to be the same.

    Raises
    ------
    RunFolderError : OUT belongs to another INPUT or was made by another version
    """
    state = folder.state()
    file = folder.private / "input.json"
    if file.exists():
        known = read_json(file)["input"]
        if known != str(input_path.resolve()):
            raise RunFolderError(f"{folder.path} belongs to another INPUT ({known}). Choose another OUT.")
        return
    if state["stages"]:
        raise RunFolderError(_NO_PRIVATE.format(folder.path))
    salt = folder.private / "salt"
    if not salt.exists() or not salt.read_text().strip():
        other = salt_from.path / "private" / "salt" if salt_from else None
        with atomic(salt) as part:
            part.write_text(other.read_text() if other and other.exists() else secrets.token_hex(32))
        salt.chmod(0o600)
    write_json(file, {"input": str(input_path.resolve())})
    write_json(folder.path / "run.json", state)


def salt_of(folder: RunFolder) -> str:
    """Return the secret key of the pseudonyms."""
    return (folder.private / "salt").read_text().strip()


def source_of(folder: RunFolder) -> Source:
    """Open INPUT again.

    Raises
    ------
    RunFolderError : ``OUT/private/`` was removed
    InputError : INPUT is gone
    """
    place = input_of(folder)
    if place is None:
        raise RunFolderError(_NO_PRIVATE.format(folder.path))
    return open_source(place)


def input_of(folder: RunFolder) -> Path | None:
    """Return where INPUT is; None where ``OUT/private/`` was removed."""
    file = folder.path / "private" / "input.json"
    return Path(read_json(file)["input"]) if file.exists() else None


def take_features(folder: RunFolder, file: Path) -> None:
    """Copy ``file`` (.npy, vectors (N, Z)) to ``OUT/features.npy``.

    Raises
    ------
    InputError : it cannot be read, or is no array of numbers (N, Z)
    """
    kept = folder.path / "features.npy"
    if file.resolve() == kept.resolve():
        return
    wanted = "Give an .npy file with one row of numbers per decoded image, as numpy.save writes it."
    try:
        vectors = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"--features: {file} cannot be read ({type(error).__name__}). {wanted}") from error
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise InputError(f"--features: {file} holds no numbers of shape (N, Z). {wanted}")
    with atomic(kept) as part, open(part, "wb") as target:
        np.save(target, vectors)


def features_token(folder: RunFolder) -> str:
    """Return a checksum of ``OUT/features.npy``. InputError: it is not there."""
    kept = folder.path / "features.npy"
    if not kept.exists():
        raise InputError("The plan's method is 'features', but no vectors were given. Add: --features FILE.npy")
    with open(kept, "rb") as stored:
        return hashlib.file_digest(stored, "sha256").hexdigest()


LISTING = "listing.parquet"  # in private/: the files of INPUT as they were scanned
FIT_PIXELS = "fit_pixels.npy"  # the images that are drawn to fit on, while the model is fitted


def forget_checkpoints(out: Path) -> None:
    """Delete what an unfinished fit needs: its checkpoints, one per run of a fusion, and the images it is fitted on."""
    for file in [*out.glob("checkpoint*.safetensors"), out / FIT_PIXELS]:
        file.unlink(missing_ok=True)


def write_listing(folder: RunFolder, source: Source) -> list[Entry]:
    """Write down what is in INPUT now."""
    entries = source.listing()
    write_table(folder.private / LISTING, _listed(entries))
    return entries


def _listed(entries: list[Entry]) -> pa.Table:
    return pa.table({name: [getattr(entry, name) for entry in entries] for name in ("name", "size", "modified")})


def take_listing(folder: RunFolder, source: Source) -> None:
    """Write down what is in INPUT now, unless that stands there; several jobs may do so at the same time."""
    now = _listed(source.listing())  # before the lock is taken: of millions of files it takes minutes
    file = folder.private / LISTING
    with flocked(folder.private / ".listing.lock"):
        if not (file.exists() and pq.read_table(file).equals(now)):
            write_table(file, now)


def has_listing(folder: RunFolder) -> bool:
    """Whether the run still knows what was scanned; not where ``OUT/private/`` was removed."""
    return (folder.path / "private" / LISTING).exists()


def token(folder: RunFolder) -> str:
    """Return a token of the salt and of INPUT's listing as it was scanned (as it is now, where it was not)."""
    file = folder.path / "private" / LISTING
    if not file.exists():
        write_listing(folder, source_of(folder))
    table = pq.read_table(file)
    return digest(salt_of(folder), [table[name].to_pylist() for name in ("name", "size", "modified")])


def check_unchanged(folder: RunFolder) -> None:
    """Compare INPUT with what was scanned.

    Raises
    ------
    InputError : files were added, removed or changed since
    """
    if not folder.token("scan"):
        (folder.private / LISTING).unlink(missing_ok=True)
        return
    table = pq.read_table(folder.private / LISTING)
    before = {row["name"]: (row["size"], row["modified"]) for row in table.to_pylist()}
    now = {entry.name: (entry.size, entry.modified) for entry in source_of(folder).listing()}
    added, removed = len(now.keys() - before.keys()), len(before.keys() - now.keys())
    changed = sum(before[name] != now[name] for name in before.keys() & now.keys())
    if added or removed or changed:
        raise InputError(
            f"INPUT has changed since it was scanned: {added} files added, {removed} removed, {changed} modified. "
            "To take the change in, run with --redo scan (medstrata scan: --redo), or choose another OUT."
        )
