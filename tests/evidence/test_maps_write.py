"""NIfTI on the source's voxels, overlays and planes: orientation, values, aspect, metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from medstrata.errors import RunFolderError
from medstrata.evidence.maps.write import (
    outline,
    overlay,
    shown_size,
    write_map_nifti,
    write_overlay_png,
)


def load(path: Path) -> Any:
    return nib.load(path)


def oblique_affine() -> NDArray[np.float64]:
    """Array index (d, h, w) to RAS mm: a rotated grid of 2.5 x 0.8 x 0.7 mm, rows towards posterior."""
    turn = np.deg2rad(20)
    rotation = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.array([[0, 0, -0.7], [0, -0.8, 0], [2.5, 0, 0]])
    affine[:3, 3] = [12.0, -30.5, 7.25]
    return affine


def test_nifti_lies_on_the_source_voxel_for_voxel(tmp_path: Path) -> None:
    activation = np.random.default_rng(0).random((4, 5, 6), dtype=np.float32) * 0.3
    affine = oblique_affine()
    write_map_nifti(tmp_path / "map.nii.gz", activation, affine)
    image = load(tmp_path / "map.nii.gz")
    assert image.shape == (6, 5, 4)
    values = np.asarray(image.dataobj)
    np.testing.assert_allclose(values.transpose(2, 1, 0), activation, atol=0.3 / 510 + 1e-7)
    for d, h, w in [(0, 0, 0), (3, 1, 5), (2, 4, 0)]:
        np.testing.assert_allclose(image.affine @ [w, h, d, 1], affine @ [d, h, w, 1], atol=1e-4)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
    assert image.header["descrip"].item() == b"medstrata cluster activation map, research use only"
    assert image.header.get_xyzt_units()[0] == "mm"
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.nii.gz"]


def test_nifti_of_a_source_read_by_nibabel_has_the_same_grid(tmp_path: Path) -> None:
    source_affine = np.array([[-0.7, 0, 0, 90], [0, 0.7, 0, -126], [0, 0, 2.0, -72], [0, 0, 0, 1.0]])
    new: Any = nib.Nifti1Image
    source = new(np.zeros((6, 5, 4), dtype=np.int16), source_affine)
    in_our_order = source_affine[:, [2, 1, 0, 3]]
    write_map_nifti(tmp_path / "map.nii.gz", np.ones((4, 5, 6)), in_our_order)
    written = load(tmp_path / "map.nii.gz")
    assert written.shape == source.shape
    np.testing.assert_allclose(written.affine, source.affine, atol=1e-5)


def test_nifti_of_an_empty_map_and_of_a_sheared_grid(tmp_path: Path) -> None:
    affine = oblique_affine()
    affine[0, 0] = 0.9
    write_map_nifti(tmp_path / "map.nii.gz", np.zeros((2, 2, 2)), affine)
    image = load(tmp_path / "map.nii.gz")
    assert not np.asarray(image.dataobj).any()
    np.testing.assert_allclose(image.affine, affine[:, [2, 1, 0, 3]], atol=1e-5)
    assert int(image.header["qform_code"]) == 0


def test_same_map_gives_the_same_bytes(tmp_path: Path) -> None:
    activation = np.random.default_rng(1).random((3, 4, 5))
    for name in ("a.nii.gz", "b.nii.gz"):
        write_map_nifti(tmp_path / name, activation, oblique_affine())
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_overlay_file_shows_the_image_beside_its_map(tmp_path: Path) -> None:
    image = np.full((1, 20, 40), 0.5)
    activation = np.zeros((20, 40))
    activation[:, 30:] = 1
    write_overlay_png(tmp_path / "overlay.png", image, activation)
    with Image.open(tmp_path / "overlay.png") as file:
        assert file.info["Description"] == "medstrata cluster activation map, research use only"
        picture = np.asarray(file)
    assert picture.shape == (128, 256 + 6 + 256, 3)
    assert (picture[:, :256] == 128).all()  # the plain image
    assert (picture[:, 256:262] == 255).all()
    assert (picture[:, 262 : 262 + 150] == 128).all()  # where the map is 0 nothing changes
    strong = picture[60, 262 + 230].astype(int)
    assert strong[0] > strong[2] + 50  # yellow
    assert [entry.name for entry in tmp_path.iterdir()] == ["overlay.png"]


def test_colour_image_keeps_its_colours(tmp_path: Path) -> None:
    image = np.zeros((3, 300, 300))
    image[0] = 1
    write_overlay_png(tmp_path / "overlay.png", image, np.zeros((300, 300)))
    with Image.open(tmp_path / "overlay.png") as file:
        picture = np.asarray(file)
    assert picture.shape == (300, 606, 3)
    assert (picture[:, 306:] == [255, 0, 0]).all()


def test_stronger_is_more_opaque_and_anatomy_still_shows() -> None:
    plain = np.zeros((4, 50, 3), dtype=np.float32)
    plain[2:] = 1
    strength = np.tile(np.linspace(0, 1, 50, dtype=np.float32), (4, 1))
    strength[0, 0] = strength[3, 0] = 0
    done = overlay(plain, strength)
    contrast = done[3].sum(1) - done[0].sum(1)  # white against black under the same colour
    kept = ~np.isclose(done[3], [0, 1, 1]).all(axis=1)
    assert (np.diff(contrast[kept]) < 0).all()
    assert contrast[kept].min() >= 0.3 * 3
    np.testing.assert_array_equal(done[:, 0], plain[:, 0])


def test_outline_written_out() -> None:
    inside = np.zeros((5, 6), dtype=bool)
    inside[1:4, 2:] = True  # reaches the border of the picture on the right
    expected = np.array(
        [[0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1], [0, 0, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]], dtype=bool
    )
    np.testing.assert_array_equal(outline(inside), expected)


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((28, 28), None, (256, 256)),
        ((64, 32), None, (256, 128)),
        ((300, 600), None, (300, 600)),
        ((3000, 1500), None, (1024, 512)),
        ((10, 40, 40), (4.0, 1.0, 1.0), (256, 256, 256)),
        ((1000, 1), None, (1000, 1)),
    ],
)
def test_shown_size(shape: tuple[int, ...], spacing: tuple[float, ...] | None, expected: tuple[int, ...]) -> None:
    assert shown_size(shape, spacing) == expected


def test_failure_leaves_no_half_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder is needed")
    with pytest.raises((RunFolderError, OSError)):
        write_map_nifti(tmp_path / "taken" / "map.nii.gz", np.zeros((2, 2, 2)), np.eye(4))
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]
