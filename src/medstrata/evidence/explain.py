"""The stage explain: cluster activation maps of the most typical images of each cluster, as files in ``OUT/maps``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medstrata.errors import RunFolderError
from medstrata.evidence.maps.clam import Explainable, cluster_activation_map
from medstrata.evidence.maps.write import write_map_nifti, write_overlay_png
from medstrata.images.grid import to_source, to_source_2d
from medstrata.run import Progress, atomic, no_progress, write_json, write_table

RULE = "Cluster activation map (Ryan et al., J. Med. Imaging 2022)"

HARDLY_MATTERS = 0.99
"""Above this correlation with the maps of equal weights a caution is written."""

IMAGES_AT_ONCE = 16

Maps = NDArray[np.float32]
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Explained:
    """One image to explain: its cluster, its row of ``pixels.npy`` and that row of ``images.parquet``."""

    image_id: str
    cluster: int
    row: int
    geometry: dict[str, Any]


@dataclass
class Findings:
    """What is known of each explained image, in their order."""

    weight_spread: list[float]
    uniform_correlation: list[float]
    scale: float = 0.0


def explain(out: Path, model: Explainable, maps_per_cluster: int, progress: Progress = no_progress) -> dict[str, Any]:
    """Write ``maps/`` of the run folder and return what stands in ``maps/summary.json``.

    Explained are the ``maps_per_cluster`` most typical images of each cluster, or all where there are fewer; of a
    volume that entered as several slices, its middle slice. All maps are in one common scale 0..1.

    Raises
    ------
    RunFolderError : a file of an earlier stage is missing or damaged, or the disk is full
    FitError : the model does not fit the images
    """
    images = _read(out / "images.parquet", pq.read_table)
    pixels = _read(out / "pixels.npy", lambda path: np.load(path, mmap_mode="r"))
    k = _read(out / "soft_assignments.npy", lambda path: np.load(path, mmap_mode="r")).shape[1]
    chosen = choose(_read(out / "assignments.parquet", pq.read_table), images, maps_per_cluster)
    folder = out / "maps"
    _clear(folder)
    folder.mkdir(exist_ok=True)
    findings = Findings([], [])
    if chosen:
        with tempfile.TemporaryFile(dir=folder) as store:
            for maps in _compute(model, pixels, chosen, findings, progress):
                store.write(maps.tobytes())
            store.flush()
            raw = np.memmap(store, dtype=np.float32, mode="r", shape=(len(chosen), *pixels.shape[2:]))
            _write_all(out, raw, pixels, chosen, findings, k)
    summary = summarise(chosen, findings, k)
    write_json(folder / "summary.json", summary)
    return summary


def choose(assignments: pa.Table, images: pa.Table, per_cluster: int) -> list[Explained]:
    """Return the most typical images of each cluster, most typical first; rejected images are not explained."""
    rows: dict[str, list[int]] = {}
    for row, image_id in zip(images["row"].to_pylist(), images["image_id"].to_pylist(), strict=True):
        rows.setdefault(image_id, []).append(row)
    names, clusters = assignments["image_id"].to_pylist(), assignments["cluster"].to_numpy()
    order = np.argsort(-assignments["typicality"].to_numpy(), kind="stable")
    found = []
    for cluster in np.unique(clusters[clusters >= 0]).tolist():
        for index in order[clusters[order] == cluster][:per_cluster].tolist():
            own = rows.get(names[index])
            if own is None:
                raise RunFolderError("assignments.parquet holds an image that images.parquet does not. Redo assign.")
            middle = own[len(own) // 2]
            found.append(Explained(names[index], cluster, middle, images.slice(middle, 1).to_pylist()[0]))
    return found


def _compute(
    model: Explainable, pixels: NDArray[Any], chosen: Sequence[Explained], findings: Findings, progress: Progress
) -> Iterator[Maps]:
    """Yield the maps in blocks, in no common scale yet."""
    for start in range(0, len(chosen), IMAGES_AT_ONCE):
        block = chosen[start : start + IMAGES_AT_ONCE]
        found = cluster_activation_map(model, pixels[[one.row for one in block]], [one.cluster for one in block])
        findings.weight_spread += found.weight_spread.tolist()
        findings.uniform_correlation += found.uniform_correlation.tolist()
        findings.scale = max(findings.scale, float(found.maps.max()))
        progress("explain", start + len(block), len(chosen))
        yield found.maps


def _write_all(
    out: Path, raw: Maps, pixels: NDArray[Any], chosen: Sequence[Explained], findings: Findings, k: int
) -> None:
    """Bring the maps to the common scale and write every file but the summary; the index comes last."""
    volumes = raw.ndim == 4
    means = np.zeros((k, *raw.shape[1:]), dtype=np.float32)
    members = [[one for one in chosen if one.cluster == cluster] for cluster in range(k)]
    index: list[dict[str, Any]] = []
    with atomic(out / "maps" / "maps.npy") as part, open(part, "wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": raw.shape}
        np.lib.format.write_array_header_2_0(file, header)
        for number, one in enumerate(chosen):
            scaled = raw[number] / np.float32(findings.scale or 1.0)
            file.write(scaled.astype("<f2").tobytes())
            means[one.cluster] += scaled / len(members[one.cluster])
            name = f"maps/image_{one.image_id}.{'nii.gz' if volumes else 'png'}"
            _write_one(out / name, scaled, pixels[one.row], one.geometry)
            index.append(_index_row(one, scaled, name, number, findings))
    with atomic(out / "maps" / "cluster_maps.npy") as part, open(part, "wb") as file:
        np.save(file, means)
    for cluster, mine in enumerate(members):
        if mine:
            _write_cluster(out / "maps", cluster, means[cluster], pixels, mine)
    write_table(out / "maps" / "index.parquet", pa.Table.from_pylist(index, schema=INDEX_SCHEMA))


INDEX_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("row", pa.int64()),
        ("cluster", pa.int32()),
        ("file", pa.string()),
        ("peak", pa.float64()),
        ("peak_index", pa.list_(pa.int32())),
        ("weight_spread", pa.float64()),
        ("uniform_correlation", pa.float64()),
    ]
)


def _index_row(one: Explained, scaled: Maps, name: str, number: int, findings: Findings) -> dict[str, Any]:
    correlation = findings.uniform_correlation[number]
    return {
        "image_id": one.image_id,
        "row": one.row,
        "cluster": one.cluster,
        "file": name,
        "peak": float(scaled.max()),
        "peak_index": [int(at) for at in np.unravel_index(int(scaled.argmax()), scaled.shape)],
        "weight_spread": findings.weight_spread[number],
        "uniform_correlation": None if np.isnan(correlation) else correlation,
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


def summarise(chosen: Sequence[Explained], findings: Findings, k: int) -> dict[str, Any]:
    """Return ``maps/summary.json``: the rule, the common scale, and how much the weights of the channels mattered.

    ``caution`` is a plain sentence where the maps must not be over-read, else "". Means of nothing are null.
    """
    summary = {"rule": RULE, "scale": findings.scale, **_means(range(len(chosen)), findings)}
    everywhere = _caution(summary, findings.scale)
    clusters = []
    for cluster in range(k):
        means = _means([i for i, one in enumerate(chosen) if one.cluster == cluster], findings)
        own = "" if everywhere else _caution(means, findings.scale)
        clusters.append({"cluster": cluster, **means, "caution": own})
    return {**summary, "caution": everywhere, "clusters": clusters}


def _means(rows: Sequence[int], findings: Findings) -> dict[str, Any]:
    correlations = np.array([findings.uniform_correlation[row] for row in rows])
    correlations = correlations[np.isfinite(correlations)]
    return {
        "images": len(rows),
        "weight_spread": float(np.mean([findings.weight_spread[row] for row in rows])) if len(rows) else None,
        "uniform_correlation": float(correlations.mean()) if len(correlations) else None,
    }


def _caution(means: dict[str, Any], scale: float) -> str:
    if not means["images"]:
        return ""
    if scale == 0:
        return "All maps are empty: no part of the network's last layer speaks for any cluster."
    correlation = means["uniform_correlation"]
    if correlation is None or correlation <= HARDLY_MATTERS:
        return ""
    return (
        "The weights hardly matter here: with equal weights the maps would be almost the same "
        f"(r = {correlation:.3f}), so they show where the network is active, and not what sets a cluster apart."
    )


def _clear(folder: Path) -> None:
    """Remove the maps of an earlier run, the index first: without it, nothing counts as a map."""
    for pattern in ("index.parquet", "summary.json", "*.npy", "image_*.*", "cluster_*.*"):
        for file in folder.glob(pattern):
            file.unlink()


def _read(path: Path, read: Callable[[Path], Loaded]) -> Loaded:
    try:
        return read(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise RunFolderError(
            f"{path.name} is missing in {path.parent} or damaged. Run the stages before explain again, then this one."
        ) from error
