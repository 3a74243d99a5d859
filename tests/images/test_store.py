"""Decoding into pixels.npy: every row against what was planted, every image accounted for."""

from __future__ import annotations

import dataclasses
import errno
import os
import tarfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medstrata.errors import InputError, PlanError, RunFolderError
from medstrata.images import array_blocks, decode_shards, grid, intensity, pixel_file, store
from medstrata.images.catalog import Catalog, scan
from medstrata.images.decoding import Decoded, decode_image, quantise
from medstrata.images.manifest import Sharding, Share
from medstrata.images.planning import PlanOptions, make_plan
from medstrata.images.records import Pixels
from medstrata.images.sources import open_source
from medstrata.images.store import decode, decode_share, load_images
from medstrata.images.workers import Serial

SPL = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=float)


def scanned(folder: Path) -> tuple[Any, Catalog]:
    source = open_source(folder)
    return source, scan(source, "salt")


def tables(out: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return pq.read_table(out / "images.parquet").to_pylist(), pq.read_table(out / "left_out.parquet").to_pylist()


@pytest.fixture
def pngs(tmp_path: Path) -> Path:
    folder = tmp_path / "pngs"
    folder.mkdir()
    for number in range(6):
        image = np.random.default_rng(number).integers(0, 256, (32, 32)).astype(np.uint8)
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


def planted(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (32, 32)).astype(np.uint8)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:400])


def test_images_of_the_grids_size_are_stored_as_they_are(pngs: Path, tmp_path: Path) -> None:
    source, catalog = scanned(pngs)
    told: list[tuple[str, int, int]] = []
    summary = decode(source, catalog, make_plan(catalog), tmp_path, progress=lambda *step: told.append(step))
    assert summary == store.DecodeSummary(decoded=6, left_out=0, rows=6)
    pixels = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    assert (pixels.shape, pixels.dtype) == ((6, 1, 32, 32), np.uint8)
    np.testing.assert_array_equal(pixels[:, 0], [planted(n) for n in range(6)])
    rows, left_out = tables(tmp_path)
    assert [row["image_id"] for row in rows] == catalog.table["image_id"].to_pylist()
    assert [row["row"] for row in rows] == list(range(6))
    assert rows[0] | {"image_id": ""} == {
        "row": 0,
        "image_id": "",
        "slice": -1,
        "source_shape": [32, 32],
        "source_affine": None,
        "grid_affine": None,
        "crop": [1.0, 1.0, 0.0, 0.0],
        "units": "stored",
        "decoder": rows[0]["decoder"],
        "note": "",
    }
    assert rows[0]["decoder"].startswith("pillow ")
    assert left_out == []
    assert told == [("decode", n, 6) for n in range(1, 7)]


@pytest.mark.parametrize("workers", [1, 2])
def test_damaged_images_are_closed_up_and_named(pngs: Path, tmp_path: Path, workers: int) -> None:
    (pngs / "notes.txt").write_text("not an image")
    source, catalog = scanned(pngs)
    for number in (0, 3):  # damaged after the scan: headers alone do not show it
        cut_short(pngs / f"{number}.png")
    out = tmp_path / "out"
    summary = decode(source, catalog, make_plan(catalog), out, workers)
    assert summary == store.DecodeSummary(decoded=4, left_out=3, rows=4)
    np.testing.assert_array_equal(np.load(out / "pixels.npy")[:, 0], [planted(n) for n in (1, 2, 4, 5)])
    rows, left_out = tables(out)
    ids = catalog.images()["image_id"].to_pylist()
    assert [(row["row"], row["image_id"]) for row in rows] == list(enumerate([ids[1], ids[2], ids[4], ids[5]]))
    assert [(item["stage"], item["code"]) for item in left_out] == [
        ("scan", "unknown_format"),
        ("decode", "truncated"),
        ("decode", "truncated"),
    ]
    assert [item["image_id"] for item in left_out[1:]] == [ids[0], ids[3]]
    assert {item["image_id"] for item in left_out} | set(ids) == set(catalog.table["image_id"].to_pylist())
    assert sorted(path.name for path in out.iterdir()) == ["images.parquet", "left_out.parquet", "pixels.npy"]


def nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write ``(D, H, W)`` with its affine from (d, h, w)."""
    nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]]), path)


def test_volumes_in_three_dimensions(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    affine = SPL @ np.diag([2.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = [10.0, 20.0, -30.0]
    turned = affine @ np.array([[1, 0, 0, 0], [0, -1, 0, 31], [0, 0, -1, 31], [0, 0, 0, 1]])
    volumes = [np.random.default_rng(n).integers(-1000, 400, (16, 32, 32)).astype(np.int16) for n in range(3)]
    nifti(folder / "a_ct.nii.gz", volumes[0], affine)
    nifti(folder / "b_ct.nii.gz", volumes[0][:, ::-1, ::-1], turned)
    nifti(folder / "c_ct.nii.gz", volumes[1], affine)
    source, catalog = scanned(folder)
    plan = make_plan(catalog)
    assert (plan.goal, plan.dimensions, plan.grid, plan.spacing) == ("subtypes", 3, [32, 32, 32], [1.0, 1.0, 1.0])
    summary = decode(source, catalog, plan, tmp_path / "out")
    assert summary.rows == 3
    pixels = np.load(tmp_path / "out" / "pixels.npy")
    assert (pixels.shape, pixels.dtype) == ((3, 1, 32, 32, 32), np.uint16)
    np.testing.assert_array_equal(pixels[0], pixels[1])  # the same body, stored the other way round
    rows, _ = tables(tmp_path / "out")
    assert rows[0]["grid_affine"] == pytest.approx(rows[1]["grid_affine"])
    np.testing.assert_allclose(np.reshape(rows[1]["source_affine"], (4, 4)), turned, atol=1e-4)
    assert (rows[0]["source_shape"], rows[0]["crop"], rows[0]["slice"]) == ([16, 32, 32], None, -1)
    assert rows[0]["units"] == "HU"
    back = grid.to_source(
        pixels[2, 0] / np.float32(65535),
        np.reshape(rows[2]["grid_affine"], (4, 4)),
        np.reshape(rows[2]["source_affine"], (4, 4)),
        rows[2]["source_shape"],
    )
    wanted = np.clip((volumes[1] + 1000) / 2000, 0, 1)  # window of CT without a body part
    assert np.corrcoef(back.ravel(), wanted.ravel())[0, 1] > 0.9


def test_volumes_as_slices(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    volume = np.zeros((21, 16, 16), dtype=np.uint8)
    volume[:] = np.arange(21)[:, None, None] * 10
    volume[:, :4, :4] = 255  # right, anterior corner
    ras = np.diag([1.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]]  # h to anterior, w to right: stored upside down
    nifti(folder / "a.nii", volume[:, ::-1, ::-1], ras)
    nifti(folder / "b.nii", volume[:2, ::-1, ::-1], ras)
    Image.fromarray(volume[8]).save(folder / "c.png")
    source, catalog = scanned(folder)
    plan = make_plan(catalog, PlanOptions(goal="categories"))
    plan = dataclasses.replace(plan, intensity={k: {"rule": "range", "low": 0, "high": 255} for k in plan.intensity})
    plan = dataclasses.replace(plan, grid=[16, 16])
    assert decode(source, catalog, plan, tmp_path / "out").rows == 6
    pixels = np.load(tmp_path / "out" / "pixels.npy")
    rows, _ = tables(tmp_path / "out")
    assert [row["slice"] for row in rows] == [8, 10, 12, 0, 1, -1]
    assert [row["source_shape"] for row in rows] == [[21, 16, 16]] * 3 + [[2, 16, 16]] * 2 + [[16, 16]]
    assert rows[0]["crop"] == [-1.0, -1.0, 15.0, 15.0]
    values = pixels / (257 if plan.stored_as == "uint16" else 1)
    np.testing.assert_array_equal(values[:, 0, 8, 8], [80, 100, 120, 0, 10, 80])
    assert (values[:, 0, :4, :4] == 255).all()  # shown the right way up, as the PNG
    np.testing.assert_array_equal(values[0], values[5])


def test_an_edited_plan_is_honoured(pngs: Path, tmp_path: Path) -> None:
    source, catalog = scanned(pngs)
    plan = make_plan(catalog)
    edited = dataclasses.replace(
        plan,
        grid=[24, 32],
        spacing=None,
        channels=3,
        stored_as="uint16",
        intensity={"8-bit": {"rule": "window", "low": 100, "high": 101}},
    )
    decode(source, catalog, edited, tmp_path)
    pixels = np.load(tmp_path / "pixels.npy")
    assert (pixels.shape, pixels.dtype) == ((6, 3, 24, 32), np.uint16)
    assert (pixels[:, :, :, :4] == 0).all()  # 32 x 32 fills 24 x 24, the rest is background
    assert (pixels[:, :, :, 4:28] > 0).any()
    with pytest.raises(InputError, match="no intensity rule"):
        decode(source, catalog, dataclasses.replace(plan, intensity={}), tmp_path)


def die_of_the_third(jobs: list[Any]) -> list[Any]:
    if any(job.row == 2 for job in jobs):
        os._exit(1)
    return [decode_image(job) for job in jobs]


def test_a_crashed_decoder_costs_one_image(pngs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, catalog = scanned(pngs)
    monkeypatch.setattr(decode_shards, "_decode_images", die_of_the_third)
    assert decode(source, catalog, make_plan(catalog), tmp_path, workers=2).decoded == 5
    _, left_out = tables(tmp_path)
    assert [(item["code"], item["reason"]) for item in left_out] == [
        ("decoder_crashed", "The decoder crashed on this file; it may be damaged.")
    ]


def test_input_that_is_gone_stops_the_run_and_leaves_nothing(pngs: Path, tmp_path: Path) -> None:
    source, catalog = scanned(pngs)
    pngs.rename(tmp_path / "moved")
    with pytest.raises(InputError, match="no longer reachable"):
        decode(source, catalog, make_plan(catalog), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_decoded_says_why(pngs: Path, tmp_path: Path) -> None:
    source, catalog = scanned(pngs)
    for path in pngs.iterdir():
        cut_short(path)
    with pytest.raises(InputError, match=r"None of the 6 images could be decoded. 6 x truncated: "):
        decode(source, catalog, make_plan(catalog), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_no_room_on_the_disk(pngs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, catalog = scanned(pngs)
    monkeypatch.setattr(pixel_file.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(RunFolderError, match="Free some space"):
        decode(source, catalog, make_plan(catalog), tmp_path / "out")


def test_a_disk_that_fills_up_is_no_problem_of_an_image(
    pngs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    source, catalog = scanned(pngs)
    monkeypatch.setattr(pixel_file.PixelFile, "write", full)
    with pytest.raises(RunFolderError, match="The disk is full"):
        decode(source, catalog, make_plan(catalog), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_quantise_rounds_to_the_nearest(dtype: str) -> None:
    largest = np.iinfo(dtype).max
    levels = np.arange(largest + 1)
    np.testing.assert_array_equal(quantise((levels / largest).astype(np.float32), dtype), levels)
    np.testing.assert_array_equal(quantise(np.array([0.4, 0.6], np.float32) / largest, dtype), [0, 1])


def test_arrays_come_back_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_blocks, "BLOCK_BYTES", 7 * 16 * 16 * 4)  # blocks of seven images
    images = np.random.default_rng(0).integers(0, 256, (40, 12, 16)).astype(np.uint8)
    np.savez_compressed(tmp_path / "a.npz", images=images)
    np.save(tmp_path / "b.npy", images)
    for name in ("a.npz", "b.npy"):
        found = load_images(tmp_path / name)
        assert (found.shape, found.dtype) == ((40, 1, 32, 32), np.uint8)
        np.testing.assert_array_equal(found[:, 0, 10:22, 8:24], images)
        assert found.sum() == images.sum(dtype=np.int64)


def test_blocks_of_arrays_equal_single_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    images = rng.normal(size=(9, 20, 30, 3)).astype(np.float32)
    images[4, 0, 0, 0] = np.nan
    np.save(tmp_path / "a.npy", images)
    source, catalog = scanned(tmp_path / "a.npy")
    plan = make_plan(catalog)
    assert (plan.channels, plan.intensity["array"]["rule"]) == (3, "range")
    for rule in (plan.intensity["array"], {"rule": "percentile", "low": 5, "high": 90, "of": "all"}):
        edited = dataclasses.replace(plan, intensity={"array": rule}, spacing=None, channels=1)
        decode(source, catalog, edited, tmp_path / "out")
        pixels = np.load(tmp_path / "out" / "pixels.npy")
        rows, left_out = tables(tmp_path / "out")
        assert [item["code"] for item in left_out] == ["not_finite"]
        assert len(rows) == len(pixels) == 8
        good = np.delete(images, 4, axis=0)
        for row, image in zip(pixels, good, strict=True):
            scaled = intensity.normalise(Pixels(image), rule)
            grey = scaled @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
            wanted, crop = grid.to_grid_2d(grey[None], plan.grid)
            np.testing.assert_allclose(row / 65535, wanted, atol=2e-5)
            assert rows[0]["crop"] == pytest.approx(crop)


@pytest.mark.parametrize("name", ["images.npy", "images"])
def test_padding_is_cut_off_where_the_plan_says_so(tmp_path: Path, name: str) -> None:
    image = np.zeros((60, 90), np.uint8)
    image[10:42, 20:52] = np.random.default_rng(0).integers(50, 200, (32, 32))
    if name == "images.npy":
        np.save(tmp_path / name, np.stack([image, image]))
    else:
        (tmp_path / name).mkdir()
        Image.fromarray(image).save(tmp_path / name / "a.png")
        Image.fromarray(image).save(tmp_path / name / "b.png")
    source, catalog = scanned(tmp_path / name)
    plan = dataclasses.replace(make_plan(catalog), grid=[32, 32], spacing=None, crop_to_content=True)
    decode(source, catalog, plan, tmp_path / "out")
    rows, _ = tables(tmp_path / "out")
    assert rows[0]["crop"] == [1.0, 1.0, 10.0, 20.0]
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "pixels.npy")[0, 0], image[10:42, 20:52])


def test_arrays_of_volumes_whole_and_as_slices(tmp_path: Path) -> None:
    volumes = np.random.default_rng(2).integers(0, 256, (5, 12, 16, 24)).astype(np.uint8)
    np.save(tmp_path / "a.npy", volumes)
    whole = load_images(tmp_path / "a.npy")
    assert whole.shape == (5, 1, 16, 16, 24)
    np.testing.assert_array_equal(whole[:, 0, 2:14], volumes)
    source, catalog = scanned(tmp_path / "a.npy")
    plan = dataclasses.replace(make_plan(catalog), dimensions=2, grid=[16, 24], spacing=None, slices_per_volume=2)
    decode(source, catalog, plan, tmp_path / "out")
    rows, _ = tables(tmp_path / "out")
    assert [row["slice"] for row in rows] == [4, 7] * 5
    assert rows[0]["source_shape"] == [12, 16, 24]
    wanted = volumes[:, [4, 7]].reshape(10, 16, 24)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "pixels.npy")[:, 0], wanted)


def test_load_images_takes_a_grid(pngs: Path) -> None:
    assert load_images(pngs).shape == (6, 1, 32, 32)
    assert load_images(pngs, grid=[32, 40]).shape == (6, 1, 32, 40)
    with pytest.raises(PlanError, match="'grid' is"):
        load_images(pngs, grid=[28, 28])


def test_an_array_that_became_shorter(tmp_path: Path) -> None:
    images = np.random.default_rng(3).integers(0, 256, (10, 16, 16)).astype(np.uint8)
    np.save(tmp_path / "a.npy", images)
    source, catalog = scanned(tmp_path)
    np.save(tmp_path / "a.npy", images[:5])
    with pytest.raises(InputError, match="10 x file_changed"):
        decode(source, catalog, make_plan(catalog), tmp_path / "out")


def test_real_images_of_the_grids_size_are_stored_as_they_are(data_dir: Path) -> None:
    found = load_images(data_dir / "mednist.npz")
    with np.load(data_dir / "mednist.npz") as stored:
        np.testing.assert_array_equal(found[:, 0], stored["images"])


def test_dicom_and_nifti_of_one_scan_lie_at_the_same_place(data_dir: Path, tmp_path: Path) -> None:
    lung = data_dir / "lung_ct_hu"
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "whole_ct.nii.gz").write_bytes((lung / "A0001_s3_kernelB_ct.nii.gz").read_bytes())
    with tarfile.open(lung / "A0001_s3_kernelB_dicom.tar.gz") as archive:
        archive.extractall(folder / "part", filter="data")
    source, catalog = scanned(folder)
    plan = make_plan(catalog, PlanOptions(goal="subtypes", select=["modality=CT"]))
    assert (plan.dimensions, plan.spacing) == (3, [7.0, 7.0, 7.0])
    decode(source, catalog, plan, tmp_path / "out")
    rows, _ = tables(tmp_path / "out")
    by_slices = {row["source_shape"][0]: row for row in rows}
    assert sorted(by_slices) == [20, 64]
    pixels = np.load(tmp_path / "out" / "pixels.npy").astype(np.float32) / 65535
    part, whole = by_slices[20], by_slices[64]
    affine = np.reshape(part["source_affine"], (4, 4))
    maps = [
        grid.to_source(pixels[row["row"], 0], np.reshape(row["grid_affine"], (4, 4)), affine, part["source_shape"])
        for row in (part, whole)
    ]
    inner = [volume[3:-3, 32:-32, 32:-32] for volume in maps]  # away from the ends that the shorter stack lacks
    assert np.corrcoef(inner[0].ravel(), inner[1].ravel())[0, 1] > 0.999  # one grid step away: 0.98


def sharding_of(out: Path, **values: Any) -> Sharding:
    return Sharding(out / "private" / "shards" / "decode", "t", Serial(), **values)


def counting(monkeypatch: pytest.MonkeyPatch, stop_at: int = -1) -> list[int]:
    """Note the row of every image that is decoded; at the ``stop_at``-th the run is ended from outside."""
    rows: list[int] = []

    def decoded(job: Any) -> Any:
        if len(rows) == stop_at:
            raise KeyboardInterrupt
        rows.append(job.row)
        return decode_image(job)

    monkeypatch.setattr(decode_shards, "decode_image", decoded)
    return rows


def test_an_interrupted_decode_goes_on(pngs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, catalog = scanned(pngs)
    cut_short(pngs / "1.png")
    whole, out = tmp_path / "whole", tmp_path / "out"
    for folder in (whole, out):
        folder.mkdir()
    decode(source, catalog, make_plan(catalog), whole, sharding=sharding_of(whole))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        counting(patch, stop_at=4)
        decode(source, catalog, make_plan(catalog), out, sharding=sharding_of(out))
    assert not list(out.glob("*.*"))
    rows = counting(monkeypatch)
    assert decode(source, catalog, make_plan(catalog), out, sharding=sharding_of(out)).decoded == 5
    assert rows == [4, 5]
    for name in ("pixels.npy", "images.parquet", "left_out.parquet"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_rows_that_were_being_moved_are_decoded_again(
    pngs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    source, catalog = scanned(pngs)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pixel_file.PixelFile, "close_up", interrupted)
        decode(source, catalog, make_plan(catalog), tmp_path, sharding=sharding_of(tmp_path))
    rows = counting(monkeypatch)
    assert decode(source, catalog, make_plan(catalog), tmp_path, sharding=sharding_of(tmp_path)).rows == 6
    assert rows == [0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(np.load(tmp_path / "pixels.npy")[:, 0], [planted(n) for n in range(6)])


def test_a_worker_that_outlived_its_run_cannot_write_into_the_next(pngs: Path, tmp_path: Path) -> None:
    source, catalog = scanned(pngs)
    plan = make_plan(catalog)
    first = decode_shards.begin(source, catalog, plan, sharding_of(tmp_path)).images[0]
    second = decode_shards.begin(source, catalog, plan, sharding_of(tmp_path)).images[0]
    with pytest.raises(FileNotFoundError):
        decode_image(first)
    assert isinstance(decode_image(second), Decoded)


def test_shares_of_a_job_array_write_into_one_file(pngs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, catalog = scanned(pngs)
    plan = make_plan(catalog)
    decode(source, catalog, plan, tmp_path / "whole")
    rows = counting(monkeypatch)
    for number in (2, 1):
        decode_share(source, catalog, plan, sharding_of(tmp_path, share=Share(number, 2)))
        assert rows == [1, 3, 5, 0, 2, 4][: 3 * (3 - number)]
    decode(source, catalog, plan, tmp_path, sharding=sharding_of(tmp_path))
    assert len(rows) == 6
    for name in ("pixels.npy", "images.parquet", "left_out.parquet"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
