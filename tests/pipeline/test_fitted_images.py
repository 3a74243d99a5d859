"""Of a large set some images are fitted on and all are assigned: which, from which file, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command_line import images, medstrata
from medstrata.evidence.calibration import confidence
from medstrata.images.plan import Plan, load_plan
from medstrata.learning.adjustment import InBatches
from medstrata.pipeline import embedding, fitting
from medstrata.pipeline.fitted_images import copy_drawn, drawn, fitted_images, image_numbers
from medstrata.pipeline.inputs import FIT_PIXELS
from validated import edit_plan


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Any plan."""
    folder = tmp_path_factory.mktemp("plan")
    np.save(folder / "some.npy", images(60)[0])
    assert medstrata("scan", folder / "some.npy", folder / "out").code == 0
    assert medstrata("plan", folder / "out").code == 0
    return load_plan(folder / "out" / "plan.json")


def test_images_are_numbered_in_the_order_of_their_first_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_id": ["b", "b", "a", "c", "c"]}), tmp_path / "images.parquet")
    ids, image_of = image_numbers(tmp_path)
    assert ids.to_pylist() == ["b", "a", "c"] and image_of.tolist() == [0, 0, 1, 2, 2]


def test_a_small_set_is_fitted_on_whole_and_of_a_large_one_the_seed_draws(plan: Plan) -> None:
    assert plan.fit_images == 50_000 and fitted_images(50_000, plan).all()
    one, same, other = (fitted_images(1000, replace(plan, fit_images=300, seed=seed)) for seed in (0, 0, 1))
    assert one.sum() == 300 and np.array_equal(one, same) and not np.array_equal(one, other)


def test_what_is_drawn_is_a_file_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medstrata.pipeline.fitted_images.COPIED_AT_ONCE", 10)
    X = np.arange(60, dtype=np.uint8).reshape(20, 1, 3)
    rows = np.arange(20) % 3 == 0
    batches = InBatches(X, np.arange(20) % 2, 2)
    copy_drawn(tmp_path, batches, rows)
    found = drawn(tmp_path, batches, rows)
    assert isinstance(found, InBatches) and isinstance(found.images, np.memmap)
    np.testing.assert_array_equal(found.images, X[::3])
    assert found.numbers.tolist() == [0, 1, 0, 1, 0, 1, 0] and (tmp_path / FIT_PIXELS).exists()
    everything = np.ones(20, np.bool_)
    copy_drawn(tmp_path / "missing", X, everything)
    assert drawn(tmp_path / "missing", X, everything) is X


def test_a_run_that_fits_on_some_assigns_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "READ_AT_ONCE", 64)
    monkeypatch.setattr(embedding, "MOST_ROWS_PER_SHARD", 64)
    np.save(tmp_path / "some.npy", images(300)[0])
    out = tmp_path / "out"
    assert medstrata("scan", tmp_path / "some.npy", out).code == 0
    assert medstrata("plan", out, "--clusters", 3, "--method", "pca").code == 0
    edit_plan(out, fit_images=120, settings={"assignment": "kmeans", "components": 5})
    answer = medstrata("run", tmp_path / "some.npy", out)
    assert answer.code == 0 and "fit: on 120 images of 300, drawn at random" in answer.err
    assert not (out / FIT_PIXELS).exists()
    table = pq.read_table(out / "assignments.parquet")
    fitted = np.asarray(table["fitted"])
    assert len(table) == 300 and np.array_equal(fitted, fitted_images(300, load_plan(out / "plan.json")))
    assert pq.read_metadata(out / "baselines.parquet").num_rows == 300
    facts = json.loads((out / "calibration.json").read_text())
    q = np.load(out / "soft_assignments.npy")
    expected = [confidence(q, facts[name]["temperature"]) for name in ("fit", "new")]
    np.testing.assert_allclose(table["calibrated"].to_numpy(), np.where(fitted, *expected))
    assert facts["novelty"]["patients"] == 120
    said = "The model was fitted on 120 of them, drawn at random; the others were assigned by it."
    assert said in (out / "report.html").read_text() and said in (out / "model_card.md").read_text()
    first = "images were sorted into 3 clusters; the model was fitted on 120 of them, drawn at random; "
    assert first in (out / "report.html").read_text()
    new = tmp_path / "new"
    np.save(tmp_path / "new.npy", images(40)[0])
    assert medstrata("assign", out, tmp_path / "new.npy", new).code == 0
    np.testing.assert_array_equal(np.load(new / "fit_embeddings.npy"), np.load(out / "embeddings.npy")[fitted])
    assert not np.asarray(pq.read_table(new / "assignments.parquet")["fitted"]).any()
