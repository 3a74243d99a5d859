"""The files of ``OUT/maps``: maps of single images on the voxels of their sources, maps of clusters, and the index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medstrata.evidence.maps.write import write_map_nifti, write_overlay_png
from medstrata.images.grid import to_source, to_source_2d
from medstrata.run import atomic, write_table

Maps = NDArray[np.float32]
LARGEST = 60000.0  # that float16 holds, about


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
    """What is known of the images explained so far, in their order.

    ``sums``, ``squares`` (K, \\*grid): what speaks for each cluster, and its square, added up over its images;
    ``scale``: the largest value so far.
    """

    facts: dict[str, list[float]]
    sums: Maps
    squares: Maps
    done: int = 0
    scale: float = 0.0


def write_all(
    out: Path, store: IO[bytes], pixels: NDArray[Any], chosen: Sequence[Explained], findings: Findings
) -> None:
    """Bring the maps to the common scale and write every file but the summary; the index comes last.

    ``store`` holds the signed maps (\\*grid) float32 of those that are shown, one after the other.
    """
    grid, scale = pixels.shape[2:], np.float32(findings.scale or 1.0)
    shown = [(number, one) for number, one in enumerate(chosen) if one.shown]
    index: list[dict[str, Any]] = []
    store.seek(0)
    with atomic(out / "maps" / "maps.npy") as part, open(part, "wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (len(shown), *grid)}
        np.lib.format.write_array_header_2_0(file, header)
        for number, one in shown:
            scaled = np.frombuffer(store.read(4 * int(np.prod(grid))), np.float32).reshape(grid) / scale
            file.write(scaled.clip(-LARGEST, LARGEST).astype("<f2").tobytes())
            name = f"maps/image_{one.image_id}.{'nii.gz' if len(grid) == 3 else 'png'}"
            _write_one(out / name, scaled.clip(0), pixels[one.row], one.geometry)
            index.append(_index_row(one, scaled, name, number, findings))
    members = [[one for one in chosen if one.averaged and one.cluster == k] for k in range(len(findings.sums))]
    counts = np.array([max(len(mine), 1) for mine in members], np.float32).reshape(-1, *[1] * len(grid))
    means = findings.sums / (scale * counts)
    spread = np.sqrt((findings.squares / (scale**2 * counts) - means**2).clip(0))
    for file_name, values in (("cluster_maps.npy", means), ("cluster_spread.npy", spread)):
        with atomic(out / "maps" / file_name) as part, open(part, "wb") as file:
            np.save(file, values)
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
    for pattern in (
        "index.parquet",
        "summary.json",
        "check.json",
        "cohort.safetensors",
        "*.npy",
        "image_*.*",
        "cluster_*.*",
    ):
        for file in folder.glob(pattern):
            file.unlink()
