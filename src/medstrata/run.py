"""The run folder OUT: atomic writes, what is done, one run at a time. Plain files are the interface between stages.

Every file is written to a temporary name beside it and renamed, so that a reader never sees half a file and a killed
run leaves nothing that looks finished.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medstrata._version import __version__
from medstrata.errors import RunFolderError

LIBRARIES = (
    *("medstrata", "numpy", "scipy", "scikit-learn", "torch", "graspologic-native", "openTSNE", "pyarrow"),
    *("pydicom", "pylibjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls", "python-gdcm"),
    *("nibabel", "pillow", "tifffile", "lifelines"),
)
LOCK_SECONDS = 60.0  # that a process waits for a lock which is held for moments only
FORMAT = 1  # of the run folder; raised when an older folder can no longer be continued

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)``."""


def no_progress(what: str, done: int, total: int) -> None:
    """Report nothing."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it over ``path`` on success, remove it on failure.

    Raises
    ------
    RunFolderError : the disk is full or the folder cannot be written
    """
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        part = Path(name)
        yield part
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, path)
    except OSError as error:
        raise folder_error(error, path) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _begun(name: str) -> bool:
    """Whether a file or folder of OUT may be there before run.json is: a killed or a simultaneous run made it."""
    return name in (".lock", "private") or (name.startswith(".run.json.") and name.endswith(".part"))


def folder_error(error: OSError, path: Path) -> RunFolderError:
    """Say in one sentence why ``path`` could not be written and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunFolderError(
            f"The disk is full: {path.name} could not be written in {path.parent}. "
            "Free some space and run the same command again; it goes on where it stopped."
        )
    reason = error.strerror or type(error).__name__
    return RunFolderError(f"{path} cannot be written ({reason}). Check the folder's permissions or choose another OUT.")


@contextmanager
def flocked(path: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock file ``path``, which is kept for moments only.

    Raises
    ------
    RunFolderError : another process holds it for longer than ``seconds``
    """
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        limit = time.monotonic() + seconds
        while not _lock(handle, fcntl.LOCK_EX):
            if time.monotonic() > limit:
                raise RunFolderError(
                    f"Another medstrata process has held {path} for {seconds:.0f} s, longer than it ever should. "
                    "If none is running, the file system may not know locks; use another one for OUT."
                )
            time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as readable JSON, atomically."""
    with atomic(path) as part:
        part.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file of the run folder.

    Raises
    ------
    RunFolderError : it is missing or damaged
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunFolderError(f"{path.name} is missing in {path.parent}. Run the stage that writes it first.") from error
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read ({error}). Repair it, or delete it and run again.") from error


def write_table(path: Path, table: pa.Table) -> None:
    """Write an Arrow table as Parquet, atomically."""
    with atomic(path) as part:
        pq.write_table(table, part)


def digest(*parts: Any) -> str:
    """Return a short hash of JSON values: the token by which a stage knows its inputs."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Return the versions of what makes the results, decoders included."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


class RunFolder:
    """The folder OUT and what is done in it (``run.json``).

    ``stages[name]`` holds the ``token`` of the inputs a stage was done with, its ``seconds`` and when it ``finished``.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @property
    def private(self) -> Path:
        """The one folder that holds original names, ids and paths; mode 700; not to be passed on."""
        folder = self.path / "private"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            raise folder_error(error, folder) from error
        return folder

    def state(self) -> dict[str, Any]:
        """Read ``run.json``; an empty state where there is none yet.

        Raises
        ------
        RunFolderError : another version's folder, or a folder that is not ours
        """
        file = self.path / "run.json"
        if not file.exists():
            others = self.path.is_dir() and any(not _begun(entry.name) for entry in self.path.iterdir())
            if others and not file.exists():  # another job of the array may have made it before the others, meanwhile
                raise RunFolderError(f"{self.path} is not empty and is not a run folder. Choose another OUT.")
        if not file.exists():
            return {"medstrata": __version__, "format": FORMAT, "stages": {}}
        state = read_json(file)
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise RunFolderError(
                f"{self.path} was made by another version of medstrata ({state.get('medstrata', 'unknown')}). "
                f"Choose another OUT, or use that version; this one is {__version__}."
            )
        return state

    def is_done(self, stage: str, token: str, files: tuple[str, ...]) -> bool:
        """Whether ``stage`` was done with the same inputs and all its files are there."""
        done = self.state()["stages"].get(stage, {})
        return bool(done.get("token") == token and all((self.path / file).exists() for file in files))

    def token(self, stage: str) -> str:
        """Return the token ``stage`` was done with, "" where it is not done."""
        return str(self.state()["stages"].get(stage, {}).get("token", ""))

    def mark(self, stage: str, token: str, seconds: float, **facts: Any) -> None:
        """Write down that ``stage`` is done."""
        state = self.state()
        finished = time.strftime("%Y-%m-%dT%H:%M:%S")
        state["versions"] = versions()
        state["stages"][stage] = {"token": token, "seconds": round(seconds, 1), "finished": finished, **facts}
        write_json(self.path / "run.json", state)

    def note(self, key: str, value: Any) -> None:
        """Write down a fact beside the stages."""
        write_json(self.path / "run.json", self.state() | {key: value})

    def forget(self, stages: tuple[str, ...]) -> None:
        """Write down that ``stages`` are to be done again."""
        state = self.state()
        state["stages"] = {name: done for name, done in state["stages"].items() if name not in stages}
        write_json(self.path / "run.json", state)

    @contextmanager
    def locked(self, shared: bool = False) -> Iterator[None]:
        """Hold the folder for this process; ``shared``: together with other jobs that do their share of the shards.

        Raises
        ------
        RunFolderError : another run is using it, or it cannot be written
        """
        try:
            self.state()  # a folder that is not ours stays as it is
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise folder_error(error, self.path) from error
        try:
            try:
                free = _lock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            except OSError as error:
                raise folder_error(error, self.path / ".lock") from error
            if not free:
                raise RunFolderError(
                    f"Another medstrata run is using {self.path}. Wait until it ends, or choose another OUT."
                )
            if not shared:
                self._remove_parts()
            yield
        finally:
            os.close(handle)

    def _remove_parts(self) -> None:
        """Remove the temporary files of a run that was killed."""
        for part in [*self.path.glob(".*.part"), *self.path.glob("*/.*.part")]:
            with suppress(OSError):
                part.unlink()
