"""Work in shards: pieces whose results are files, so that whatever dies, only unfinished pieces are done again.

A shard's result is written to a temporary name and renamed by the process that made it. Whether a shard is done is
therefore a question to the file system alone: the engine may be this process, a pool of processes or many machines,
and may be killed at any moment.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from medstrata._version import __version__
from medstrata.errors import FileProblem, MedstrataError, RunFolderError
from medstrata.images.manifest import Manifest, Sharding
from medstrata.images.workers import Executor
from medstrata.run import Progress, no_progress

Item = TypeVar("Item")
Function = Callable[[Sequence[Item]], list[Any]]

SAY_SECONDS = 60.0  # without any finished shard before it is said what is waited for
SHARD_SECONDS = 900.0  # without any finished shard before the workers are given up
ITEM_SECONDS = 600.0  # for one item that is worked on alone
TRIES_ALONE = 2  # a process that dies twice with one item dies of it; once may be anybody's kill

SHARD_CRASHED = FileProblem("decoder_crashed", "The decoder crashed on this file; it may be damaged.")
SHARD_HANGS = FileProblem("decoder_hangs", "The decoder came to no end on this file; it may be damaged.")


@dataclass(frozen=True)
class Work(Generic[Item]):
    """What is done with the items of each shard.

    ``function`` is a picklable function of some items that returns one result for each of them. ``lost`` makes the
    result of an item whose worker dies; None: that ends the run. ``name`` is what progress is told of.
    """

    name: str
    items: Sequence[Item]
    function: Function[Item]
    lost: Callable[[Item, FileProblem], Any] | None = None


def run_shards(
    manifest: Manifest, work: Work[Item], sharding: Sharding, progress: Progress = no_progress
) -> Iterator[Any]:
    """Do the shards that are not done yet, then yield the result of every item, in order.

    Memory stays bounded: results lie in files, and only some shards are handed out ahead. With a share, only its shards
    are done, and nothing is yielded. ``manifest.begin`` has been called.

    Raises
    ------
    MedstrataError : what ``work.function`` raised; nothing can be finished; no shard finished for a long time
    """
    share, say = sharding.share, sharding.say
    mine = range(share.number - 1, manifest.count, share.of)
    todo = deque(number for number in mine if manifest.read(number) is None)
    damaged = sum(manifest.has_file(number) for number in todo)
    if damaged:
        say(f"{work.name}: {damaged} of {len(mine)} shards are damaged and are done again")
    if 0 < len(todo) < len(mine):
        say(f"{work.name}: {len(mine) - len(todo)} of {len(mine)} shards are done already; it goes on with the others")
    total = sum(map(manifest.size, mine))
    done = total - sum(map(manifest.size, todo))
    for number in _work_off(manifest, work, sharding.executor, todo, say):
        done += manifest.size(number)
        progress(work.name, done, total)
    return iter(()) if share.of > 1 else _results(manifest)


def _results(manifest: Manifest) -> Iterator[Any]:
    for number in range(manifest.count):
        results = manifest.read(number)
        if results is None:
            raise RunFolderError(
                f"Shard {number + 1} of {manifest.count} was damaged or removed while it was in use. Run the same "
                "command again; it is done again."
            )
        yield from results


def _work_off(
    manifest: Manifest, work: Work[Item], executor: Executor, todo: deque[int], say: Callable[[str], None]
) -> Iterator[int]:
    """Do the shards ``todo``; yield each when it is done."""
    flying: dict[Future[Any], int] = {}
    if not todo:
        return
    with executor:
        while todo or flying:
            while todo and len(flying) < executor.width:
                number = todo.popleft()
                flying[_submit(manifest, work, executor, number)] = number
            for future in _finished(flying, executor, work.name, say):
                number = flying.pop(future)
                if not _is_done(future, executor):
                    _alone(manifest, work, executor, number)
                yield number


def _submit(manifest: Manifest, work: Work[Item], executor: Executor, number: int) -> Future[Any]:
    return executor.submit(do_shard, manifest, number, work.function, work.items[manifest.span(number)])


def _is_done(future: Future[Any], executor: Executor) -> bool:
    """Whether a shard was done; False where its worker died.

    Raises
    ------
    TimeoutError : it was not within ``SHARD_SECONDS``
    MedstrataError, OSError : what the shard raised
    """
    try:
        problem = future.result(SHARD_SECONDS)
    except executor.died:
        return False
    if problem is not None:
        raise problem
    return True


def _finished(
    flying: dict[Future[Any], int], executor: Executor, name: str, say: Callable[[str], None]
) -> set[Future[Any]]:
    """Wait until some shard is finished; after ``SHARD_SECONDS`` its workers are given up."""
    began = time.monotonic()
    while True:
        finished, _ = wait(flying, timeout=SAY_SECONDS, return_when=FIRST_COMPLETED)
        if finished:
            return finished
        waited = time.monotonic() - began
        say(f"{name}: has waited {waited:.0f} s for one of {len(flying)} shards; {executor.state()}")
        if waited >= SHARD_SECONDS:
            executor.give_up()


def _alone(manifest: Manifest, work: Work[Item], executor: Executor, number: int) -> None:
    """Do one suspect shard in a process of its own: as a whole, else item by item, so that only the guilty is lost."""
    with executor.alone() as single:
        try:
            if _is_done(_submit(manifest, work, single, number), single):
                return
        except TimeoutError:
            single.give_up()
        manifest.write(number, [_result_alone(work, single, item) for item in work.items[manifest.span(number)]])


def _result_alone(work: Work[Item], single: Executor, item: Item) -> Any:
    problem = SHARD_CRASHED
    for _ in range(TRIES_ALONE):
        try:
            return single.submit(work.function, [item]).result(ITEM_SECONDS)[0]
        except single.died:
            problem = SHARD_CRASHED
        except TimeoutError:
            problem = SHARD_HANGS
            single.give_up()
    if work.lost is None:
        raise RunFolderError(
            f"{work.name}: a worker died {TRIES_ALONE} times on the same images, perhaps for want of memory. "
            "Use fewer workers or a machine with more memory, and run the same command again."
        )
    return work.lost(item, problem)


def do_shard(
    manifest: Manifest, number: int, function: Function[Item], items: Sequence[Item]
) -> MedstrataError | OSError | None:
    """Do one shard in whatever process this is; return what went wrong and is no bug."""
    if manifest.version != __version__:
        return RunFolderError(
            f"A worker has medstrata {__version__}, this is {manifest.version}. Install the same one."
        )
    if not manifest.is_known():
        return RunFolderError(
            "A worker does not find the shards in OUT/private. OUT and INPUT must lie on a file system that every "
            "machine sees under the same path, and nothing may remove OUT while it is worked on."
        )
    try:
        manifest.write(number, function(items))
    except (MedstrataError, OSError) as error:
        return error
    return None
