"""How the command line tells people what happens: bars on a terminal, plain lines elsewhere, and OUT/log.txt."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

QUIET_SECONDS = 10.0  # between two plain lines about the same work


class Console:
    """Says sentences and shows progress on standard error; keeps sentences for ``log.txt``.

    Sentences hold counts and decisions, never a path, a name, an id, a date of a patient or a UID.
    """

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last: dict[str, float] = {}
        self._lines: list[str] = []

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console as Terminal
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bars = Progress(*columns, console=Terminal(stderr=True), transient=True)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def say(self, sentence: str) -> None:
        """Print one line and keep it for the log."""
        self._lines.append(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {sentence}")
        if self._bars is not None:
            self._bars.console.print(sentence, markup=False, highlight=False)
        else:
            print(sentence, file=sys.stderr, flush=True)

    def progress(self, what: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` is done."""
        if self._bars is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(what, total=total)
            self._bars.update(self._tasks[what], completed=done, total=total)
            if done >= total:
                self._bars.remove_task(self._tasks.pop(what))
            return
        now = time.monotonic()
        if now - self._last.setdefault(what, now) >= QUIET_SECONDS:
            self._last[what] = now
            print(f"  {what}: {done} of {total}", file=sys.stderr, flush=True)

    def write_log(self, out: Path) -> None:
        """Append what was said to ``OUT/log.txt`` (if OUT is there to be written)."""
        with suppress(OSError):  # the log never hides what the user has to be told, such as a full disk
            if not (out / "run.json").exists():
                return
            with (out / "log.txt").open("a", encoding="utf-8") as file:
                file.writelines(line + "\n" for line in self._lines)
        self._lines.clear()
