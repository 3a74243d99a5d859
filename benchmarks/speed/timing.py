"""Alternate callables over rounds in CPU seconds, compare them within each round, print tables."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

PACKAGES = ("torch", "numpy", "scikit-learn", "faiss-cpu", "kornia", "monai")
Work = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """The median of the ratios within each round, and the least and the greatest of them."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{shown(self.middle)} [{shown(self.low)} to {shown(self.high)}]"


def shown(number: float) -> str:
    """A number in three digits, without an exponent."""
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def alternate(
    works: Mapping[str, Work], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Run all ``works`` in turn, ``rounds`` times after one warm-up, and return the seconds of each by round.

    Every other round goes in reverse order, so that what comes first (caches, a change of the load) favours none.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name in list(works) if number % 2 else list(works)[::-1]:
            started = clock()
            works[name]()
            if number:
                seconds[name].append(clock() - started)
    return seconds


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """Compare two contestants round by round: above 1, the second takes less."""
    ratios = [one / other for one, other in zip(numerators, denominators, strict=True)]
    return Ratio(median(ratios), min(ratios), max(ratios))


def check_equal(results: Mapping[str, float], tolerance: float) -> None:
    """Refuse to compare contestants whose results lie apart by more than ``tolerance``, relative to the first.

    Raises
    ------
    ValueError : they have not done equal work
    """
    first = next(iter(results.values()))
    apart = [name for name, result in results.items() if not abs(result - first) <= tolerance * abs(first)]
    if apart:
        values = ", ".join(f"{name} {result:.8g}" for name, result in results.items())
        raise ValueError(f"Not equal work, so not compared: {values} (may differ by {tolerance:g} of the first).")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; numbers in three digits."""
    lines = [header, ["---"] * len(header), *rows]
    cells = [[shown(cell) if isinstance(cell, float) else str(cell) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def machine() -> str:
    """Say what the figures were taken on: processor, cores, memory, versions; no names."""
    cores = os.cpu_count() or 1
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = _processor(Path("/proc/cpuinfo"))
    return f"{model}, {cores} cores, {memory:.0f} GiB; Python {platform.python_version()}, {', '.join(found)}"


def _processor(file: Path) -> str:
    """Name the processor, and of its vector instructions those that matter to float32 and bfloat16."""
    if not file.exists():
        return platform.machine()
    fields = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
    names = {name.strip(): value.strip() for name, value in fields.items()}
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in names.get("flags", "").split()]
    model = names.get("model name", platform.machine())
    return f"{model} (family {names.get('cpu family', '?')}; {' '.join(flags) or 'no AVX2'})"
