"""Which images of two runs are the same: by id, by SOP instance UID, by file; those that cannot be told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medstrata.errors import RunFolderError
from medstrata.pipeline.joining import BY_ID, BY_SOURCE, join_images

Source = tuple[str, str, int, str]  # image_id, file, frame, SOP instance UID


def run_of(out: Path, ids: list[str], sources: list[Source] | None = None) -> Path:
    out.mkdir()
    pq.write_table(pa.table({"image_id": ids}), out / "assignments.parquet")
    if sources is not None:
        (out / "private").mkdir()
        names = ("image_id", "file", "frame", "instance_uid")
        columns: dict[str, list[Any]] = {
            name: list(values) for name, values in zip(names, zip(*sources, strict=True), strict=True)
        }
        pq.write_table(pa.table(columns), out / "private" / "sources.parquet")
    return out


def test_shared_ids_are_enough(tmp_path: Path) -> None:
    first, second = run_of(tmp_path / "a", ["x", "y", "z"]), run_of(tmp_path / "b", ["z", "w", "x"])
    found = join_images(first, second)
    assert (found.first.tolist(), found.second.tolist(), found.by, found.ambiguous) == ([2, 0], [0, 2], BY_ID, 0)


def test_others_by_uid_or_by_file_and_frame(tmp_path: Path) -> None:
    one = [("a1", "p/1.dcm", 0, "1.2"), ("a1", "p/2.dcm", 0, "1.3"), ("a2", "v.npy", 0, ""), ("a3", "v.npy", 1, "")]
    two = [("b1", "v.npy", 1, ""), ("b2", "q/9.dcm", 0, "1.3"), ("b2", "q/8.dcm", 0, "1.2"), ("b3", "v.npy", 7, "")]
    first = run_of(tmp_path / "a", ["a1", "a2", "a3"], one)
    second = run_of(tmp_path / "b", ["b1", "b2", "b3"], two)
    found = join_images(first, second)
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(2, 0), (0, 1)]
    assert found.by == BY_SOURCE


def test_frames_of_one_file_and_parts_of_a_series_are_told_apart(tmp_path: Path) -> None:
    one = [("a1", "m.dcm", 0, "1.2"), ("a2", "m.dcm", 1, "1.2"), ("a3", "s1", 0, "1.4"), ("a3", "s2", 0, "1.5")]
    two = [("b1", "m.dcm", 1, "1.2"), ("b3", "s1", 0, "1.4")]
    first, second = run_of(tmp_path / "a", ["a1", "a2", "a3"], one), run_of(tmp_path / "b", ["b1", "b3"], two)
    found = join_images(first, second)
    assert (found.first.tolist(), found.second.tolist()) == ([1], [0])


def test_an_image_that_stands_twice_is_left_out_and_counted(tmp_path: Path) -> None:
    one = [("a1", "1.dcm", 0, "1.2"), ("a2", "copy of 1.dcm", 0, "1.2"), ("a3", "3.dcm", 0, "1.3")]
    two = [("b1", "1.dcm", 0, "1.2"), ("b3", "3.dcm", 0, "1.3")]
    first, second = run_of(tmp_path / "a", ["a1", "a2", "a3"], one), run_of(tmp_path / "b", ["b1", "b3"], two)
    found = join_images(first, second)
    assert (found.first.tolist(), found.second.tolist(), found.ambiguous) == ([2], [1], 2)


def test_nothing_in_common_is_told(tmp_path: Path) -> None:
    first = run_of(tmp_path / "a", ["a1"], [("a1", "1.dcm", 0, "1.2")])
    second = run_of(tmp_path / "b", ["b1"], [("b1", "2.dcm", 0, "1.3")])
    with pytest.raises(RunFolderError, match="no image in common"):
        join_images(first, second)


def test_a_private_folder_that_is_needed_and_gone_is_named(tmp_path: Path) -> None:
    first = run_of(tmp_path / "a", ["a1"], [("a1", "1.dcm", 0, "1.2")])
    second = run_of(tmp_path / "b", ["b1"])
    with pytest.raises(RunFolderError, match="private/ folder of OUT2"):
        join_images(first, second)
    with pytest.raises(RunFolderError, match="private/ folder of OUT1"):
        join_images(second, first)
