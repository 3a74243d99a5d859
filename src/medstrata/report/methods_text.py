"""The methods paragraph of a paper: what was done in a run, as its files say, with the papers that it rests on.

Nothing is claimed that was not done: where a file is missing, so is its sentence.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from medstrata.images.intensity import describe_rule
from medstrata.report.attention import left_out_words
from medstrata.report.facts import Facts
from medstrata.report.folder import RunFolder, rows_of
from medstrata.report.methods_evidence import (
    calibration_text,
    clinical_text,
    maps_text,
    rule_text,
    technical_text,
    validity_text,
)
from medstrata.report.methods_training import method_text, training_text
from medstrata.report.references import cited
from medstrata.report.wording import count, listing, things

SHOWN_KINDS = 5  # kinds of image that are counted one by one
SOFTWARE = ("python", "torch", "numpy", "scipy", "scikit-learn", "graspologic-native", "pydicom", "nibabel")


@dataclass(frozen=True)
class MethodsText:
    """``paragraphs`` in the passive voice of a paper; ``references``: what they cite, in the order of mention."""

    paragraphs: list[str]
    references: list[str]

    @property
    def plain(self) -> str:
        """All of it as text to be copied."""
        return "\n\n".join([*self.paragraphs, *(["References", *self.references] if self.references else [])])


def write_methods(run: RunFolder, facts: Facts) -> MethodsText:
    """Return the methods paragraph of ``run``: images, preprocessing, method, validation, activation maps, software."""
    validation = run.validation or {}
    parts = [
        [_images(run, facts), _left_out(facts), _preprocessing(run)],
        [method_text(run.plan, run.model, bool(run.drift)), fitted_text(run), training_text(run.model, run.history)],
        [calibration_text(run.calibration, bool(run.drift)), validity_text(validation)],
        [technical_text(validation), clinical_text(validation), rule_text(validation)],
        [maps_text(run.maps)],
        [_software(run.run, run.plan, _libraries(validation))],
    ]
    paragraphs = [" ".join(sentence for sentence in part if sentence) for part in parts]
    paragraphs = [paragraph for paragraph in paragraphs if paragraph]
    return MethodsText(paragraphs, cited(" ".join(paragraphs)))


def fitted_text(run: RunFolder) -> str:
    """Say that the model was fitted on some of the images only; "" where it was on all, or on none of them."""
    if "fitted" not in run.assignments.column_names:
        return ""
    fitted = int(np.asarray(run.assignments["fitted"]).sum())
    if fitted in (0, len(run.assignments)):
        return ""
    return f"The model was fitted on {count(fitted)} of them, drawn at random; the others were assigned by it."


def patient_count(run: RunFolder) -> tuple[int, int]:
    """Return how many patients the headers name among the clustered images, and how many images name none."""
    patients = rows_of(run.catalog, run.assignments["image_id"])["patient"].to_pylist()
    known = [patient for patient in patients if patient]
    return len(set(known)), len(patients) - len(known)


def _images(run: RunFolder, facts: Facts) -> str:
    patients, unknown = patient_count(run)
    clustered = things(facts.clustered, facts.noun)
    if not patients:
        who = f"{clustered} were included; the files name no patients, so each was taken as a patient of its own"
    elif unknown:
        who = (
            f"{clustered} were included, {count(facts.clustered - unknown)} of them of {things(patients, 'patients')}; "
            "the others name no patient and were taken as one each"
        )
    else:
        who = f"{clustered} of {things(patients, 'patients')} were included"
    kinds: Counter[str] = Counter()
    for kind in facts.kinds:
        kinds[" ".join(filter(None, (kind.modality, kind.body_part)))] += kind.count
    if "" in kinds or len(kinds) > SHOWN_KINDS or facts.other_kinds:
        return f"{who}."
    return f"{who} ({'; '.join(f'{words}, {count(number)}' for words, number in kinds.most_common())})."


def _left_out(facts: Facts) -> str:
    if not facts.left_out:
        return "Nothing was excluded."
    reasons = [f"{reason.code.replace('_', ' ')}, {count(reason.count)}" for reason in facts.reasons]
    verb = "was" if facts.left_out == 1 else "were"
    return f"{left_out_words(facts)} {verb} excluded ({'; '.join(reasons)})."


def _preprocessing(run: RunFolder) -> str:
    plan = run.plan
    if not plan.get("grid"):
        return ""
    size = " × ".join(str(side) for side in plan["grid"])
    unit = "voxels" if plan["dimensions"] == 3 else "pixels"
    colour = " in colour" if plan["channels"] == 3 else ""
    sentences = [f"Each was brought to a common grid of {size} {unit}{_spacing(run)}{colour}."]
    if plan["dimensions"] == 2 and run.images.num_rows > run.assignments.num_rows:
        slices = plan["slices_per_volume"]
        sentences.append(
            f"Of a volume, the central {things(slices, 'slices')} entered, and what was computed of them was averaged."
        )
    rules = [f"{kind}: {describe_rule(rule).replace('..', ' to ')}" for kind, rule in plan.get("intensity", {}).items()]
    if rules:
        sentences.append(f"Intensities were scaled to between 0 and 1, each image alone ({'; '.join(rules)}).")
    return " ".join(sentences)


def _spacing(run: RunFolder) -> str:
    """Say how large a step of the grid is; "" where no image has a size in millimetres."""
    steps = run.plan.get("spacing")
    known = rows_of(run.catalog, run.assignments["image_id"])["spacing_rows"]
    if not steps or known.null_count == len(known):
        return ""
    without = "; images without a known size kept their pixels" if known.null_count else ""
    return f" with a spacing of {' × '.join(f'{step:g}' for step in steps)} mm{without}"


def _libraries(validation: dict[str, Any]) -> tuple[str, ...]:
    """Name the libraries that were used, that of survival only where a time to an event was tested."""
    clinical = (validation.get("associations") or {}).get("associations", [])
    survival = any(entry.get("curves") for entry in clinical)
    return (*SOFTWARE, "lifelines") if survival else SOFTWARE


def _software(state: dict[str, Any], plan: dict[str, Any], libraries_used: tuple[str, ...]) -> str:
    versions = state.get("versions", {})
    used = [f"{name} {versions[name]}" for name in libraries_used if name in versions]
    device = state.get("stages", {}).get("fit", {}).get("device")
    where = f" on the device {device}" if device else ""
    seed = f" The seed of all random numbers was {plan['seed']}." if "seed" in plan else ""
    libraries = f" ({listing(used)})" if used else ""
    version = state.get("medstrata", "")
    return f"All of it was done with medstrata {version}{libraries}{where}.{seed}".replace("  ", " ")
