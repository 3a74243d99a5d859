"""Refits: what is kept and used again, what is thrown away, and that patients and volumes stay whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from command_line import medstrata
from medstrata.images.plan import Plan, load_plan
from medstrata.learning.train import Training
from medstrata.pipeline import refits
from medstrata.pipeline.refits import Material, material_of, open_folder, shorter
from validated import edit_plan, kept, validated


@pytest.fixture
def fitted_on(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[Any]]:
    """The images of every fit, as they are made."""
    seen: list[NDArray[Any]] = []
    fit = refits._fitted

    def watched(plan: Plan, device: str, some: NDArray[Any], progress: Any) -> Any:
        seen.append(np.asarray(some))
        return fit(plan, device, some, progress)

    monkeypatch.setattr(refits, "_fitted", watched)
    return seen


def one_patient_each(out: Path, patients: list[str]) -> None:
    """Give the images patients, in the order of the catalog."""
    table = pq.read_table(out / "catalog.parquet")
    place = table.column_names.index("patient")
    pq.write_table(table.set_column(place, "patient", pa.array(patients)), out / "catalog.parquet")


def test_more_refits_later_use_the_earlier_ones(run: Path, fitted_on: list[NDArray[Any]]) -> None:
    validated(run, refits=1)
    first = kept(run)
    assert len(fitted_on) == 2 and {"refit-seeds-0.npz", "refit-patients-0.npz"} <= first.keys()
    found = validated(run, refits=2)
    assert len(fitted_on) == 4 and found["stability"]["refits"] == {"seeds": 2, "patients": 2}
    later = kept(run)
    assert all(later[name] == first[name] for name in first if name.startswith("refit"))
    answer = medstrata("validate", run, "--refits", 1, "--surrogates", 0)
    assert "earlier calls have left 2 refits of each kind and 0 sets of images without groups" in answer.err
    assert "0 whole fits again" in answer.err and len(fitted_on) == 4
    assert json.loads((run / "validation.json").read_text()) == found, "a smaller call takes nothing away"


def test_another_fit_empties_the_folder(run: Path, planted: Path, fitted_on: list[NDArray[Any]]) -> None:
    validated(run, refits=1)
    old = kept(run)
    edit_plan(run, seed=5)
    assert medstrata("run", planted.parent / "images.npz", run).code == 0
    assert json.loads((run / "validation.json").read_text())["provisional"] is True
    folder = open_folder(run)
    assert [path.name for path in folder.iterdir()] == ["token.json"]
    assert (folder / "token.json").read_bytes() != old["token.json"]
    validated(run, refits=1)
    assert len(fitted_on) == 4


def test_the_folder_stays_where_the_fit_does(run: Path) -> None:
    folder = open_folder(run)
    (folder / "refit-seeds-0.npz").write_bytes(b"x")
    assert (open_folder(run) / "refit-seeds-0.npz").read_bytes() == b"x"


def test_patients_are_never_split(run: Path, fitted_on: list[NDArray[Any]]) -> None:
    """Two images of each of 30 patients; each fit sees both or none."""
    one_patient_each(run, [f"p{number // 2}" for number in range(60)])
    material = material_of(run, "cpu")
    assert [int(name) for name in material.patients] == [number // 2 for number in range(60)]
    refits.refits(material, open_folder(run), 2, lambda *_: None)
    refits.null_statistics(material, open_folder(run), 1, lambda *_: None)
    assert [len(some) for some in fitted_on[:4]] == [60, 48, 60, 48]
    row_of = {image.tobytes(): number for number, image in enumerate(material.X)}
    for some in fitted_on[:-2]:  # the last two are of images without groups
        rows = {row_of[image.tobytes()] for image in some}
        assert {row ^ 1 for row in rows} == rows
    halves = [len(some) for some in fitted_on[4:]]
    assert halves == [30] * len(halves)


def test_slices_of_a_volume_are_averaged(run: Path) -> None:
    material = material_of(run, "cpu")
    slices = Material(
        np.repeat(material.X, 2, axis=0),
        np.repeat(material.image_of, 2),
        material.image_ids,
        material.patients,
        material.reference,
        material.plan,
        "cpu",
    )
    doubled = slices.X.copy()
    doubled[1::2] = material.X[(np.arange(60) + 1) % 60]  # every second slice shows another group
    two = replace(slices, X=doubled)
    everything = np.ones(60, dtype=bool)
    method = refits._fitted(replace(two.plan, seed=1), "cpu", two.X, lambda *_: None)
    expected = method.predict_proba(two.X).reshape(60, 2, 3).mean(axis=1).argmax(axis=1)
    found = refits._refit(two, everything, 1, lambda *_: None)[0]
    assert np.array_equal(found, expected)
    assert len(refits._refit(slices, everything, 1, lambda *_: None)[0]) == 60


def test_of_a_large_set_some_images_of_each_patient_are_drawn(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_patient_each(run, [f"p{number // 2}" for number in range(60)])
    monkeypatch.setattr(refits, "MOST_IMAGES", 20)
    some = material_of(run, "cpu")
    table = pq.read_table(run / "assignments.parquet")
    clusters = dict(zip(table["image_id"].to_pylist(), table["nearest"].to_pylist(), strict=True))
    assert len(some.image_ids) == len(some.X) == 20 == len(set(some.patients.tolist()))
    assert [clusters[image_id] for image_id in some.image_ids.tolist()] == some.reference.tolist()
    ids = pq.read_table(run / "images.parquet")["image_id"].to_pylist()
    pixels = np.load(run / "pixels.npy")
    assert all(
        np.array_equal(row, pixels[ids.index(some.image_ids[image])])
        for row, image in zip(some.X, some.image_of, strict=True)
    )


def test_a_short_fit_has_half_of_the_epochs_and_one_run(run: Path) -> None:
    plan = replace(load_plan(run / "plan.json"), method="auto", settings={"runs": 3, "training": {"epochs": 8}})
    short = shorter(plan)
    assert short.settings["runs"] == 1 and short.settings["training"]["epochs"] == 4
    plan = replace(plan, method="dcec", settings={})
    usual = Training()
    assert shorter(plan).settings["training"] == {
        "warmup_epochs": usual.warmup_epochs // 2,
        "epochs": round(usual.epochs / 2),
        "warmup_steps": usual.warmup_steps // 2,
    }
    assert shorter(plan).seed == plan.seed
    assert shorter(load_plan(run / "plan.json")) == load_plan(run / "plan.json")  # nothing is trained
