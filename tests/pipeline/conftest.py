"""A finished run of three planted groups, and a copy of it that a test may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from command_line import images
from validated import finished_run


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three planted groups, as ``run`` leaves it."""
    return finished_run(tmp_path_factory.mktemp("planted"), images(60)[0])


@pytest.fixture
def run(planted: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(planted, tmp_path / "out"))
