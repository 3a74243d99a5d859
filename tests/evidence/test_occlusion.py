"""Occlusion against a plain loop over windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_model import TinyModel, images_of

from medstrata.errors import FitError
from medstrata.evidence.maps.activation import cluster_activation_map
from medstrata.evidence.maps.occlusion import Occlusion
from medstrata.evidence.maps.rule import measure_cohort


def test_equals_a_plain_loop() -> None:
    model, images = TinyModel(2), images_of(2, 6)
    cohort = measure_cohort(model, images)
    x, r = model.tensor(images[:1]), cohort.of(torch.tensor([[1.0, 0.0, 1.0]]))

    def log_odds(image: torch.Tensor) -> float:
        q = model.soft_assignment(image)[0]
        return float(q[1].log() - (q[0] + q[2]).log())

    total, times = np.zeros((16, 12)), np.zeros((16, 12))
    for top in range(0, 14, 2):
        for left in range(0, 10, 2):
            without = x.clone()
            without[:, :, top : top + 4, left : left + 4] = r[:, :, top : top + 4, left : left + 4]
            total[top : top + 4, left : left + 4] += log_odds(x) - log_odds(without)
            times[top : top + 4, left : left + 4] += 1
    found = cluster_activation_map(model, images[:1], Occlusion(4), 1, cohort=cohort)
    np.testing.assert_allclose(found.maps[0], total / times, atol=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_every_voxel_is_in_a_window(dimensions: int) -> None:
    model, images = TinyModel(dimensions), images_of(dimensions, 3)
    for window in (2, 3, 5, 64):
        assert np.isfinite(cluster_activation_map(model, images, Occlusion(window)).maps).all()
    with pytest.raises(FitError, match="at least 2"):
        Occlusion(1)
