"""What stability and the null come to, in words: for the clustering as a whole and for each cluster."""

from __future__ import annotations

from typing import Any

AGREES = 0.6  # mean adjusted Rand index of refits: below it other random numbers give other clusters
STABLE, DOUBTFUL = 0.75, 0.6  # mean Jaccard index of a cluster over refits (Hennig 2007)
FEWEST_REFITS = 3
SUPPORTED, NOT_SUPPORTED, NOT_FULLY_TESTED = "supported", "not supported", "not fully tested"
LEVEL = 0.05  # of the test against images without groups
NO_GAP = (
    "No gap was found between them: they may be pieces of a continuum, or groups that overlap, rather than separate "
    "groups."
)


def judge(stability: dict[str, Any], null: dict[str, Any] | None, sizes: list[int]) -> dict[str, Any]:
    """Return ``supported``, ``verdict``, ``sentence``, ``remark`` and ``clusters``.

    ``remark``: what has to be said of supported clusters all the same, "" where nothing; ``clusters``: one entry each
    with ``supported``, numbers, ``sentence``.

    The whole is supported where at least three refits with other random numbers agree (mean adjusted Rand index at
    least .6), resamples of patients do, also on patients that they did not see, and the images beat surrogates without
    groups (``null_test``). A cluster is supported where the whole is, and both kinds of refit find it again with a mean
    Jaccard index of at least .75.
    Where a test is missing nothing is supported either. ``verdict``: ``SUPPORTED``; ``NOT_SUPPORTED``, where something
    that was tested speaks against the whole or no cluster is stable; else ``NOT_FULLY_TESTED``.
    ``sizes``: images of each cluster. ``null``: None where it was not tested.
    """
    against, missing = _objections(stability, null), _missing(stability, null)
    whole = NOT_SUPPORTED if against else NOT_FULLY_TESTED if missing else SUPPORTED
    clusters = [_cluster(number, size, stability, whole) for number, size in enumerate(sizes)]
    supported = sum(one["supported"] for one in clusters)
    if against:
        sentence = f"No clusters are supported: {'; '.join([*against, *missing])}."
    elif missing:
        sentence = f"Not fully tested: {'; '.join(missing)}. Until then nothing is supported."
    elif supported == len(sizes):
        sentence = f"All {len(sizes)} clusters are supported."
    else:
        others = [str(one["cluster"]) for one in clusters if not one["supported"]]
        are = "is" if supported == 1 else "are"
        sentence = f"{supported} of {len(sizes)} clusters {are} supported; not supported: {', '.join(others)}."
    verdict = NOT_SUPPORTED if whole == SUPPORTED and not supported else whole
    return {
        "supported": verdict == SUPPORTED,
        "verdict": verdict,
        "sentence": sentence,
        "remark": NO_GAP if supported and null is not None and not null["separate"] else "",
        "clusters": clusters,
    }


def _objections(stability: dict[str, Any], null: dict[str, Any] | None) -> list[str]:
    """Return what speaks against the clustering as a whole, of what was tested."""
    seeds, patients = stability["seeds"]["ari"]["mean"], stability["patients"]["ari"]["mean"]
    new = stability["patients"]["new"]["mean"]
    found = []
    if _below(seeds):
        found.append(f"fits with other random numbers give other clusters (adjusted Rand index {seeds:.2f})")
    elif _below(patients):
        found.append(f"fits on other patients give other clusters (adjusted Rand index {patients:.2f})")
    elif _below(new):
        found.append(f"patients that a fit did not see come into other clusters (adjusted Rand index {new:.2f})")
    if null is not None and not null["passed"] and (name := _worse(null)):
        found.append(_null_words(null, name))
    return found


def _missing(stability: dict[str, Any], null: dict[str, Any] | None) -> list[str]:
    """Return what was not tested, or not often enough."""
    found = []
    if min(stability["refits"].values()) < FEWEST_REFITS:
        found.append("fewer than three refits of each kind were made")
    if null is None:
        found.append("images without groups were not tried")
    elif not null["passed"] and not _worse(null):
        tried = len(null["replication"]["surrogates"])
        found.append(f"only {tried} surrogates without groups were tried, 19 are needed")
    return found


def _below(agreement: float | None) -> bool:
    return agreement is not None and agreement < AGREES


def _worse(null: dict[str, Any]) -> str:
    """Return in which measure images without groups do as well, the worse of the two; "" where none of them does."""
    name = max(("replication", "separation"), key=lambda one: float(null[one]["p"]))
    return name if null[name]["as_good"] else ""


def _null_words(null: dict[str, Any], name: str) -> str:
    tried, as_good = null[name]["surrogates"], null[name]["as_good"]
    what = {"replication": "are found again as well", "separation": "are as far apart"}[name]
    return f"clusters in images without groups {what} in {as_good} of {len(tried)} trials (p = {null['p']:.2f})"


def _cluster(number: int, size: int, stability: dict[str, Any], whole: str) -> dict[str, Any]:
    """Return the entry of one cluster. ``whole``: the verdict on the clustering as a whole."""
    recovery = {kind: stability["recovery"][kind][number] for kind in ("seeds", "patients")}
    known = [value for value in recovery.values() if value is not None]
    entry = {"cluster": number, "size": size, "recovery": recovery}
    if size == 0:
        return entry | {"supported": False, "sentence": f"Cluster {number} is empty."}
    if not known:
        return entry | {"supported": False, "sentence": f"Cluster {number} was not looked for again."}
    lowest = min(known)
    word = "stable" if lowest >= STABLE else "doubtful" if lowest >= DOUBTFUL else "not stable"
    both = " and ".join(
        f"{value:.2f} {how}"
        for value, how in zip(recovery.values(), ("with other random numbers", "on other patients"), strict=True)
        if value is not None
    )
    supported = whole == SUPPORTED and word == "stable"
    tail = "" if supported or word != "stable" else f", but the clustering as a whole is {whole}"
    sentence = f"Cluster {number} is {word}: found again with a Jaccard index of {both}{tail}."
    return entry | {"supported": supported, "sentence": sentence}
