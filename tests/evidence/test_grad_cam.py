"""Grad-CAM and LayerCAM against naive sums over channels and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_model import TinyModel, images_of

from medstrata.evidence.maps.activation import cluster_activation_map
from medstrata.evidence.maps.clam import upsample
from medstrata.evidence.maps.grad_cam import GradCam


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("by_place", [False, True])
def test_equals_naive_sums(dimensions: int, by_place: bool) -> None:
    model, images = TinyModel(dimensions), images_of(dimensions, 2)
    features = model.feature_maps(model.tensor(images[:1])).double()
    model.embedding.double()
    model.prototypes = model.prototypes.double()
    slope = torch.zeros_like(features[0])
    for place in np.ndindex(*slope.shape):
        both = []
        for step in (1e-4, -1e-4):
            moved = features.clone()
            moved[(0, *place)] += step
            q = model.differentiable_assignment(moved, of_features=True)[0]
            both.append(float(q[1].log() - (q[0] + q[2]).log()))
        slope[place] = (both[0] - both[1]) / 2e-4
    total = torch.zeros_like(slope[0])
    for channel in range(len(slope)):
        weight = slope[channel].clip(0) if by_place else slope[channel].mean()
        total += weight * features[0, channel]
    expected = upsample(total.clip(0)[None, None], images.shape[2:])[0, 0]
    model = TinyModel(dimensions)
    found = cluster_activation_map(model, images[:1], GradCam(by_place), 1)
    np.testing.assert_allclose(found.maps[0], expected, rtol=1e-3, atol=1e-4 * float(expected.max()) + 1e-7)
    assert not found.facts
