"""``fit`` under torchrun: the clusters of one process, and a rank that is killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import adjusted_rand_score

from command_line import medstrata, write_array

TORCHRUN = [str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc_per_node=2"]


def decoded(tmp_path: Path, method: str, count: int = 60) -> Path:
    out = tmp_path / "out"
    assert medstrata("scan", write_array(tmp_path / "in", count), out).code == 0
    assert medstrata("plan", out, "--clusters", 3, "--method", method).code == 0
    assert medstrata("decode", out).code == 0
    return out


def fit_by_two(out: Path, restarts: int = 0) -> subprocess.Popen[str]:
    command = [*TORCHRUN, f"--max-restarts={restarts}", "-m", "medstrata", "fit", str(out), "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def labels(out: Path) -> np.ndarray:
    answer = medstrata("assign", out)
    assert answer.code == 0, answer.err
    return np.asarray(pq.read_table(out / "assignments.parquet")["nearest"])


@pytest.mark.promise
def test_two_processes_find_the_clusters_of_one(tmp_path: Path) -> None:
    out = decoded(tmp_path, "dcec")
    process = fit_by_two(out)
    told = process.communicate(timeout=200)[1]
    assert process.returncode == 0, told
    assert told.count("fit: the method dcec made 3 clusters") == 1, "only the first process speaks"
    assert not list(out.glob("checkpoint*")) and not list(out.glob(".*.part"))
    together, history = labels(out), [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert medstrata("fit", out, "--redo").code == 0
    alone = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert adjusted_rand_score(together, labels(out)) == 1
    for one, two in zip(alone[:20], history[:20], strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-4)


@pytest.mark.slow
def test_what_is_done_and_what_is_missing_end_all_processes(tmp_path: Path) -> None:
    out = decoded(tmp_path, "pca")
    for sentence in ("fit: the method pca made 3 clusters", "fit: up to date"):
        process = fit_by_two(out)
        told = process.communicate(timeout=200)[1]
        assert process.returncode == 0 and sentence in told, told
    (out / "plan.json").write_text((out / "plan.json").read_text().replace('"pca"', '"nothing"'))
    process = fit_by_two(out)
    told = process.communicate(timeout=200)[1]
    assert process.returncode == 1 and "There is no method" in told, told


def ranks(process: subprocess.Popen[str]) -> dict[int, int]:
    """Process ids of the ranks that torchrun has started."""
    found = {}
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for child in children.read_text().split() if children.exists() else []:
        try:
            variables = Path(f"/proc/{child}/environ").read_text().split("\0")
        except OSError:
            continue
        found |= {int(value[5:]): int(child) for value in variables if value.startswith("RANK=")}
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", ["dcec", "deepmcat"])
def test_killed_ranks_are_started_again_and_end_as_if_nothing_had_happened(tmp_path: Path, method: str) -> None:
    out = decoded(tmp_path, method)
    whole = fit_by_two(out)
    told = whole.communicate(timeout=300)[1]
    assert whole.returncode == 0, told
    expected = (out / "model.safetensors").read_bytes(), (out / "history.jsonl").read_bytes()
    assert medstrata("decode", out, "--redo").code == 0
    process, killed, checkpoint = fit_by_two(out, restarts=2), 0, out / "checkpoint.safetensors"
    seen = 0.0
    while killed < 2 and process.poll() is None:
        time.sleep(0.05)
        if checkpoint.exists() and checkpoint.stat().st_mtime > seen and set(ranks(process)) == {0, 1}:
            seen = checkpoint.stat().st_mtime
            os.kill(ranks(process)[1 - killed], signal.SIGKILL)  # first rank 1, then the one that writes
            killed += 1
            time.sleep(1)
    assert killed == 2
    ended_as(process, out, expected)


def ended_as(process: subprocess.Popen[str], out: Path, expected: tuple[bytes, bytes]) -> None:
    told = process.communicate(timeout=300)[1]
    assert process.returncode == 0, told
    assert "did not join" not in told, "a start of its own is lost"
    assert ((out / "model.safetensors").read_bytes(), (out / "history.jsonl").read_bytes()) == expected
    assert not list(out.glob(".*.part"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ranks_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    """Before the first checkpoint, while the clusters are read or while the model is written, too."""
    out = decoded(tmp_path, "dcec")
    started, whole = time.monotonic(), fit_by_two(out)
    told = whole.communicate(timeout=300)[1]
    assert whole.returncode == 0, told
    seconds = time.monotonic() - started
    expected = (out / "model.safetensors").read_bytes(), (out / "history.jsonl").read_bytes()
    moments, killed = random.Random(0), 0
    for _ in range(20):
        assert medstrata("decode", out, "--redo").code == 0
        process = fit_by_two(out, restarts=1)
        time.sleep(moments.uniform(0.1, 1.0) * seconds)
        with contextlib.suppress(KeyError, ProcessLookupError):  # one that has not started, or has ended
            os.kill(ranks(process)[moments.choice((0, 1))], signal.SIGKILL)
            killed += 1
        ended_as(process, out, expected)
    assert killed >= 10, "most of the moments must meet a rank"
