"""The pool of processes: crashes break no more than it, it ends with its parent, scripts are told what to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from medstrata.images.workers import AHEAD, Processes, Serial, in_processes


def test_one_process_is_this_one() -> None:
    assert isinstance(in_processes(1), Serial) and in_processes(3).width == 3 * AHEAD
    with in_processes(1) as executor:
        assert executor.submit(os.getpid).result() == os.getpid()


def test_a_pool_that_lost_a_worker_is_made_anew() -> None:
    with Processes(2) as pool:
        first = pool.submit(os.getpid).result(60)
        with pytest.raises(pool.died):
            pool.submit(os.abort).result(60)
        assert pool.submit(os.getpid).result(60) not in (first, os.getpid())


@pytest.mark.parametrize("error", [EOFError, ConnectionResetError])
def test_the_process_that_starts_workers_may_be_killed(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    submit, calls = ProcessPoolExecutor.submit, []

    def failing(self: ProcessPoolExecutor, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) in (1, 4):  # while the first pool starts, and when its third task comes
            raise error
        return submit(self, *arguments)

    monkeypatch.setattr(ProcessPoolExecutor, "submit", failing)
    with Processes(1) as pool:
        assert pool.submit(abs, -1).result(60) == 1 and pool.submit(abs, -2).result(60) == 2


def test_workers_that_come_to_no_end_are_given_up() -> None:
    with Processes(1) as pool:
        future = pool.submit(time.sleep, 1000)
        pool.give_up()
        with pytest.raises(pool.died):
            future.result(60)


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time\n"
        "from medstrata.images.workers import Processes\n"
        "if __name__ == '__main__':\n"
        "    with Processes(1) as pool:\n"
        "        print(pool.submit(os.getpid).result(), flush=True)\n"
        "        pool.submit(time.sleep, 1000).result()\n"
    )
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    for _ in range(100):
        state = Path(f"/proc/{worker}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("the worker outlived its parent by 10 s")


def test_a_script_without_a_guard_is_told_what_to_do(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from medstrata.images.workers import Processes\n"
        "with Processes(2) as pool:\n"
        "    print(pool.submit(int).result())\n"
    )
    found = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert found.returncode != 0 and "__main__" in found.stderr.strip().splitlines()[-1]
