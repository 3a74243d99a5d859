"""Take down what a person decides about a finished run, after checking it against the run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medstrata.decisions import (
    FLAG,
    MERGE,
    RENAME,
    UNDO,
    Decision,
    append,
    check_text,
    in_words,
    model_checksum,
    read_decided,
)
from medstrata.errors import InputError, RunFolderError
from medstrata.images.catalog import ID_DIGITS, SOURCES_FILE
from medstrata.run import RunFolder

SHORTEST_ID = 4  # characters: shorter ones are words and numbers of plain text too


def edit_run(out: Path, action: str, values: Sequence[str], who: str = "", why: str = "") -> str:
    """Carry out ``rename CLUSTER NAME``, ``merge CLUSTER CLUSTER ...``, ``flag CLUSTER|IMAGE_ID`` or ``undo``.

    Adds one line to ``out/decisions.jsonl`` and returns what it says. Nobody is named who does not name himself by
    ``who``.

    Raises
    ------
    InputError : the action cannot be carried out as asked, or the text names a patient; nothing has changed then
    RunFolderError : the run is not finished, or a line of decisions.jsonl cannot be read
    """
    if not all((out / name).exists() for name in ("assignments.parquet", "soft_assignments.npy")):
        raise RunFolderError(f"{out} holds no assignments yet. Run: medstrata run INPUT OUT")
    when = datetime.now(UTC).isoformat(timespec="seconds")
    who, why = _checked(out, "who", who), _checked(out, "why", why)
    with RunFolder(out).locked():
        blank = Decision(action, model_checksum(out), when, who=who, why=why)
        if action == UNDO:
            undone = _last(out, values)
            append(out, replace(blank, undoes=undone.line))
            return f"taken back: it no longer holds that {in_words(undone)}"
        decision = {RENAME: _rename, MERGE: _merge, FLAG: _flag}[action](out, list(values), blank)
        append(out, decision)
        return in_words(decision)


def _rename(out: Path, values: list[str], blank: Decision) -> Decision:
    if len(values) != 2:
        raise InputError('To rename, give a cluster and its name in quotes: medstrata edit OUT rename 2 "ground glass"')
    name = _checked(out, "name", values[1])
    if not name:
        raise InputError("The name is empty. To take back a name, use: medstrata edit OUT undo")
    return replace(blank, clusters=(_cluster(out, values[0]),), name=name)


def _merge(out: Path, values: list[str], blank: Decision) -> Decision:
    clusters = tuple(sorted({_cluster(out, value) for value in values}))
    if len(clusters) < 2:
        raise InputError("To merge, give at least two different clusters: medstrata edit OUT merge 1 3")
    decided = read_decided(out)
    if len({decided.group(cluster) for cluster in clusters}) == 1:
        raise InputError("These clusters are merged already.")
    return replace(blank, clusters=clusters)


def _flag(out: Path, values: list[str], blank: Decision) -> Decision:
    if len(values) != 1:
        raise InputError('To flag, give one cluster or one image_id: medstrata edit OUT flag 2 --why "motion"')
    if not blank.why:
        raise InputError('A flag needs its reason. Add: --why "..."')
    ids = pq.read_table(out / "assignments.parquet", columns=["image_id"])["image_id"]
    if pc.index(ids, values[0]).as_py() >= 0:
        return replace(blank, image_id=values[0], scan=RunFolder(out).token("scan"))
    if len(values[0]) == ID_DIGITS:
        raise InputError("This run has no image of this image_id. assignments.parquet lists them.")
    if not values[0].isdigit():
        raise InputError(
            "This run has no such image and no such cluster. assignments.parquet lists the image_ids; clusters are "
            f"numbered 0 to {_count(out) - 1}."
        )
    return replace(blank, clusters=(_cluster(out, values[0]),))


def _last(out: Path, values: Sequence[str]) -> Decision:
    if values:
        raise InputError("undo takes back the last decision that stands, and takes no number: medstrata edit OUT undo")
    decided = read_decided(out)
    if not decided.decisions:
        others = " (those in decisions.jsonl are about another fit)" if decided.set_aside else ""
        raise InputError(f"There is no decision to undo{others}.")
    return decided.decisions[-1]


def _cluster(out: Path, value: str) -> int:
    """Return the number of a cluster of the model."""
    if not (value.isascii() and value.isdigit() and int(value) < _count(out)):
        raise InputError(f"This run has no such cluster. Its clusters are numbered 0 to {_count(out) - 1}.")
    return int(value)


def _count(out: Path) -> int:
    return int(np.load(out / "soft_assignments.npy", mmap_mode="r").shape[1])


def _checked(out: Path, what: str, text: str) -> str:
    """Return the text of ``check_text``; InputError where it holds the original id of a patient.

    Ids of at least ``SHORTEST_ID`` characters count, in any case of letters, as whole words. Where ``private/`` was
    removed nothing can be compared.
    """
    plain = check_text(what, text)
    file = out / SOURCES_FILE
    if not plain or not file.exists():
        return plain
    original = pc.unique(pq.read_table(file, columns=["patient_id"])["patient_id"]).to_pylist()
    known = [(value or "").strip().casefold() for value in original]
    if any(_is_word_of(one, plain.casefold()) for one in known if len(one) >= SHORTEST_ID):
        raise InputError(
            f"The {what} holds the original id of a patient of this run. Decisions are passed on with OUT: "
            "write it without, or flag the image by its image_id."
        )
    return plain


def _is_word_of(word: str, text: str) -> bool:
    return word in text and bool(re.search(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", text))
