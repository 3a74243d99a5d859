"""Are the maps of a model right? Every measure for every rule, beside controls, with intervals: ``maps/check.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medstrata.evidence.intervals import mean_interval
from medstrata.evidence.localisation import localised
from medstrata.evidence.maps.activation import cluster_activation_map
from medstrata.evidence.maps.clam import Clam
from medstrata.evidence.maps.controls import CONTROLS, Noise
from medstrata.evidence.maps.deletion import areas
from medstrata.evidence.maps.integrated_gradients import IntegratedGradients
from medstrata.evidence.maps.rule import Cohort, Explainable, Question, Rule
from medstrata.evidence.maps.sanity import after_shuffling, cluster_sensitivity, of_other_images, when_changed
from medstrata.run import Progress, no_progress

Masks = NDArray[np.bool_]
Values = dict[str, NDArray[np.float64]]
RULES: tuple[Rule, ...] = (IntegratedGradients(), Clam())
AT_ONCE = 16
SMALLER = ("deletion", "peak_on_distractor")  # the better
LARGER = ("insertion", "average_precision", "pointing", "energy", "dice", "distractor_share")  # the better


def check_maps(
    model: Explainable,
    images: Any,
    clusters: NDArray[np.int64],
    cohort: Cohort,
    masks: Masks | None = None,
    distractors: Masks | None = None,
    rules: Sequence[Rule] = RULES,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Measure the maps of ``images`` (n, C, \\*grid) for ``clusters`` (n,), by each rule and by each control.

    ``masks``, ``distractors`` (n, \\*grid): what the maps should point at, and what they should not.

    Returns ``images``, ``rules`` and ``controls``: by name, and by measure, ``mean``, ``low`` and ``high`` over the
    images (``evidence.intervals``); and ``better``: by rule, control and measure, the same of the paired difference,
    above zero where the rule is better. Measures, each a share 0..1 or a correlation:

    - ``deletion``, ``insertion``: areas (``maps.deletion``)
    - ``own_runner_up``, ``shuffled_*``, ``noise``, ``moved``, ``mirrored`` (``maps.sanity``), of rules only;
      ``other_images``: how alike maps of different images are, the null of ``shuffled_*``
    - with masks, those of ``evidence.localisation.localised``
    """
    controls: tuple[Rule, ...] = (*CONTROLS, Noise())
    found: dict[str, Values] = {}
    for number, rule in enumerate((*rules, *controls)):
        progress("check", number, len(rules) + len(controls))
        found[rule.name] = measured(model, images, clusters, cohort, rule, rule in rules)
        if masks is not None:
            found[rule.name] |= _localised(model, images, clusters, cohort, rule, masks, distractors)
    progress("check", len(rules) + len(controls), len(rules) + len(controls))
    return {
        "images": len(images),
        "rules": {rule.name: _intervals(found[rule.name]) for rule in rules},
        "controls": {control.name: _intervals(found[control.name]) for control in controls},
        "better": {
            rule.name: {control.name: _better(found[rule.name], found[control.name]) for control in controls}
            for rule in rules
        },
    }


def _better(own: Values, control: Values) -> dict[str, dict[str, float | None]]:
    differences = {name: control[name] - own[name] for name in SMALLER if name in own}
    differences |= {name: own[name] - control[name] for name in LARGER if name in own}
    return _intervals(differences)


def measured(
    model: Explainable, images: Any, clusters: NDArray[np.int64], cohort: Cohort, rule: Rule, sanity: bool
) -> Values:
    """Return each measure that needs no truth, (n,): areas, and with ``sanity`` what a map depends on."""
    parts: list[dict[str, torch.Tensor]] = []
    every = []
    for start in range(0, len(images), AT_ONCE):
        block = slice(start, start + AT_ONCE)
        x = model.tensor(images[block])
        cluster = torch.from_numpy(clusters[block]).to(x.device)
        question = Question(cluster, torch.full_like(cluster, -1), cohort)
        maps, facts = rule.explain(model, x, question)
        every.append(maps)
        part = {**facts, **areas(model, x, maps, question)}
        if sanity:
            part["own_runner_up"] = cluster_sensitivity(model, x, question, rule, maps)
            part |= after_shuffling(model, x, question, rule, maps)
            part |= when_changed(model, x, question, rule, maps)
        parts.append(part)
    values = {key: torch.cat([part[key] for part in parts]).double().cpu().numpy() for key in parts[0]}
    if sanity:
        values["other_images"] = of_other_images(torch.cat(every)).double().cpu().numpy()
    return values


def _localised(
    model: Explainable,
    images: Any,
    clusters: NDArray[np.int64],
    cohort: Cohort,
    rule: Rule,
    masks: Masks,
    distractors: Masks | None,
) -> Values:
    maps = cluster_activation_map(model, images, rule, clusters, cohort=cohort).maps
    rows = [
        localised(one, mask, None if distractors is None else distractors[number])
        for number, (one, mask) in enumerate(zip(maps, masks, strict=True))
    ]
    found = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    return {key: values for key, values in found.items() if np.isfinite(values).any()}


def _intervals(values: Mapping[str, NDArray[np.float64]]) -> dict[str, dict[str, float | None]]:
    return {name: mean_interval(each) for name, each in values.items()}
