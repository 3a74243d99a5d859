"""What a folder of new images knows of the run that its model is of (``source_validation.json``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medstrata.report.confounded import Named, named_of
from medstrata.report.folder import RunFolder


@dataclass(frozen=True)
class SourceRun:
    """``clusters``: number, whether it is supported, and its sentence; ``headers``, ``pixels``: clusters they tell."""

    validated: bool = False
    supported: bool = False
    sentence: str = ""
    remark: str = ""
    clusters: list[tuple[int, bool, str]] = field(default_factory=list)
    headers: list[Named] = field(default_factory=list)
    pixels: list[Named] = field(default_factory=list)

    @property
    def whole(self) -> str:
        """The sentence and the remark."""
        return f"{self.sentence} {self.remark}".rstrip()

    @property
    def count_words(self) -> str:
        """How many clusters are supported: "none of 4", "3 of 4"."""
        supported = sum(good for _, good, _ in self.clusters)
        return f"{supported or 'none'} of {len(self.clusters)}"


def read_source(run: RunFolder) -> SourceRun | None:
    """Return what is known of the run of the model, None where the images are those that it was fitted on."""
    if not run.drift:
        return None
    found: Mapping[str, Any] = run.source_validation
    if not found:
        return SourceRun()
    return SourceRun(
        found["validated"],
        found["supported"],
        found["sentence"],
        found["remark"],
        [(one["cluster"], one["supported"], one["sentence"]) for one in found["clusters"]],
        named_of(found["named"], "header"),
        named_of(found["named"], "pixels"),
    )
