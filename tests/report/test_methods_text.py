"""The methods paragraph: what was done is said with its numbers, what was not done is not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from test_validity import VALIDATED

import run_folder
from medstrata.learning.train import Training
from medstrata.methods import METHODS
from medstrata.methods.settings import make_method, settings_of
from medstrata.report.facts import gather_facts
from medstrata.report.folder import read_run_folder
from medstrata.report.methods_text import MethodsText, write_methods
from medstrata.report.methods_training import METHODS as WORDS
from medstrata.report.references import REFERENCES, cited

ASSOCIATION = {"test": "Kruskal-Wallis", "effect_name": "epsilon squared"}
CLINICAL: dict[str, Any] = {
    "patients": 20,
    "mixed": 2,
    "tests": 2,
    "findings": 1,
    "level": 0.05,
    "rows_not_used": {"the id is not known to this run": 1},
    "columns_not_used": {},
    "associations": [
        {"test": "chi-square, by permutation", "effect_name": "Cramér's V"},
        {"test": "log-rank", "effect_name": None},
        {"test": None, "effect_name": None},
    ],
}
CONFOUNDERS: dict[str, Any] = {
    "named": [],
    "sentences": [],
    "kinds": [
        {
            "kind": "",
            "headers": None,
            "pixels": {"balanced_accuracy": 0.5},
            "associations": [{**ASSOCIATION, "column": "kernel", "origin": "header"}],
        }
    ],
}
CALIBRATION = {
    "calibrated": True,
    "fit": {"comparisons": 1200, "patients": 36},
    "novelty": {"can_flag": True, "false_alarm_rate": 0.01},
}


def text_of(out: Path, **files: Any) -> MethodsText:
    """The methods paragraph of a planted run with these JSON files beside it."""
    if not out.exists():
        run_folder.write_run_folder(out, run_folder.planted_2d((20, 20)), maps=False)
    for name, values in files.items():
        (out / f"{name}.json").write_text(json.dumps(values))
    run = read_run_folder(out)
    return write_methods(run, gather_facts(run))


def model_of(method: str, **settings: Any) -> dict[str, Any]:
    """A model.json of a method with its default settings."""
    fitted = settings_of(make_method(method, {"n_clusters": 2, **settings}))
    return {"method": method, "settings": fitted, "n_clusters": 2, "embedding_size": 32, "warnings": []}


def test_images_and_what_became_of_them(tmp_path: Path) -> None:
    text = text_of(tmp_path / "out").paragraphs[0]
    assert text.startswith("40 images of 14 patients were included (")
    assert "3 files and images were excluded (not an image, 2; truncated, 1)." in text
    assert "a common grid of 16 × 16 pixels." in text and "volume" not in text
    assert "between 0 and 1, each image alone (stored: range 0 to 255)" in text


def test_slices_of_volumes_are_mentioned_where_there_are_any(tmp_path: Path) -> None:
    study = run_folder.planted_2d((6, 6))
    study.slices_per_volume = 3
    out = run_folder.write_run_folder(tmp_path / "out", study, maps=False)
    assert "Of a volume, the central 3 slices entered" in text_of(out).plain


def test_nothing_is_claimed_that_was_not_done(tmp_path: Path) -> None:
    text = " ".join(text_of(tmp_path / "out").paragraphs)
    words = r"refit|repeated|calibrat|novel|without groups|activation|clinical|technical|supported|Hennig|Benjamini"
    assert not re.search(words, text)


def test_every_method_has_its_words() -> None:
    assert WORDS.keys() == METHODS.keys()


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("auto", "2 runs of a residual network"),
        ("deepmcat", "Kart et al. 2021"),
        ("dcec", "deep convolutional embedded clustering (Guo, Liu et al. 2017; Ryan et al. 2022)"),
        ("dvc", "Soleymani et al. 2022"),
        ("contrastive", "Ferrante et al. 2023"),
        ("pca", "the first 50 principal components"),
        ("features", "vectors of the images that were computed beforehand"),
    ],
)
def test_each_method_is_named_with_its_paper(method: str, words: str, tmp_path: Path) -> None:
    found = text_of(tmp_path / "out", model=model_of(method))
    assert "Clusters were found without labels " in found.plain and words in found.plain
    assert "The number of clusters was 2, set in advance." in found.plain
    assert found.references == cited(" ".join(found.paragraphs))


def test_training_settings_and_epochs_are_those_of_the_files(tmp_path: Path) -> None:
    usual = Training()
    text = text_of(tmp_path / "out", model=model_of("dcec")).paragraphs[1]
    assert f"learning rate of {usual.learning_rate:g} (constant)" in text
    assert f"batches of {usual.batch_size} images" in text
    assert "convolutional layers of 16, 32, 64 channels; embeddings had 32 values" in text
    assert "Epochs made: 5 of warm-up, 6 of clustering; the rule was not reached to stop when fewer than 0.1 %" in text
    assert "clustering weight 0.01" in text and "Images were not changed at random." in text
    history = (tmp_path / "out" / "history.jsonl").read_text()
    (tmp_path / "out" / "history.jsonl").write_text(history + '{"phase": "clustering", "epoch": 6, "stopped": "x"}\n')
    assert "7 of clustering; training was stopped when" in text_of(tmp_path / "out").paragraphs[1]


def test_no_network_no_training(tmp_path: Path) -> None:
    (run_folder.write_run_folder(tmp_path / "out", run_folder.planted_2d((20, 20)), maps=False, history=False))
    text = text_of(tmp_path / "out", model=model_of("pca")).plain
    assert "learning rate" not in text and "Epochs" not in text


def test_clusters_found_by_themselves_are_not_called_set_in_advance(tmp_path: Path) -> None:
    model = model_of("dcec")
    model["settings"]["n_clusters"] = "auto"
    assert "was 2, as the images showed." in text_of(tmp_path / "out", model=model).plain


def test_a_copied_model_was_fitted_on_others(tmp_path: Path) -> None:
    text = text_of(tmp_path / "out", model=model_of("dcec"), drift={"drift": False, "sentence": "No drift."}).plain
    assert "assigned by a model whose clusters had been found in other images" in text
    assert "Clusters were found without labels" not in text


def test_provisional_is_called_provisional(tmp_path: Path) -> None:
    stability = run_folder.NO_STABILITY | {"refits": {"seeds": 0, "patients": 5}}
    found = VALIDATED | {
        "provisional": True,
        "stability": stability,
        "null": None,
        "settings": {"share_of_patients": 0.8},
    }
    text = text_of(tmp_path / "out", validation=found, calibration=CALIBRATION).plain
    assert "read again 5 times from the images of 80 % of the patients" in text
    assert "looked at provisionally" in text and "on the finished embedding" in text
    assert "without groups" not in text and "A cluster was called supported" not in text


def test_refits_null_thresholds_and_corrections(tmp_path: Path) -> None:
    settings = {"share_of_patients": 0.8, "splits": 3, "share_of_epochs": 0.5, "images_in_null": 40}
    found = VALIDATED | {"settings": settings, "confounders": CONFOUNDERS, "associations": CLINICAL}
    text = text_of(tmp_path / "out", validation=found, calibration=CALIBRATION).plain
    for words in (
        "repeated 3 times with other random numbers and 3 times on the images of 80 % of the patients",
        "(40 images, 50 % of the epochs, 3 divisions into halves)",
        "on 3 sets of images without groups",
        "mean adjusted Rand index of at least 0.6 in both kinds",
        "(p ≤ 0.05)",
        "mean Jaccard index of at least 0.75; below 0.6",
        "(1,200 comparisons in 36 patients)",
        "false alarms of 1 %",
        "technical data (1 from the headers) by Kruskal-Wallis (effect sizes: epsilon squared",
        "5-fold cross-validation by patient",
        "of 20 patients were compared with the clusters by chi-square by permutation and log-rank",
        "bias-corrected Cramér's V, Bergsma 2013",
        "2 patients had images in several clusters.",
        "All 2 tests were corrected together (Benjamini and Hochberg 1995) at a false discovery rate of 5 %",
        "Of the table, 1 row could not be used.",
    ):
        assert words in text, words
    assert REFERENCES["Hennig 2007"] in text and REFERENCES["Bergsma 2013"] in text


def test_the_rule_of_tests_of_numbers_and_the_library_of_survival(tmp_path: Path) -> None:
    out, state = tmp_path / "out", {"medstrata": "0.1.0", "versions": {"numpy": "2.4", "lifelines": "0.30"}}
    text = text_of(out, validation=VALIDATED | {"confounders": CONFOUNDERS}, run=state).plain
    assert "by Welch's analysis of variance where every cluster had at least 30 values" in text
    assert "a skewness of at most 1 either way, else by the Kruskal-Wallis test" in text
    assert "numpy 2.4" in text and "lifelines" not in text
    survival = {"test": "log-rank", "effect_name": None, "curves": [{}]}
    text = text_of(out, validation=VALIDATED | {"associations": CLINICAL | {"associations": [survival]}}).plain
    assert "numpy 2.4 and lifelines 0.30" in text and "Welch" not in text


def test_without_the_null_there_is_no_sentence_of_it(tmp_path: Path) -> None:
    text = text_of(tmp_path / "out", validation=VALIDATED | {"null": None}).plain
    assert "repeated 3 times" in text
    assert "without groups" not in text and "A cluster was called supported" not in text


def test_activation_maps(tmp_path: Path) -> None:
    out = run_folder.write_run_folder(tmp_path / "out", run_folder.planted_2d((20, 20)))
    summary = json.loads((out / "maps" / "summary.json").read_text())
    rule = "Integrated gradients of the cluster's log odds, from the mean image of the other clusters"
    (out / "maps" / "summary.json").write_text(json.dumps(summary | {"rule": rule}))
    found = text_of(out)
    assert "Activation maps were made of 4 images: integrated gradients of the cluster's log odds" in found.plain
    assert found.references[-1] == REFERENCES["Sundararajan et al. 2017"]
    assert "tested" not in found.plain


def test_versions_device_and_seed(tmp_path: Path) -> None:
    stages = {"fit": {"device": "cpu"}}
    state = {"medstrata": "0.1.0", "versions": {"torch": "2.9", "numpy": "2.4"}, "stages": stages}
    text = text_of(tmp_path / "out", run=state).paragraphs[-1]
    assert text == (
        "All of it was done with medstrata 0.1.0 (torch 2.9 and numpy 2.4) on the device cpu. "
        "The seed of all random numbers was 0."
    )


def test_references_stand_in_the_order_of_mention() -> None:
    found = cited("As Hennig 2007 and Bergsma 2013 said, and Hennig 2007 again.")
    assert found == [REFERENCES["Hennig 2007"], REFERENCES["Bergsma 2013"]]
    assert cited("nobody") == []
