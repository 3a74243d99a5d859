"""The folder of a stage's shards: which there are, whose they are, and reading and writing their results.

A result carries a checksum, so that one that was cut short or damaged is found. It holds plain values and our own
records only; reading it executes nothing.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from medstrata._version import __version__
from medstrata.images.workers import Executor
from medstrata.run import atomic, digest, flocked, folder_error

SHARDS_AT_LEAST = 16  # what is cut is cut into so many, so that several workers have something to do
MANIFEST = "manifest"  # the file that says whose shards a folder holds
CHECKSUM_BYTES = 32


@dataclass(frozen=True)
class Share:
    """Which shards one job of a job array does: the ``number``-th of every ``of``, counted from 1."""

    number: int = 1
    of: int = 1


@dataclass(frozen=True)
class Sharding:
    """Where the shards of a stage lie, what went into them, and who works on them.

    ``token`` names the inputs: shards of another token are thrown away.
    """

    folder: Path
    token: str
    executor: Executor
    share: Share = field(default_factory=Share)
    say: Callable[[str], None] = lambda sentence: None


@dataclass(frozen=True)
class Manifest:
    """The shards of ``items`` items, ``per_shard`` in each, in ``folder``. Picklable."""

    folder: Path
    token: str
    items: int
    per_shard: int
    version: str = __version__

    @property
    def count(self) -> int:
        """Number of shards."""
        return -(-self.items // self.per_shard)

    @property
    def key(self) -> str:
        """What stands in the folder's manifest: equal keys mean the same shards of the same inputs."""
        return digest(self.token, self.items, self.per_shard, self.version)

    def span(self, number: int) -> slice:
        """Which items belong to a shard."""
        return slice(number * self.per_shard, min((number + 1) * self.per_shard, self.items))

    def size(self, number: int) -> int:
        """Number of items of a shard."""
        return min(self.per_shard, self.items - number * self.per_shard)

    def begin(self, prepare: Callable[[], None] | None = None, usable: Callable[[], bool] | None = None) -> None:
        """Make the folder, and keep what it holds where that belongs to the same inputs and is ``usable``.

        ``prepare`` makes what else belongs into a new folder. Several jobs may begin at the same time.

        Raises
        ------
        RunFolderError : the folder cannot be written, or another job holds it for longer than a minute
        """
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with flocked(self.folder.parent / f".{self.folder.name}.lock"):
                if not (self.is_known() and (usable is None or usable())):
                    if self.folder.exists():  # of other inputs; to delete many shards may take longer than others wait
                        self.folder.rename(self.folder.with_name(f".{self.folder.name}-{token_hex(4)}.stale"))
                    self.folder.mkdir(mode=0o700)
                    if prepare is not None:
                        prepare()
                    with atomic(self.folder / MANIFEST) as part:
                        part.write_text(self.key)
        except OSError as error:
            raise folder_error(error, self.folder) from error
        for stale in self.folder.parent.glob(f".{self.folder.name}-*.stale"):
            shutil.rmtree(stale, ignore_errors=True)

    def is_known(self) -> bool:
        """Whether the folder holds shards of the same inputs."""
        try:
            return (self.folder / MANIFEST).read_text() == self.key
        except OSError:
            return False

    def write(self, number: int, results: list[Any]) -> None:
        """Write the results of a shard, atomically. RunFolderError: no room."""
        payload = pickle.dumps(results, protocol=5)
        with atomic(self._file(number)) as part:
            part.write_bytes(self._checksum(number, payload) + payload)

    def read(self, number: int) -> list[Any] | None:
        """Return the results of a shard; None where it is not there, cut short or damaged."""
        try:
            content = self._file(number).read_bytes()
        except OSError:
            return None
        payload = content[CHECKSUM_BYTES:]
        return _Reader(io.BytesIO(payload)).load() if content == self._checksum(number, payload) + payload else None

    def has_file(self, number: int) -> bool:
        """Whether there is a file of a shard, whatever it holds."""
        return self._file(number).exists()

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.shard"

    def _checksum(self, number: int, payload: bytes) -> bytes:
        return hashlib.sha256(f"{self.key} {number} ".encode() + payload).digest()


class _Reader(pickle.Unpickler):
    """Reads what shards hold: plain values and our own records. Nothing else can be made, nothing executed."""

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name) if module.startswith("medstrata.images.") else None
        if not (isinstance(found, type) and (is_dataclass(found) or issubclass(found, tuple))):
            raise pickle.UnpicklingError(f"a shard holds {module}.{name}")
        return found


def cut(items: int, most: int) -> int:
    """Return how many items make a shard: at most ``most``, fewer of few. A function of the number alone."""
    return max(1, min(most, -(-items // SHARDS_AT_LEAST)))
