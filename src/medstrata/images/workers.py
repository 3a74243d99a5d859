"""A process pool that survives its workers: decoders are C code and can die on a bad file."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.context import ForkServerContext
from typing import TypeVar

from medstrata.errors import FileProblem, RunFolderError

Item = TypeVar("Item")
Result = TypeVar("Result")

WAITING_PER_WORKER = 4  # chunks handed out ahead of the reader: keeps workers busy and memory bounded


def map_in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, chunk: int = 1
) -> Iterator[Result | FileProblem]:
    """Yield ``function(item)`` for every item, in order, from ``workers`` processes.

    ``function`` must be a module-level function and items picklable. An item whose worker dies (a decoder's crash)
    yields a ``FileProblem("decoder_crashed", ...)`` in its place, and the others go on in a new pool. With
    ``workers <= 1`` everything runs in this process.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    chunks = [items[start : start + chunk] for start in range(0, len(items), chunk)]
    done = 0
    while done < len(chunks):
        try:
            for results in _map_chunks(function, chunks[done:], workers):
                yield from results
                done += 1
        except BrokenProcessPool:
            for item in chunks[done]:
                yield _alone(function, item)
            done += 1


def _map_chunks(
    function: Callable[[Item], Result], chunks: Sequence[Sequence[Item]], workers: int
) -> Iterator[list[Result]]:
    with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=_context()) as pool:
        _check_that_workers_start(pool)
        waiting: list[Future[list[Result]]] = []
        remaining = iter(chunks)
        for chunk in islice(remaining, workers * WAITING_PER_WORKER):
            waiting.append(pool.submit(_run_chunk, function, chunk))
        while waiting:
            yield waiting.pop(0).result()
            for chunk in islice(remaining, 1):
                waiting.append(pool.submit(_run_chunk, function, chunk))


def _context() -> ForkServerContext:
    """Return a context whose workers start from one process that has read the libraries already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["medstrata.images.readers"])
    return context


def _check_that_workers_start(pool: ProcessPoolExecutor) -> None:
    """A script that runs everything at its top level runs itself again in each worker, which ends the worker."""
    try:
        pool.submit(int).result()
    except BrokenProcessPool:
        raise RunFolderError(
            "The processes that read files do not start. In a script, put the call under "
            "`if __name__ == '__main__':`, or give workers=1."
        ) from None


def _run_chunk(function: Callable[[Item], Result], chunk: Sequence[Item]) -> list[Result]:
    return [function(item) for item in chunk]


def _alone(function: Callable[[Item], Result], item: Item) -> Result | FileProblem:
    """Run one suspect item in a process of its own, so that only the guilty one is lost."""
    with ProcessPoolExecutor(1, mp_context=_context()) as pool:
        try:
            return pool.submit(function, item).result()
        except BrokenProcessPool:
            return FileProblem("decoder_crashed", "The decoder crashed on this file; it may be damaged.")
