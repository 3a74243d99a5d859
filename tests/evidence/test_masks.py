"""Masks by CSV and by array, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medstrata.errors import InputError, RunFolderError
from medstrata.evidence.masks import Masks


def run_of(tmp_path: Path, files: list[str], frames: list[int] | None = None) -> Path:
    out = tmp_path / "run"
    (out / "private").mkdir(parents=True)
    ids = [f"id{number}" for number in range(len(files))]
    table = pa.table({"image_id": ids, "file": files, "frame": frames or [0] * len(files)})
    pq.write_table(table, out / "private" / "sources.parquet")
    return out


PLANE: dict[str, Any] = {"source_shape": [1, 6, 8], "crop": [2.0, 2.0, 0.5, 0.5], "grid_affine": None}


def test_pictures_by_csv_land_on_the_grid(tmp_path: Path) -> None:
    out = run_of(tmp_path, ["a.png", "b.png"])
    mask = np.zeros((6, 8), np.uint8)
    mask[2, 5] = 255
    Image.fromarray(mask).save(tmp_path / "lesion.png")
    (tmp_path / "masks.csv").write_text("file,mask\na.png,lesion.png\n")
    masks = Masks(tmp_path / "masks.csv", out, (3, 4))
    assert masks.image_ids == {"id0"} and not masks.has_distractors
    assert np.argwhere(masks.on_grid("id0", PLANE)).tolist() == [[1, 2]]
    assert not masks.on_grid("id1", PLANE).any()
    with pytest.raises(InputError, match=r"of image id0 has shape \(6, 8\), but the image has \(5, 8\)"):
        masks.on_grid("id0", {**PLANE, "source_shape": [5, 8]})


def test_volumes_by_csv_with_distractors(tmp_path: Path) -> None:
    out = run_of(tmp_path, ["s/1.dcm", "s/2.dcm"])
    for name, place in (("lesion", (1, 2, 3)), ("metal", (0, 0, 0))):
        inside = np.zeros((4, 3, 2), np.uint8)
        inside[place[2], place[1], place[0]] = 1
        nib.save(nib.Nifti1Image(inside, np.diag([2.0, 2.0, 5.0, 1.0])), tmp_path / f"{name}.nii.gz")
    (tmp_path / "masks.csv").write_text("file;mask;distractor\ns/1.dcm;lesion.nii.gz;metal.nii.gz\n")
    masks = Masks(tmp_path / "masks.csv", out, (2, 3, 4))
    affine = np.diag([2.0, 2.0, 5.0, 1.0])[:, [2, 1, 0, 3]].ravel().tolist()
    geometry = {"grid_affine": affine, "crop": None, "source_shape": [2, 3, 4]}
    assert masks.has_distractors
    assert np.argwhere(masks.on_grid("id0", geometry)).tolist() == [[1, 2, 3]]
    assert np.argwhere(masks.on_grid("id0", geometry, "distractor")).tolist() == [[0, 0, 0]]


def test_masks_in_the_order_of_an_array(tmp_path: Path) -> None:
    out = run_of(tmp_path, ["set.npz", "set.npz"], [1, 0])
    stored = np.zeros((2, 6, 8), np.uint8)
    stored[1, 0, 0] = 3
    np.savez(tmp_path / "set.npz", masks=stored)
    masks = Masks(tmp_path / "set.npz", out, (6, 8))
    whole = {"source_shape": [6, 8], "crop": None, "grid_affine": None}
    assert np.argwhere(masks.on_grid("id0", whole)).tolist() == [[0, 0]] and not masks.on_grid("id1", whole).any()
    np.savez(tmp_path / "set.npz", masks=stored[:1])
    with pytest.raises(InputError, match="has 1 masks and the array in INPUT has 2 images"):
        Masks(tmp_path / "set.npz", out, (6, 8))


def test_wrong_files_are_told(tmp_path: Path) -> None:
    out = run_of(tmp_path, ["a.png"])
    table = tmp_path / "masks.csv"
    table.write_text("file,label\na.png,1\n")
    with pytest.raises(InputError, match="no column 'mask'"):
        Masks(table, out, (3, 4))
    table.write_text("file,mask\na.png,nowhere.png\n")
    with pytest.raises(InputError, match="cannot be read"):
        Masks(table, out, (3, 4)).on_grid("id0", PLANE)
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(InputError, match="Save them with numpy"):
        Masks(tmp_path / "bad.npz", out, (3, 4))
    table.write_text("file,mask\na.png,\n")
    with pytest.raises(InputError, match="no mask for any image"):
        Masks(table, out, (3, 4))
    with pytest.raises(RunFolderError, match="private"):
        Masks(table, tmp_path, (3, 4))
    with pytest.raises(InputError, match="is not there"):
        Masks(tmp_path / "nothing.csv", out, (3, 4))
