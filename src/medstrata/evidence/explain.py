"""The stage explain: the activation map of each cluster, and of its most typical images, as files in ``OUT/maps``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medstrata.errors import RunFolderError
from medstrata.evidence.maps.blocks import RULE, Block, blocks_of, explain_block, explained_elsewhere
from medstrata.evidence.maps.cohort_file import COHORT, COPIED, read_cohort, save_cohort
from medstrata.evidence.maps.folder import FACTS, Explained, clear, write_all
from medstrata.evidence.maps.rule import Explainable, measure_cohort
from medstrata.evidence.maps.summary import summarise
from medstrata.evidence.maps.unfinished import Unfinished
from medstrata.images.manifest import Sharding
from medstrata.run import Progress, folder_error, no_progress, write_json

AVERAGED = 256  # members that a cluster's map is the mean of, at most

Maps = NDArray[np.float32]
Loaded = TypeVar("Loaded")


def explain(
    out: Path,
    model: Explainable,
    maps_per_cluster: int,
    progress: Progress = no_progress,
    token: str = "",
    sharding: Sharding | None = None,
) -> dict[str, Any]:
    """Write ``maps/`` of the run folder and return what stands in ``maps/summary.json``.

    Maps of their own get the ``maps_per_cluster`` most typical images of each cluster (none whose header says that
    text is burned in); the map of a cluster is the mean over its members (``AVERAGED``). Of a volume that entered as
    several slices, the middle one is explained for the volume's cluster. All maps are in one common scale, the
    largest value over all maps that were made being 1. The cohort is that of the images the model was fitted on, also
    where these are new ones. Interrupted, it goes on where it was, as long as ``token``, which names what goes into
    the maps, is the same. Where the workers of ``sharding`` are on other machines, they make the maps with the model
    that lies in ``out``.

    Raises
    ------
    RunFolderError : a file of an earlier stage is missing or damaged, or the disk is full
    FitError : the model does not fit the images
    """
    images = _read(out / "images.parquet", pq.read_table)
    pixels = _read(out / "pixels.npy", lambda path: np.load(path, mmap_mode="r"))
    k = _read(out / "soft_assignments.npy", lambda path: np.load(path, mmap_mode="r")).shape[1]
    assignments = _read(out / "assignments.parquet", pq.read_table)
    hidden = _with_text(out)
    chosen = choose(assignments, images, maps_per_cluster, AVERAGED, hidden)
    shown = np.flatnonzero([name not in hidden for name in images["image_id"].to_pylist()])
    folder = out / "maps"
    try:
        folder.mkdir(exist_ok=True)
        with Unfinished(folder, token, (k, *pixels.shape[2:])) as unfinished:
            if not unfinished.findings.done:
                clear(folder)
            device = model.tensor(pixels[:1]).device
            of_fit = shown[_fitted(images, assignments)[shown]]
            cohort = read_cohort(out / COPIED, device) or measure_cohort(model, pixels, rows=of_fit)
            if len(shown):  # where every image has text burned in, none may be passed on, not even in a mean
                save_cohort(folder / COHORT, cohort)
            done = unfinished.findings.done
            blocks: Iterable[Block]
            if sharding is not None and sharding.executor.elsewhere:
                blocks = explained_elsewhere(out, chosen, sharding, done, progress)
            else:
                blocks = (explain_block(model, pixels, block, cohort) for block in blocks_of(chosen[done:]))
            _compute(chosen, blocks, unfinished, progress)
            findings = unfinished.findings
            write_all(out, unfinished.store, pixels, chosen, findings)
        summary = summarise(RULE.name, [one.cluster for one in chosen], findings.facts, k, findings.scale)
        for entry in summary["clusters"]:
            entry["averaged"] = sum(one.averaged for one in chosen if one.cluster == entry["cluster"])
        write_json(folder / "summary.json", summary)
        unfinished.remove()
    except OSError as error:
        raise folder_error(error, folder) from error
    return summary


def _fitted(images: pa.Table, assignments: pa.Table) -> NDArray[np.bool_]:
    """Return of which rows of images.parquet (R,) the model was fitted on the image; all where none is known to be."""
    if "fitted" not in assignments.column_names or not pc.any(assignments["fitted"]).as_py():
        return np.ones(len(images), np.bool_)
    ids = assignments.filter(assignments["fitted"])["image_id"]
    return np.asarray(pc.is_in(images["image_id"], ids.combine_chunks()))


def _with_text(out: Path) -> set[str]:
    """Images whose header says that text is burned into them: their pixels are never shown."""
    if not (out / "catalog.parquet").exists():
        return set()
    catalog = _read(out / "catalog.parquet", pq.read_table)
    return {
        row["image_id"] for row in catalog.select(["image_id", "burned_in"]).to_pylist() if row["burned_in"] == "yes"
    }


def choose(
    assignments: pa.Table, images: pa.Table, per_cluster: int, averaged: int = AVERAGED, hidden: Collection[str] = ()
) -> list[Explained]:
    """Return what is explained of each cluster, most typical first; rejected images are not.

    Shown are the ``per_cluster`` most typical images; averaged are all, or ``averaged`` drawn at random. ``hidden``
    ones are neither: the mean of a small cluster would show what is burned into them.
    """
    rows: dict[str, list[int]] = {}
    for row, image_id in zip(images["row"].to_pylist(), images["image_id"].to_pylist(), strict=True):
        rows.setdefault(image_id, []).append(row)
    names, clusters = assignments["image_id"].to_pylist(), assignments["cluster"].to_numpy()
    order = np.argsort(-assignments["typicality"].to_numpy(), kind="stable")
    found = []
    for cluster in np.unique(clusters[clusters >= 0]).tolist():
        members = [index for index in order[clusters[order] == cluster].tolist() if names[index] not in hidden]
        shown = set(members[:per_cluster])
        drawn = np.random.default_rng(cluster).permutation(len(members))[:averaged]
        in_mean = {members[index] for index in drawn.tolist()}
        wanted = shown | in_mean
        for index in filter(wanted.__contains__, members):
            own = rows.get(names[index])
            if own is None:
                raise RunFolderError("assignments.parquet holds an image that images.parquet does not. Redo assign.")
            middle = own[len(own) // 2]
            geometry = images.slice(middle, 1).to_pylist()[0]
            found.append(Explained(names[index], cluster, middle, geometry, index in shown, index in in_mean))
    return found


def _compute(chosen: Sequence[Explained], blocks: Iterable[Block], unfinished: Unfinished, progress: Progress) -> None:
    """Add up the maps that are not there yet, in no common scale, block by block in their order."""
    findings = unfinished.findings
    for facts, maps in blocks:
        block = chosen[findings.done : findings.done + len(maps)]
        for name in FACTS:
            findings.facts[name] += facts[name]
        for one, signed in zip(block, maps, strict=True):
            if one.shown:
                unfinished.store.write(signed.tobytes())
            if one.averaged:
                findings.sums[one.cluster] += signed.clip(0)
                findings.squares[one.cluster] += signed.clip(0) ** 2
        findings.scale = max(findings.scale, float(maps.max()))
        findings.done += len(block)
        unfinished.save()
        progress("explain", findings.done, len(chosen))


def _read(path: Path, read: Callable[[Path], Loaded]) -> Loaded:
    try:
        return read(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise RunFolderError(
            f"{path.name} is missing in {path.parent} or damaged. Run the stages before explain again, then this one."
        ) from error
