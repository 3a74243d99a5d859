"""What the run of a model found of its own clusters, for the folder of new images that the model sorts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medstrata.run import read_json, write_json

FILE = "source_validation.json"
VALIDATION = "validation.json"
OF_A_CLUSTER = ("cluster", "supported", "sentence")
OF_A_NAME = ("cluster", "origin", "short", "sentence")


def copy_verdict(trained: Path, out: Path) -> None:
    """Write into ``out`` what the run folder ``trained`` says of the clusters of its model.

    ``source_validation.json``: ``validated`` (whether with refits), ``supported``, ``sentence`` and ``remark`` as in
    ``validation.json``, ``clusters`` (each ``supported``, with its sentence) and ``named`` (clusters that technical
    data tell). A folder of new images hands on what it was given itself. Nothing is written where nothing is known.

    Raises
    ------
    RunFolderError : a file cannot be read or written
    """
    if (trained / FILE).exists():
        write_json(out / FILE, read_json(trained / FILE))
    elif (trained / VALIDATION).exists():
        write_json(out / FILE, _summary(read_json(trained / VALIDATION)))
    else:
        (out / FILE).unlink(missing_ok=True)


def _summary(found: dict[str, Any]) -> dict[str, Any]:
    confounders = found.get("confounders") or {"named": []}
    return {
        "validated": not found["provisional"],
        "supported": found["supported"],
        "sentence": found["sentence"],
        "remark": found.get("remark", ""),
        "clusters": [{key: one[key] for key in OF_A_CLUSTER} for one in found["clusters"]],
        "named": [{key: one.get(key, "") for key in OF_A_NAME} for one in confounders["named"]],
    }
