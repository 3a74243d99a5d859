"""The section on validity: what it says of a validated run, of a provisional one and of one that was not validated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import run_folder
from medstrata.report.folder import read_run_folder
from medstrata.report.page import render
from medstrata.report.validity import read_validity

NULL = {
    "p": 0.05,
    "passed": True,
    "separate": True,
    "gap": {"real": 1.7, "surrogates": [0.4, 0.5, 0.6], "p": 0.25},
    "replication": {"real": 0.93, "surrogates": [0.1, 0.2, 0.21], "p": 0.25},
    "separation": {"real": 0.4, "surrogates": [0.1, 0.1, 0.1], "p": 0.25},
}
VALIDATED: dict[str, Any] = {
    "provisional": False,
    "supported": True,
    "sentence": "1 of 2 clusters are supported; not supported: 1.",
    "images": 20,
    "patients": 20,
    "clusters": [
        {"cluster": 0, "supported": True, "recovery": {"seeds": 0.9, "patients": 0.8}, "sentence": "Cluster 0 <b>."},
        {"cluster": 1, "supported": False, "recovery": {"seeds": 0.4, "patients": None}, "sentence": "Cluster 1."},
    ],
    "stability": {
        **run_folder.NO_STABILITY,
        "refits": {"seeds": 3, "patients": 3},
        "seeds": {"ari": {"mean": 0.71, "lowest": 0.6, "pairs": 6}},
    },
    "null": NULL,
    "n_clusters": {
        "used": 2,
        "recommended": 3,
        "plausible": [2],
        "sentence": "Three are more likely.",
        "curves": {"silhouette": {"k": [1, 2, 3], "value": [None, 0.2, 0.4], "recommended": 3}},
    },
}


def page_of(out: Path, validation: dict[str, Any] | None) -> str:
    run_folder.write_run_folder(out, run_folder.planted_2d((20, 20)))
    if validation is not None:
        (out / "validation.json").write_text(json.dumps(validation))
    return render(read_run_folder(out))


def test_a_validated_run(tmp_path: Path) -> None:
    matrix = np.kron(np.eye(2), np.ones((5, 5))).astype(np.float32)
    (tmp_path / "out" / "validation").mkdir(parents=True)
    np.save(tmp_path / "out" / "validation" / "consensus_matrix.npy", matrix)
    np.save(tmp_path / "out" / "validation" / "consensus_clusters.npy", np.repeat([0, 1], 5))
    page = page_of(tmp_path / "out", VALIDATED)
    assert "1 of 2 clusters are supported; not supported: 1." in page
    assert "Cluster 0 &lt;b&gt;." in page
    assert "adjusted Rand index 0.71, lowest 0.60, of 3 refits" in page
    assert "0.93; in images without groups 0.10 to 0.21; p = 0.25" in page
    assert "Three are more likely." in page
    assert page.count("data:image/svg+xml") >= 3 and "Consensus matrix" in page


def test_what_is_not_supported_stands_first(tmp_path: Path) -> None:
    page = page_of(tmp_path / "out", VALIDATED | {"supported": False, "sentence": "No clusters are supported: noise."})
    first = page[page.index("What to look at first") : page.index("Are these clusters real?")]
    assert "The clusters are not supported" in first and 'class="serious"' in first


def test_provisional_numbers_are_called_that(tmp_path: Path) -> None:
    page = page_of(
        tmp_path / "out",
        VALIDATED | {"provisional": True, "supported": False, "clusters": [], "null": None, "sentence": "Not yet."},
    )
    assert "Not yet." in page and "provisional" in page
    assert "whether these are real was not tested" in page
    assert "The clusters are not supported" not in page


def test_without_a_validation_the_page_says_how(tmp_path: Path) -> None:
    assert "<code>medstrata validate OUT</code> does so" in page_of(tmp_path / "out", None)
    assert read_validity(None, tmp_path) is None


def test_unknown_recoveries_are_dashes(tmp_path: Path) -> None:
    found = read_validity(VALIDATED, tmp_path)
    assert found is not None
    assert [row.recovery for row in found.clusters] == [["0.90", "0.80"], ["0.40", ""]]
    assert found.consensus == ""
