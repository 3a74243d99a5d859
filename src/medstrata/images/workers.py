"""Who does the work: this process, or a pool of processes that survives its workers (decoders are C code and can die).

Executors are lazy: nothing starts before something is submitted, and a pool that lost a worker is made anew.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from types import TracebackType
from typing import Any, Protocol, Self

from medstrata.errors import RunFolderError

PRELOADED = [f"medstrata.images.{name}" for name in ("catalog", "decoding", "dicom_pixels")]  # not by each worker
AHEAD = 2  # tasks handed out per worker: keeps workers busy and memory bounded
STARTS = 3  # of a pool that loses a worker before it does anything
LOST = (BrokenProcessPool, EOFError, ConnectionError)  # a worker, or the process that starts them
START_SECONDS = 120.0  # for the first worker process to answer


class Executor(Protocol):
    """Runs functions; a context manager around the work of one stage."""

    @property
    def died(self) -> tuple[type[BaseException], ...]:
        """What a future raises whose worker died."""

    @property
    def width(self) -> int:
        """How many tasks are handed out at once."""

    @property
    def elsewhere(self) -> bool:
        """Whether workers may be on other machines, which can be lost with what they have not written to the disk."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run ``function(*arguments)``; both are picklable."""

    def alone(self) -> Executor:
        """Return an executor with one worker, which no other task is disturbed by."""

    def state(self) -> str:
        """Say in words what the workers do."""

    def give_up(self) -> None:
        """End workers that come to no end; their futures raise ``died``. RunFolderError: that is not possible."""

    def close(self) -> None:
        """End what outlives a stage."""


class Serial:
    """Everything in this process, at once."""

    died: tuple[type[BaseException], ...] = ()
    width = 1
    elsewhere = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run it here and now; what it raises is raised here."""
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future

    def alone(self) -> Executor:
        """Return itself."""
        return self

    def state(self) -> str:
        """Say what is done."""
        return "it is worked on in this process"

    def give_up(self) -> None:
        """Do nothing: what runs here cannot be waited for."""

    def close(self) -> None:
        """Do nothing."""


class Processes:
    """A pool of ``workers`` processes of this machine."""

    died: tuple[type[BaseException], ...] = (BrokenProcessPool,)
    elsewhere = False

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    @property
    def width(self) -> int:
        """How many tasks are handed out at once."""
        return AHEAD * self.workers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:  # what still runs is of no use
            self.give_up()
        elif self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run it in a worker.

        Raises
        ------
        RunFolderError : workers do not start: a script that runs everything at its top level runs itself again in each
        """
        if self._pool is not None:
            with suppress(*LOST):
                return self._pool.submit(function, *arguments)
            self._pool.shutdown(wait=False)
        for _ in range(STARTS):
            self._pool = ProcessPoolExecutor(self.workers, mp_context=_context(), initializer=_end_with_parent)
            with suppress(*LOST, TimeoutError):  # whoever ends processes may end one that has just begun
                self._pool.submit(int).result(START_SECONDS)
                for _ in range(self.workers - 1):  # now: to start one while another dies disturbs the pool's books
                    self._pool._spawn_process()  # type: ignore[attr-defined]
                return self._pool.submit(function, *arguments)
            self.give_up()
        raise RunFolderError(
            "The processes that read files do not start. In a script, put the call under "
            "`if __name__ == '__main__':`; where memory is short, give fewer workers."
        )

    def alone(self) -> Executor:
        """Return a pool of one."""
        return Processes(1)

    def state(self) -> str:
        """Say how many work."""
        return f"{self.workers} worker processes are at it"

    def give_up(self) -> None:
        """Kill the workers."""
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):  # None where it is broken
                process.kill()
            self._pool.shutdown(wait=True)
            self._pool = None

    def close(self) -> None:
        """Do nothing: a pool ends with its stage."""


def in_processes(workers: int) -> Executor:
    """Return an executor of so many processes; one is this one."""
    return Processes(workers) if workers > 1 else Serial()


def _context() -> ForkServerContext:
    """Return a context whose workers start from one process that has read the libraries already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _end_with_parent() -> None:
    """End this worker as soon as the process that started it is gone; a pool's workers would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
