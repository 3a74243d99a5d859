"""The section on validity: what it says of a validated run, of a provisional one and of one that was not validated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import run_folder
from medstrata.evidence.validity.cluster_number import number_of_clusters
from medstrata.pipeline.editing import edit_run
from medstrata.report.confounded import Named, Technical
from medstrata.report.folder import read_run_folder
from medstrata.report.page import render
from medstrata.report.validity import Validity, read_validity
from medstrata.report.validity_figures import CRITERIA, without_curve

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
        "curves": {
            "silhouette": {"k": [1, 2, 3], "value": [None, 0.2, 0.4], "recommended": 3},
            "communities": {"k": [], "value": [], "recommended": 4},
        },
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
    assert "Three are more likely." in page and "Which images stay together?" in page
    assert "Without a curve: communities (the number of communities that the graph of neighbours has over" in page
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


def test_one_refit_is_one(tmp_path: Path) -> None:
    stability = VALIDATED["stability"] | {"refits": {"seeds": 1, "patients": 0}}
    found = read_validity(VALIDATED | {"stability": stability}, tmp_path)
    assert found is not None and found.numbers[0][1].endswith("of 1 refit")


def test_the_verdict_names_the_clusters_that_are_a_scanner() -> None:
    named = [Named(f"Cluster {k} is mostly images of the scanner 'B'.", "with numbers") for k in range(4)]
    whole = Validity(False, True, "All 5 clusters are supported.", [], remark="No gap was found.")
    one = Technical(named[2:3], [], [], [], [], [])
    assert whole.verdict(one) == ("All 5 clusters are supported; cluster 2 is mostly images of the scanner 'B'.")
    assert whole.verdict(None) == whole.sentence and whole.whole == "All 5 clusters are supported. No gap was found."
    many = Technical(named, [], [], [], [], [])
    assert whole.verdict(many) == "All 5 clusters are supported; 4 of them follow how the images were made."
    none = Validity(False, False, "No clusters are supported: noise.", [])
    assert none.verdict(one) == none.sentence == none.whole


def test_the_remark_stands_at_the_top_and_beside_the_verdict(tmp_path: Path) -> None:
    page = page_of(tmp_path / "out", VALIDATED | {"remark": "No gap was found."})
    assert "not supported: 1. No gap was found.</li>" in page and "<p>No gap was found.</p>" in page


def test_names_and_merges_of_people(tmp_path: Path) -> None:
    out = tmp_path / "out"
    page_of(out, VALIDATED)
    (out / "model.safetensors").write_bytes(b"model")
    edit_run(out, "rename", ["1", "ground <b>"])
    page = render(read_run_folder(out))
    assert "</svg> 1: ground &lt;b&gt;</td>" in page and "merged cluster was not validated" not in page
    edit_run(out, "merge", ["0", "1"])
    page = render(read_run_folder(out))
    assert "Clusters 0 and 1 were merged by a person." in page and "a merged cluster was not validated as one" in page


def test_every_criterion_is_explained() -> None:
    z = np.random.default_rng(0).normal(size=(40, 3)) + 8 * np.eye(3)[np.arange(40) % 2]
    found = number_of_clusters(z, range_=range(1, 4))
    drawn = {name for name, curve in found["curves"].items() if curve["k"]}
    assert drawn == CRITERIA.keys()
    given = found["curves"]["communities"]["recommended"]
    assert without_curve(found).startswith("Without a curve: communities (")
    assert without_curve(found).endswith(f"): {given}.")
    assert without_curve({"curves": {name: found["curves"][name] for name in drawn}}) == ""
