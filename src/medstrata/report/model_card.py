"""The model card, ``OUT/model_card.md``: what the model is for, what it was fitted on, how good it is, where it ends.

Source of the headings: Mitchell et al., Model cards for model reporting, FAT* 2019, arXiv:1810.03993. No ids, no names
of sites and no dates stand in it, so that it can be passed on with the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc

from medstrata.report.attention import Checks, Finding, left_out_words
from medstrata.report.facts import Facts
from medstrata.report.folder import RunFolder, rows_of
from medstrata.report.methods_evidence import measured_false_alarms
from medstrata.report.methods_text import MethodsText, fitted_text, patient_count
from medstrata.report.source_run import SourceRun
from medstrata.report.wording import count, percent, things

FILE = "model_card.md"
SHOWN_VALUES = 12
FACTORS = {"modality": "Modality", "body_part": "Body part", "manufacturer": "Manufacturer"}
USE = """## Intended use

- To look for groups in medical images of the kind below, as a step of research.
- **Research use only, not a medical device.** Not for diagnosis, treatment, triage or any decision about a patient.
- Clusters were found without labels. They are groups of images that look alike to the method, not diagnoses."""
COMMANDS = """## Use on new images

```sh
medstrata assign OUT NEW_INPUT NEW_OUT   # OUT: this folder
```

New images are brought onto the same grid by the same rules. `NEW_OUT/assignments.parquet` has for each the cluster, its
probability, and whether it is novel; `NEW_OUT/report.html` says whether the new images differ from those of the fit."""
REFERENCE = "Headings after Mitchell et al., Model cards for model reporting, FAT* 2019, arXiv:1810.03993."


def model_card(run: RunFolder, facts: Facts, methods: MethodsText, checks: Checks, found: Sequence[Finding]) -> str:
    """Return the model card as Markdown. ``found``: what the report says to look at first."""
    fitted_on = "assigned (the model was fitted on others)" if run.drift else "fitted on"
    parts = [
        f"# Model card: {facts.n_clusters} clusters by medstrata {run.run.get('medstrata', '')}".rstrip(),
        f"Method `{run.model.get('method', run.plan.get('method', 'unknown'))}`, with the settings in `model.json`.",
        USE,
        f"## Images {fitted_on}\n\n{_images(run, facts)}",
        f"## Factors\n\n{_factors(run.validation or {}, checks.source)}",
        f"## Metrics\n\n{_metrics(run, checks)}",
        f"## Limits\n\n{_limits(found)}",
        "## Methods and settings\n\n" + "\n\n".join(methods.paragraphs),
        *(["## References\n\n" + _bullets(methods.references)] if methods.references else []),
        COMMANDS,
        REFERENCE,
    ]
    return "\n\n".join(parts) + "\n"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _images(run: RunFolder, facts: Facts) -> str:
    patients, unknown = patient_count(run)
    fitted = fitted_text(run)
    lines = [
        f"{things(facts.clustered, facts.noun)}; {left_out_words(facts) if facts.left_out else 'nothing'} left out"
    ]
    if patients:
        lines.append(f"{things(patients, 'patients')}; {things(unknown, facts.noun)} whose patient is unknown")
    else:
        lines.append("patients: unknown, each counts as one of its own")
    lines += [fitted] if fitted else []
    rows = rows_of(run.catalog, run.assignments["image_id"])
    lines += [f"{words.lower()}: {_values(rows[key])}" for key, words in FACTORS.items()]
    return _bullets(lines)


def _values(column: Any) -> str:
    counted = Counter(value or "unknown" for value in pc.cast(column, "string").to_pylist())
    ordered = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = [f"{_plain(value)} {count(number)}" for value, number in ordered[:SHOWN_VALUES]]
    if rest := sum(number for _, number in ordered[SHOWN_VALUES:]):
        shown.append(f"others {count(rest)}")
    return ", ".join(shown)


def _plain(value: str) -> str:
    """Take out what Markdown or HTML would read as markup."""
    return "".join(letter for letter in value if letter.isalnum() or letter in " .,+-/()").strip() or "unnamed"


def _factors(found: dict[str, Any], source: SourceRun | None) -> str:
    if source and (named := [*source.headers, *source.pixels]):
        return _bullets([f"In the run of the model: {one.sentence}" for one in named])
    confounders = found.get("confounders")
    if not confounders:
        return "Whether the clusters go along with how the images were made was not tested."
    origins = {entry["origin"] for kind in confounders["kinds"] for entry in kind["associations"]}
    lines = list(confounders["sentences"])
    if "header" not in origins:
        lines.append("The headers say nothing of scanner, site or settings, so that could not be tested.")
    elif not any(entry["origin"] == "header" for entry in confounders["named"]):
        lines.append("No cluster can be told from the others by its headers.")
    return _bullets(lines)


def _verdict(checks: Checks) -> str:
    if checks.source:
        found = checks.source.whole if checks.source.validated else "not validated."
        return f"In the run of the model: {found}"
    return checks.validity.whole if checks.validity else "Whether the clusters are real was not tested."


def _metrics(run: RunFolder, checks: Checks) -> str:
    lines = [_verdict(checks)]
    if validity := checks.validity:
        lines += [row.sentence for row in validity.clusters]
        kind = "Provisional: " if validity.provisional else ""
        lines += [f"{kind}{name}: {value}" for name, value in validity.numbers]
    calibration = run.calibration
    if calibration.get("calibrated"):
        learned = calibration["new" if run.drift else "fit"]
        error, agreement = learned["error_after"], learned["agreement"]
        lines.append(
            f"Calibration: {percent(agreement['mean'])} of held-back images came into the same cluster; expected "
            f"calibration error {error['mean']:.3f} (95 % interval {error['low']:.3f} to {error['high']:.3f})"
        )
    else:
        lines.append("Probabilities are not calibrated.")
    novelty = calibration.get("novelty", {})
    if novelty.get("can_flag"):
        rate = percent(novelty["false_alarm_rate"])
        lines.append(f"Novelty flag: nominal rate of false alarms {rate}{measured_false_alarms(novelty)}")
    else:
        lines.append("Novelty flag: none; too few patients to flag images at a stated rate")
    return _bullets(lines)


def _limits(found: Sequence[Finding]) -> str:
    lines = [f"{finding.title}. {finding.text}" for finding in found if finding.kind != "validity" or finding.serious]
    lines.append(
        "Images of another kind, scanner or population than those above may be put into a cluster all the same."
    )
    lines.append("A cluster that is found again need not mean anything clinically.")
    return _bullets(lines)
