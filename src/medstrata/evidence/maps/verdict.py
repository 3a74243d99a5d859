"""What a check of maps (``maps.check``) comes to, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SAME_CLUSTER = 0.3  # correlation with the map for the runner-up above which a map hardly depends on the cluster
STEADY = 0.9  # correlation below which a map does not survive a small change of the image
FEW = 8  # images below which nothing can be concluded
CHANGES = {"noise": "a little noise", "moved": "a shift of up to three voxels", "mirrored": "a mirror"}

Measures = Mapping[str, Mapping[str, float | None]]
Test = dict[str, Any]


def verdict(check: Mapping[str, Any], rule: str) -> list[Test]:
    """Return one test per question about the maps of ``rule``, the run's own, in what ``check_maps`` returned.

    Each is ``passed`` (True, False, or None for a remark) and a ``sentence``.
    """
    own: Measures = check["rules"][rule]
    better: Mapping[str, Measures] = check["better"][rule]
    found = [_few(check["images"]), _faithful(better), _cluster(own), _weights(own)]
    found += [_steady(own, name) for name in CHANGES]
    found += [_other_seed(check, own), _masks(own, better, check["controls"])]
    return [test for test in found if test is not None]


def _test(passed: bool | None, sentence: str) -> Test:
    return {"passed": passed, "sentence": sentence}


def _few(images: int) -> Test | None:
    if images >= FEW:
        return None
    return _test(None, f"Only {images} {'image was' if images == 1 else 'images were'} checked: too few to conclude.")


def _beaten(measures: Measures, name: str) -> bool:
    return (measures[name]["low"] or 0.0) > 0


def _faithful(better: Mapping[str, Measures]) -> Test:
    close = [name for name, measures in better.items() if not _beaten(measures, "faithfulness")]
    if close:
        said = "What the maps mark matters no more to the clusters than what these controls mark: "
        return _test(False, f"{said}{'; '.join(close)}.")
    return _test(True, "What the maps mark matters more to the clusters than what any control marks.")


def _cluster(own: Measures) -> Test | None:
    r = own["own_runner_up"]["mean"]
    if r is None:
        return None
    passed = r <= SAME_CLUSTER
    word = "depend" if passed else "hardly depend"
    return _test(passed, f"The maps {word} on the cluster: correlation with the map for the runner-up {r:.2f}.")


def _weights(own: Measures) -> Test | None:
    shuffled, other = own["shuffled_100"]["mean"], own["other_images"]
    if shuffled is None or other["high"] is None:
        return None
    passed = shuffled <= other["high"]
    return _test(
        passed,
        f"The maps come {'' if passed else 'only in part '}from what the network has learned: with its weights "
        f"shuffled the rank correlation is {shuffled:.2f}; between different images it is {other['mean']:.2f} (95 % "
        f"interval up to {other['high']:.2f}).",
    )


def _steady(own: Measures, change: str) -> Test | None:
    r = own[change]["mean"] if change in own else None
    if r is None:
        return None
    word = "survive" if r >= STEADY else "do not wholly survive"
    return _test(r >= STEADY, f"The maps {word} {CHANGES[change]}: correlation {r:.2f}.")


def _other_seed(check: Mapping[str, Any], own: Measures) -> Test | None:
    r = own["other_seed"]["mean"] if "other_seed" in own else None
    if r is None:
        return None
    agreed = sum(check["refits"]["same_cluster"])
    asked = check["refits"]["count"] * check["images"]
    return _test(
        None,
        f"A model fitted with another seed puts {agreed} of {asked} of these images into the same cluster; its maps of "
        f"them correlate {r:.2f} with these.",
    )


def _masks(own: Measures, better: Mapping[str, Measures], controls: Mapping[str, Measures]) -> Test | None:
    if "average_precision" not in own or own["average_precision"]["mean"] is None:
        return None
    best = max(controls, key=lambda name: controls[name]["average_precision"]["mean"] or 0.0)
    passed = all(_beaten(measures, "average_precision") for measures in better.values())
    return _test(
        passed,
        f"Against the masks the maps are {'better than every control' if passed else 'not better than every control'}: "
        f"average precision {own['average_precision']['mean']:.2f}, of the best control ({best}) "
        f"{controls[best]['average_precision']['mean']:.2f}, by chance {own['chance']['mean']:.2f}. "
        f"{own['pointing']['mean']:.0%} of the maps peak inside.",
    )
