"""Sentences for clusters that technical data tell from the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medstrata.evidence.confounders.columns import TechnicalColumn
from medstrata.evidence.confounders.named import name_clusters

CLUSTERS = np.repeat([0, 1], 50)


def named(
    values: Any, key: str = "model", accuracy: float = 0.95, together: float = 0.0, p: float = 0.02
) -> dict[str, Any] | None:
    """What is said of cluster 0 where one column tells it with this balanced accuracy."""
    array = np.asarray(values)
    column = TechnicalColumn(key, "pixels" if key in ("sharpness", "noise") else "header", array)
    all_ = {"adjusted": p, "clusters": [{"cluster": 0, "balanced_accuracy": together, "p": p}]}
    both = {
        "header": all_ if column.origin == "header" else None,
        "pixels": None if column.origin == "header" else all_,
    }
    found = name_clusters([column], CLUSTERS, {key: {0: accuracy, 1: 0.5}}, both, "")
    assert len(found) <= 1
    return found[0] if found else None


def sentence(*arguments: Any, **options: Any) -> str:
    found = named(*arguments, **options)
    assert found is not None
    return str(found["sentence"])


def mixed(share: float, elsewhere: float, value: str = "B", other: str = "A") -> list[str]:
    inside, outside = round(50 * share), round(50 * elsewhere)
    return [value] * inside + [other] * (50 - inside) + [value] * outside + [other] * (50 - outside)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model", "B", "of the scanner 'B'"),
        ("manufacturer", "B", "of the manufacturer 'B'"),
        ("manufacturer", "other 3f2a9c", "of the manufacturer 'other 3f2a9c', whose name stands in private/ alone"),
        ("site", "site 2", "of site 2"),
        ("kernel", "B30f", "with the reconstruction kernel 'B30f'"),
        ("photometric", "RGB", "with the photometric interpretation 'RGB'"),
    ],
)
def test_values_in_words(key: str, value: str, said: str) -> None:
    assert sentence(mixed(0.96, 0.04, value), key) == (
        f"Cluster 0 is mostly images {said} (96 % of it, 4 % elsewhere)."
    )


def test_few_numbers_are_spoken_of_by_their_values() -> None:
    values = [3.0] * 48 + [1.5] * 2 + [1.5] * 50
    assert sentence(values, "field_strength") == (
        "Cluster 0 is mostly images with the field strength 3 T (96 % of it, 0 % elsewhere)."
    )


def test_several_values_make_one_sentence() -> None:
    values = ["B"] * 20 + ["C"] * 28 + ["A"] * 2 + ["A"] * 49 + ["C"]
    assert sentence(values) == "Cluster 0 is mostly images of the scanner 'C' or 'B' (96 % of it, 2 % elsewhere)."
    three = ["B"] * 15 + ["C"] * 20 + ["D"] * 15 + ["A"] * 50
    assert "of the scanner 'C', 'B' or 'D' (100 % of it, 0 % elsewhere)" in sentence(three)
    spread = [f"s{n}" for n in range(50)] + ["A"] * 50
    assert sentence(spread) == (
        "Cluster 0 can be told from the others by the scanner (balanced accuracy 0.95, by chance 0.50)."
    )


def test_many_numbers_are_low_or_high_and_dates_never_shown() -> None:
    low = np.r_[np.linspace(0.1, 0.4, 50), np.linspace(0.5, 1.0, 50)]
    blurred = named(low, "sharpness")
    assert blurred is not None and blurred["share"] is None
    assert (blurred["auc"], blurred["direction"]) == (1.0, "low"), "the number that the sentence says"
    assert blurred["short"] == "Cluster 0 holds mostly images that are blurred."
    assert blurred["sentence"] == (
        "Cluster 0 holds mostly images that are blurred (sharpness: AUC 1.00 against the rest)."
    )
    sharp = named(-low, "sharpness")
    assert sharp is not None and (sharp["auc"], sharp["direction"]) == (1.0, "high")
    assert sentence(-low, "bits").startswith("Cluster 0 holds mostly images of high bits per pixel (")
    days = np.repeat([2.0, 1.0], 50)
    assert sentence(days, "study_date") == (
        "Cluster 0 holds mostly images of later studies (date of the study: AUC 1.00 against the rest)."
    )
    around = np.r_[np.linspace(0, 1, 25), np.linspace(3, 4, 25), np.linspace(1.5, 2.5, 50)]
    assert sentence(around, "rows").startswith("Cluster 0 can be told from the others by the rows of the image (")
    assert sentence(np.r_[np.full(50, np.nan), np.arange(50)], "spacing_rows").startswith("Cluster 0 can be told")


def test_a_cluster_is_named_from_a_balanced_accuracy_of_eight_tenths_on() -> None:
    assert named(mixed(0.8, 0.2), accuracy=0.79) is None
    for accuracy, severity in ((0.8, "clear"), (0.89, "clear"), (0.9, "strong")):
        found = named(mixed(0.9, 0.1), accuracy=accuracy)
        assert found is not None and (found["severity"], found["balanced_accuracy"]) == (severity, accuracy)
    found = named(mixed(0.9, 0.1), accuracy=0.85, together=0.93)
    assert found is not None and (found["severity"], found["alone"], found["together"]) == ("strong", 0.85, 0.93)


def test_all_columns_together() -> None:
    found = named(mixed(0.6, 0.4), accuracy=0.6, together=0.85)
    assert found is not None and (found["column"], found["alone"]) == ("", None)
    assert found["sentence"] == (
        "Cluster 0 can be told from the others by its technical headers together "
        "(balanced accuracy 0.85, by chance 0.50)."
    )
    assert named(mixed(0.6, 0.4), accuracy=0.6, together=0.85, p=0.2) is None
    assert found["short"] == "Cluster 0 can be told from the others by its technical headers together."
    pixels = sentence(np.arange(100.0), "sharpness", accuracy=0.5, together=0.85)
    assert "by simple measures of its pixels together" in pixels


@pytest.mark.parametrize(("noise", "first"), [(0.93, "sharpness"), (0.97, "noise"), (0.85, "sharpness")])
def test_blur_takes_away_noise_too(noise: float, first: str) -> None:
    values = np.arange(100.0)
    columns = [TechnicalColumn(key, "pixels", values) for key in ("noise", "sharpness")]
    apart = {"noise": {0: noise, 1: 0.5}, "sharpness": {0: 0.9, 1: 0.5}}
    (entry,) = name_clusters(columns, CLUSTERS, apart, {"header": None, "pixels": None}, "CT chest")
    assert entry["column"] == first and entry["also"] == [{"noise": "sharpness", "sharpness": "noise"}[first]]
    assert entry["sentence"].endswith(" Compared were CT chest images.") and entry["kind"] == "CT chest"
