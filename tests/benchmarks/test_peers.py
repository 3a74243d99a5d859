"""Peers run as processes with a limit; the fake scripts here stand in for them and need no other environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.results import peers
from benchmarks.results.peers import peer_labels

IMAGES = np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4)
ANSWER = """
import json, sys
import numpy as np
name, images, k, seed, labels = sys.argv[1:]
assert name == "DEC" and np.load(images).shape == (5, 4, 4)
np.save(labels, np.arange(5) % int(k) + int(seed))
print("a line that is no answer")
print(json.dumps({"cpu_seconds": 1.5, "version": "fake 1"}))
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script, still to be written, that runs in place of the peers' own, under this Python."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(peers, "ENVIRONMENT", tmp_path)
    monkeypatch.setattr(peers, "SCRIPT", tmp_path / "fake.py")
    return tmp_path / "fake.py"


def test_the_script_gets_images_clusters_and_seed_and_its_labels_come_back(fake: Path) -> None:
    fake.write_text(ANSWER)
    labels, seconds = peer_labels("DEC", IMAGES, 2, 10, 60)
    assert labels is not None
    assert labels.tolist() == [10, 11, 10, 11, 10]
    assert seconds == 1.5


def test_over_the_limit_there_are_no_labels(fake: Path) -> None:
    fake.write_text("while True: pass")
    assert peer_labels("DEC", IMAGES, 2, 0, 1) == (None, 1.0)


def test_a_failure_says_which_peer_and_why(fake: Path) -> None:
    fake.write_text("raise ValueError('planted reason')")
    with pytest.raises(RuntimeError, match="VaDE failed on 5 images with seed 3: ValueError: planted reason"):
        peer_labels("VaDE", IMAGES, 2, 3, 60)


def test_a_missing_environment_names_the_make_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "ENVIRONMENT", tmp_path)
    with pytest.raises(FileNotFoundError, match="make peers"):
        peer_labels("DEC", IMAGES, 2, 0, 60)


def test_the_real_script_stands_alone_and_knows_every_peer() -> None:
    ended = subprocess.run([sys.executable, "-I", peers.SCRIPT, "-h"], capture_output=True, text=True, check=True)
    assert all(name in ended.stdout for name in peers.PEERS)
    assert "import medstrata" not in peers.SCRIPT.read_text() and "from medstrata" not in peers.SCRIPT.read_text()
