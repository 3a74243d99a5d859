"""How much ``medstrata validate`` does. Apart from the work, so that the command line loads nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ValidationSettings:
    """How much is fitted again: ``refits`` of each kind (``evidence.validity.stability``), ``surrogates`` for the null.

    At least three and nineteen are needed to support anything. ``clinical``: a table of the patients
    (``evidence.association``). ``labels``: known classes (``evidence.labels``), which are compared and change nothing.
    ``numbers``: the lowest and the highest number of clusters to look at; None: from 1 to ten, or to four more than
    were used.
    """

    refits: int = 3
    surrogates: int = 19
    clinical: Path | None = None
    labels: Path | None = None
    numbers: tuple[int, int] | None = None
