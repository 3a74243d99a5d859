"""The study of maps: what is inserted is what the mask says, cells have names of their own, tables read cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.maps import inserted, table
from benchmarks.maps.__main__ import cells
from benchmarks.maps.inserted import FACTORS, OUTSIDE, Setting, cut, insert


def test_cells_have_names_of_their_own() -> None:
    names = [cell.name for seed in (0, 1) for cell, _ in cells(seed)]
    assert len(set(names)) == len(names) > 80
    assert not [name for name in names if " " in name]


@pytest.mark.parametrize("factor", [name for name in FACTORS if name != "none"])
@pytest.mark.parametrize("depth", [1, 8])
def test_nothing_but_the_lesion_changes(factor: str, depth: int) -> None:
    for number, kind in enumerate(FACTORS[factor]):
        patch = np.full((depth, 40, 40), -850, np.float32)
        lung = np.ones(patch.shape, bool)
        lung[:, :, :10] = False
        before = patch.copy()
        assert kind is not None
        lesion = insert(patch, lung, kind, Setting(factor), np.random.default_rng(number))
        assert lesion.any() and not lesion[:, :, :10].any()
        np.testing.assert_array_equal(patch[~lesion], before[~lesion])
        assert np.abs(patch[lesion] - before[lesion]).mean() > 100


def test_fit_and_test_share_no_anatomy(data_dir: Path) -> None:
    if not (data_dir / "lung_ct_hu").is_dir():
        pytest.skip("lung_ct_hu is absent")
    known, new = (cut(data_dir, Setting(distractor=True, count=20), side, 0) for side in ("right", "left"))
    again = cut(data_dir, Setting(distractor=True, count=20), "right", 0)
    np.testing.assert_array_equal(known.images, again.images)
    assert (
        known.images.shape == (20, 1, 40, 40)
        and known.lesions.any((1, 2)).all()
        and known.distractors.any((1, 2)).all()
    )
    assert np.abs(known.images.mean((1, 2, 3)) - OUTSIDE).mean() < 300
    assert not np.array_equal(known.images, new.images)
    volumes, right, left = inserted._lungs(data_dir)
    assert not (right & left).any() and right.any() and left.any() and len(volumes) == 2
    for dimensions, expected in ((2, (82, 42)), (3, (5, 3))):  # as docs/maps.md says
        assert tuple(inserted.distinct_places(data_dir, side, dimensions) for side in ("right", "left")) == expected
        for side, lung in (("right", right), ("left", left)):
            shape = inserted.SHAPES[dimensions]
            for corner in inserted._places(data_dir, side, shape)[::5000]:
                box = tuple(slice(at, at + size) for at, size in zip(corner, shape, strict=True))
                assert lung[box].mean() > 0.85


def cell(seed: int, **settings: Any) -> dict[str, Any]:
    usual = {"factor": "location", "contrast_to_noise": 1.0, "distractor": False, "misregistration": None}
    usual |= {"images": None, "clusters": None, "method": "dcec", "seed": seed}
    measures = {"average_precision": 0.5 + seed / 10, "pointing": 1.0, "moved": 0.9, "own_runner_up": 0.0}
    measures |= {"distractor_share": 0.9}
    names = [*table.CURVES, "Clam, 11 channels"]
    facts = {"accuracy": 1.0, "purity": 1.0, "simple": 0.5, "lesion_share": 0.02}
    return {"cell": usual | settings, **facts, "scores": dict.fromkeys(names, measures)}


def test_tables_say_what_the_cells_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "DOCS", tmp_path)
    (tmp_path / "maps.md").write_text(f"# By hand\n\n{table.MARK}\n\nold\n")
    for seed in (0, 1):
        for data in ("phantoms", "ct-2d"):
            for distractor in (False, True):
                found = cell(seed, data=data, distractor=distractor)
                (tmp_path / f"{data}-{distractor}-{seed}.json").write_text(json.dumps(found))
    table.write_tables(tmp_path)
    page = (tmp_path / "maps.md").read_text()
    assert page.startswith("# By hand") and "old" not in page
    assert "| IntegratedGradients (default) | 0.55 (0.00–1.00) | 1.00 (1.00–1.00) |" in page
    assert "| simulated chests, 3-D, distractor | 1.00 (1.00–1.00) |  | 0.50 (0.50–0.50) | 2 |" in page
    assert (tmp_path / "maps-curves.png").stat().st_size > 10_000
