"""The scores of maps against Quantus, which is not ours. Installed by: pip install "medstrata[quantus]"."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from medstrata.evidence.localisation import localised

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore")
def test_pointing_energy_and_dice_equal_theirs() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantus: Any = pytest.importorskip("quantus", reason='Quantus is absent: pip install "medstrata[quantus]"')
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(40, 16, 12)).clip(0) ** 2
    masks = rng.random((40, 16, 12)) < 0.1
    ours = [localised(one, mask) for one, mask in zip(maps, masks, strict=True)]
    given = {
        "model": None,
        "x_batch": maps[:, None],
        "y_batch": np.zeros(40, int),
        "a_batch": maps[:, None],
        "s_batch": masks[:, None],
    }
    quiet = {"disable_warnings": True, "abs": False, "normalise": False}
    theirs = {
        "pointing": quantus.PointingGame(**quiet)(**given),
        "energy": quantus.RelevanceMassAccuracy(**quiet)(**given),
        "dice": quantus.RelevanceRankAccuracy(**quiet)(**given),
    }
    for name, values in theirs.items():
        np.testing.assert_allclose([one[name] for one in ours], np.asarray(values, float).ravel(), atol=1e-6)
