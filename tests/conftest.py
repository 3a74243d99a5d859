"""Shared fixtures: where the real data sets are, and skipping with a reason where they are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets: $MEDSTRATA_DATA, by default ../shared/data beside the checkout."""
    folder = Path(os.environ.get("MEDSTRATA_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"real data sets are absent: set MEDSTRATA_DATA to their folder (looked in {folder})")
    return folder
