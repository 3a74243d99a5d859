"""A planted scanner is found and named, every time; where nothing is planted findings keep to their nominal rate."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binom, kruskal

from benchmarks.validity.confounders import main, plant
from medstrata.errors import InputError
from medstrata.evidence.association.effects import benjamini_hochberg, categorical_association
from medstrata.evidence.association.patients import draw_one_each
from medstrata.evidence.confounders.columns import LABELS, TechnicalColumn
from medstrata.evidence.confounders.confounders import associations, find_confounders


def names(count: int) -> list[str]:
    return [f"patient {n}" for n in range(count)]


def significant(columns: list[TechnicalColumn], clusters: np.ndarray, seed: int = 0) -> set[str]:
    found, _ = associations(columns, clusters, seed)
    q = benjamini_hochberg([entry["p"] for entry in found])
    return {entry["column"] for entry, value in zip(found, q.tolist(), strict=True) if value < 0.05}


def test_a_planted_scanner_is_named_every_time() -> None:
    for seed in range(20):
        columns, clusters = plant(90, 0.95, seed)
        found = find_confounders(columns, clusters, names(90), seed)
        assert found["kinds"][0]["headers"]["balanced_accuracy"] >= 0.9
        named = {entry["cluster"]: entry for entry in found["named"]}
        assert set(named) == {0, 1, 2}
        for cluster, entry in named.items():
            assert (entry["column"], entry["severity"], entry["origin"]) == ("model", "strong", "header")
            assert f"Cluster {cluster} is mostly images of the scanner 'model {cluster}' (" in entry["sentence"]
            assert entry["share"] > 0.8 > 0.2 > entry["elsewhere"]


def test_no_effect_no_finding() -> None:
    """Of 100 random assignments at most the 99 % quantile of the binomial distribution has any finding."""
    columns, _ = plant(120, 0.0, 0)
    findings = sum(
        bool(significant(columns, np.random.default_rng(seed).integers(3, size=120), seed)) for seed in range(100)
    )
    assert findings <= binom.ppf(0.99, 100, 0.05)


def test_several_images_of_a_patient_do_not_inflate() -> None:
    """Ten patients of twenty images, scanner and cluster by patient, at random: as images they are 'significant'."""
    naive = findings = named = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        patient = np.repeat(np.arange(10), 20)
        scanner = np.array(["A", "B"])[generator.permutation(10) % 2][patient]
        clusters = (generator.permutation(10) % 2)[patient]
        found = find_confounders(
            [TechnicalColumn("model", "header", scanner)], clusters, [f"p{n}" for n in patient], seed
        )
        (kind,) = found["kinds"]
        assert (found["unit"], kind["units"], kind["associations"][0]["n"]) == ("patient", 10, 10)
        findings += kind["associations"][0]["q"] < 0.05
        named += bool(found["named"])
        naive += getattr(categorical_association(scanner, clusters), "p", 1.0) < 0.05
    assert naive > 20
    assert max(findings, named) <= binom.ppf(0.99, 40, 0.05)


def test_many_kinds_give_no_more_false_findings_than_one() -> None:
    """Twelve kinds of 16 images, eight headers by chance: sets in which a cluster is named after its headers, of 12."""
    sets = 0
    for seed in range(12):
        generator = np.random.default_rng(seed)
        clusters, kinds = generator.integers(2, size=192), [f"kind {n // 16}" for n in range(192)]
        columns = [TechnicalColumn(key, "header", generator.choice(["A", "B", "C"], 192)) for key in list(LABELS)[:8]]
        sets += bool(find_confounders(columns, clusters, names(192), seed, kinds)["named"])
    assert sets <= binom.ppf(0.99, 12, 0.05)  # 7 where each kind is tested at 5 %


def test_the_whole_answer_of_a_small_study() -> None:
    generator = np.random.default_rng(0)
    clusters = np.r_[np.repeat([0, 1], 20), [2, 2, -1]]
    columns = [
        TechnicalColumn("manufacturer", "header", np.where(clusters == 0, "A", "B")),
        TechnicalColumn("rows", "header", np.full(43, 512.0)),
        TechnicalColumn("kernel", "header", np.full(43, "")),
        TechnicalColumn("sharpness", "pixels", np.r_[generator.normal(size=42), np.nan]),
    ]
    found = find_confounders(columns, clusters, names(43))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {key: found[key] for key in ("unit", "images", "rejected", "seed", "not_compared")} == {
        "unit": "image",
        "images": 42,
        "rejected": 1,
        "seed": 0,
        "not_compared": [],
    }
    assert found["sentences"] == [
        "Cluster 0 is mostly images of the manufacturer 'A' (100 % of it, 0 % elsewhere).",
        "Cluster 1 is mostly images of the manufacturer 'B' (100 % of it, 0 % elsewhere).",
    ]
    (kind,) = found["kinds"]
    assert (kind["clusters"], kind["too_small"], kind["units"], kind["not_predicted"]) == ([0, 1], [2], 40, "")
    assert [(entry["column"], entry["reason"]) for entry in kind["untested"]] == [
        ("rows", "all values are the same"),
        ("kernel", "all values are missing"),
    ]
    first, second = kind["associations"]
    assert (first["column"], first["effect_name"], first["balanced_accuracy"]) == ("manufacturer", "Cramér's V", 1.0)
    assert first["p"] < 1e-6 and first["q"] == pytest.approx(2 * first["p"])
    values = columns[3].values
    assert second["p"] == pytest.approx(kruskal(values[:20], values[20:40]).pvalue)
    assert second["q"] == second["p"] and (second["n"], second["missing"]) == (40, 0)
    assert (kind["headers"]["balanced_accuracy"], kind["pixels"]["images"]) == (1.0, 40)
    assert "apart" not in first


def test_blurred_images_are_called_blurred() -> None:
    generator = np.random.default_rng(0)
    clusters = np.arange(300) % 3
    sharp = generator.normal(1.0, 0.1, 300) - 0.5 * (clusters == 1)
    columns = [
        TechnicalColumn("sharpness", "pixels", sharp),
        TechnicalColumn("mean_intensity", "pixels", generator.normal(size=300)),
    ]
    found = find_confounders(columns, clusters, names(300))
    assert [(entry["cluster"], entry["column"], entry["origin"]) for entry in found["named"]] == [
        (1, "sharpness", "pixels")
    ]
    assert found["sentences"][0] == (
        "Cluster 1 holds mostly images that are blurred (sharpness: AUC 1.00 against the rest)."
    )


def test_kinds_of_images_bring_their_scanners_with_them() -> None:
    """CT and MR images have scanners of their own: a cluster of CT is no confounder, two CT scanners apart are."""
    kinds = np.repeat(["CT", "MR", "US"], [120, 60, 3])
    scanner = np.where(kinds == "MR", "M", np.tile(["A", "B"], 92)[:183])
    clusters = np.where(kinds == "MR", 2, np.where(scanner == "A", 0, 1))
    column = TechnicalColumn("model", "header", scanner)
    found = find_confounders([column], clusters, names(183), kinds=kinds.tolist())
    assert found["sentences"] == [
        "Cluster 0 is mostly images of the scanner 'A' (100 % of it, 0 % elsewhere). Compared were CT images.",
        "Cluster 1 is mostly images of the scanner 'B' (100 % of it, 0 % elsewhere). Compared were CT images.",
    ]
    reason = "fewer than two clusters have images of 5 patients or more"
    assert found["not_compared"] == [
        {"kind": "MR", "images": 60, "reason": reason},
        {"kind": "US", "images": 3, "reason": reason},
    ]
    by_content = find_confounders([column], np.where(kinds == "MR", 2, 0), names(183), kinds=kinds.tolist())
    assert by_content["named"] == by_content["kinds"] == []


def test_one_image_of_every_patient_is_drawn() -> None:
    patients = np.array([3, 1, 1, 3, 0, 2, 3])
    draws = [draw_one_each(patients, seed) for seed in range(200)]
    for rows in draws:
        assert sorted(patients[rows].tolist()) == [0, 1, 2, 3] and (np.diff(rows) > 0).all()
    counts = np.bincount(np.concatenate(draws), minlength=7)
    assert counts[[4, 5]].tolist() == [200, 200] and counts[[0, 1, 2, 3, 6]].min() > 40


@pytest.mark.parametrize("clusters", [[0] * 40, [-1] * 40, list(range(40)), []])
def test_nothing_to_compare(clusters: list[int]) -> None:
    column = TechnicalColumn("model", "header", np.array(["A"] * len(clusters), dtype=np.str_))
    found = find_confounders([column], clusters, names(len(clusters)))
    assert found["named"] == found["kinds"] == []
    assert found["rejected"] == clusters.count(-1)


def test_other_images_are_refused() -> None:
    column = TechnicalColumn("model", "header", np.array(["A", "B"]))
    for clusters, patients in (([0, 1, 1], names(3)), ([0, 1], names(3)), ([0], names(1))):
        with pytest.raises(InputError, match="same images"):
            find_confounders([column], clusters, patients)


def test_the_table_of_power(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.validity.confounders.PATIENTS", (60,))
    monkeypatch.setattr("benchmarks.validity.confounders.AGREEMENTS", (0.0, 1.0))
    main(["--repeats", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[3].startswith("| 60 | 1.0 | 1.00 | 1.00 | 1.00 |")
