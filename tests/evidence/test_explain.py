"""The stage explain on planted run folders: which images, common scale, files on the source, cautions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from medstrata.errors import RunFolderError
from medstrata.evidence.explain import explain
from medstrata.evidence.maps.folder import canonical_affine
from medstrata.images.grid import to_grid_3d, to_source
from medstrata.run import no_progress

Array = NDArray[Any]


class PlantedModel:
    """Two channels, the left and the right half, averaged over cells of 4 voxels a side; cluster = brighter half."""

    background = 0.0
    sharpness = 1.0

    def tensor(self, block: Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(block, dtype=np.float32)) / 255

    def feature_maps(self, x: torch.Tensor) -> torch.Tensor:
        pool = torch.nn.functional.avg_pool2d if x.ndim == 4 else torch.nn.functional.avg_pool3d
        half = torch.arange(x.shape[-1]) < x.shape[-1] // 2
        return torch.cat([pool(x * half, 4), pool(x * ~half, 4)], dim=1)

    def differentiable_assignment(self, x: torch.Tensor, of_features: bool = False) -> torch.Tensor:
        sides = (x if of_features else self.feature_maps(x)).flatten(2).sum(2)
        return torch.softmax(self.sharpness * sides, 1)

    def soft_assignment(self, x: torch.Tensor) -> torch.Tensor:
        return self.differentiable_assignment(x)


def write_run(
    out: Path, pixels: Array, images: list[dict[str, Any]], clusters: list[int], typicality: list[float]
) -> None:
    out.mkdir()
    np.save(out / "pixels.npy", pixels)
    nothing = {"source_affine": None, "grid_affine": None, "crop": None, "slice": -1}
    rows = [{**nothing, "row": row, **values} for row, values in enumerate(images)]
    numbers = pa.list_(pa.float64())
    schema = [
        ("row", pa.int64()),
        ("image_id", pa.string()),
        ("slice", pa.int32()),
        ("source_shape", pa.list_(pa.int32())),
    ]
    schema += [(name, numbers) for name in ("source_affine", "grid_affine", "crop")]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(schema)), out / "images.parquet")
    ids = list(dict.fromkeys(row["image_id"] for row in rows))
    table = pa.table({"image_id": ids, "cluster": pa.array(clusters, pa.int32()), "typicality": typicality})
    pq.write_table(table, out / "assignments.parquet")
    np.save(out / "soft_assignments.npy", np.full((len(ids), 3), 1 / 3, dtype=np.float32))


def squares(brightness: list[tuple[int, int]]) -> Array:
    """Images 16 x 16 with one bright square left (rows and columns 4..7) and one right (columns 8..11)."""
    pixels = np.zeros((len(brightness), 1, 16, 16), dtype=np.uint8)
    for image, (left, right) in zip(pixels, brightness, strict=True):
        image[0, 4:8, 4:8], image[0, 4:8, 8:12] = left, right
    return pixels


def flat_run(out: Path) -> None:
    """Six images of 32 x 40 pixels: a, b, c in cluster 0, d in 1, e rejected, f (three slices) in 1."""
    brightness = [(200, 0), (255, 0), (100, 0), (0, 150), (9, 9), (0, 10), (0, 120), (0, 30)]
    names = ["a", "b", "c", "d", "e", "f", "f", "f"]
    images = [{"image_id": name, "source_shape": [32, 40], "crop": [2.0, 2.0, 0.5, 4.5]} for name in names]
    write_run(out, squares(brightness), images, [0, 0, 0, 1, -1, 1], [0.2, 1.0, 0.9, 0.4, 1.0, 0.8])


def test_planted_squares(tmp_path: Path) -> None:
    out = tmp_path / "out"
    flat_run(out)
    seen: list[tuple[str, int, int]] = []
    summary = explain(out, PlantedModel(), 2, lambda *told: seen.append(told))
    index = pq.read_table(out / "maps" / "index.parquet").to_pylist()
    assert [(row["image_id"], row["row"], row["cluster"]) for row in index] == [
        ("b", 1, 0),
        ("c", 2, 0),
        ("f", 6, 1),
        ("d", 3, 1),
    ]
    maps = np.load(out / "maps" / "maps.npy")
    assert maps.shape == (4, 16, 16) and maps.dtype == np.float16
    assert maps.max() == 1.0 == maps[0].max()  # b is the brightest
    pixels = np.load(out / "pixels.npy")[:, 0].astype(float)
    mean = {
        0: pixels[[0, 1, 2, 4]].mean(0),
        1: pixels[[3, 5, 6, 7]].mean(0),
    }  # e: a tie
    for row, activation in zip(index, maps, strict=True):
        assert row["peak"] == pytest.approx(float(activation.max()), rel=1e-3)
        side = np.where(np.arange(16) < 8, 1, -1) * (1 if row["cluster"] == 0 else -1)  # slope of the log odds
        expected = gaussian_filter(side * (pixels[row["row"]] - mean[1 - row["cluster"]]), 2).clip(0)
        np.testing.assert_allclose(activation, expected * row["peak"] / expected.max(), atol=2e-3)
        assert row["completeness"] == pytest.approx(1, abs=1e-3)
    means = np.load(out / "maps" / "cluster_maps.npy")
    assert seen[-1] == ("explain", 5, 5)  # every member, since the mean is over all of them
    assert summary == json.loads((out / "maps" / "summary.json").read_text())
    assert [cluster["images"] for cluster in summary["clusters"]] == [3, 2, 0]
    explain(out, PlantedModel(), 3)
    every = np.load(out / "maps" / "maps.npy")[:3]
    np.testing.assert_allclose(means[0], every.astype(np.float32).mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(means[1], maps[2:].astype(np.float32).mean(axis=0), atol=1e-3)
    assert not means[2].any()
    spread = np.load(out / "maps" / "cluster_spread.npy")
    np.testing.assert_allclose(spread[0], every.astype(np.float32).clip(0).std(axis=0), atol=1e-3)


def test_pictures_have_the_source_aspect_and_nothing_else_is_left(tmp_path: Path) -> None:
    out = tmp_path / "out"
    flat_run(out)
    explain(out, PlantedModel(), 1)
    names = {path.name for path in (out / "maps").iterdir()}
    pictures = {"image_b.png", "image_f.png", "cluster_0.png", "cluster_1.png"}
    assert names == pictures | {
        "maps.npy",
        "cluster_maps.npy",
        "cluster_spread.npy",
        "cohort.safetensors",
        "index.parquet",
        "summary.json",
    }
    with Image.open(out / "maps" / "image_b.png") as file:
        picture = np.asarray(file).astype(int)
    height, width = round(256 * 32 / 40), 256
    assert picture.shape == (height, 2 * width + 6, 3)
    plain = picture[:, :width, 0]
    centre = np.argwhere(plain > 128).mean(axis=0) / height * 32 - 0.5  # the square in source pixels
    np.testing.assert_allclose(centre, [2 * 5.5 + 0.5, 2 * 5.5 + 4.5], atol=0.5)
    coloured = np.argwhere(np.ptp(picture[:, width + 6 :], axis=2) > 60).mean(axis=0) / height * 32 - 0.5
    np.testing.assert_allclose(coloured, centre, atol=2)


def test_volumes_go_back_to_their_source(tmp_path: Path) -> None:
    source_affine = np.array([[0, 0, 0.5, -3], [0, 0.5, 0, 5], [1.0, 0, 0, 9], [0, 0, 0, 1]])  # towards S, A, R
    volume = np.zeros((1, 8, 16, 16), dtype=np.float32)
    volume[0, 2:6, 0:8, 8:16] = 1  # one of the cells that the model averages
    gridded, grid_affine = to_grid_3d(volume, (8, 8, 8), (1.0, 1.0, 1.0), source_affine)
    assert grid_affine is not None
    pixels = np.rint(gridded * 255).astype(np.uint8)[None]
    common = {"source_shape": [8, 16, 16], "grid_affine": grid_affine.ravel().tolist()}
    with_source = {**common, "source_affine": source_affine.ravel().tolist(), "image_id": "v"}
    without = {"source_shape": [8, 8, 8], "image_id": "w"}
    out = tmp_path / "out"
    write_run(out, np.concatenate([pixels, 0 * pixels]), [with_source, without], [0, 1], [1.0, 1.0])
    explain(out, PlantedModel(), 5)
    maps = np.load(out / "maps" / "maps.npy").astype(np.float32)
    found: Any = nib.load(out / "maps" / "image_v.nii.gz")
    np.testing.assert_allclose(found.affine, source_affine[:, [2, 1, 0, 3]], atol=1e-5)
    expected = to_source(maps[0], grid_affine, source_affine, (8, 16, 16))
    np.testing.assert_allclose(np.asarray(found.dataobj).transpose(2, 1, 0), expected, atol=3e-3)
    weight = expected / expected.sum()
    centre = [float((weight * axis).sum()) for axis in np.indices(expected.shape)]
    np.testing.assert_allclose(centre, [3.5, 3.5, 11.5], atol=1.5)  # smoothed, and cut at the border
    unplaced: Any = nib.load(out / "maps" / "image_w.nii.gz")
    np.testing.assert_allclose(np.asarray(unplaced.dataobj).transpose(2, 1, 0), maps[1], atol=3e-3)
    mean: Any = nib.load(out / "maps" / "cluster_0.nii.gz")
    np.testing.assert_allclose(mean.affine, grid_affine[:, [2, 1, 0, 3]], atol=1e-4)
    assert (np.sign(mean.affine[:3, :3]) == np.diag([-1, -1, 1])).all()  # towards left, posterior, superior


def test_cluster_of_volumes_on_different_grids_lies_around_the_origin(tmp_path: Path) -> None:
    affines = [canonical_affine((8, 8, 8), spacing) for spacing in ((3.0, 1.0, 2.0), (5.0, 1.0, 2.0))]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, 8, 8, 8), dtype=np.uint8)
    images = [
        {
            "image_id": name,
            "source_shape": [8, 8, 8],
            "grid_affine": a.ravel().tolist(),
            "source_affine": a.ravel().tolist(),
        }
        for name, a in zip("vw", affines, strict=True)
    ]
    write_run(tmp_path / "out", pixels, images, [0, 0], [1.0, 0.5])
    explain(tmp_path / "out", PlantedModel(), 2)
    mean: Any = nib.load(tmp_path / "out" / "maps" / "cluster_0.nii.gz")
    assert mean.header.get_zooms() == pytest.approx((2.0, 1.0, 4.0))
    np.testing.assert_allclose(mean.affine @ [3.5, 3.5, 3.5, 1], [0, 0, 0, 1], atol=1e-5)


class Stopped(PlantedModel):
    """Is interrupted when the maps of the second block are made."""

    calls = 0

    def differentiable_assignment(self, x: torch.Tensor, of_features: bool = False) -> torch.Tensor:
        if x.requires_grad:
            self.calls += 1
        if self.calls > 4:  # passes of one block
            raise KeyboardInterrupt
        return super().differentiable_assignment(x, of_features)


@pytest.mark.parametrize("again", ["same", "other"])
def test_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: str) -> None:
    monkeypatch.setattr("medstrata.evidence.maps.unfinished.SECONDS", 0.0)
    monkeypatch.setattr("medstrata.evidence.maps.blocks.IMAGES_AT_ONCE", 2)
    for name in ("whole", "cut"):
        flat_run(tmp_path / name)
    expected = explain(tmp_path / "whole", PlantedModel(), 3, token="same")
    with pytest.raises(KeyboardInterrupt):
        explain(tmp_path / "cut", Stopped(), 3, token="same")
    assert not (tmp_path / "cut" / "maps" / "index.parquet").exists()
    seen: list[int] = []
    found = explain(tmp_path / "cut", PlantedModel(), 3, lambda _, done, total: seen.append(done), token=again)
    assert seen == ([4, 5] if again == "same" else [2, 4, 5])
    assert found == expected
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "maps").iterdir()} for name in ("whole", "cut")
    ]
    assert files[0] == files[1]


def test_a_damaged_remnant_is_made_again(tmp_path: Path) -> None:
    flat_run(tmp_path / "out")
    (tmp_path / "out" / "maps").mkdir()
    (tmp_path / "out" / "maps" / ".unfinished.safetensors").write_bytes(b"cut")
    (tmp_path / "out" / "maps" / ".unfinished.bin").write_bytes(b"")
    assert explain(tmp_path / "out", PlantedModel(), 3, token="same")["images"] == 5


def test_maps_of_an_earlier_run_do_not_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    flat_run(out)
    explain(out, PlantedModel(), 3)
    assert (out / "maps" / "image_a.png").exists()
    explain(out, PlantedModel(), 1)
    assert not (out / "maps" / "image_a.png").exists()
    summary = explain(out, PlantedModel(), 0)
    names = {path.name for path in (out / "maps").iterdir()}
    assert {"summary.json", "index.parquet", "cluster_maps.npy"} <= names
    assert not [name for name in names if name.startswith("image_")]
    assert summary["images"] == 5


def test_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        flat_run(tmp_path / name)
        explain(tmp_path / name, PlantedModel(), 2, no_progress)
    for path in (tmp_path / "one" / "maps").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / "maps" / path.name).read_bytes(), path.name


def test_maps_that_say_nothing_must_not_be_used(tmp_path: Path) -> None:
    class Indifferent(PlantedModel):
        def soft_assignment(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(1e-3 * self.feature_maps(x).flatten(2).sum(2), 1)

    flat_run(tmp_path / "out")
    summary = explain(tmp_path / "out", Indifferent(), 2)
    first = summary["clusters"][0]
    assert first["probability"] == pytest.approx(0.5, abs=0.01) == first["without"]
    assert first["caution"].startswith("This map should not be used") and not first["check"] and not summary["caution"]
    sure = explain(tmp_path / "out", Sure(), 2)["clusters"][0]
    assert not sure["caution"] and sure["without"] < 0.5 < sure["without_random"]
    assert f"from {sure['probability']:.2f} to {sure['without']:.2f}" in sure["check"]


class Sure(PlantedModel):
    sharpness = 20.0


def test_caution_where_the_maps_are_empty(tmp_path: Path) -> None:
    class Silent(PlantedModel):
        sharpness = 0.0

    flat_run(tmp_path / "out")
    summary = explain(tmp_path / "out", Silent(), 1)
    assert summary["scale"] == 0.0 and summary["completeness"] is None
    assert summary["caution"].startswith("All maps are empty")
    assert pq.read_table(tmp_path / "out" / "maps" / "index.parquet")["completeness"].null_count == 2


@pytest.mark.parametrize("name", ["images.parquet", "pixels.npy", "assignments.parquet", "soft_assignments.npy"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_missing_or_damaged_file_is_named(tmp_path: Path, name: str, damage: str) -> None:
    flat_run(tmp_path / "out")
    path = tmp_path / "out" / name
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(RunFolderError, match=f"{name} is missing"):
        explain(tmp_path / "out", PlantedModel(), 2)


def test_images_with_burned_in_text_are_neither_shown_nor_averaged(tmp_path: Path) -> None:
    out = tmp_path / "out"
    flat_run(out)
    texts = pa.table({"image_id": list("abcdef"), "burned_in": ["no", "yes", "no", "yes", "no", "yes"]})
    pq.write_table(texts, out / "catalog.parquet")
    explain(out, PlantedModel(), 3)
    index = pq.read_table(out / "maps" / "index.parquet").to_pylist()
    assert [row["image_id"] for row in index] == ["c", "a"]
    assert not np.load(out / "maps" / "cluster_maps.npy")[1].any()
    assert not (out / "maps" / "cluster_1.png").exists()


def test_where_every_image_has_text_burned_in_nothing_of_them_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    flat_run(out)
    texts = pa.table({"image_id": list("abcdef"), "burned_in": ["yes"] * 6})
    pq.write_table(texts, out / "catalog.parquet")
    assert explain(out, PlantedModel(), 3)["images"] == 0
    assert not (out / "maps" / "cohort.safetensors").exists()
    assert not np.load(out / "maps" / "cluster_maps.npy").any()
