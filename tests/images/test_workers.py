"""The pool of readers: order, crashes, and scripts that would run themselves again in every worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medstrata.errors import FileProblem
from medstrata.images.workers import map_in_processes


def double_or_die(number: int) -> int:
    if number == 7:
        os.abort()
    return 2 * number


def test_serial_keeps_order() -> None:
    assert list(map_in_processes(double_or_die, [3, 1, 2], 1)) == [6, 2, 4]


@pytest.mark.parametrize("chunk", [1, 4])
def test_a_crash_costs_one_item_and_order_is_kept(chunk: int) -> None:
    results = list(map_in_processes(double_or_die, list(range(20)), 2, chunk))
    problem = results.pop(7)
    assert isinstance(problem, FileProblem) and problem.code == "decoder_crashed"
    assert results == [2 * number for number in range(20) if number != 7]


def test_a_script_without_a_guard_is_told_what_to_do(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from medstrata.images.workers import map_in_processes\nprint(list(map_in_processes(abs, list(range(9)), 2)))\n"
    )
    found = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert found.returncode != 0 and "__main__" in found.stderr.strip().splitlines()[-1]
