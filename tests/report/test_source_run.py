"""New images: the report has the verdict of the run of the model, and no advice that is only for a fit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import run_folder
from medstrata.report.folder import read_run_folder
from medstrata.report.page import render
from medstrata.report.source_run import SourceRun, read_source

SOURCE: dict[str, Any] = {
    "validated": True,
    "supported": True,
    "sentence": "1 of 2 clusters is supported.",
    "remark": "No gap.",
    "clusters": [
        {"cluster": 0, "supported": True, "sentence": "Cluster 0 is stable."},
        {"cluster": 1, "supported": False, "sentence": "Cluster 1 is doubtful."},
    ],
    "named": [
        {
            "cluster": 1,
            "origin": "header",
            "short": "Cluster 1 is mostly A.",
            "sentence": "Cluster 1 is mostly A (90 %).",
        },
        {"cluster": 0, "origin": "pixels", "short": "Cluster 0 is dark.", "sentence": "Cluster 0 is dark (1.00)."},
    ],
}


def page_of(out: Path, source: dict[str, Any] | None, sizes: tuple[int, ...] = (20, 20)) -> str:
    """The page of images that are new to the model."""
    run_folder.write_run_folder(out, run_folder.planted_2d(sizes))
    (out / "drift.json").write_text(json.dumps({"drift": False, "sentence": "No drift."}))
    if source is not None:
        (out / "source_validation.json").write_text(json.dumps(source))
    return render(read_run_folder(out))


def first_look(page: str) -> dict[str, str]:
    """What stands at the top, by kind."""
    return dict(re.findall(r'<li class="\w+" data-kind="(\w+)">(.*?)</li>', page))


def test_the_verdict_of_the_run_of_the_model(tmp_path: Path) -> None:
    page = page_of(tmp_path / "out", SOURCE)
    assert "1 of 2, in the run of the model" in page
    first = first_look(page)
    assert first["validity"].endswith("in the run of the model.</strong> 1 of 2 clusters is supported. No gap.")
    assert first["scanner"].startswith("<strong>Warning: ") and "Cluster 1 is mostly A." in first["scanner"]
    assert "Cluster 0 is dark. This may be" in first["pixels"]
    assert "Cluster 1 is doubtful." in page and page.count('<td class="no">no</td>') == 1
    assert "medstrata validate" not in page


def test_what_is_not_supported_is_a_warning(tmp_path: Path) -> None:
    source = SOURCE | {"supported": False, "sentence": "No clusters are supported: noise.", "named": []}
    first = first_look(page_of(tmp_path / "out", source))
    assert first["validity"].startswith("<strong>Warning: The clusters are not supported in the run of the model")
    assert first.keys() == {"validity"}


def test_a_run_that_was_not_validated_and_one_of_which_nothing_is_known(tmp_path: Path) -> None:
    provisional = SOURCE | {"validated": False, "supported": False, "clusters": []}
    for name, source in (("provisional", provisional), ("unknown", None)):
        page = page_of(tmp_path / name, source)
        assert "not tested in the run of the model" in page
        assert "The run of the model was not validated" in first_look(page)["validity"]
        assert "medstrata validate OUT" not in page, "which would refuse this folder"
        assert ("scanner" in first_look(page)) == (source is not None)


def test_clusters_without_a_new_image_are_no_reason_to_ask_for_fewer(tmp_path: Path) -> None:
    first = first_look(page_of(tmp_path / "one", SOURCE, (20, 0, 20)))
    assert "None of the new images came into cluster 1." in first["empty"] and "collapse" not in first
    first = first_look(page_of(tmp_path / "two", SOURCE, (20, 0, 0)))
    assert "into the clusters 1 and 2." in first["empty"] and "collapse" not in first


def test_images_of_the_fit_have_no_other_run(tmp_path: Path) -> None:
    run = read_run_folder(run_folder.write_run_folder(tmp_path / "out", run_folder.planted_2d((20, 20))))
    assert read_source(run) is None
    assert SourceRun().count_words == "none of 0"
