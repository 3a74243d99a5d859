"""New images know what the run of the model found of its clusters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from command_line import images, medstrata
from medstrata.pipeline.source_validation import FILE, copy_verdict
from validated import validated


def source_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / FILE).read_text())
    return found


def test_the_verdict_goes_along_with_the_model(run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "new.npy", images(70)[0][60:])
    new = tmp_path / "new"
    answer = medstrata("assign", run, tmp_path / "new.npy", new)
    assert answer.code == 0, answer.err
    before = source_of(new)
    assert (before["validated"], before["supported"], before["clusters"]) == (False, False, [])
    assert "The run of the model was not validated" in (new / "report.html").read_text()
    found = validated(run, surrogates=19)
    answer = medstrata("assign", run, tmp_path / "new.npy", new)
    assert "assign: up to date" in answer.err
    after = source_of(new)
    assert after["validated"] and after["supported"] and after["sentence"] == found["sentence"]
    assert [one["supported"] for one in after["clusters"]] == [True] * 3
    assert [one["short"] for one in after["named"]] == [one["short"] for one in found["confounders"]["named"]]
    page = (new / "report.html").read_text()
    assert "3 of 3, in the run of the model" in page and "All 3 clusters are supported." in page
    third = tmp_path / "third"
    assert medstrata("assign", new, tmp_path / "new.npy", third).code == 0
    assert source_of(third) == after, "a folder of new images hands on what it was given"


def test_nothing_is_known_of_a_run_without_a_validation(tmp_path: Path) -> None:
    trained, out = tmp_path / "trained", tmp_path / "out"
    trained.mkdir(), out.mkdir()
    (out / FILE).write_text("{}")
    copy_verdict(trained, out)
    assert not (out / FILE).exists()
    older = {"provisional": False, "supported": True, "sentence": "All.", "clusters": [], "confounders": None}
    (trained / "validation.json").write_text(json.dumps(older))
    copy_verdict(trained, out)
    assert source_of(out)["remark"] == "" and source_of(out)["named"] == []
