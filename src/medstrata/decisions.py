"""What a person decided about the clusters of a run: names, merges and flags, kept line by line in decisions.jsonl.

The model's own output is never changed. A decision belongs to one fitted model, whose checksum it carries: of another
model the numbers of the clusters mean something else, and the decision is set aside.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medstrata.errors import InputError, RunFolderError
from medstrata.run import RunFolder, atomic

FILE = "decisions.jsonl"
RENAME, MERGE, FLAG, UNDO = "rename", "merge", "flag", "undo"
ACTIONS = (RENAME, MERGE, FLAG, UNDO)
LONGEST = {"name": 80, "who": 80, "why": 500}  # characters
_JOINERS = str.maketrans("", "", "\u200c\u200d")  # Persian and Indic words are spelled with them


@dataclass(frozen=True)
class Decision:
    """One line of ``decisions.jsonl``; what does not apply is empty.

    ``line``: its number in the file, from 1; ``model`` and ``scan``: checksums of the model and of the scanned images
    that it is about (``scan`` only where one image is flagged); ``when``: ISO 8601, UTC; ``undoes``: line of an undone
    decision.
    """

    what: str
    model: str
    when: str
    line: int = 0
    who: str = ""
    why: str = ""
    clusters: tuple[int, ...] = ()
    name: str = ""
    image_id: str = ""
    scan: str = ""
    undoes: int = 0


@dataclass(frozen=True)
class Decided:
    """The decisions that stand and are about the present model, in their order.

    ``groups``: the lowest cluster number of the merged ones, for each merged cluster; ``set_aside``: how many standing
    decisions are about another model.
    """

    decisions: tuple[Decision, ...] = ()
    groups: Mapping[int, int] = field(default_factory=dict)
    set_aside: int = 0

    def group(self, cluster: int) -> int:
        """Return the number that a cluster of the model has after the merges; -1 stays -1."""
        return self.groups.get(cluster, cluster)

    def members(self, cluster: int) -> list[int]:
        """Return the clusters of the model that are one with ``cluster``, itself included, ascending."""
        group = self.group(cluster)
        return sorted({cluster} | {one for one, lowest in self.groups.items() if lowest == group})

    def name(self, cluster: int) -> str:
        """Return the name given last to the cluster or to one that it was merged with, "" where there is none."""
        names = [decision.name for decision in self.about(cluster) if decision.what == RENAME]
        return names[-1] if names else ""

    def flags(self, cluster: int) -> list[str]:
        """Return the reasons for which the cluster, or one that it was merged with, is flagged."""
        return [decision.why for decision in self.about(cluster) if decision.what == FLAG]

    def image_flags(self) -> dict[str, list[str]]:
        """Return the reasons for which single images are flagged, by ``image_id``."""
        found: dict[str, list[str]] = {}
        for decision in self.decisions:
            if decision.image_id:
                found.setdefault(decision.image_id, []).append(decision.why)
        return found

    def about(self, cluster: int) -> list[Decision]:
        """Return the decisions about the cluster and those that it was merged with."""
        members = set(self.members(cluster))
        return [decision for decision in self.decisions if members & set(decision.clusters)]


def read_decided(out: Path) -> Decided:
    """Return what stands for the model in the run folder ``out``; nothing where nobody has decided anything.

    Raises
    ------
    RunFolderError : a line cannot be read, or the model is missing
    """
    every = standing(read_decisions(out))
    if not every:
        return Decided()
    model, scan = model_checksum(out), RunFolder(out).token("scan")
    present = tuple(one for one in every if one.model == model and one.scan in ("", scan))
    return Decided(present, _merged(present), len(every) - len(present))


def read_decisions(out: Path) -> list[Decision]:
    """Read every line of ``out/decisions.jsonl``; an empty list where the file is not there.

    Raises
    ------
    RunFolderError : a line is no decision; the message says which
    """
    try:
        text = (out / FILE).read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunFolderError(f"{FILE} cannot be read ({error.strerror}). Check its permissions.") from error
    decisions: list[Decision] = []
    for line, content in enumerate(text.split(b"\n"), start=1):
        if not content.strip():
            continue
        try:
            decisions.append(_decision(json.loads(content.decode("utf-8")), line, decisions))
        except (ValueError, InputError, RecursionError) as error:
            raise RunFolderError(
                f"{FILE}, line {line}: this is not a decision that medstrata wrote. "
                "Repair the line or take it out, and run the same command again."
            ) from error
    return decisions


def standing(decisions: Iterable[Decision]) -> list[Decision]:
    """Return the decisions that were not undone."""
    every = list(decisions)
    undone = {one.undoes for one in every}
    return [one for one in every if one.what != UNDO and one.line not in undone]


def append(out: Path, decision: Decision) -> None:
    """Add a line to ``out/decisions.jsonl``.

    The file is written anew and renamed, earlier lines as they were: a kill leaves the old file or the new one.
    """
    values = {name: value for name, value in asdict(decision).items() if value and name != "line"}
    file = out / FILE
    before = file.read_bytes() if file.exists() else b""
    if before and not before.endswith(b"\n"):
        before += b"\n"
    with atomic(file) as part:
        part.write_bytes(before + json.dumps(values, ensure_ascii=False).encode() + b"\n")


def copy_decisions(trained: Path, out: Path) -> bool:
    """Copy ``decisions.jsonl`` of a model's run to one that uses the model; False: that has other lines."""
    source, target = trained / FILE, out / FILE
    known = source.read_bytes() if source.exists() else b""
    own = target.read_bytes() if target.exists() else b""
    if own.startswith(known):  # nothing is missing there
        return True
    if not known.startswith(own):
        return False
    with atomic(target) as part:
        part.write_bytes(known)
    return True


def model_checksum(out: Path) -> str:
    """Return the checksum of the fitted model, which a copy of it shares (16 hexadecimal digits).

    Raises
    ------
    RunFolderError : there is no model
    """
    try:
        with open(out / "model.safetensors", "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise RunFolderError(f"model.safetensors cannot be read in {out}. Run: medstrata run INPUT OUT") from error


def check_text(what: str, text: str) -> str:
    """Return what a person wrote as ``name``, ``who`` or ``why``, without white space around it.

    Raises
    ------
    InputError : longer than ``LONGEST``, or with control or invisible characters
    """
    plain = text.strip()
    if len(plain) > LONGEST[what]:
        raise InputError(f"The {what} has {len(plain)} characters. Use at most {LONGEST[what]}.")
    if not plain.translate(_JOINERS).isprintable():
        raise InputError(f"The {what} holds control or invisible characters. Write it as plain text on one line.")
    return plain


def in_words(decision: Decision) -> str:
    """Say what was decided; an image is not named."""
    numbers = " and ".join(map(str, decision.clusters))
    if decision.what == RENAME:
        return f"cluster {numbers} is called “{decision.name}”"
    if decision.what == MERGE:
        return f"clusters {numbers} are one"
    return f"{f'cluster {numbers}' if decision.clusters else 'an image'} is flagged: {decision.why}"


def _merged(decisions: Iterable[Decision]) -> dict[int, int]:
    """Follow the merges in their order: cluster -> lowest number of those that it is one with."""
    groups: dict[int, int] = {}
    for decision in decisions:
        if decision.what == MERGE:
            joined = {groups.get(cluster, cluster) for cluster in decision.clusters}
            members = joined | set(decision.clusters) | {one for one, lowest in groups.items() if lowest in joined}
            groups |= dict.fromkeys(members, min(joined))
    return groups


def _decision(values: Any, line: int, earlier: list[Decision]) -> Decision:
    """Check one line as JSON gives it; ValueError or InputError where it is not ours."""
    if not isinstance(values, dict) or values.get("what") not in ACTIONS:
        raise ValueError("no action")
    kinds = {"clusters": list, "undoes": int}
    texts = ("what", "model", "when", "who", "why", "name", "image_id", "scan")
    for name, value in values.items():
        if name not in kinds and name not in texts:
            raise ValueError("unknown key")
        if not isinstance(value, kinds.get(name, str)) or isinstance(value, bool):
            raise ValueError("wrong type")
    clusters = values.get("clusters", [])
    if any(type(one) is not int or one < 0 for one in clusters):
        raise ValueError("no cluster numbers")
    for name in LONGEST:
        check_text(name, values.get(name, ""))
    made = Decision(**values | {"line": line, "clusters": tuple(clusters)})
    complete = {
        RENAME: len(clusters) == 1 and made.name,
        MERGE: len(set(clusters)) > 1,
        FLAG: made.why and (len(clusters) == 1) != bool(made.image_id),
        UNDO: made.undoes in {one.line for one in standing(earlier)},
    }
    if not (made.model and made.when and complete[made.what]):
        raise ValueError("incomplete")
    return made
