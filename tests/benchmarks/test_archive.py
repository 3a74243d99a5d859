"""The archive of DICOM files, written from small planted data sets in place of the real ones."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels import apply_rescale

from benchmarks.results.archive import (
    CLASSES,
    KINDS,
    SIDES,
    balanced_counts,
    geometric_counts,
    size_features,
    write_archive,
)

EACH = 12
COUNTS = dict.fromkeys(KINDS, 10)
SEED = 5  # all photometric interpretations and bit depths come up


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets of the real names; every picture is dark at its left end and bright at its right."""
    folder = tmp_path_factory.mktemp("data")
    for name in {kind.file for kind in KINDS.values()}:
        classes = [kind.label or "any" for kind in KINDS.values() if kind.file == name]
        images = np.broadcast_to(np.linspace(0, 255, 30).astype(np.uint8), (EACH * len(classes), 30, 30))
        images = images - np.minimum(images, np.arange(len(images), dtype=np.uint8)[:, None, None] % 20)
        if name.startswith("ham"):
            images = np.stack([images, images // 2, images // 4], axis=3)
        labels = np.repeat(np.arange(len(classes)), EACH)
        np.savez(folder / name, images=images, labels=labels, label_names=np.array(classes))
    return folder


@pytest.fixture(scope="module")
def archive(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    write_archive(folder / "archive", folder / "truth.csv", planted, COUNTS, SEED)
    return folder


def truth(folder: Path) -> list[dict[str, str]]:
    with open(folder / "truth.csv", newline="") as file:
        return list(csv.DictReader(file))


def datasets(folder: Path) -> list[tuple[dict[str, str], Dataset]]:
    return [(row, dcmread(folder / "archive" / row["file"])) for row in truth(folder)]


def shown(dataset: Dataset) -> NDArray[Any]:
    """Pixels (H, W) that are bright where the picture was bright."""
    pixels = apply_rescale(dataset.pixel_array, dataset).astype(float)
    if pixels.ndim == 3:
        return pixels[..., 0]
    return -pixels if dataset.PhotometricInterpretation == "MONOCHROME1" else pixels


def test_the_truth_has_a_row_for_every_file_and_the_counts_asked_for(archive: Path) -> None:
    rows = truth(archive)
    files = sorted(
        str(path.relative_to(archive / "archive")) for path in archive.rglob("archive/**/*") if path.is_file()
    )
    assert [row["file"] for row in rows] == files
    assert Counter(row["label"] for row in rows) == COUNTS


def test_labels_come_in_the_order_of_the_file_names(planted: Path, tmp_path: Path) -> None:
    labels = write_archive(tmp_path / "archive", tmp_path / "truth.csv", planted, COUNTS, 4)
    assert labels == [row["label"] for row in sorted(truth(tmp_path), key=lambda row: row["file"])]


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(archive: Path, planted: Path, tmp_path: Path) -> None:
    def content(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    for seed in (SEED, SEED + 1):
        write_archive(tmp_path / f"{seed}" / "archive", tmp_path / "truth.csv", planted, COUNTS, seed)
        same = content(tmp_path / f"{seed}" / "archive") == content(archive / "archive")
        assert same == (seed == SEED)


def test_headers_are_wrong_or_have_gaps_exactly_where_the_truth_says(archive: Path) -> None:
    found = datasets(archive)
    assert sum(bool(row["falsified"]) for row, _ in found) == round(0.02 * len(found))
    assert sum(row["body_part_missing"] == "1" for row, _ in found) == round(0.10 * len(found))
    for row, dataset in found:
        kind = KINDS[row["label"]]
        assert (dataset.Modality not in kind.modalities) == (row["falsified"] == "Modality")
        part = dataset.get("BodyPartExamined")
        assert (part is None) == (row["body_part_missing"] == "1")
        assert (part not in (None, kind.body_part)) == (row["falsified"] == "BodyPartExamined")
        assert dataset.SOPClassUID in {CLASSES[modality] for modality in kind.modalities}


def test_every_picture_can_be_read_and_is_bright_where_it_was_bright(archive: Path) -> None:
    seen = set()
    for _, dataset in datasets(archive):
        seen.add((str(dataset.PhotometricInterpretation), int(dataset.BitsStored)))
        pixels = shown(dataset)
        assert dataset.Rows in SIDES and dataset.Columns in SIDES
        assert dataset.pixel_array.shape[:2] == (dataset.Rows, dataset.Columns)
        middle = pixels[dataset.Rows // 2]
        middle = middle[np.flatnonzero(middle != middle.min())]
        assert middle[-3:].mean() > middle[:3].mean()
    grey = {(photometric, bits) for photometric in ("MONOCHROME1", "MONOCHROME2") for bits in (8, 12, 16)}
    assert seen == grey | {("RGB", 8), ("YBR_FULL", 8)}


def test_names_and_uids_do_not_repeat_and_say_nothing(archive: Path) -> None:
    found = datasets(archive)
    uids = [dataset[f"{level}InstanceUID"].value for _, dataset in found for level in ("Study", "Series", "SOP")]
    assert len(set(uids)) == len(uids)
    assert all(set(row["file"]) <= set("0123456789abcdef/") for row, _ in found)


def test_ct_has_plausible_hounsfield_units(archive: Path) -> None:
    found: dict[str, list[NDArray[Any]]] = {name: [] for name, kind in KINDS.items() if kind.units is not None}
    for row, dataset in datasets(archive):
        if row["label"] in found:
            found[row["label"]].append(apply_rescale(dataset.pixel_array, dataset).ravel())
    for values in map(np.concatenate, found.values()):
        assert -1024 <= values.min() < -900 and 900 < values.max() <= 1000


def test_colour_is_the_same_in_rgb_and_ybr_and_in_both_plane_orders(archive: Path) -> None:
    found = [dataset for row, dataset in datasets(archive) if row["label"] == "skin photograph"]
    assert {dataset.PlanarConfiguration for dataset in found} == {0, 1}
    for dataset in found:
        red, green, blue = dataset.pixel_array.reshape(-1, 3).mean(axis=0)
        assert green == pytest.approx(red / 2, abs=2) and blue == pytest.approx(red / 4, abs=2)


def test_a_kind_with_fewer_pictures_gives_all_it_has(planted: Path, tmp_path: Path) -> None:
    labels = write_archive(tmp_path / "archive", tmp_path / "truth.csv", planted, {"head CT": 99, "lung CT": 2}, 0)
    assert Counter(labels) == {"head CT": EACH, "lung CT": 2}


def test_size_features_are_size_bits_and_padding(archive: Path) -> None:
    features = size_features(archive / "archive")
    assert features.shape == (len(truth(archive)), 4)
    for (_, dataset), (rows, columns, bits, padding) in zip(datasets(archive), features, strict=True):
        assert (rows, columns, bits) == (dataset.Rows, dataset.Columns, dataset.BitsStored)
        assert 0 <= padding < 1
    assert (features[:, 3] > 0.2).any() and (features[:, 3] < 0.1).any()


def test_padding_is_what_holds_nothing_but_the_border_value(tmp_path: Path, archive: Path) -> None:
    _, dataset = next((row, found) for row, found in datasets(archive) if found.BitsAllocated == 16)
    pixels = np.full((10, 8), 7, np.uint16)
    pixels[2:7, 4] = pixels[4, 1:6] = 9  # spans 5 rows and 5 columns
    dataset.Rows, dataset.Columns, dataset.PixelData = 10, 8, pixels.tobytes()
    dataset.save_as(tmp_path / "one")
    assert size_features(tmp_path)[0, 3] == pytest.approx(1 - 25 / 80)


def test_counts() -> None:
    assert balanced_counts(115) == dict.fromkeys(KINDS, 10)
    counts = geometric_counts(2, 2047)
    names = list(KINDS)
    assert [counts[name] for name in names[2:] + names[:2]] == [2**power for power in range(11)]
    assert min(geometric_counts(0, 100).values()) == 1


def test_the_truth_must_lie_outside_and_the_folder_be_empty(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside the archive"):
        write_archive(tmp_path, tmp_path / "truth.csv", planted, COUNTS, 0)
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "other").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        write_archive(tmp_path / "archive", tmp_path / "truth.csv", planted, COUNTS, 0)
