"""Writes small run folders as every stage would leave them, with planted structure, for the tests of the report."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medstrata.images.records import ImageRecord

SECRET = "DOE^JANE"  # stands in every file of private/ and must never reach the page
NO_STABILITY: dict[str, Any] = {
    "refits": {"seeds": 0, "patients": 0},
    "seeds": {"ari": {"mean": None, "lowest": None, "pairs": 0}},
    "patients": {
        "ari": {"mean": None, "lowest": None, "pairs": 0},
        "new": {"mean": None, "lowest": None, "pairs": 0},
    },
}


@dataclass
class Study:
    """What is planted: ``labels`` (N,), -1 = rejected; ``pixels`` (N, C, ...) uint8; headers by column name."""

    labels: NDArray[np.int64]
    pixels: NDArray[Any]
    headers: dict[str, list[Any]]
    n_clusters: int
    seed: int = 0
    goal: str = "categories"
    slices_per_volume: int = 1

    @property
    def count(self) -> int:
        return len(self.labels)

    @property
    def ids(self) -> list[str]:
        return [f"{index:016x}" for index in range(0xA000, 0xA000 + self.count)]


def planted_2d(sizes: tuple[int, ...] = (12, 9, 15), side: int = 16, seed: int = 0) -> Study:
    """Cluster k has a bright square in its own place; headers tell the first two clusters apart, not the others."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    pixels = rng.integers(0, 60, (len(labels), 1, side, side)).astype(np.uint8)
    for index, label in enumerate(labels):
        row, column = 2 + 3 * (label % 4), 2 + 3 * (label // 4)
        pixels[index, 0, row : row + 3, column : column + 3] = 220
    modality = [{0: "CT", 1: "MR"}.get(int(label), ("CT", "MR")[index % 2]) for index, label in enumerate(labels)]
    body_part = [
        {0: "chest", 1: "head"}.get(int(label), ("chest", "head")[index % 2]) for index, label in enumerate(labels)
    ]
    manufacturer = [("Vendor A", "Vendor B")[index % 2] for index in range(len(labels))]
    headers = {"modality": modality, "body_part": body_part, "manufacturer": manufacturer}
    return Study(labels, pixels, headers, len(sizes), seed)


def planted_3d(sizes: tuple[int, ...] = (6, 7), seed: int = 0) -> Study:
    """Volumes (8, 12, 10): cluster k has a bright block in its own third."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    pixels = rng.integers(0, 60, (len(labels), 1, 8, 12, 10)).astype(np.uint8)
    for index, label in enumerate(labels):
        pixels[index, 0, 1 + 3 * label : 4 + 3 * label, 2:6, 3:7] = 220
    return Study(labels, pixels, {"modality": ["CT"] * len(labels)}, len(sizes), seed, goal="subtypes")


def write_run_folder(
    out: Path, study: Study, *, maps: bool = True, baselines: bool = True, history: bool = True
) -> Path:
    """Write a whole run folder, with the optional parts that are asked for."""
    out.mkdir(parents=True, exist_ok=True)
    _write_private(out, study)
    pq.write_table(catalog_table(study), out / "catalog.parquet")
    _write_json(out / "plan.json", plan_of(study))
    _write_decoded(out, study)
    _write_assigned(out, study)
    if baselines:
        shifted = np.roll(study.labels, 2)
        table = {"image_id": study.ids, "pca_kmeans": study.labels, "pixel_graph": np.maximum(shifted, 0)}
        pq.write_table(pa.table(table), out / "baselines.parquet")
    if history:
        (out / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history_of(study)))
        _write_json(out / "model.json", {"method": "dcec", "warnings": []})
    if maps:
        _write_maps(out, study)
    stages = {name: {"token": "0", "seconds": 1.0, "finished": "2025-03-04T11:00:00"} for name in ("scan", "fit")}
    _write_json(out / "run.json", {"medstrata": "0.1.0", "format": 1, "stages": stages})
    return out


def catalog_table(study: Study) -> pa.Table:
    """One row per image, and two skipped files."""
    volume = study.pixels.ndim == 5
    filled = ImageRecord(
        "series" if volume else "image", "dicom", [], rows=study.pixels.shape[-2], columns=study.pixels.shape[-1]
    )
    columns: dict[str, list[Any]] = {}
    for field in fields(ImageRecord):
        if field.name != "frames":
            columns[field.name] = study.headers.get(field.name, [getattr(filled, field.name)] * study.count)
    columns |= {"image_id": study.ids, "patient": [f"{index // 3:012x}" for index in range(study.count)]}
    columns |= {"study": [""] * study.count, "skipped": [""] * study.count, "reason": [""] * study.count}
    for index in range(2):
        for name, values in columns.items():
            columns[name] = [*values, "" if isinstance(values[0], str) else None]
        columns["image_id"][-1], columns["skipped"][-1] = f"skipped{index:09d}", "not_an_image"
        columns["reason"][-1] = "The file is no image that medstrata can read."
    numbers = {
        "field_strength",
        "slice_thickness",
        "spacing_rows",
        "spacing_columns",
        "spacing_slices",
        "value_low",
        "value_high",
    }
    return pa.table(
        {name: pa.array(values, pa.float64() if name in numbers else None) for name, values in columns.items()}
    )


def plan_of(study: Study) -> dict[str, Any]:
    return {
        "version": 1,
        "goal": study.goal,
        "select": {},
        "include_burned_in": False,
        "dimensions": study.pixels.ndim - 2,
        "grid": list(study.pixels.shape[2:]),
        "spacing": [2.0, 1.0, 1.0] if study.pixels.ndim == 5 else None,
        "slices_per_volume": study.slices_per_volume,
        "channels": study.pixels.shape[1],
        "stored_as": str(study.pixels.dtype),
        "intensity": {"stored": {"rule": "range", "low": 0.0, "high": 255.0}},
        "method": "dcec",
        "n_clusters": study.n_clusters,
        "batch_size": 64,
        "seed": study.seed,
        "maps_per_cluster": 2,
        "settings": {},
        "reasons": {
            "images": f"{study.count} of {study.count} images take part.",
            "grid": "Most images are of this size.",
            "method": "It is the method of the activation maps.",
        },
    }


def history_of(study: Study) -> list[dict[str, Any]]:
    warm = [{"phase": "warm-up", "epoch": e, "loss": 1 / (e + 1), "reconstruction_loss": 1 / (e + 1)} for e in range(5)]
    watched = {"clusters_used": study.n_clusters, "size_entropy": 0.98}
    tuned = [
        {
            "phase": "clustering",
            "epoch": e,
            "loss": 0.3 / (e + 1),
            "reconstruction_loss": 0.2 / (e + 1),
            "clustering_loss": 1 / (e + 1),
            "label_change": 1.0 / (1 + 3 * e),
            **watched,
        }
        for e in range(6)
    ]
    return warm + tuned


def _write_private(out: Path, study: Study) -> None:
    (out / "private").mkdir(mode=0o700)
    (out / "private" / "salt").write_text("5a17" * 16)
    _write_json(out / "private" / "input.json", {"input": f"/home/{SECRET}"})
    files = [f"{SECRET}/1.2.840.99.{index}.dcm" for index in range(study.count)]
    pq.write_table(
        pa.table({"image_id": study.ids, "file": files, "patient_id": files}), out / "private" / "sources.parquet"
    )


def _write_decoded(out: Path, study: Study) -> None:
    np.save(out / "pixels.npy", np.repeat(study.pixels, study.slices_per_volume, axis=0))
    rows = study.count * study.slices_per_volume
    affine = np.eye(4).ravel().tolist() if study.pixels.ndim == 5 else None
    table = {
        "row": pa.array(range(rows)),
        "image_id": np.repeat(study.ids, study.slices_per_volume).tolist(),
        "slice": pa.array([-1] * rows),
        "grid_affine": pa.array([affine] * rows, pa.list_(pa.float64())),
        "units": ["stored"] * rows,
        "note": [""] * rows,
    }
    pq.write_table(pa.table(table), out / "images.parquet")
    left = {
        "image_id": ["skipped000000000", "skipped000000001", "left000000000000"],
        "stage": ["scan", "scan", "decode"],
        "code": ["not_an_image", "not_an_image", "truncated"],
        "reason": ["The file is no image that medstrata can read."] * 2 + ["The pixel data end too early."],
    }
    pq.write_table(pa.table(left), out / "left_out.parquet")


def _write_assigned(out: Path, study: Study) -> None:
    rng = np.random.default_rng(study.seed)
    centres = rng.normal(size=(study.n_clusters, 6)) * 5
    embeddings = centres[np.maximum(study.labels, 0)] + rng.normal(size=(study.count, 6))
    np.save(out / "embeddings.npy", embeddings.astype(np.float32))
    distance = np.linalg.norm(embeddings[:, None] - centres[None], axis=2)
    soft = 1 / (1 + distance**2)
    soft /= soft.sum(axis=1, keepdims=True)
    np.save(out / "soft_assignments.npy", soft.astype(np.float32))
    ordered = np.sort(soft, axis=1)
    second = ordered[:, -2] if study.n_clusters > 1 else np.zeros(study.count)
    table = {
        "image_id": study.ids,
        "cluster": study.labels.astype(np.int32),
        "nearest": np.maximum(study.labels, 0),
        "probability": ordered[:, -1].astype(np.float32),
        "margin": (ordered[:, -1] - second).astype(np.float32),
        "typicality": (-distance.min(axis=1)).astype(np.float32),
        "novelty": distance.min(axis=1).astype(np.float32),
    }
    pq.write_table(pa.table(table), out / "assignments.parquet")


def _write_maps(out: Path, study: Study) -> None:
    (out / "maps").mkdir()
    chosen = [int(i) for k in range(study.n_clusters) for i in np.flatnonzero(study.labels == k)[:2]]
    heat = (study.pixels[:, 0] > 150).astype(np.float32)
    grid = heat.shape[1:]
    np.save(out / "maps" / "maps.npy", heat[chosen].reshape(-1, *grid).astype(np.float16))
    means = [
        heat[study.labels == k].mean(axis=0) if (study.labels == k).any() else np.zeros(grid)
        for k in range(study.n_clusters)
    ]
    np.save(out / "maps" / "cluster_maps.npy", np.stack(means).astype(np.float32))
    peaks = [[int(i) for i in np.unravel_index(int(heat[i].argmax()), grid)] for i in chosen]
    index = {
        "image_id": [study.ids[i] for i in chosen],
        "row": [i * study.slices_per_volume for i in chosen],
        "cluster": study.labels[chosen],
        "peak_index": peaks,
    }
    pq.write_table(pa.table(index), out / "maps" / "index.parquet")
    clusters = [{"cluster": k, "caution": "" if k else "Flat map."} for k in range(study.n_clusters)]
    cautions = {"caution": "Maps show what the method used, not what is ill.", "clusters": clusters}
    _write_json(out / "maps" / "summary.json", cautions)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))
