"""The report: one self-contained page that a clinician can read, made from the files of the run folder alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medstrata._version import __version__
from medstrata.report import wording
from medstrata.report.attention import Checks, all_clear, findings, left_out_words
from medstrata.report.cards import MOST_CARDS, make_cards
from medstrata.report.confounded import read_clinical, read_technical
from medstrata.report.decided import decided_findings, list_decided
from medstrata.report.doubted import list_doubted
from medstrata.report.facts import ALL_MAPS, Facts, gather_facts, map_cautions
from medstrata.report.figures import embedding_maps, training_curves
from medstrata.report.folder import RunFolder, read_run_folder
from medstrata.report.methods_evidence import measured_false_alarms
from medstrata.report.methods_text import write_methods
from medstrata.report.model_card import FILE as MODEL_CARD
from medstrata.report.model_card import model_card
from medstrata.report.pictures import colour_bar
from medstrata.report.source_run import read_source
from medstrata.report.templates import render_template
from medstrata.report.tested import read_tests
from medstrata.report.validity import read_validity
from medstrata.run import atomic

REPORT = "report.html"
FILES = {
    "catalog.parquet": "one row per image and per skipped file, from the headers",
    "plan.json": "every decision about the images and the method; may be edited",
    "pixels.npy": "the images as the method saw them, one row per image or slice",
    "images.parquet": "what each row of pixels.npy is, and where it lies in its source",
    "left_out.parquet": "what was left out, in which stage and why",
    "batches.parquet": "the batch of each image that was adjusted for",
    "model.safetensors": "the weights of the fitted model",
    "model.json": "the settings of the fitted model",
    "model_card.md": "what the model is for, what it was fitted on, and its limits; pass it on with the model",
    "history.jsonl": "what was measured in each pass of the training",
    "embeddings.npy": "the numbers by which the model describes each image",
    "assignments.parquet": "the cluster of each image and how sure it is",
    "soft_assignments.npy": "the probability of each cluster for each image",
    "contradictions.parquet": "images whose header contradicts those of the images like them, most certain first",
    "decisions.jsonl": "what people decided about the clusters: names, merges, flags, with who, when and why",
    "calibration.json": "how probabilities were calibrated, and the rate of false alarms of the novelty flag",
    "drift.json": "whether these images differ from those of the fit",
    "baselines.parquet": "the clusters that simple methods find in the same images",
    "validation.json": "whether the clusters are to be believed, and why",
    "source_validation.json": "what the run of the model found of its own clusters",
    "validation": "the refits and images without groups that this rests on",
    "maps": "what mattered in the images, on the grids of their sources",
    "comparison": "how these clusters agree with those of another run",
    "run.json": "times, versions and the stages that were run",
    "private": "which file each image comes from, and the secret key of the image numbers: never pass this on",
}


@dataclass(frozen=True)
class Origin:
    """When and with what the run was made, as far as run.json says."""

    version: str
    date: str
    versions: dict[str, str]


def write_report(out: Path) -> Path:
    """Write ``out/report.html`` and ``out/model_card.md`` from the files of the run folder ``out``; return the page.

    The page holds all pictures itself, asks for nothing from outside, runs no script and never looks into
    ``out/private``.

    Raises
    ------
    RunFolderError : a required stage has not been run, or a file is damaged or cannot be written
    """
    run = read_run_folder(out)
    for name, write in ((MODEL_CARD, render_model_card), (REPORT, render)):  # the page lists the card among the files
        text = write(run)
        with atomic(out / name) as part:
            part.write_text(text, encoding="utf-8")
    return out / REPORT


def render(run: RunFolder) -> str:
    """Return the whole page as HTML."""
    facts = gather_facts(run)
    listed = list_decided(run, facts)
    checks = _checks(run)
    return render_template(
        "template.html",
        facts=facts,
        plan=run.plan,
        summary=summary(facts),
        findings=findings(facts, run.plan, checks),
        all_clear=all_clear(checks),
        decided_findings=decided_findings(listed),
        no_drift="" if run.drift.get("drift") else run.drift.get("sentence", ""),
        sure=sure_words(run),
        origin=read_origin(run.run),
        decided=listed,
        cards=make_cards(run, facts),
        most_cards=MOST_CARDS,
        has_maps=run.maps is not None,
        validity=checks.validity,
        source=checks.source,
        technical=checks.technical,
        adjusted=run.adjustment.get("sentences", []),
        clinical=read_clinical(run.validation, run.path / "validation", listed.names),
        tested=checks.tested,
        strongest=strongest_words(run),
        doubted=list_doubted(run),
        methods=write_methods(run, facts),
        fit_warnings=[str(sentence) for sentence in run.model.get("warnings") or []],
        map_cautions=map_cautions(run.maps.summary if run.maps else {})[ALL_MAPS],
        files=[(name, text) for name, text in FILES.items() if (run.path / name).exists()],
        **_figures(run, facts),
    )


def render_model_card(run: RunFolder) -> str:
    """Return the model card as Markdown."""
    facts, checks = gather_facts(run), _checks(run)
    return model_card(run, facts, write_methods(run, facts), checks, findings(facts, run.plan, checks))


def _checks(run: RunFolder) -> Checks:
    tested = read_tests(run.maps.check if run.maps else {})
    validity, technical = read_validity(run.validation, run.path / "validation"), read_technical(run.validation)
    return Checks(tested, validity, technical, read_source(run), run.drift)


def summary(facts: Facts) -> str:
    """Say in one sentence what was done."""
    used = sum(cluster.size > 0 for cluster in facts.clusters if cluster.number >= 0)
    rejected = sum(cluster.size for cluster in facts.clusters if cluster.number < 0)
    placed = facts.clustered - rejected
    parts = [f"{wording.things(placed, facts.noun)} {_were(placed)} sorted into {wording.things(used, 'clusters')}"]
    if 0 < facts.fitted < facts.clustered:
        parts.append(f"the model was fitted on {wording.count(facts.fitted)} of them, drawn at random")
    if rejected:
        parts.append(f"{wording.count(rejected)} {'fits' if rejected == 1 else 'fit'} none of them")
    left_out = facts.left_out
    parts.append(f"{left_out_words(facts)} {_were(left_out)} left out" if left_out else "nothing was left out")
    return "; ".join(parts) + "."


def sure_words(run: RunFolder) -> str:
    """Say what the numbers called "sure" mean, and how many images are flagged as novel."""
    facts = run.calibration
    if facts.get("calibrated"):
        learned = facts["new" if run.drift else "fit"]
        agreement, after = learned["agreement"], learned["error_after"]
        changed = learned.get("applied", True)
        meaning = (
            f"the {'calibrated' if changed else 'uncorrected'} probability that a fit on other patients would put an "
            f"image into the same cluster, {'learned from' if changed else 'compared with'} held-back images, "
            f"{wording.percent(agreement['mean'])} of which came into the same one (calibration error "
            f"{after['mean']:.3f}, 95 % interval {after['low']:.3f} to {after['high']:.3f}). It is not the chance that "
            "the cluster is right"
        )
        meaning += ". Only the clusters were read again for it, not the whole model fitted."
    else:
        meaning = (
            "the probability that the method itself gives to an image's own cluster. It is not calibrated and is not "
            "the chance that the cluster is right."
        )
    if "novel" not in run.assignments.column_names:
        return meaning
    novel = int(np.asarray(run.assignments["novel"]).sum())
    if not facts.get("novelty", {}).get("can_flag"):
        return f"{meaning} Too few patients were in the fit to flag novel images at a stated rate."
    measured = measured_false_alarms(facts["novelty"]) or (
        "; where a network learned from about a thousand images, it was measured to be up to 4 %"
    )
    return f"{meaning} Flagged as novel: {wording.count(novel)}. The nominal rate of false alarms is 1 %{measured}."


def _were(amount: int) -> str:
    return "was" if amount == 1 else "were"


def strongest_words(run: RunFolder) -> str:
    """Say what the end of the colour scale stands for: the log odds of the cluster that a place adds; "" if unknown.

    Single images and means of clusters have a scale each. Volumes of known spacing: per cubic centimetre, since a voxel
    means something else on every grid.
    """
    scale = run.maps.summary.get("scale") if run.maps else None
    if run.maps is None or not isinstance(scale, float) or scale <= 0:
        return ""
    spacing, unit = run.plan.get("spacing"), "voxel" if run.pixels.ndim == 5 else "pixel"
    if spacing and len(spacing) == 3 and run.images["grid_affine"].null_count == 0:
        scale, unit = 1000 * scale / math.prod(spacing), "cm³"
    mean = scale * float(np.max(run.maps.cluster_maps, initial=0.0))
    return f"{mean:.2g} (mean) or {scale:.2g} (single images) of the log odds per {unit}"


def read_origin(run: dict[str, Any]) -> Origin:
    """Read the version, the date of the last finished stage and the versions of libraries from run.json."""
    stages = run.get("stages")
    done = [stage for stage in stages.values() if isinstance(stage, dict)] if isinstance(stages, dict) else []
    versions: dict[str, str] = {}
    for part in (run, *done):
        if isinstance(found := part.get("versions"), dict):
            versions |= {str(key): str(value) for key, value in found.items()}
    date = max((str(stage.get("finished", "")) for stage in done), default="")[:10]
    return Origin(str(run.get("medstrata") or __version__), date, versions)


def _figures(run: RunFolder, facts: Facts) -> dict[str, object]:
    seed = run.plan.get("seed")
    points, has_tsne, shown = embedding_maps(run.embeddings, facts.labels, seed if isinstance(seed, int) else 0)
    return {
        "points": points,
        "has_tsne": has_tsne,
        "shown_points": shown,
        "curves": training_curves(facts.phases) if any(phase.losses or phase.watched for phase in facts.phases) else "",
        "scale": colour_bar(),
    }
