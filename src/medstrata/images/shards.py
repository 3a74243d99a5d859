"""Work in shards: pieces whose results are files, so that whatever dies, only unfinished pieces are done again.

A shard's result is written to a temporary name and renamed by the process that made it. Whether a shard is done is
therefore a question to the file system alone: the engine may be this process, a pool of processes or many machines,
and may be killed at any moment.
"""

from __future__ import annotations

import time
from collections import Counter, deque
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
DEATHS = 2  # of a shard's workers before its items are done one by one
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
    todo = [number for number in mine if manifest.read(number) is None]
    damaged = sum(manifest.has_file(number) for number in todo)
    if damaged:
        say(f"{work.name}: {damaged} of {len(mine)} shards are damaged and are done again")
    if 0 < len(todo) < len(mine):
        say(f"{work.name}: {len(mine) - len(todo)} of {len(mine)} shards are done already; it goes on with the others")
    total = sum(map(manifest.size, mine))
    done = total - sum(map(manifest.size, todo))
    for number in _WorkingOff(manifest, work, sharding, todo).run():
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


class _WorkingOff(Generic[Item]):
    """Shards on their way: which are still to do, which are handed out, and how often each died."""

    def __init__(self, manifest: Manifest, work: Work[Item], sharding: Sharding, todo: Sequence[int]) -> None:
        self.manifest, self.work, self.executor, self.say = manifest, work, sharding.executor, sharding.say
        self.todo = deque(todo)
        self.flying: dict[Future[Any], int] = {}
        self.deaths: Counter[int] = Counter()

    def run(self) -> Iterator[int]:
        """Do the shards; yield each when it is done."""
        if not self.todo:
            return
        with self.executor:
            while self.todo or self.flying:
                while self.todo and len(self.flying) < self.executor.width:
                    number = self.todo.popleft()
                    self.flying[_submit(self.manifest, self.work, self.executor, number)] = number
                for future in self._finished():
                    number = self.flying.pop(future)
                    if _is_done(future, self.executor) or self._done_all_the_same(number):
                        yield number

    def _finished(self) -> set[Future[Any]]:
        """Wait until some shard is finished; after ``SHARD_SECONDS`` its workers are given up."""
        began = time.monotonic()
        while True:
            finished, _ = wait(self.flying, timeout=SAY_SECONDS, return_when=FIRST_COMPLETED)
            if finished:
                return finished
            waited = time.monotonic() - began
            waits = f"has waited {waited:.0f} s for one of {len(self.flying)} shards; {self.executor.state()}"
            self.say(f"{self.work.name}: {waits}")
            if waited >= SHARD_SECONDS:
                for future, number in self.flying.items():
                    self.deaths[number] += future.running()  # what was only waiting for a worker is not suspect
                self.executor.give_up()
                began = time.monotonic()

    def _done_all_the_same(self, number: int) -> bool:
        """Say whether a shard is done whose worker died. Once may be anybody's kill, which all in flight share."""
        self.deaths[number] += 1
        if self.manifest.read(number) is None and self.deaths[number] < DEATHS:
            self.todo.append(number)
            return False
        if self.manifest.read(number) is None:
            self._item_by_item(number)
        return True

    def _item_by_item(self, number: int) -> None:
        """Do a suspect shard in a process of its own, so that only the guilty item is lost."""
        items = self.work.items[self.manifest.span(number)]
        with self.executor.alone() as single:
            self.manifest.write(number, [_result_alone(self.work, single, item, self.say) for item in items])


def _submit(manifest: Manifest, work: Work[Item], executor: Executor, number: int) -> Future[Any]:
    return executor.submit(do_shard, manifest, number, work.function, work.items[manifest.span(number)])


def _is_done(future: Future[Any], executor: Executor) -> bool:
    """Whether a finished shard was done; False where its worker died.

    Raises
    ------
    MedstrataError, OSError : what the shard raised
    """
    try:
        problem = future.result()
    except executor.died:
        return False
    if problem is not None:
        raise problem
    return True


def _result_alone(work: Work[Item], single: Executor, item: Item, say: Callable[[str], None]) -> Any:
    problem = SHARD_CRASHED
    for _ in range(TRIES_ALONE):
        future = single.submit(work.function, [item])
        if not wait([future], ITEM_SECONDS).done:
            say(f"{work.name}: has waited {ITEM_SECONDS:.0f} s for one item alone; it is given up")
            single.give_up()
            problem = SHARD_HANGS
            break
        try:
            return future.result()[0]
        except single.died:
            pass
    if work.lost is None:
        raise RunFolderError(
            f"{work.name}: a worker died or came to no end on the same images again and again, perhaps for want of "
            "memory. Use fewer workers or a machine with more memory, and run the same command again."
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
