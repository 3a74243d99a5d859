"""The table of tested maps, its cells written out."""

from __future__ import annotations

import json
from pathlib import Path

from medstrata.report.attention import Checks, findings
from medstrata.report.cards import make_cards
from medstrata.report.facts import gather_facts
from medstrata.report.folder import read_run_folder
from medstrata.report.page import render
from medstrata.report.tested import read_tests
from run_folder import planted_2d, write_run_folder


def test_rules_above_controls_and_only_what_was_measured() -> None:
    value = {"mean": 0.5, "low": 0.41, "high": 0.6}
    check = {
        "images": 7,
        "rules": {
            "ours": {"deletion": value, "noise": {"mean": None, "low": None, "high": None}, "completeness": value}
        },
        "controls": {"edges": {"deletion": value}},
        "verdict": [{"passed": True, "sentence": "Good."}, {"passed": False, "sentence": "Bad."}],
    }
    found = read_tests(check)
    assert found is not None
    assert (found.images, found.headings, found.failed) == (7, ["deletion", "noise"], 1)
    assert found.tests == [("passed", "Good."), ("not passed", "Bad.")]
    cells = [("0.50", "0.41 to 0.60"), ("", "")]
    assert found.rows == [("ours", False, cells), ("edges", True, cells)]


def test_no_test_no_table() -> None:
    assert read_tests({}) is None


def test_failed_tests_stand_among_what_to_look_at_first(tmp_path: Path) -> None:
    out = write_run_folder(tmp_path / "out", planted_2d())
    test = {"passed": False, "sentence": "The maps hardly depend on the cluster."}
    interval = {"mean": 0.5, "low": 0.4, "high": 0.6}
    check = {"images": 9, "rules": {"ours": {"deletion": interval}}, "controls": {}, "verdict": [test]}
    (out / "maps" / "check.json").write_text(json.dumps(check))
    run = read_run_folder(out)
    assert run.maps is not None
    (found,) = [
        one for one in findings(gather_facts(run), run.plan, Checks(read_tests(run.maps.check))) if one.kind == "maps"
    ]
    assert found.title == "The activation maps did not pass 1 of 1 tests" and found.text == test["sentence"]
    assert found.title in render(run) and "0.40 to 0.60" in render(run)


def test_a_map_that_must_not_be_used_is_not_drawn(tmp_path: Path) -> None:
    out = write_run_folder(tmp_path / "out", planted_2d())
    caution = "This map should not be used to explain the cluster."
    entries = [{"cluster": k, "caution": caution if k == 1 else "", "check": ""} for k in range(3)]
    (out / "maps" / "summary.json").write_text(json.dumps({"caution": "", "scale": 1.0, "clusters": entries}))
    run = read_run_folder(out)
    cards = make_cards(run, gather_facts(run))
    drawn = [card.maps is not None and bool(card.maps.overlays) for card in cards]
    assert drawn == [True, False, True] and not cards[1].examples
    assert caution in render(run)
