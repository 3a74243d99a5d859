"""Contestants timed in turn: the machine's load changes from minute to minute, but not within a round."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver


@dataclass(frozen=True)
class Cost:
    """Seconds of one contestant in one round."""

    wall: float
    cpu: float


def cost_of(task: Callable[[], object]) -> Cost:
    """Return wall and CPU seconds of ``task``, those of its worker processes and of their start included."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    task()
    wall = time.perf_counter() - wall
    # The system adds a process's CPU time to ours when it has ended: the server that workers are forked from would
    # live on, and hide them. There is no public way to end it.
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    return Cost(wall, _cpu_seconds() - cpu)


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def rounds(contestants: dict[str, Callable[[], object]], count: int) -> dict[str, list[Cost]]:
    """Run the contestants in turn, ``count`` times after one warm-up, every other round in reverse order."""
    costs: dict[str, list[Cost]] = {name: [] for name in contestants}
    for number in range(count + 1):
        order = list(contestants) if number % 2 else list(contestants)[::-1]
        for name in order:
            cost = cost_of(contestants[name])
            if number:
                costs[name].append(cost)
    return costs


def print_table(title: str, costs: dict[str, list[Cost]], items: int) -> None:
    """Print medians over the rounds, and how much faster than the first contestant of the same round each one is."""
    base = next(iter(costs.values()))
    print(f"\n{title}, median of {len(base)} rounds\n")
    print("| | per CPU second | CPU s | wall s | times the first, CPU | wall |\n|---|---|---|---|---|---|")
    for name, measured in costs.items():
        wall = statistics.median(cost.wall for cost in measured)
        cpu = statistics.median(cost.cpu for cost in measured)
        pairs = list(zip(measured, base, strict=True))
        by_wall = statistics.median(first.wall / cost.wall for cost, first in pairs)
        by_cpu = statistics.median(first.cpu / cost.cpu for cost, first in pairs)
        print(f"| {name} | {items / cpu:,.0f} | {cpu:.3f} | {wall:.3f} | {by_cpu:.2f} | {by_wall:.2f} |", flush=True)
