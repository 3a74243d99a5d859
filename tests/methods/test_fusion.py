"""Fusion: the runs side by side, their disagreement, one model in the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medstrata.errors import FitError
from medstrata.learning.train import Training
from medstrata.methods.files import load
from medstrata.methods.fusion import Fusion
from planted import squares

QUICK = Training(6, 0, 1, 16, preprocessing="scaled", augmentation="mixed")


def test_embedding_is_the_directions_of_the_runs_side_by_side(tmp_path: Path) -> None:
    images, groups = squares(60)
    model = Fusion(3, runs=2, training=QUICK).fit(images)
    first, second = np.split(model.transform(images), 2, axis=1)
    assert np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5) and not np.allclose(first, second)
    assert len({(int(a), int(b)) for a, b in zip(groups, model.labels_, strict=True)}) == 3
    assert 0 <= model.reading_["disagreement"] <= 1
    assert {record["run"] for record in model.history_} == {0, 1}
    model.save(tmp_path)
    assert np.array_equal(load(tmp_path).predict_proba(images), model.predict_proba(images))


def test_no_run_is_told() -> None:
    with pytest.raises(FitError, match="at least 1"):
        Fusion(3, runs=0).fit(squares(9)[0])
