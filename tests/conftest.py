"""Shared fixtures: where the real data sets are, and skipping with a reason where they are not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from medstrata.learning.train import Training


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets: $MEDSTRATA_DATA, by default ../shared/data beside the checkout."""
    folder = Path(os.environ.get("MEDSTRATA_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"real data sets are absent: set MEDSTRATA_DATA to their folder (looked in {folder})")
    return folder


@pytest.fixture(scope="module")
def quick_fits() -> Iterator[None]:
    """Warm-ups of a tenth of the steps: for tests of the command line, whose images any network tells apart."""
    with pytest.MonkeyPatch.context() as patch:
        whole = Training.warmup_length
        patch.setattr(Training, "warmup_length", lambda training, count: -(-whole(training, count) // 10))
        yield
