"""What to look at first: the findings that should make a reader doubt the clusters, in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medstrata.report.confounded import Named, Technical
from medstrata.report.facts import Cluster, Facts
from medstrata.report.source_run import SourceRun
from medstrata.report.tested import TestedMaps
from medstrata.report.validity import Validity
from medstrata.report.wording import count, listing, number, percent, things

LARGEST_SHARE = 0.9
TINY_SHARE, TINY_SIZE = 0.01, 5
LITTLE_AGREEMENT = 0.3
MOST_SENTENCES = 4
LOW_MARGIN, LOW_MARGIN_SHARE = 0.1, 0.25
MANY_LEFT_OUT = MANY_REJECTED = 0.1
DISAGREEMENT = 0.2
CONTENT_OR_TECHNIQUE = (
    "This may be what the images show, or how they were made (cropped, blurred, exposed): look at the images before "
    "giving these clusters a meaning."
)


@dataclass(frozen=True)
class Finding:
    """One finding: ``kind`` is stable for tests and styles, ``serious`` ones stand first."""

    kind: str
    title: str
    text: str
    serious: bool = False


@dataclass(frozen=True)
class Checks:
    """What was checked besides the tables of the run.

    ``source``, ``drift`` (drift.json): of the model's run, and of the images beside those of the fit, where the images
    are new to the model.
    """

    tested: TestedMaps | None = None
    validity: Validity | None = None
    technical: Technical | None = None
    source: SourceRun | None = None
    drift: dict[str, Any] = field(default_factory=dict)


def findings(facts: Facts, plan: dict[str, Any], checks: Checks = Checks()) -> list[Finding]:
    """List what a reader should look at first, serious findings before the others."""
    found = [
        *_drift(checks.drift),
        *_privacy(plan),
        *_validity(checks.validity),
        *_source(checks.source),
        *(_collapse(facts) if checks.source is None else _new_images(facts)),
        *_disagreement(facts),
        *_scanner(checks.technical, plan),
        *_pixels(checks.technical),
        *_tiny(facts),
        *_baselines(facts),
        *_contradictions(facts),
        *_margins(facts),
        *_left_out(facts),
        *_maps(checks.tested),
    ]
    return sorted(found, key=lambda finding: not finding.serious)


def _validity(validity: Validity | None) -> list[Finding]:
    if validity is None or validity.provisional:
        return []
    if not validity.supported:
        return [Finding("validity", f"The clusters are {validity.outcome}", validity.sentence, serious=True)]
    return [Finding("validity", "The clusters were validated", validity.whole)]


def _source(source: SourceRun | None) -> list[Finding]:
    """Tell what the run of the model found of its own clusters, where the images are new to it."""
    if source is None:
        return []
    where = "in the run of the model"
    if not source.validated:
        text = "Whether its clusters are real was not tested: medstrata validate, with the folder of that run, does so."
        found = [Finding("validity", "The run of the model was not validated", text)]
    elif not source.supported:
        found = [Finding("validity", f"The clusters are not supported {where}", source.sentence, serious=True)]
    else:
        found = [Finding("validity", f"The clusters were validated {where}", source.whole)]
    if source.headers:
        text = f"{_few(source.headers)} A new image in such a cluster may be there because of how it was made."
        title = f"Clusters followed how the images were made {where}"
        found.append(Finding("scanner", title, text, serious=True))
    if source.pixels:
        text = f"{_few(source.pixels)} {CONTENT_OR_TECHNIQUE}"
        found.append(Finding("pixels", f"Simple measures of the pixels told clusters {where}", text))
    return found


def _new_images(facts: Facts) -> list[Finding]:
    """Say which clusters of the model no new image came into; their sizes say nothing of the model."""
    empty = [str(cluster.number) for cluster in facts.clusters if cluster.number >= 0 and not cluster.size]
    if not empty:
        return []
    noun = facts.noun if facts.noun == "series" else facts.noun.removesuffix("s")
    where = f"cluster {empty[0]}" if len(empty) == 1 else f"the clusters {listing(empty)}"
    text = f"None of the new {facts.noun} came into {where}. These clusters were found in other {facts.noun}."
    return [Finding("empty", f"No new {noun} in some clusters", text)]


def _maps(tested: TestedMaps | None) -> list[Finding]:
    if tested is None or not tested.failed:
        return []
    judged = sum(bool(word) for word, _ in tested.tests)
    text = " ".join(sentence for word, sentence in tested.tests if word == "not passed")
    return [Finding("maps", f"The activation maps did not pass {tested.failed} of {judged} tests", text)]


def _drift(drift: dict[str, Any]) -> list[Finding]:
    if not drift.get("drift"):
        return []
    text = (
        f"{drift['sentence']} The clusters were found in other images: where the new ones differ, a cluster may not "
        "mean the same in them."
    )
    return [Finding("drift", "These images differ from those of the fit", text, serious=True)]


def _privacy(plan: dict[str, Any]) -> list[Finding]:
    if not plan.get("include_burned_in"):
        return []
    text = (
        "The plan includes images that may have text burned into their pixels. Images that are known to have it are "
        "never shown on this page, but those that only may have it can be. Check every picture before passing it on."
    )
    return [Finding("burned_in", "Pictures may show names", text, serious=True)]


def _collapse(facts: Facts) -> list[Finding]:
    real = [cluster for cluster in facts.clusters if cluster.number >= 0]
    used = sum(cluster.size > 0 for cluster in real)
    found = []
    if used < len(real):
        text = (
            f"{count(len(real))} clusters were asked for, but only {count(used)} hold any {facts.noun}. "
            "Ask for fewer clusters, or do not trust the borders between those that are left."
        )
        found.append(Finding("collapse", "Some clusters are empty", text, serious=True))
    largest = max(real, key=lambda cluster: cluster.size)
    if len(real) > 1 and largest.share > LARGEST_SHARE:
        text = (
            f"Cluster {largest.number} holds {percent(largest.share)} of all {facts.noun}. Either these really are all "
            "of one kind, or the method did not find the differences: look at the map of all images."
        )
        found.append(Finding("collapse", "Almost everything is in one cluster", text, serious=True))
    return found


def _disagreement(facts: Facts) -> list[Finding]:
    if facts.disagreement is None or facts.disagreement < DISAGREEMENT:
        return []
    text = (
        "The method was run several times from other random numbers, and the runs do not find the same clusters: their "
        f"agreement (adjusted Rand index) is {number(1 - facts.disagreement)}, where 1 is identical and 0 is chance. "
        "Another seed would give other clusters. Try another number of clusters, or take these as one view of several."
    )
    serious = facts.disagreement > 2 * DISAGREEMENT
    return [Finding("disagreement", "The clusters are partly a matter of chance", text, serious=serious)]


def _scanner(technical: Technical | None, plan: dict[str, Any]) -> list[Finding]:
    if technical is None or not (technical.named or technical.strongest):
        return []
    if plan.get("goal") == "categories":
        advice = "Compared were images of one kind only, so this is not a matter of each kind having its own scanners."
    else:
        advice = "A difference between such clusters may be a difference between scanners, not between patients."
    if technical.named:
        text = f"{_few(technical.named)} {advice}"
        return [Finding("scanner", "Clusters that follow how the images were made", text, serious=True)]
    named = listing([f"{row.name} ({row.effect})" for row in technical.strongest[:MOST_SENTENCES]])
    text = f"The clusters go along with: {named}; 0 means not at all, 1 means completely. {advice}"
    return [Finding("scanner", "The clusters go along with how the images were made", text)]


def _pixels(technical: Technical | None) -> list[Finding]:
    if technical is None or not technical.pixels:
        return []
    text = f"{_few(technical.pixels)} {CONTENT_OR_TECHNIQUE}"
    return [Finding("pixels", "Simple measures of the pixels tell clusters from the others", text)]


def _few(named: list[Named]) -> str:
    """Return the short sentences of the first, and how many more there are."""
    more = len(named) - MOST_SENTENCES
    said = [one.short for one in named[:MOST_SENTENCES]]
    if more > 0:
        said.append(f"There {'is' if more == 1 else 'are'} {things(more, 'more such clusters')}.")
    return " ".join(said)


def all_clear(checks: Checks) -> str:
    """Say what was looked at without a finding, where there is none, and what could not be looked at."""
    technical = checks.technical
    looked = ["no empty or very small cluster"]
    if technical and technical.headers:
        looked.append("no cluster that follows the scanner")
    if technical and technical.measures:
        looked.append("none that sharpness, noise, padding or brightness tell from the others")
    text = f"None of the automatic checks found a problem: {', '.join(looked)}, no sign of collapse."
    if not (technical and technical.headers):
        text += " The headers do not tell the scanner, so that could not be checked."
    return f"{text} This does not prove that the clusters mean something; look at the images of each."


def _tiny(facts: Facts) -> list[Finding]:
    # With many clusters 1 % is an ordinary size, so the limit falls with their number.
    limit = min(TINY_SHARE, 0.2 / facts.n_clusters)
    tiny = [
        f"cluster {cluster.number} ({things(cluster.size, facts.noun)})"
        for cluster in facts.clusters
        if cluster.number >= 0 and cluster.size > 0 and _is_tiny(cluster, limit, facts.n_clusters)
    ]
    if not tiny:
        return []
    shown = listing(tiny[:8] + ([f"{len(tiny) - 8} more"] if len(tiny) > 8 else []))
    text = f"Very small: {shown}. These are often outliers, damaged images or a rare kind: look at them one by one."
    return [Finding("tiny", "Very small clusters", text)]


def _is_tiny(cluster: Cluster, limit: float, n_clusters: int) -> bool:
    """Few images, or few for the set: in a set of ten, four are a good part of it."""
    return cluster.share < limit or (cluster.size < TINY_SIZE and cluster.share < 0.5 / n_clusters)


def _baselines(facts: Facts) -> list[Finding]:
    if not facts.agreements or max(found.ari for found in facts.agreements) >= LITTLE_AGREEMENT:
        return []
    named = listing([f"{found.title} ({number(found.ari)})" for found in facts.agreements])
    text = (
        f"The clusters agree little with simple methods on the same images: {named}, where 1 is the same grouping and "
        "0 is chance. Without labels nobody can say which is right; compare the images below."
    )
    return [Finding("baselines", "Simple methods group these images differently", text)]


def _contradictions(facts: Facts) -> list[Finding]:
    if not facts.contradictions:
        return []
    text = (
        f"The header of {things(facts.contradictions, facts.noun)} says another modality or body part than nearly all "
        "images that look alike. Either the header is wrong or the image was taken for another kind: see the list."
    )
    return [Finding("contradictions", "Headers that contradict their images", text)]


def _margins(facts: Facts) -> list[Finding]:
    known = facts.margins[np.isfinite(facts.margins)]
    share = float((known < LOW_MARGIN).mean()) if len(known) and facts.n_clusters > 1 else 0.0
    if share < LOW_MARGIN_SHARE:
        return []
    text = (
        f"For {percent(share)} of the {facts.noun} the best and the second-best cluster are almost equally likely "
        f"(margin below {LOW_MARGIN}). The borders between clusters are soft: do not read much into single assignments."
    )
    return [Finding("margins", "Many uncertain assignments", text)]


def _left_out(facts: Facts) -> list[Finding]:
    found = []
    if facts.left_out > MANY_LEFT_OUT * (facts.left_out + facts.clustered):
        most = facts.reasons[0]
        text = f"{left_out_words(facts)} were left out. The most frequent reason ({count(most.count)}): {most.sentence}"
        found.append(Finding("left_out", "Much was left out", text))
    rejected = [cluster for cluster in facts.clusters if cluster.number < 0]
    if rejected and rejected[0].share > MANY_REJECTED:
        text = f"{percent(rejected[0].share)} of the {facts.noun} fit none of the clusters. Are they of another kind?"
        found.append(Finding("rejected", "Many images fit no cluster", text))
    return found


def left_out_words(facts: Facts) -> str:
    """Say how many were left out, and whether these are files or images: the first stage sees files only."""
    stages = {reason.stage for reason in facts.reasons}
    noun = "files" if stages == {"scan"} else facts.noun if "scan" not in stages else f"files and {facts.noun}"
    return things(facts.left_out, noun)
