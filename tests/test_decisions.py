"""Decisions: what stands, what belongs together, which lines are refused, and that a kill breaks nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medstrata import decisions
from medstrata.decisions import Decided, Decision, append, check_text, copy_decisions, read_decided, read_decisions
from medstrata.errors import InputError, RunFolderError

WHEN = "2025-03-04T11:00:00+00:00"
LINE = {"what": "rename", "model": "m", "when": WHEN, "clusters": [2], "name": "lungs"}


def run_of(out: Path, model: bytes = b"model", scan: str = "s") -> Path:
    """A run folder as far as decisions read it."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.safetensors").write_bytes(model)
    (out / "run.json").write_text(json.dumps({"format": 1, "stages": {"scan": {"token": scan}}}))
    return out


def decide(out: Path, what: str, *clusters: int, **values: object) -> None:
    blank = Decision(what, decisions.model_checksum(out), WHEN, clusters=clusters)
    append(out, replace(blank, **values))  # type: ignore[arg-type]


def test_nothing_decided_is_nothing(tmp_path: Path) -> None:
    decided = read_decided(tmp_path)
    assert decided == Decided()
    assert (decided.group(3), decided.members(3), decided.name(3), decided.flags(3)) == (3, [3], "", [])


def test_names_merges_and_flags(tmp_path: Path) -> None:
    out = run_of(tmp_path)
    decide(out, "rename", 3, name="first")
    decide(out, "merge", 3, 5)
    decide(out, "merge", 1, 5)
    decide(out, "flag", 5, why="motion")
    decide(out, "flag", 0, why="other scanner")
    decide(out, "flag", image_id="ab", why="mirrored", scan="s")
    decided = read_decided(out)
    assert [decided.group(cluster) for cluster in range(-1, 6)] == [-1, 0, 1, 2, 1, 4, 1]
    assert decided.members(5) == decided.members(1) == [1, 3, 5] and decided.members(2) == [2]
    assert [decided.name(cluster) for cluster in range(6)] == ["", "first", "", "first", "", "first"]
    assert decided.flags(1) == ["motion"] and decided.flags(0) == ["other scanner"] and decided.flags(4) == []
    assert decided.image_flags() == {"ab": ["mirrored"]}
    decide(out, "rename", 1, name="last")
    assert read_decided(out).name(5) == "last"


def test_an_undone_line_no_longer_stands_and_stays_in_the_file(tmp_path: Path) -> None:
    out = run_of(tmp_path)
    decide(out, "rename", 2, name="a")
    decide(out, "merge", 1, 2)
    decide(out, "undo", undoes=2)
    decided = read_decided(out)
    assert decided.groups == {} and decided.name(2) == "a" and decided.name(1) == ""
    assert len((out / "decisions.jsonl").read_text().splitlines()) == 3
    decide(out, "undo", undoes=1)
    assert read_decided(out) == Decided()


def test_decisions_about_another_model_are_set_aside(tmp_path: Path) -> None:
    out = run_of(tmp_path)
    decide(out, "rename", 2, name="a")
    decide(out, "flag", image_id="ab", why="b", scan="s")
    run_of(out, scan="another")
    assert read_decided(out).set_aside == 1 and read_decided(out).name(2) == "a" and not read_decided(out).image_flags()
    run_of(out, model=b"another")
    assert read_decided(out) == Decided(set_aside=2)
    run_of(out)
    assert read_decided(out).set_aside == 0
    (out / "model.safetensors").unlink()
    with pytest.raises(RunFolderError, match="medstrata run"):
        read_decided(out)


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 7), min_size=2, max_size=3), max_size=6))
def test_merges_are_the_connected_clusters(merges: list[set[int]]) -> None:
    lines = [Decision("merge", "m", WHEN, line, clusters=tuple(sorted(each))) for line, each in enumerate(merges, 1)]
    decided = Decided(tuple(lines), decisions._merged(lines))
    for cluster in range(8):
        reached = {cluster}
        for _ in range(8):  # as far as any chain of merges goes
            reached |= {one for each in merges if each & reached for one in each}
        assert decided.members(cluster) == sorted(reached) and decided.group(cluster) == min(reached)


@settings(deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_what_is_written_is_read_again_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, why: str
) -> None:
    out = run_of(tmp_path_factory.mktemp("run"))
    try:
        texts = {"name": check_text("name", name), "why": check_text("why", why)}
    except InputError:
        return
    if texts["name"]:
        decide(out, "rename", 0, **texts)
        found = read_decisions(out)[0]
        assert (found.name, found.why, found.clusters, found.line) == (texts["name"], texts["why"], (0,), 1)


@pytest.mark.parametrize("text", ["a\nb", "a\x00b", "a\x1b[31m", "a\u202eb", "a\u2028b", "a\u200bb"])
def test_control_characters_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="control or invisible"):
        check_text("name", text)


def test_long_text_is_refused_and_plain_text_is_kept() -> None:
    with pytest.raises(InputError, match=r"81 characters\. Use at most 80"):
        check_text("name", "a" * 81)
    assert check_text("name", " Überblick / <b>肺</b> ") == "Überblick / <b>肺</b>"


@pytest.mark.parametrize(
    "wrong",
    [
        "{",
        "[]",
        "{}",
        "\xff",
        json.dumps(LINE | {"what": "remove"}),
        json.dumps(LINE | {"clusters": ["2"]}),
        json.dumps(LINE | {"clusters": [True]}),
        json.dumps(LINE | {"clusters": [-1]}),
        json.dumps(LINE | {"clusters": [1, 2]}),
        json.dumps(LINE | {"name": ""}),
        json.dumps(LINE | {"name": "a\nb"}),
        json.dumps(LINE | {"name": 3}),
        json.dumps(LINE | {"model": ""}),
        json.dumps(LINE | {"line": 7}),
        json.dumps(LINE | {"what": "merge", "clusters": [1, 1]}),
        json.dumps(LINE | {"what": "flag"}),
        json.dumps({"what": "undo", "model": "m", "when": WHEN, "undoes": 4}),
        json.dumps(LINE)[:-9],
        "[" * 100_000,
    ],
)
def test_a_line_that_is_no_decision_is_named_by_its_number(wrong: str, tmp_path: Path) -> None:
    text = json.dumps(LINE) + "\n\n" + wrong + "\n" + json.dumps(LINE) + "\n"
    (run_of(tmp_path) / "decisions.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunFolderError, match=r"decisions\.jsonl, line 3:"):
        read_decided(tmp_path)


def test_the_same_line_cannot_be_undone_twice(tmp_path: Path) -> None:
    undo = {"what": "undo", "model": "m", "when": WHEN, "undoes": 1}
    text = "".join(json.dumps(line) + "\n" for line in (LINE, undo, undo))
    (run_of(tmp_path) / "decisions.jsonl").write_text(text)
    with pytest.raises(RunFolderError, match="line 3"):
        read_decisions(tmp_path)


def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = run_of(tmp_path)
    decide(out, "rename", 2, name="a")
    before = (out / "decisions.jsonl").read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("medstrata.run.os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            decide(out, "rename", 2, name="b")
    assert (out / "decisions.jsonl").read_bytes() == before
    decide(out, "rename", 2, name="b")
    assert (out / "decisions.jsonl").read_bytes().startswith(before) and read_decided(out).name(2) == "b"


def test_a_last_line_without_its_end_is_ended_first(tmp_path: Path) -> None:
    out = run_of(tmp_path)
    (out / "decisions.jsonl").write_text(json.dumps(LINE))
    decide(out, "rename", 0, name="b")
    assert [one.line for one in read_decisions(out)] == [1, 2]


def test_decisions_go_along_with_the_model_until_the_copy_has_its_own(tmp_path: Path) -> None:
    first, second = run_of(tmp_path / "a"), run_of(tmp_path / "b", scan="other")
    assert copy_decisions(first, second) and not (second / "decisions.jsonl").exists()
    decide(first, "rename", 2, name="a")
    decide(first, "flag", image_id="ab", why="b", scan="s")
    assert copy_decisions(first, second)
    assert read_decided(second).name(2) == "a" and not read_decided(second).image_flags(), "its ids are other images"
    decide(first, "rename", 2, name="c")
    assert copy_decisions(first, second) and read_decided(second).name(2) == "c"
    decide(second, "rename", 2, name="d")
    assert copy_decisions(first, second) and read_decided(second).name(2) == "d", "nothing is missing there"
    decide(first, "rename", 2, name="e")
    assert not copy_decisions(first, second) and read_decided(second).name(2) == "d"
