"""One card per cluster: which images stand for it, and their pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medstrata.report.facts import Cluster, Facts
from medstrata.report.folder import RunFolder, numbers, rows_of, sureness
from medstrata.report.pictures import MapPictures, Picture, Pictures

MOST_CARDS = 60  # the largest clusters get a card, the others stand in the overview only
MOST_THUMBNAILS = 6  # per line of a card
ALL_THUMBNAILS = 600  # over the whole page, so that it stays small enough to be mailed
EXAMPLES, VOLUME_EXAMPLES = 3, 2  # typical images of a cluster under their own maps
LOOKED_AT = 200  # candidates per cluster among which images of different patients are preferred

Members = NDArray[np.intp]


@dataclass(frozen=True)
class Thumbnail:
    """One image on a card."""

    image_id: str
    pictures: list[Picture]
    probability: float
    margin: float


@dataclass(frozen=True)
class Card:
    """Everything that a card shows; ``hidden`` counts images that may not be shown."""

    cluster: Cluster
    typical: list[Thumbnail]
    uncertain: list[Thumbnail]
    maps: MapPictures | None
    examples: list[Picture]
    hidden: int


def make_cards(run: RunFolder, facts: Facts) -> list[Card]:
    """Make the cards of the largest clusters, in the order of their numbers; empty clusters have none."""
    filled = [cluster for cluster in facts.clusters if cluster.size]
    kept = {cluster.number for cluster in sorted(filled, key=lambda cluster: -cluster.size)[:MOST_CARDS]}
    shown = [cluster for cluster in filled if cluster.number in kept]
    maker = _CardMaker(run, facts, thumbnails_per_line(len(shown), 2 if run.pixels.ndim == 5 else 1))
    return [maker.card(cluster) for cluster in shown]


def thumbnails_per_line(cards: int, pictures_each: int) -> int:
    """Return how many images one line of a card may show within the page's budget."""
    return int(np.clip(ALL_THUMBNAILS // max(1, 2 * cards * pictures_each), 2, MOST_THUMBNAILS))


class _CardMaker:
    def __init__(self, run: RunFolder, facts: Facts, per_line: int) -> None:
        self._facts, self._per_line = facts, per_line
        self._pictures = Pictures(run)
        self._ids = run.assignments["image_id"]
        self._probability = sureness(run.assignments)
        self._novelty = numbers(run.assignments, "novelty")
        typicality = numbers(run.assignments, "typicality")
        self._typicality = np.where(np.isfinite(typicality), typicality, self._probability)
        rows = rows_of(run.catalog, self._ids)
        self._patients: pa.ChunkedArray = rows["patient"]
        self._showable = showable(rows, bool(run.plan.get("include_burned_in")))

    def card(self, cluster: Cluster) -> Card:
        members = self._facts.members(cluster.number)
        allowed = members[self._showable[members]]
        if len(allowed) == 0:
            return Card(cluster, [], [], None, [], len(members))
        typical, uncertain = self._choose(allowed, rejected=cluster.number < 0)
        window = self._pictures.window(allowed)
        maps = self._pictures.cluster(cluster.number, allowed, window) if cluster.number >= 0 else None
        if maps is not None and cluster.cautions:  # a map that must not be used is not shown either
            maps = replace(maps, overlays=[])
        return Card(
            cluster=cluster,
            typical=[self._thumbnail(member, window) for member in typical],
            uncertain=[self._thumbnail(member, window) for member in uncertain],
            maps=maps,
            examples=[] if cluster.cautions else self._examples(allowed, window),
            hidden=len(members) - len(allowed),
        )

    def _choose(self, allowed: Members, rejected: bool) -> tuple[list[int], list[int]]:
        """The most typical and the least certain images; of the rejected ones those that are most unlike all others."""
        if rejected:
            return self._different_patients(allowed[np.argsort(-self._novelty[allowed], kind="stable")]), []
        typical = self._different_patients(allowed[np.argsort(-self._typicality[allowed], kind="stable")])
        if len(allowed) <= 2 * self._per_line:  # few images: each is shown once
            typical = typical[: -(-len(allowed) // 2)]
        others = allowed[~np.isin(allowed, typical)]
        return typical, self._different_patients(others[np.argsort(self._facts.margins[others], kind="stable")])

    def _different_patients(self, ordered: Members) -> list[int]:
        """Take the first images, those of further patients before more of the same patient."""
        candidates = ordered[:LOOKED_AT]
        patients = [self._patients[int(member)].as_py() or f"unknown {member}" for member in candidates]
        first: list[int] = []
        again: list[int] = []
        seen: set[str] = set()
        for member, patient in zip(candidates.tolist(), patients, strict=True):
            (again if patient in seen else first).append(member)
            seen.add(patient)
        return sorted((first + again)[: self._per_line], key=candidates.tolist().index)

    def _thumbnail(self, member: int, window: tuple[float, float]) -> Thumbnail:
        return Thumbnail(
            image_id=self._ids[member].as_py(),
            pictures=self._pictures.thumbnail(member, window),
            probability=float(self._probability[member]),
            margin=float(self._facts.margins[member]),
        )

    def _examples(self, allowed: Members, window: tuple[float, float]) -> list[Picture]:
        """The most typical images that have a map of their own, of different patients where there are."""
        explained = allowed[np.isin(allowed, self._pictures.explained_members)]
        ordered = explained[np.argsort(-self._typicality[explained], kind="stable")]
        most = VOLUME_EXAMPLES if self._pictures.volumes else EXAMPLES
        chosen = self._different_patients(ordered)[:most]
        return [picture for member in chosen for picture in self._pictures.explained(member, window)]


def showable(rows: pa.Table, include_burned_in: bool) -> NDArray[np.bool_]:
    """Say which images may be shown: none with text burned in; those that may have it only if the plan says so."""
    hidden = ["yes"] if include_burned_in else ["yes", "likely"]
    allowed: NDArray[np.bool_] = pc.invert(pc.is_in(rows["burned_in"], value_set=pa.array(hidden))).to_numpy()
    return allowed
