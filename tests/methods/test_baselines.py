"""The baselines on planted groups, and the sampled path against the full one."""

from __future__ import annotations

import numpy as np
import pytest
from planted import squares
from sklearn.metrics import adjusted_rand_score

from medstrata.methods import baselines
from medstrata.methods.baselines import pca_kmeans, pixel_graph, principal_components


@pytest.mark.parametrize("reference", [20_000, 60])
def test_planted_groups_are_found(reference: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "REFERENCE", reference)
    images, groups = squares(120)
    components = principal_components(images, 0)
    assert components.shape == (120, min(50, reference))
    for found in (pca_kmeans(components, 3, 0), pixel_graph(components, 3, 0)):
        assert adjusted_rand_score(groups, found) == 1.0


def test_tiny_sets_work() -> None:
    images, _ = squares(4)
    components = principal_components(images, 0)
    assert len(pixel_graph(components, 2, 0)) == len(pca_kmeans(components, 2, 0)) == 4
    assert np.isfinite(components).all()
