"""A million images go through the whole of run, in bounded memory, to a report that can be opened."""

from __future__ import annotations

import json
import mmap
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks import million


@pytest.fixture
def digits(data_dir: Path) -> None:
    """Skip where the handwritten digits are absent."""
    if not (data_dir / "mnist_train60k.npz").exists():
        pytest.skip("mnist_train60k.npz is absent")


@pytest.mark.usefixtures("digits")
def test_images_are_digits_in_noise_and_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(million, "AT_ONCE", 7)
    for name in ("one.npy", "two.npy"):
        million.make(tmp_path / name, 20, 64)
    one, two = (np.load(tmp_path / name) for name in ("one.npy", "two.npy"))
    assert one.shape == (20, 64, 64) and one.dtype == np.uint8
    np.testing.assert_array_equal(one, two)
    assert (one > 200).any(axis=(1, 2)).all() and np.median(one) < 20


def test_memory_of_this_process_is_counted() -> None:
    before = million.anonymous_bytes(million.os.getpid())
    # Of the system, not of malloc, which may hand out what this process holds already.
    with mmap.mmap(-1, 50_000_000, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        held.write(b"1" * len(held))
        assert million.anonymous_bytes(million.os.getpid()) - before > 0.9 * len(held)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("digits")
def test_a_million_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["million", str(tmp_path), "--side", "32", "--method", "pca"])
    million.main()
    lines = [json.loads(line) for line in (tmp_path / "pca-1000000.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == list(million.STAGES)
    assert max(line["peak"] for line in lines) < 4e9
    out = tmp_path / "pca-1000000"
    assert (out / "report.html").stat().st_size < 10e6
    fitted = np.asarray(pq.read_table(out / "assignments.parquet", columns=["fitted"])["fitted"])
    assert len(fitted) == 1_000_000 and fitted.sum() == 50_000
