"""The stage explain: the activation map of each cluster, and of its most typical images, as files in ``OUT/maps``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from medstrata.errors import RunFolderError
from medstrata.evidence.maps.activation import cluster_activation_map
from medstrata.evidence.maps.deletion import deletion
from medstrata.evidence.maps.integrated_gradients import IntegratedGradients
from medstrata.evidence.maps.rule import Cohort, Explainable, Question, measure_cohort
from medstrata.evidence.maps.summary import summarise
from medstrata.evidence.maps.write import write_map_nifti, write_overlay_png
from medstrata.images.grid import to_source, to_source_2d
from medstrata.run import Progress, atomic, folder_error, no_progress, write_json, write_table

RULE = IntegratedGradients()

AVERAGED = 256  # members that a cluster's map is the mean of, at most

IMAGES_AT_ONCE = 16

Maps = NDArray[np.float32]
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Explained:
    """One image to explain: its cluster, its row of ``pixels.npy`` and that row of ``images.parquet``.

    ``shown``: it gets files of its own; ``averaged``: it enters the mean of its cluster.
    """

    image_id: str
    cluster: int
    row: int
    geometry: dict[str, Any]
    shown: bool
    averaged: bool


@dataclass
class Findings:
    """What is known of each explained image, in their order; ``sums``: the maps of each cluster added up."""

    facts: dict[str, list[float]]
    sums: Maps
    scale: float = 0.0


def explain(out: Path, model: Explainable, maps_per_cluster: int, progress: Progress = no_progress) -> dict[str, Any]:
    """Write ``maps/`` of the run folder and return what stands in ``maps/summary.json``.

    Maps of their own get the ``maps_per_cluster`` most typical images of each cluster (none whose header says that
    text is burned in); the map of a cluster is the mean over its members (``AVERAGED``). Of a volume that entered as
    several slices, the middle one is explained for the volume's cluster. All maps are in one common scale 0..1, the
    maximum over all maps that were made.

    Raises
    ------
    RunFolderError : a file of an earlier stage is missing or damaged, or the disk is full
    FitError : the model does not fit the images
    """
    images = _read(out / "images.parquet", pq.read_table)
    pixels = _read(out / "pixels.npy", lambda path: np.load(path, mmap_mode="r"))
    k = _read(out / "soft_assignments.npy", lambda path: np.load(path, mmap_mode="r")).shape[1]
    assignments = _read(out / "assignments.parquet", pq.read_table)
    chosen = choose(assignments, images, maps_per_cluster, AVERAGED, _with_text(out))
    folder = out / "maps"
    cohort = measure_cohort(model, pixels)
    findings = Findings({name: [] for name in FACTS}, np.zeros((k, *pixels.shape[2:]), dtype=np.float32))
    try:
        clear(folder)
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as store:
            for one, activation in _compute(model, pixels, chosen, cohort, findings, progress):
                if one.shown:
                    store.write(activation.tobytes())
                if one.averaged:
                    findings.sums[one.cluster] += activation
            store.flush()
            _write_all(out, store, pixels, chosen, findings)
    except OSError as error:
        raise folder_error(error, folder) from error
    summary = summarise(RULE.name, [one.cluster for one in chosen], findings.facts, k, findings.scale)
    write_json(folder / "summary.json", summary)
    return summary


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


def _compute(
    model: Explainable,
    pixels: NDArray[Any],
    chosen: Sequence[Explained],
    cohort: Cohort,
    findings: Findings,
    progress: Progress,
) -> Iterator[tuple[Explained, Maps]]:
    """Yield each image with what speaks for its cluster (the map above zero), in no common scale yet."""
    for start in range(0, len(chosen), IMAGES_AT_ONCE):
        block = chosen[start : start + IMAGES_AT_ONCE]
        some = pixels[[one.row for one in block]]
        found = cluster_activation_map(model, some, RULE, [one.cluster for one in block], cohort=cohort)
        x = model.tensor(some)
        question = Question(torch.from_numpy(found.cluster).to(x.device), torch.from_numpy(found.against), cohort)
        tested = deletion(model, x, torch.from_numpy(found.maps).to(x.device), question)
        for name in FACTS:
            values = found.facts[name] if name in found.facts else tested[name].cpu().numpy()
            findings.facts[name] += values.tolist()
        maps = found.maps.clip(0)
        findings.scale = max(findings.scale, float(maps.max()))
        progress("explain", start + len(block), len(chosen))
        yield from zip(block, maps, strict=True)


def _write_all(
    out: Path, store: IO[bytes], pixels: NDArray[Any], chosen: Sequence[Explained], findings: Findings
) -> None:
    """Bring the maps to the common scale and write every file but the summary; the index comes last."""
    grid, scale = pixels.shape[2:], np.float32(findings.scale or 1.0)
    shown = [(number, one) for number, one in enumerate(chosen) if one.shown]
    index: list[dict[str, Any]] = []
    store.seek(0)
    with atomic(out / "maps" / "maps.npy") as part, open(part, "wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (len(shown), *grid)}
        np.lib.format.write_array_header_2_0(file, header)
        for number, one in shown:
            scaled = np.frombuffer(store.read(4 * int(np.prod(grid))), np.float32).reshape(grid) / scale
            file.write(scaled.astype("<f2").tobytes())
            name = f"maps/image_{one.image_id}.{'nii.gz' if len(grid) == 3 else 'png'}"
            _write_one(out / name, scaled, pixels[one.row], one.geometry)
            index.append(_index_row(one, scaled, name, number, findings))
    members = [[one for one in chosen if one.averaged and one.cluster == k] for k in range(len(findings.sums))]
    counts = np.array([max(len(mine), 1) for mine in members], np.float32)
    means = findings.sums / (scale * counts.reshape(-1, *[1] * len(grid)))
    with atomic(out / "maps" / "cluster_maps.npy") as part, open(part, "wb") as file:
        np.save(file, means)
    for cluster, mine in enumerate(members):
        if mine:
            _write_cluster(out / "maps", cluster, means[cluster], pixels, mine)
    write_table(out / "maps" / "index.parquet", pa.Table.from_pylist(index, schema=INDEX_SCHEMA))


FACTS = ("completeness", "probability", "without", "without_random")
INDEX_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("row", pa.int64()),
        ("cluster", pa.int32()),
        ("file", pa.string()),
        ("peak", pa.float64()),
        ("peak_index", pa.list_(pa.int32())),
        *((name, pa.float64()) for name in FACTS),
    ]
)


def _index_row(one: Explained, scaled: Maps, name: str, number: int, findings: Findings) -> dict[str, Any]:
    facts = {name: values[number] for name, values in findings.facts.items()}
    return {
        "image_id": one.image_id,
        "row": one.row,
        "cluster": one.cluster,
        "file": name,
        "peak": float(scaled.max()),
        "peak_index": [int(at) for at in np.unravel_index(int(scaled.argmax()), scaled.shape)],
        **{name: None if np.isnan(value) else value for name, value in facts.items()},
    }


def _write_one(path: Path, scaled: Maps, stored: NDArray[Any], geometry: dict[str, Any]) -> None:
    """Write the map of one image on its source's voxels, or on the grid where the source has no geometry."""
    shape, crop = geometry["source_shape"], geometry["crop"]
    if scaled.ndim == 3:
        if geometry["grid_affine"] is None or geometry["source_affine"] is None:
            write_map_nifti(path, scaled, canonical_affine(scaled.shape, (1.0, 1.0, 1.0)))
            return
        source = _affine(geometry["source_affine"])
        write_map_nifti(path, to_source(scaled, _affine(geometry["grid_affine"]), source, shape), source)
        return
    image = as_shown(stored)
    if crop is not None:
        image, scaled = to_source_2d(image, crop, shape[-2:]), to_source_2d(scaled, crop, shape[-2:])
    write_overlay_png(path, image, scaled)


def _write_cluster(folder: Path, cluster: int, mean: Maps, pixels: NDArray[Any], members: Sequence[Explained]) -> None:
    """Write the mean map of a cluster: over the mean of its explained images, or as a volume on the common grid."""
    if mean.ndim == 3:
        write_map_nifti(folder / f"cluster_{cluster}.nii.gz", mean, common_affine(mean.shape, members))
        return
    image = np.mean([as_shown(pixels[one.row]) for one in members], axis=0)
    write_overlay_png(folder / f"cluster_{cluster}.png", image, mean)


def as_shown(stored: NDArray[Any]) -> Maps:
    """Stored values to 0..1; floats are taken to be there already."""
    if stored.dtype.kind != "u":
        return np.asarray(stored, dtype=np.float32)
    return stored.astype(np.float32) / np.float32(np.iinfo(stored.dtype).max)


def common_affine(grid: Sequence[int], members: Sequence[Explained]) -> NDArray[np.float64]:
    """Return the members' grid affine where they share one, else one of their median spacing around the origin."""
    known = [_affine(one.geometry["grid_affine"]) for one in members if one.geometry["grid_affine"] is not None]
    if len(known) == len(members) and all(np.allclose(affine, known[0], atol=1e-4) for affine in known):
        return known[0]
    if not known:
        return canonical_affine(grid, (1.0, 1.0, 1.0))
    steps = np.median([np.linalg.norm(affine[:3, :3], axis=0) for affine in known], axis=0)
    return canonical_affine(grid, steps.tolist())


def canonical_affine(grid: Sequence[int], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Affine of a grid whose axes run to superior, posterior, left with ``spacing`` in mm, centred on the origin."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = spacing[0], -spacing[1], -spacing[2], 1.0
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(grid) - 1) / 2)
    return affine


def _affine(values: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).reshape(4, 4)


def clear(folder: Path) -> None:
    """Remove the maps of an earlier run, the index first: without it, nothing counts as a map."""
    for pattern in ("index.parquet", "summary.json", "check.json", "*.npy", "image_*.*", "cluster_*.*"):
        for file in folder.glob(pattern):
            file.unlink()


def _read(path: Path, read: Callable[[Path], Loaded]) -> Loaded:
    try:
        return read(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise RunFolderError(
            f"{path.name} is missing in {path.parent} or damaged. Run the stages before explain again, then this one."
        ) from error
