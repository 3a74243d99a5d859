"""The growing pixels.npy: rows land where they belong, unused ones are closed up, in bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medstrata.errors import RunFolderError
from medstrata.images import pixel_file


@given(kept=st.lists(st.booleans(), min_size=1, max_size=40), piece=st.integers(5, 70))
@settings(max_examples=60, deadline=None)
def test_kept_rows_stay_in_order(tmp_path_factory: pytest.TempPathFactory, kept: list[bool], piece: int) -> None:
    path = tmp_path_factory.mktemp("pixels") / "pixels.npy"
    rows = np.random.default_rng(len(kept)).integers(0, 2**16, (len(kept), 1, 3, 4)).astype(np.uint16)
    file = pixel_file.create(path, len(kept), (1, 3, 4), "uint16")
    for row in reversed(range(len(kept))):
        if kept[row]:
            file.write(row, rows[row : row + 1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixel_file, "MOVE_BYTES", piece)  # pieces that are no multiple of a row
        file.close_up(np.array(kept))
    np.testing.assert_array_equal(np.load(path), rows[np.array(kept)])
    np.testing.assert_array_equal(np.load(path, mmap_mode="r"), rows[np.array(kept)])


def test_rows_not_written_are_zero(tmp_path: Path) -> None:
    file = pixel_file.create(tmp_path / "p.npy", 3, (2, 2), "uint8")
    file.write(1, np.full((1, 2, 2), 9, dtype=np.uint8))
    np.testing.assert_array_equal(np.load(tmp_path / "p.npy")[:, 0, 0], [0, 9, 0])


def test_header_has_room_for_any_number_of_rows(tmp_path: Path) -> None:
    few = pixel_file.create(tmp_path / "few.npy", 1, (1, 64, 64), "uint8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixel_file.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2**63})())
        many = pixel_file.create(tmp_path / "many.npy", 10**8, (1, 64, 64), "uint8")  # sparse: takes no room
    assert few.start == many.start


def test_no_room_is_said_with_numbers_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_file.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10**9})())
    with pytest.raises(RunFolderError, match="need 4,096 MB and 67 MB to spare, but OUT has only 1,000 MB free"):
        pixel_file.create(tmp_path / "p.npy", 10**6, (1, 64, 64), "uint8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("row", "block"),
    [
        (0, np.zeros((1, 2, 3), np.uint8)),
        (0, np.zeros((1, 2, 2), np.uint16)),
        (2, np.zeros((2, 2, 2), np.uint8)),
        (-1, np.zeros((1, 2, 2), np.uint8)),
    ],
)
def test_blocks_that_do_not_fit_are_refused(tmp_path: Path, row: int, block: np.ndarray) -> None:
    file = pixel_file.create(tmp_path / "p.npy", 3, (2, 2), "uint8")
    with pytest.raises(ValueError, match="does not fit"):
        file.write(row, block)
