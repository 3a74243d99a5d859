"""What people decided about the clusters, in words for the page."""

from __future__ import annotations

from dataclasses import dataclass

from medstrata.decisions import FLAG, Decision, in_words, read_decided
from medstrata.report.attention import Finding
from medstrata.report.facts import Facts
from medstrata.report.folder import RunFolder
from medstrata.report.wording import listing, things


@dataclass(frozen=True)
class Mark:
    """One cluster, or several that were merged: ``members`` are the model's numbers, ``size`` counts their images."""

    members: list[int]
    name: str
    size: int
    sentences: list[str]
    flags: list[str]


@dataclass(frozen=True)
class FlaggedImage:
    """One image that a person flagged."""

    image_id: str
    cluster: int
    sentence: str


@dataclass(frozen=True)
class ListedDecisions:
    """``marks``: by each cluster number of the model; ``set_aside``: decisions about another fit."""

    clusters: list[Mark]
    marks: dict[int, Mark]
    images: list[FlaggedImage]
    set_aside: int

    @property
    def names(self) -> dict[int, str]:
        """The names that people gave, by cluster number."""
        return {number: mark.name for number, mark in self.marks.items() if mark.name}

    @property
    def merged(self) -> list[str]:
        """The merges in words: "clusters 0 and 2"."""
        groups = [mark.members for mark in self.clusters if len(mark.members) > 1]
        return [f"clusters {listing([str(member) for member in members])}" for members in groups]


def list_decided(run: RunFolder, facts: Facts) -> ListedDecisions:
    """Read ``decisions.jsonl`` and put what stands beside the clusters.

    Raises
    ------
    RunFolderError : a line cannot be read
    """
    decided = read_decided(run.path)
    sizes = {cluster.number: cluster.size for cluster in facts.clusters}
    marks: dict[int, Mark] = {}
    for number in sizes:
        about = decided.about(number)
        if not about:
            continue
        members = decided.members(number)
        marks[number] = Mark(
            members=members,
            name=decided.name(number),
            size=sum(sizes.get(member, 0) for member in members),
            sentences=[_sentence(decision) for decision in about],
            flags=decided.flags(number),
        )
    ids = run.assignments["image_id"].to_pylist()
    cluster_of = dict(zip(ids, facts.labels.tolist(), strict=True))
    images = [
        FlaggedImage(one.image_id, cluster_of[one.image_id], _sentence(one))
        for one in decided.decisions
        if one.image_id in cluster_of
    ]
    shown = [mark for number, mark in marks.items() if number == mark.members[0]]
    return ListedDecisions(shown, marks, images, decided.set_aside)


def decided_findings(listed: ListedDecisions) -> list[Finding]:
    """Say what a reader should know at first beside what was checked: flagged clusters, decisions not applied."""
    found = []
    reasons = [(mark, reason) for mark in listed.clusters for reason in mark.flags]
    if reasons:
        numbers = [listing([str(member) for member in mark.members]) for mark, _ in reasons]
        named = listing([f"{number} ({reason})" for number, (_, reason) in zip(numbers, reasons, strict=True)])
        found.append(Finding("flagged", "A person flagged clusters", f"Flagged: cluster {named}."))
    if listed.set_aside:
        text = f"{things(listed.set_aside, 'decisions')} in decisions.jsonl: made about another fit, and not applied."
        found.append(Finding("set_aside", "Decisions of people are not applied", text))
    return found


def _sentence(decision: Decision) -> str:
    said = in_words(decision)
    why = f" ({decision.why})" if decision.why and decision.what != FLAG else ""
    return f"{said[0].upper()}{said[1:]}{why}; {decision.who or 'a person'}, {decision.when[:10]}"
