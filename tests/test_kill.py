"""kill -9 at any moment and the same command again end with the files of a run that was never disturbed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from command_line import images, medstrata, write_array

READ = ("catalog.parquet", "pixels.npy", "images.parquet", "left_out.parquet")
COMPARED = ("catalog.parquet", "pixels.npy", "model.safetensors", "assignments.parquet", "maps/index.parquet")


def prepared(folder: Path, salt: str) -> Path:
    """An OUT that has its salt already, so that runs can be compared by checksum."""
    (folder / "private").mkdir(parents=True)
    (folder / "private" / "salt").write_text(salt)
    return folder


def run(source: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "medstrata", "run", str(source), str(out), "--clusters", "3", "--seed", "0"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def check_kills(tmp_path: Path, kills: int) -> None:
    source = write_array(tmp_path / "in", 60)
    whole = prepared(tmp_path / "whole", "5" * 64)
    started = time.monotonic()
    assert run(source, whole).wait() == 0
    seconds = time.monotonic() - started
    moments = random.Random(0)
    for number in range(kills):
        out = prepared(tmp_path / f"out{number}", "5" * 64)
        process = run(source, out)
        try:
            process.wait(moments.uniform(0.1, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        answer = medstrata("run", source, out, "--clusters", 3, "--seed", 0)
        assert answer.code == 0, answer.err
        for name in COMPARED:
            assert (out / name).read_bytes() == (whole / name).read_bytes(), (number, name)
        assert not list(out.rglob("*.part")) and not (out / "checkpoint.safetensors").exists()


@pytest.mark.promise
def test_killed_twice(tmp_path: Path) -> None:
    check_kills(tmp_path, 2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    check_kills(tmp_path, 20)


def write_files(folder: Path, count: int = 640) -> Path:
    """A folder of PNGs, more than are read in one process; every 50th is cut short, which its header does not show."""
    folder.mkdir(parents=True)
    for number, image in enumerate(images(count)[0]):
        file = folder / f"{number:04d}.png"
        Image.fromarray(image).save(file)
        if number % 50 == 0:
            file.write_bytes(file.read_bytes()[:-60])
    return folder


READING = """
import sys
from pathlib import Path
from medstrata.images import catalog
from medstrata.pipeline.job import Job
from medstrata.pipeline.runner import run_stage
from medstrata.run import RunFolder

if __name__ == "__main__":
    catalog.FILES_IN_THIS_PROCESS = 100
    source, out = map(Path, sys.argv[1:])
    for name in ("scan", "plan", "decode"):
        run_stage(name, Job(RunFolder(out), workers=2), input_path=source if name == "scan" else None)
"""


def read(source: Path, out: Path) -> subprocess.Popen[bytes]:
    script = source.parent / "reading.py"
    script.write_text(READING)
    return subprocess.Popen([sys.executable, script, source, out])


def workers_of(driver: int) -> list[int]:
    """The processes that the process of worker processes has started."""
    parent_of = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent_of[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    servers = {process for process, parent in parent_of.items() if parent == driver}
    return [process for process, parent in parent_of.items() if parent in servers]


def is_alive(process: int) -> bool:
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def check_readers(tmp_path: Path, kills: int, who: str) -> None:
    """Kill the driver, or one of its workers, while files are read: the same files in the end."""
    source, whole = write_files(tmp_path / "in"), prepared(tmp_path / "whole", "5" * 64)
    started = time.monotonic()
    assert read(source, whole).wait() == 0
    seconds = time.monotonic() - started
    moments, killed = random.Random(1), 0
    for number in range(kills):
        out = prepared(tmp_path / f"out{number}", "5" * 64)
        process = read(source, out)
        time.sleep(moments.uniform(0.3, 1.0) * seconds)
        while not (workers := workers_of(process.pid)) and process.poll() is None:
            time.sleep(0.01)
        if who == "driver":
            process.kill()
            process.wait()
            assert read(source, out).wait() == 0
        else:
            for worker in workers[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
            assert process.wait() == 0
        killed += bool(workers)
        for name in READ:
            assert (out / name).read_bytes() == (whole / name).read_bytes(), (number, name)
        assert not (out / "private" / "shards").exists() and not list(out.rglob("*.part"))
        assert not any(map(is_alive, workers)), "a worker outlived its run"
    assert killed, "no worker was at work when it was to be killed"


@pytest.mark.parametrize("who", ["driver", "worker"])
def test_readers_killed_twice(who: str, tmp_path: Path) -> None:
    check_readers(tmp_path, 2, who)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("who", ["driver", "worker"])
def test_readers_killed_at_twenty_random_moments(who: str, tmp_path: Path) -> None:
    check_readers(tmp_path, 20, who)
