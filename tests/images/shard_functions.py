"""Functions that workers of any executor can import, for tests of shards."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medstrata.errors import FileProblem, InputError


def double(items: Sequence[int]) -> list[int]:
    return [2 * item for item in items]


def slowly(items: Sequence[int]) -> list[int]:
    time.sleep(0.05)
    return double(items)


def where(items: Sequence[tuple[int, Path]]) -> list[int]:
    """Leave a mark for the machine of the Ray cluster that works on it."""
    import ray

    (items[0][1] / ray.get_runtime_context().get_node_id()).touch()
    time.sleep(0.3)
    return [2 * item for item, _ in items]


def or_die(items: Sequence[int]) -> list[int]:
    """7 ends its process, as a decoder that crashes."""
    if 7 in items:
        os.abort()
    return double(items)


def killed_once(items: Sequence[tuple[int, Path]]) -> list[int]:
    """The first process that comes to item 7 is killed, as by somebody who wants memory; the next is not."""
    for item, mark in items:
        if item == 7 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return [2 * item for item, _ in items]


def or_hang(items: Sequence[int]) -> list[int]:
    """7 comes to no end."""
    if 7 in items:
        time.sleep(1000)
    return double(items)


def or_gone(items: Sequence[int]) -> list[int]:
    if 7 in items:
        raise InputError("INPUT is no longer reachable.")
    return double(items)


def or_full(items: Sequence[int]) -> list[int]:
    if 7 in items:
        raise OSError(28, "No space left on device")
    return double(items)


def or_disk_timeout(items: Sequence[int]) -> list[int]:
    if 7 in items:
        raise OSError(errno.ETIMEDOUT, "Connection timed out")
    return double(items)


def count(items: Sequence[tuple[int, Path]]) -> list[int]:
    """Leave a mark for every item that is worked on."""
    for item, folder in items:
        with open(folder / str(item), "a") as file:
            file.write("x")
    return [2 * item for item, _ in items]


def reason(item: Any, problem: FileProblem) -> str:
    return problem.code
