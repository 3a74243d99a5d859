"""What a check of maps (``maps.check``) comes to, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SAME_CLUSTER = 0.3  # correlation with the map for the runner-up above which a map hardly depends on the cluster
STEADY = 0.9  # correlation below which a map does not survive a small change of the image
CHANGES = {"noise": "a little noise", "moved": "a shift of up to three voxels", "mirrored": "a mirror"}

Measures = Mapping[str, Mapping[str, float | None]]


def verdict(check: Mapping[str, Any], rule: str) -> list[str]:
    """Return one sentence per test about the maps of ``rule``, the run's own, in what ``check_maps`` returned."""
    own: Measures = check["rules"][rule]
    found = [_deletion(check["better"][rule]), _cluster(own), _weights(own), *(_steady(own, name) for name in CHANGES)]
    found += [_other_seed(own), _masks(own, check["controls"])]
    return [sentence for sentence in found if sentence]


def _deletion(better: Mapping[str, Measures]) -> str:
    close = [name for name, measures in better.items() if not (measures["deletion"]["low"] or 0.0) > 0]
    if close:
        return f"What the maps mark matters no more to the clusters than what these controls mark: {'; '.join(close)}."
    return "What the maps mark matters more to the clusters than what any control marks."


def _cluster(own: Measures) -> str:
    r = own["own_runner_up"]["mean"]
    if r is None:
        return ""
    word = "depend" if r <= SAME_CLUSTER else "hardly depend"
    return f"The maps {word} on the cluster: correlation with the map for the runner-up {r:.2f}."


def _weights(own: Measures) -> str:
    shuffled, other = own["shuffled_100"]["mean"], own["other_images"]
    if shuffled is None or other["high"] is None:
        return ""
    word = "come" if shuffled <= other["high"] else "come only in part"
    return (
        f"The maps {word} from what the network has learned: with its weights shuffled the rank correlation is "
        f"{shuffled:.2f}; between different images it is {other['mean']:.2f}."
    )


def _steady(own: Measures, change: str) -> str:
    r = own[change]["mean"] if change in own else None
    if r is None:
        return ""
    return f"The maps {'survive' if r >= STEADY else 'do not survive'} {CHANGES[change]}: correlation {r:.2f}."


def _other_seed(own: Measures) -> str:
    r = own["other_seed"]["mean"] if "other_seed" in own else None
    return "" if r is None else f"Of a model that was fitted with another seed the maps correlate {r:.2f} with these."


def _masks(own: Measures, controls: Mapping[str, Measures]) -> str:
    if "average_precision" not in own:
        return ""
    best = max(controls, key=lambda name: controls[name]["average_precision"]["mean"] or 0.0)
    return (
        f"Against the masks: average precision {own['average_precision']['mean']:.2f}; the best control ({best}) "
        f"{controls[best]['average_precision']['mean']:.2f}, chance {own['chance']['mean']:.2f}. "
        f"{own['pointing']['mean']:.0%} of the maps peak inside."
    )
