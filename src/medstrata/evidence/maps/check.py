"""Are the maps of a model right? Every measure for every rule, beside controls, with intervals: ``maps/check.json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medstrata.evidence.intervals import mean_interval
from medstrata.evidence.localisation import localised
from medstrata.evidence.maps.clam import Clam
from medstrata.evidence.maps.controls import CONTROLS, Centre, ClusterDifference, Edges, Noise, Novelty
from medstrata.evidence.maps.deletion import areas
from medstrata.evidence.maps.integrated_gradients import IntegratedGradients
from medstrata.evidence.maps.occlusion import Occlusion
from medstrata.evidence.maps.rule import Cohort, Explainable, Question, Rule, at_once
from medstrata.evidence.maps.sanity import after_shuffling, cluster_sensitivity, of_other_images, when_changed
from medstrata.run import Progress, no_progress

Masks = NDArray[np.bool_]
Values = dict[str, NDArray[np.float64]]
RULES: tuple[Rule, ...] = (IntegratedGradients(), Clam())
AT_ONCE = 16
SMALLER = ("deletion", "peak_on_distractor")  # the better
LARGER = (
    "insertion",
    "faithfulness",
    "average_precision",
    "pointing",
    "energy",
    "dice",
    "distractor_share",
)  # the better


@dataclass(frozen=True)
class Checked:
    """What is explained: ``images`` (n, C, \\*grid) for ``clusters`` (n,), ``cohort``, and whose they are.

    ``patients`` (n,): names of any kind, the unit of the intervals; None: each image its own. ``masks``,
    ``distractors`` (n, \\*grid): what maps should point at, and what not.
    """

    model: Explainable
    images: Any
    clusters: NDArray[np.int64]
    cohort: Cohort
    patients: Sequence[str] | None = None
    masks: Masks | None = None
    distractors: Masks | None = None


def check_maps(checked: Checked, rules: Sequence[Rule] = RULES, progress: Progress = no_progress) -> dict[str, Any]:
    """Measure the maps by each rule and by each control.

    Rules that need feature maps are left out where the network gives vectors. Returns ``images``, ``rules`` and
    ``controls``: by name, and by measure, ``mean``, ``low`` and ``high`` (``evidence.intervals``); and ``better``: by
    rule, control and measure, the same of the paired difference, above zero where the rule is better. Measures:

    - ``deletion``, ``insertion``: areas (``maps.deletion``), 0..1; ``faithfulness``: insertion less deletion, -1..1
    - ``own_runner_up``, ``shuffled_*``, ``noise``, ``moved``, ``mirrored``: correlations (``maps.sanity``), of rules
      only; ``other_images``: how alike maps of different images are, the null of ``shuffled_*``
    - with masks, those of ``evidence.localisation.localised``, 0..1
    - what the rule says of its maps, such as ``completeness``
    """
    controls: tuple[Rule, ...] = (*CONTROLS, Noise())
    found: dict[str, Values] = {}
    for number, rule in enumerate((*rules, *controls)):
        progress("check", number, len(rules) + len(controls))
        if checked.cohort.features is not None or not _needs_features(rule):
            found[rule.name] = measured(checked, rule, rule in rules)
    progress("check", len(rules) + len(controls), len(rules) + len(controls))
    by_rule = {rule.name: found[rule.name] for rule in rules if rule.name in found}
    others = {control.name: found[control.name] for control in controls if control.name in found}
    patients = checked.patients
    return {
        "images": len(checked.images),
        "rules": {name: _intervals(values, patients) for name, values in by_rule.items()},
        "controls": {name: _intervals(values, patients) for name, values in others.items()},
        "better": {
            name: {other: _intervals(_better(own, values), patients) for other, values in others.items()}
            for name, own in by_rule.items()
        },
    }


def _needs_features(rule: Rule) -> bool:
    return not isinstance(rule, IntegratedGradients | Occlusion | Novelty | ClusterDifference | Centre | Edges | Noise)


def _better(own: Values, control: Values) -> Values:
    differences = {name: control[name] - own[name] for name in SMALLER if name in own and name in control}
    return differences | {name: own[name] - control[name] for name in LARGER if name in own and name in control}


def measured(checked: Checked, rule: Rule, sanity: bool) -> Values:
    """Return each measure of the maps of one rule, (n,); with ``sanity`` also what a map depends on."""
    model, parts, every = checked.model, [], []
    step = at_once(checked.images, AT_ONCE)
    for start in range(0, len(checked.images), step):
        block = slice(start, start + step)
        x = model.tensor(checked.images[block])
        cluster = torch.from_numpy(checked.clusters[block]).to(x.device)
        question = Question(cluster, torch.full_like(cluster, -1), checked.cohort)
        maps, facts = rule.explain(model, x, question)
        every.append(maps.cpu())
        part = {**facts, **areas(model, x, maps, question)}
        part["faithfulness"] = part["insertion"] - part["deletion"]
        if sanity:
            part["own_runner_up"] = cluster_sensitivity(model, x, question, rule, maps)
            part |= after_shuffling(model, x, question, rule, maps)
            part |= when_changed(model, x, question, rule, maps)
        parts.append(part)
    values = {key: torch.cat([part[key] for part in parts]).double().cpu().numpy() for key in parts[0]}
    whole = torch.cat(every)
    if sanity:
        values["other_images"] = of_other_images(whole).double().numpy()
    return values if checked.masks is None else values | _localised(whole.numpy(), checked.masks, checked.distractors)


def _localised(maps: NDArray[Any], masks: Masks, distractors: Masks | None) -> Values:
    rows = [
        localised(one, mask, None if distractors is None else distractors[number])
        for number, (one, mask) in enumerate(zip(maps, masks, strict=True))
    ]
    found = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    return {key: values for key, values in found.items() if np.isfinite(values).any()}


def _intervals(values: Values, patients: Sequence[str] | None) -> dict[str, dict[str, float | None]]:
    found = {}
    for name, each in values.items():
        one_per_image = patients is not None and len(each) == len(patients)  # pairs of images have no patient
        found[name] = mean_interval(each, units=patients if one_per_image else None)
    return found
