"""Files of the stage assign: whose patient, which temperature, and folders of an earlier version."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medstrata.evidence.calibration import confidence
from medstrata.evidence.typicality import fit_reference
from medstrata.methods.method import ClusteringMethod
from medstrata.pipeline.calibrating import (
    FIT_PATIENTS,
    add_calibrated,
    calibration_sentence,
    fit_patients,
    learn_calibration,
    read_calibration,
)
from medstrata.pipeline.patients import known_patients
from medstrata.run import no_progress

SOFT = np.array([[0.9, 0.1], [0.3, 0.7]], np.float32)


def test_patients_come_from_the_catalog_in_the_order_asked_for(tmp_path: Path) -> None:
    catalog = {"image_id": ["a", "b", "c", "d"], "patient": ["p1", "", None, "p2"]}
    pq.write_table(pa.table(catalog), tmp_path / "catalog.parquet")
    assert known_patients(tmp_path, ["d", "c", "b", "a", "missing"]) == ["p2", None, None, "p1", None]


def test_patients_of_the_fit_may_be_absent(tmp_path: Path) -> None:
    assert fit_patients(tmp_path) is None
    pq.write_table(pa.table({"patient": ["p1", None]}), tmp_path / FIT_PATIENTS)
    assert fit_patients(tmp_path) == ["p1", None]


def test_new_images_have_a_temperature_of_their_own() -> None:
    facts = {"calibrated": True, "fit": {"temperature": 2.0}, "new": {"temperature": 3.0}}
    fitted = np.array([True, False])
    table = add_calibrated(pa.table({"probability": [0.9, 0.7], "margin": [0.8, 0.4]}), SOFT, facts, fitted)
    assert table.column_names == ["probability", "calibrated", "margin", "fitted"]
    expected = [confidence(SOFT, 2.0)[0], confidence(SOFT, 3.0)[1]]
    np.testing.assert_allclose(table["calibrated"].to_numpy(), expected)
    assert table["fitted"].to_pylist() == [True, False]


def test_a_folder_without_calibration_says_so(tmp_path: Path) -> None:
    facts = read_calibration(tmp_path, fit_reference(np.arange(20.0)[:, None], np.ones((20, 1))))
    assert not facts["calibrated"] and facts["novelty"]["patients"] == 20 and not facts["novelty"]["can_flag"]
    assert "Run medstrata assign" in calibration_sentence(facts, new=True)
    table = add_calibrated(pa.table({"probability": [0.9, 0.7]}), SOFT, facts, np.zeros(2, np.bool_))
    assert table["calibrated"].null_count == 2 and table["calibrated"].type == pa.float64()


@pytest.mark.parametrize("assignment", ["mixture", "own"])
def test_a_model_that_is_too_sure_is_cooled(assignment: str) -> None:
    """Two groups that overlap by much: halves of the patients draw the border elsewhere, the model is sure of it."""
    generator = np.random.default_rng(0)
    z = np.concatenate([generator.normal(-1, 1, (200, 2)), generator.normal(1, 1, (200, 2))]).astype(np.float32)
    q = np.where((z.sum(axis=1) > 0)[:, None], [0.001, 0.999], [0.999, 0.001]).astype(np.float32)
    names = np.array([f"patient {row // 2}" for row in range(400)])
    method = cast(ClusteringMethod, SimpleNamespace(assignment=assignment, random_state=0, runs=1))
    facts: dict[str, Any] = learn_calibration(method, z, q, fit_reference(z, q, names.tolist()), names, no_progress)
    assert facts["calibrated"] and len(facts["by_reader"]) == 4 and facts["novelty"]["patients"] == 200
    assert facts["fit"]["error_after"]["mean"] < facts["fit"]["error_before"]["mean"]
    assert facts["fit"]["temperature"] > 1.5
    assert (facts["fit"] == facts["new"]) is (assignment == "own")  # readers by k-means say nothing of prototypes


def test_calibration_that_is_not_applied_is_said() -> None:
    learned = {"agreement": {"mean": 0.9}, "error_before": {"mean": 0.02}, "error_after": {"mean": 0.03}}
    facts = {"calibrated": True, "fit": learned | {"applied": False}, "new": learned | {"applied": True}}
    said = calibration_sentence(facts, new=False)
    assert "error 0.020; calibrating makes the probabilities of held-back patients worse" in said
    assert "0.020, after calibration 0.030, a difference of few images" in calibration_sentence(facts, new=True)
    smaller = learned | {"error_after": {"mean": 0.01}, "applied": True}
    assert "after calibration 0.010 (on the finished embedding" in calibration_sentence(
        facts | {"new": smaller}, new=True
    )
