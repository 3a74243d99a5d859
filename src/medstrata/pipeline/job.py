"""One call of the pipeline: the run folder, what the user chose, who does the work, and how people are told."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from medstrata.errors import InputError
from medstrata.images import planning
from medstrata.images.manifest import Sharding, Share
from medstrata.images.plan import Plan, load_plan
from medstrata.images.workers import Executor, in_processes
from medstrata.run import Progress, RunFolder, no_progress, processors

if TYPE_CHECKING:
    from medstrata.learning.comm import Comm

SHARDS = "shards"  # the folder in OUT/private that holds those of the stage that is being done
Say = Callable[[str], None]


def _silent(sentence: str) -> None:
    """Say nothing."""


@dataclass
class Job:
    """One call of the pipeline: the run folder, what the user chose, and how to tell the user what happens."""

    folder: RunFolder
    options: planning.PlanOptions = field(default_factory=planning.PlanOptions)
    device: str = "auto"
    features: Path | None = None  # vectors (N, Z) to cluster instead of pixels
    workers: int = 1  # processes that read files; 0: one per processor; above 1 a script needs a __main__ guard
    executor: str = "processes"  # who scans, decodes, assigns and explains: "processes" of this machine, or "ray"
    address: str | None = None  # of a Ray cluster; None: RAY_ADDRESS, else one of this machine alone
    share: Share = field(default_factory=Share)  # of a stage's shards, for job arrays
    progress: Progress = no_progress
    say: Say = _silent
    comm: Comm | None = None  # the processes that fit together, None for this one alone

    @property
    def path(self) -> Path:
        """The folder OUT."""
        return self.folder.path

    @property
    def readers(self) -> int:
        """How many processes read files."""
        return self.workers or processors()

    @cached_property
    def hands(self) -> Executor:
        """Who does the work. InputError: Ray is not installed, or not at the address."""
        if self.executor == "ray":
            from medstrata.images.ray_workers import OnRay

            return OnRay(self.readers, self.address)
        if self.executor != "processes":
            raise InputError(f"executor is {self.executor!r}, but must be 'processes' or 'ray'.")
        return in_processes(self.readers)

    def sharding(self, stage: str, token: str) -> Sharding:
        """Return where and by whom the shards of a stage are done; ``token`` names what goes into them."""
        return Sharding(self.folder.private / SHARDS / stage, token, self.hands, self.share, self.say)

    def forget_shards(self, stage: str = "") -> None:
        """Remove the shards of a stage that is done, by default those of all."""
        folder = self.path / "private" / SHARDS
        shutil.rmtree(folder / stage, ignore_errors=True)
        (folder / f".{stage}.lock").unlink(missing_ok=True)
        for empty in (folder, self.path / "private"):  # the latter was made for the shards alone, where it was removed
            with suppress(OSError):
                empty.rmdir()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run folder, with other jobs of the same job array; at the end, let the workers go.

        Raises
        ------
        RunFolderError : another run is using it, or it cannot be written
        InputError : there are no workers: see ``hands``
        """
        with self.folder.locked(shared=self.share.of > 1):
            hands = self.hands  # what is wrong with them is told at once, not hours later
            try:
                yield
            finally:
                hands.close()
                del self.hands

    def plan(self) -> Plan:
        """The plan as it stands in OUT, with what the user may have edited."""
        return load_plan(self.path / "plan.json")
