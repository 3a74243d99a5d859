"""The table of tested maps, its cells written out."""

from __future__ import annotations

from medstrata.report.tested import read_tests


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
