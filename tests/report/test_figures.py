"""Figures: colours that stay apart, maps that are the same for the same seed, pictures that show the planted place."""

from __future__ import annotations

import base64
import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image

from medstrata.report.cards import make_cards, showable, thumbnails_per_line
from medstrata.report.facts import gather_facts
from medstrata.report.figures import (
    COLOURS,
    SHOWN_POINTS,
    colour,
    embedding_maps,
    marker,
    pca_positions,
    sample_points,
    shade,
    training_curves,
    tsne_positions,
)
from medstrata.report.folder import read_run_folder, rows_of
from medstrata.report.pictures import Pictures, colour_bar
from medstrata.report.training import read_phases

if TYPE_CHECKING:
    import run_folder
else:
    run_folder = sys.modules["run_folder"]


def opened(uri: str) -> NDArray[np.uint8]:
    kind, content = uri.split(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


# Machado, Oliveira and Fernandes, IEEE TVCG 15 (2009), full strength, on linear RGB.
SEEN_BY = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}


def lab(hexadecimal: str, seen_by: str) -> NDArray[np.float64]:
    srgb = np.array([int(hexadecimal[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(SEEN_BY[seen_by]) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    scaled = to_xyz @ linear / np.array([0.9505, 1.0, 1.089])
    f = np.where(scaled > (6 / 29) ** 3, np.cbrt(scaled), scaled / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("seen_by", SEEN_BY)
def test_colours_stay_apart_for_colour_blind_readers(seen_by: str) -> None:
    seen = [lab(colour(number), seen_by) for number in range(len(COLOURS))]
    closest = min(np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i])
    assert closest > 15  # 2.3 is the least difference that people notice side by side


def test_thirty_clusters_have_thirty_looks() -> None:
    assert len({(colour(number), marker(number)) for number in range(30)}) == 30
    assert (colour(-1), marker(-1)) not in {(colour(number), marker(number)) for number in range(30)}


def test_shade_runs_from_white_to_dark() -> None:
    assert shade(0) == "#ffffff" and shade(1) == "#1f5f8b"


def test_sample_is_bounded_sorted_and_seeded() -> None:
    rows = sample_points(10 * SHOWN_POINTS, 3)
    assert len(np.unique(rows)) == SHOWN_POINTS and (np.diff(rows) > 0).all()
    assert np.array_equal(rows, sample_points(10 * SHOWN_POINTS, 3))
    assert sample_points(5, 3).tolist() == [0, 1, 2, 3, 4]


def test_pca_keeps_distances_of_a_plane() -> None:
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(30, 2)) @ np.linalg.qr(rng.normal(size=(5, 5)))[0][:2]
    shown = pca_positions(flat)
    assert np.allclose(np.linalg.norm(flat[:, None] - flat, axis=2), np.linalg.norm(shown[:, None] - shown, axis=2))
    assert pca_positions(np.ones((4, 3))).tolist() == [[0.0, 0.0]] * 4
    assert pca_positions(np.array([[1.0], [2.0]]))[:, 1].tolist() == [0.0, 0.0]


def test_tsne_is_seeded_separates_groups_and_skips_tiny_sets() -> None:
    groups = np.repeat([0, 1], 20)
    points = np.random.default_rng(0).normal(size=(40, 60)) + 20 * groups[:, None]
    placed = tsne_positions(points, 1)
    assert placed is not None
    again = tsne_positions(points, 1)
    assert again is not None and np.array_equal(placed, again)
    middle = np.array([placed[groups == group].mean(axis=0) for group in (0, 1)])
    assert (np.linalg.norm(placed[:, None] - middle, axis=2).argmin(axis=1) == groups).all()
    assert tsne_positions(points[:9], 0) is None
    assert tsne_positions(np.repeat(points[:9], 5, axis=0), 0) is None


def test_embedding_maps_draw_rejected_and_single_images() -> None:
    points = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    uri, has_tsne, shown = embedding_maps(points, np.repeat([-1, 0], 10), 0)
    assert has_tsne and shown == 20 and opened(uri).shape[1] > 1.5 * opened(uri).shape[0]
    uri, has_tsne, shown = embedding_maps(points[:1], np.array([0]), 0)
    assert not has_tsne and shown == 1 and opened(uri).std() > 0


def test_curves_are_the_same_file_each_time() -> None:
    phases = read_phases(run_folder.history_of(run_folder.planted_2d()))
    curves = training_curves(phases)
    assert curves.startswith("data:image/svg+xml;base64,") and curves == training_curves(phases)


def test_thumbnail_shows_the_image(tmp_path: Path) -> None:
    study = run_folder.planted_2d()
    study.slices_per_volume = 3
    pictures = Pictures(read_run_folder(run_folder.write_run_folder(tmp_path / "out", study)))
    window = pictures.window(np.arange(12))
    (shown,) = pictures.thumbnail(20, window)  # cluster 1: bright square at rows 5 to 7, columns 2 to 4
    image = opened(shown.uri).astype(float)
    assert image.shape == (112, 112)
    assert image[37:54, 16:33].mean() > 200 and image[70:].mean() < 80


def test_map_lies_where_it_was_planted(tmp_path: Path) -> None:
    study = run_folder.planted_2d()
    pictures = Pictures(read_run_folder(run_folder.write_run_folder(tmp_path / "out", study)))
    members = np.flatnonzero(study.labels == 1)
    maps = pictures.cluster(1, members, pictures.window(members))
    mean, mapped = (opened(picture.uri).astype(float) for picture in (maps.means[0], maps.overlays[0]))
    assert mean.ndim == 2 and maps.strength == pytest.approx(1.0)
    coloured = (mapped.max(axis=2) - mapped.min(axis=2)) > 60
    rows, columns = np.nonzero(coloured)
    assert 168 * 4 / 16 < rows.mean() < 168 * 9 / 16 and 168 * 1 / 16 < columns.mean() < 168 * 6 / 16
    assert coloured.mean() < 0.15


def test_planes_of_a_volume_follow_radiology(tmp_path: Path) -> None:
    study = run_folder.planted_3d()
    study.pixels[:] = 0
    study.pixels[:, 0, 6:, :3, :2] = 255  # superior, anterior, right
    pictures = Pictures(read_run_folder(run_folder.write_run_folder(tmp_path / "out", study)))
    axial, coronal = pictures.thumbnail(0, (0.0, 255.0))
    assert (axial.label, coronal.label) == ("Axial", "Coronal")
    # 8 slices of 2 mm, 12 rows and 10 columns of 1 mm; cut through the peak of the map: the corner itself
    front, top = opened(axial.uri), opened(coronal.uri)
    assert front.shape == (112, 93) and top.shape == (112, 70)
    assert front[:20, :12].mean() > 240 and front[40:].max() < 20  # anterior on top, right on the left
    assert top[:20, :10].mean() > 240 and top[40:].max() < 20  # superior on top
    assert [picture.label for picture in pictures.cluster(0, np.arange(6), (0, 255)).overlays] == [
        "Axial",
        "Coronal",
        "Sagittal",
    ]


def test_volumes_without_geometry_get_no_names_of_planes(tmp_path: Path) -> None:
    out = run_folder.write_run_folder(tmp_path / "out", run_folder.planted_3d())
    run = read_run_folder(out)
    place = run.images.column_names.index("grid_affine")
    nameless = run.images.set_column(place, "grid_affine", pa.nulls(13, run.images["grid_affine"].type))
    pictures = Pictures(replace(run, images=nameless))
    assert [picture.label for picture in pictures.thumbnail(0, (0.0, 255.0))] == ["Plane 1", "Plane 2"]


def test_cards_choose_typical_and_uncertain_images(tmp_path: Path) -> None:
    study = run_folder.planted_2d((40, 7, 9))
    run = read_run_folder(run_folder.write_run_folder(tmp_path / "out", study))
    cards = make_cards(run, gather_facts(run))
    typicality = np.asarray(run.assignments["typicality"])
    patients = rows_of(run.catalog, run.assignments["image_id"])["patient"].to_pylist()
    typical = [study.ids.index(thumbnail.image_id) for thumbnail in cards[0].typical]
    assert len({patients[index] for index in typical}) == len(typical) == 6
    assert typical[0] == int(typicality[:40].argmax())
    margins = [thumbnail.margin for thumbnail in cards[0].uncertain]
    assert margins == sorted(margins) and margins[0] == pytest.approx(np.asarray(run.assignments["margin"])[:40].min())
    small = [thumbnail.image_id for thumbnail in (*cards[1].typical, *cards[1].uncertain)]
    assert sorted(small) == study.ids[40:47]  # each image of a small cluster once


def test_images_with_text_burned_in_are_not_shown(tmp_path: Path) -> None:
    study = run_folder.planted_2d((6, 6))
    study.headers["burned_in"] = ["yes"] * 6 + ["likely", "yes", "no", "unknown", "no", "no"]
    run = read_run_folder(run_folder.write_run_folder(tmp_path / "out", study))
    first, second = make_cards(run, gather_facts(run))
    assert first.hidden == 6 and first.typical == first.uncertain == first.examples == [] and first.maps is None
    shown = {thumbnail.image_id for thumbnail in (*second.typical, *second.uncertain)}
    assert second.hidden == 2 and shown == set(study.ids[8:])
    rows = rows_of(run.catalog, run.assignments["image_id"])
    assert showable(rows, include_burned_in=True)[6:8].tolist() == [True, False]  # asked for, but never a certain one


def test_thumbnails_stay_within_the_budget_of_the_page() -> None:
    assert thumbnails_per_line(6, 1) == thumbnails_per_line(30, 1) == thumbnails_per_line(25, 2) == 6
    assert thumbnails_per_line(60, 1) == 5 and thumbnails_per_line(60, 2) == 2


def test_colour_bar_runs_from_dark_to_bright() -> None:
    strip = opened(colour_bar())[4].astype(float).mean(axis=1)
    assert strip[0] < 80 and strip[-1] > 130
