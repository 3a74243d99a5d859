"""Each control against its formula written out, through the same door as the rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from tiny_model import TinyModel, images_of

from medstrata.evidence.maps.activation import cluster_activation_map
from medstrata.evidence.maps.clam import Clam
from medstrata.evidence.maps.controls import (
    CONTROLS,
    Centre,
    ClusterDifference,
    Edges,
    EqualWeights,
    Noise,
    Novelty,
    RandomWeights,
)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_controls_written_out(dimensions: int) -> None:
    model, images = TinyModel(dimensions), images_of(dimensions, 20)
    x = model.tensor(images)
    labels = model.soft_assignment(x).argmax(1)
    novel = cluster_activation_map(model, images, Novelty()).maps
    np.testing.assert_allclose(novel, (x - x.mean(0)).abs()[:, 0], atol=1e-5)
    smooth = cluster_activation_map(model, images, Novelty(2.0)).maps
    expected = [abs(gaussian_filter(one.double().numpy(), 2)) for one in (x - x.mean(0))[:, 0]]
    np.testing.assert_allclose(smooth, expected, atol=1e-5)
    own = int(labels[0])
    difference = cluster_activation_map(model, images, ClusterDifference(0.0)).maps[0]
    others = x[labels != own] if (labels != own).any() else x
    np.testing.assert_allclose(difference, (x[labels == own].mean(0) - others.mean(0)).abs()[0], atol=1e-5)
    features = model.feature_maps(x[:1])
    equal = cluster_activation_map(model, images[:1], EqualWeights()).maps
    small = features.sum(1, keepdim=True)
    mode = {2: "bilinear", 3: "trilinear"}[dimensions]
    np.testing.assert_allclose(
        equal, torch.nn.functional.interpolate(small, x.shape[2:], mode=mode)[:, 0].relu(), atol=1e-5
    )


def test_centre_and_edges() -> None:
    model, images = TinyModel(2), np.zeros((2, 1, 16, 12), dtype=np.uint8)
    images[:, :, 4:9, 3:8] = 200
    centre = cluster_activation_map(model, images, Centre()).maps[0]
    assert centre.max() == centre[7, 5] == pytest.approx(centre[8, 6]) and centre[0, 0] < 0.1
    edges = cluster_activation_map(model, images, Edges()).maps[0]
    assert edges[6, 5] < 0.3 * edges[6, 3] and edges[15, 11] < 1e-3


def test_controls_do_not_depend_on_the_cluster_nor_on_the_batch() -> None:
    model, images = TinyModel(3), images_of(3)
    for control in (*CONTROLS, Noise()):
        first = cluster_activation_map(model, images, control, cluster=0).maps
        if not isinstance(control, ClusterDifference):
            np.testing.assert_array_equal(first, cluster_activation_map(model, images, control, cluster=2).maps)
        if not isinstance(control, Noise):
            again = cluster_activation_map(model, images, control, cluster=0, batch_size=2).maps
            np.testing.assert_allclose(first, again, atol=1e-5)
        assert first.min() >= 0
    assert len({control.name for control in (*CONTROLS, Noise())}) == len(CONTROLS) + 1


def test_random_weights_are_not_those_of_clam() -> None:
    model, images = TinyModel(2), images_of(2)
    found = cluster_activation_map(model, images, RandomWeights(1)).maps
    assert np.abs(found - cluster_activation_map(model, images, RandomWeights(2)).maps).max() > 1e-3
    assert np.abs(found - cluster_activation_map(model, images, Clam()).maps).max() > 1e-3
