"""Every sentence about a check, on figures that are written out; and a check of a tiny model end to end."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from tiny_model import TinyModel, images_of

from medstrata.evidence.maps.check import RULES, Checked, _better, check_maps
from medstrata.evidence.maps.rule import measure_cohort
from medstrata.evidence.maps.verdict import verdict


def interval(mean: float, half: float = 0.01) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


GOOD: dict[str, Any] = {
    "images": 20,
    "refits": {"count": 2, "same_cluster": [16, 14]},
    "rules": {
        "ours": {
            "own_runner_up": interval(0.1),
            "shuffled_100": interval(0.2),
            "other_images": interval(0.3),
            "noise": interval(0.99),
            "moved": interval(0.95),
            "other_seed": interval(0.8),
            "average_precision": interval(0.6),
            "pointing": interval(0.9),
            "chance": interval(0.02),
        }
    },
    "controls": {"edges": {"average_precision": interval(0.3)}, "centre": {"average_precision": interval(0.1)}},
    "better": {
        "ours": {
            name: {"faithfulness": interval(0.2), "average_precision": interval(0.3)} for name in ("edges", "centre")
        }
    },
}


def test_good_maps_in_words() -> None:
    found = verdict(GOOD, "ours")
    assert [test["sentence"] for test in found] == [
        "What the maps mark matters more to the clusters than what any control marks.",
        "The maps depend on the cluster: correlation with the map for the runner-up 0.10.",
        "The maps come from what the network has learned: with its weights shuffled the rank correlation is 0.20; "
        "between different images it is 0.30 (95 % interval up to 0.31).",
        "The maps survive a little noise: correlation 0.99.",
        "The maps survive a shift of up to three voxels: correlation 0.95.",
        "A model fitted with another seed puts 30 of 40 of these images into the same cluster; its maps of them "
        "correlate 0.80 with these.",
        "Against the masks the maps are better than every control: average precision 0.60, of the best control (edges) "
        "0.30, by chance 0.02. 90% of the maps peak inside.",
    ]
    assert [test["passed"] for test in found] == [True, True, True, True, True, None, True]


def test_bad_maps_in_words() -> None:
    bad = copy.deepcopy(GOOD)
    bad["better"]["ours"]["edges"] |= {"faithfulness": interval(0.005), "average_precision": interval(0.0)}
    bad["rules"]["ours"] |= {"own_runner_up": interval(0.9), "shuffled_100": interval(0.8), "moved": interval(0.5)}
    tests = verdict(bad | {"images": 3}, "ours")
    found = " ".join(test["sentence"] for test in tests)
    assert found.startswith("Only 3 images were checked: too few to conclude.")
    assert "matters no more to the clusters than what these controls mark: edges." in found
    assert "hardly depend on the cluster" in found and "come only in part from" in found
    assert "do not wholly survive a shift" in found and "not better than every control" in found
    assert [test["passed"] for test in tests] == [None, False, False, False, True, False, None, False]


def test_what_was_not_measured_is_not_mentioned() -> None:
    little = copy.deepcopy(GOOD)
    nothing = {"mean": None, "low": None, "high": None}
    little["rules"]["ours"] = dict.fromkeys(
        ("own_runner_up", "shuffled_100", "other_images", "noise", "moved"), nothing
    )
    assert len(verdict(little, "ours")) == 1


def test_check_measures_every_rule_and_control() -> None:
    model, images = TinyModel(3), images_of(3, 9)
    masks = np.zeros((9, *images.shape[2:]), dtype=bool)
    masks[:, 2:4, 3:6, 3:6] = True
    clusters = model.soft_assignment(model.tensor(images)).argmax(1).numpy()
    found = check_maps(Checked(model, images, clusters, measure_cohort(model, images), None, masks, ~masks))
    assert found["images"] == 9 and list(found["rules"]) == [rule.name for rule in RULES]
    for measures in (*found["rules"].values(), *found["controls"].values()):
        assert {"deletion", "insertion", "average_precision", "distractor_share"} <= set(measures)
        assert measures["chance"]["mean"] == masks.mean()
    for rule, better in found["better"].items():
        assert list(better) == list(found["controls"])
        for control, measures in better.items():
            theirs, own = found["controls"][control], found["rules"][rule]
            assert abs(measures["deletion"]["mean"] - (theirs["deletion"]["mean"] - own["deletion"]["mean"])) < 1e-9
            assert abs(measures["dice"]["mean"] - (own["dice"]["mean"] - theirs["dice"]["mean"])) < 1e-9
    assert found["rules"][RULES[0].name]["shuffled_100"]["mean"] is not None
    assert verdict(found, RULES[0].name)


def test_differences_are_of_the_same_images() -> None:
    """Of a control with the very same errors the difference has no spread; unpaired, it would have."""
    own = {"deletion": np.array([0.1, 0.9, 0.4, 0.6]), "dice": np.array([0.0, 1.0, 0.5, 0.2])}
    better = _better(own, {name: values + 0.1 for name, values in own.items()})
    np.testing.assert_allclose(better["deletion"], 0.1)
    np.testing.assert_allclose(better["dice"], -0.1)


def test_intervals_draw_patients() -> None:
    model, images = TinyModel(2), images_of(2, 8)
    clusters = model.soft_assignment(model.tensor(images)).argmax(1).numpy()
    cohort = measure_cohort(model, images)
    one = check_maps(Checked(model, images, clusters, cohort, ["a"] * 8))["rules"][RULES[0].name]["deletion"]
    assert one["low"] == one["high"] == one["mean"], "eight images of one patient are one patient"
