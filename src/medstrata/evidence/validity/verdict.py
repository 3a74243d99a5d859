"""What stability and the null come to, in words: for the clustering as a whole and for each cluster."""

from __future__ import annotations

from typing import Any

AGREES = 0.6  # mean adjusted Rand index of refits: below it other random numbers give other clusters
STABLE, DOUBTFUL = 0.75, 0.6  # mean Jaccard index of a cluster over refits (Hennig 2007)
FEWEST_REFITS = 3
LEVEL = 0.05  # of the test against images without groups
NO_GAP = (
    "No gap was found between them: they may be pieces of a continuum, or groups that overlap, rather than separate "
    "groups."
)


def judge(stability: dict[str, Any], null: dict[str, Any] | None, sizes: list[int]) -> dict[str, Any]:
    """Return ``supported``, ``sentence``, ``remark`` and ``clusters``.

    ``remark``: what has to be said of supported clusters all the same, "" where nothing; ``clusters``: one entry each
    with ``supported``, numbers, ``sentence``.

    The whole is supported where at least three refits with other random numbers agree (mean adjusted Rand index at
    least .6), resamples of patients do, also on patients that they did not see, and the images beat surrogates without
    groups (``null_test``). A cluster is supported where the whole is, and both kinds of refit find it again with a mean
    Jaccard index of at least .75.
    ``sizes``: images of each cluster. ``null``: None where it was not tested.
    """
    reasons = _objections(stability, null)
    clusters = [_cluster(number, size, stability, not reasons) for number, size in enumerate(sizes)]
    supported = sum(one["supported"] for one in clusters)
    if reasons:
        sentence = f"No clusters are supported: {'; '.join(reasons)}."
    elif supported == len(sizes):
        sentence = f"All {len(sizes)} clusters are supported."
    else:
        others = [str(one["cluster"]) for one in clusters if not one["supported"]]
        are = "is" if supported == 1 else "are"
        sentence = f"{supported} of {len(sizes)} clusters {are} supported; not supported: {', '.join(others)}."
    remark = NO_GAP if supported and null is not None and not null["separate"] else ""
    return {
        "supported": not reasons and supported > 0,
        "sentence": sentence,
        "remark": remark,
        "clusters": clusters,
    }


def _objections(stability: dict[str, Any], null: dict[str, Any] | None) -> list[str]:
    """Return why the clustering as a whole is not supported, [] where nothing speaks against it."""
    seeds, patients = stability["seeds"]["ari"], stability["patients"]["ari"]
    found = []
    if stability["refits"]["seeds"] < FEWEST_REFITS or stability["refits"]["patients"] < FEWEST_REFITS:
        found.append("fewer than three refits of each kind were made")
    elif seeds["mean"] < AGREES:
        found.append(f"fits with other random numbers give other clusters (adjusted Rand index {seeds['mean']:.2f})")
    elif patients["mean"] < AGREES:
        found.append(f"fits on other patients give other clusters (adjusted Rand index {patients['mean']:.2f})")
    elif (new := stability["patients"]["new"]["mean"]) < AGREES:
        found.append(f"patients that a fit did not see come into other clusters (adjusted Rand index {new:.2f})")
    if null is None:
        found.append("images without groups were not tried")
    elif not null["passed"]:
        found.append(_null_words(null))
    return found


def _null_words(null: dict[str, Any]) -> str:
    name = max(("replication", "separation"), key=lambda one: null[one]["p"])
    tried, as_good = null[name]["surrogates"], null[name]["as_good"]
    if not as_good:
        return f"only {len(tried)} surrogates without groups were tried, 19 are needed"
    what = {"replication": "are found again as well", "separation": "are as far apart"}[name]
    return f"clusters in images without groups {what} in {as_good} of {len(tried)} trials (p = {null['p']:.2f})"


def _cluster(number: int, size: int, stability: dict[str, Any], whole: bool) -> dict[str, Any]:
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
    supported = whole and word == "stable"
    tail = "" if supported or word != "stable" else ", but the clustering as a whole is not supported"
    sentence = f"Cluster {number} is {word}: found again with a Jaccard index of {both}{tail}."
    return entry | {"supported": supported, "sentence": sentence}
