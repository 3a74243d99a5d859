"""Shards: the same results whoever works, nothing done twice, and nothing lost, whatever dies."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import shard_functions as functions
from hypothesis import given
from hypothesis import strategies as st

from medstrata.errors import InputError, RunFolderError
from medstrata.images import shards
from medstrata.images.manifest import SHARDS_AT_LEAST, Manifest, Sharding, Share, cut
from medstrata.images.shards import Work, run_shards
from medstrata.images.workers import Executor, Processes, Serial
from medstrata.run import flocked

EVERY = [2 * number for number in range(20)]


def manifest_of(folder: Path, token: str = "t", items: int = 20, per_shard: int = 3) -> Manifest:
    manifest = Manifest(folder / "stage", token, items, per_shard)
    manifest.begin()
    return manifest


def run(
    folder: Path,
    function: Any,
    executor: Executor | None = None,
    items: Sequence[Any] = range(20),
    lost: Any = functions.reason,
    **more: Any,
) -> list[Any]:
    manifest = manifest_of(folder, items=len(items))
    sharding = Sharding(manifest.folder, "t", executor or Serial(), **more)
    return list(run_shards(manifest, Work("test", items, function, lost), sharding))


@given(items=st.integers(0, 3000), most=st.integers(1, 600))
def test_every_item_is_in_one_shard(items: int, most: int) -> None:
    manifest = Manifest(Path(), "", items, cut(items, most))
    every = [number for shard in range(manifest.count) for number in range(items)[manifest.span(shard)]]
    assert every == list(range(items))
    assert all(manifest.size(shard) <= most for shard in range(manifest.count))
    assert sum(manifest.size(shard) for shard in range(manifest.count)) == items
    if items > SHARDS_AT_LEAST * 30:
        assert manifest.count >= SHARDS_AT_LEAST


def test_serial_and_processes_give_the_same_files(tmp_path: Path) -> None:
    found = {}
    for name, executor in (("serial", Serial()), ("pool", Processes(2))):
        assert run(tmp_path / name, functions.double, executor) == EVERY
        files = sorted((tmp_path / name / "stage").iterdir())
        found[name] = [(file.name, file.read_bytes()) for file in files]
    assert found["serial"] == found["pool"] and len(found["pool"]) == 7 + 1


def test_done_shards_are_skipped_whatever_their_clock_says(tmp_path: Path) -> None:
    items = [(number, tmp_path / "marks") for number in range(20)]
    (tmp_path / "marks").mkdir()
    assert run(tmp_path, functions.count, items=items) == EVERY
    for file in (tmp_path / "stage").iterdir():
        os.utime(file, (2**31, 2**31) if "3" in file.name else (0, 0))  # clocks that were changed
    (tmp_path / "stage" / "000002.shard").unlink()
    said: list[str] = []
    assert run(tmp_path, functions.count, items=items, say=said.append) == EVERY
    marks = {int(file.name): file.read_text() for file in (tmp_path / "marks").iterdir()}
    assert marks == {number: "xx" if number in (6, 7, 8) else "x" for number in range(20)}
    assert said == ["test: 6 of 7 shards are done already; it goes on with the others"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_damaged_shards_are_done_again(damage: str, tmp_path: Path) -> None:
    run(tmp_path, functions.double)
    file = tmp_path / "stage" / "000004.shard"
    whole = file.read_bytes()
    other = (tmp_path / "stage" / "000003.shard").read_bytes()
    flipped = whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]
    file.write_bytes({"cut": whole[:-5], "flipped": flipped, "empty": b"", "other": other}[damage])
    said: list[str] = []
    assert run(tmp_path, functions.double, say=said.append) == EVERY
    assert file.read_bytes() == whole
    assert said[0] == "test: 1 of 7 shards are damaged and are done again"


def test_shards_of_other_inputs_are_thrown_away(tmp_path: Path) -> None:
    run(tmp_path, functions.double)
    for changed in ({"token": "u"}, {"items": 19}, {"per_shard": 2}):
        manifest = manifest_of(tmp_path, **changed)  # type: ignore[arg-type]
        assert [file.name for file in manifest.folder.iterdir()] == ["manifest"]


def test_a_shard_holds_records_and_runs_nothing(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    manifest.write(0, [partial(os.system, "true")])
    with pytest.raises(Exception, match=r"a shard holds (functools\.partial|posix\.system)"):
        manifest.read(0)


def test_memory_stays_bounded(tmp_path: Path) -> None:
    out: list[int] = []

    class Counting(Processes):
        def submit(self, *arguments: Any) -> Any:
            future = super().submit(*arguments)
            out.append(1)
            future.add_done_callback(lambda _: out.append(-1))
            return future

    run(tmp_path, functions.slowly, Counting(2), items=range(60))
    assert max(sum(out[:number]) for number in range(len(out))) <= Processes(2).width


def test_a_crash_costs_one_item(tmp_path: Path) -> None:
    found = run(tmp_path, functions.or_die, Processes(2))
    assert found == [*EVERY[:7], "decoder_crashed", *EVERY[8:]]


def test_a_worker_that_somebody_killed_costs_nothing(tmp_path: Path) -> None:
    items = [(number, tmp_path / "mark") for number in range(20)]
    assert run(tmp_path, functions.killed_once, Processes(2), items=items) == EVERY


def test_what_was_handed_out_with_a_killed_worker_is_done_by_all_workers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_by_one(self: Processes) -> Executor:
        raise AssertionError("one kill must not bring everything into a single process")

    monkeypatch.setattr(Processes, "alone", one_by_one)
    items = [(number, tmp_path / "mark") for number in range(20)]
    assert run(tmp_path, functions.killed_once, Processes(2), items=items) == EVERY


def test_a_timeout_of_the_disk_is_no_hanging_decoder(tmp_path: Path) -> None:
    """Python has one name for both."""
    with pytest.raises(TimeoutError, match="timed out"):
        run(tmp_path, functions.or_disk_timeout, Processes(2))


def test_what_dies_every_time_and_has_no_row_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="a worker died or came to no end on the same images"):
        run(tmp_path, functions.or_die, Processes(2), lost=None)


def test_nothing_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("SAY_SECONDS", 0.5), ("SHARD_SECONDS", 1.0), ("ITEM_SECONDS", 0.5)):
        monkeypatch.setattr(shards, name, seconds)
    said: list[str] = []
    started = time.monotonic()
    found = run(tmp_path, functions.or_hang, Processes(2), say=said.append)
    assert found == [*EVERY[:7], "decoder_hangs", *EVERY[8:]]
    assert "shards; 2 worker processes are at it" in said[0]
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("executor", [Serial(), Processes(2)], ids=["serial", "pool"])
def test_what_is_wrong_with_input_or_disk_ends_the_run_and_can_be_continued(executor: Executor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no longer reachable"):
        run(tmp_path, functions.or_gone, executor)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, functions.or_full, executor)
    assert run(tmp_path, functions.double, executor) == EVERY


def test_shares_of_a_job_array_together_do_everything_once(tmp_path: Path) -> None:
    items = [(number, tmp_path / "marks") for number in range(20)]
    (tmp_path / "marks").mkdir()
    for number in (3, 1, 2):
        assert run(tmp_path, functions.count, items=items, share=Share(number, 3)) == []
    assert run(tmp_path, functions.count, items=items) == EVERY
    assert {file.read_text() for file in (tmp_path / "marks").iterdir()} == {"x"}


def test_progress_counts_items(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    manifest = manifest_of(tmp_path, items=5, per_shard=2)
    run_shards(
        manifest,
        Work("test", range(5), functions.double),
        Sharding(manifest.folder, "t", Serial()),
        lambda *step: told.append(step),
    )
    assert told == [("test", 2, 5), ("test", 4, 5), ("test", 5, 5)]


def test_a_worker_that_does_not_see_out_or_has_another_version_says_so(tmp_path: Path) -> None:
    elsewhere = Manifest(tmp_path / "not mounted", "t", 20, 3)
    assert "under the same path" in str(shards.do_shard(elsewhere, 0, functions.double, [1]))
    other = Manifest(tmp_path, "t", 20, 3, version="0.0.0")
    assert "Install the same" in str(shards.do_shard(other, 0, functions.double, [1]))


def test_the_lock_of_a_folder_is_waited_for_with_a_limit(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with flocked(lock), pytest.raises(RunFolderError, match="longer than it ever should"), flocked(lock, seconds=0.1):
        raise AssertionError("it was held twice")
