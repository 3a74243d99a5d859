"""kill -9 at any moment and the same command again end with the files of a run that was never disturbed."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command_line import medstrata, write_array

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
