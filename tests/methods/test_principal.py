"""Principal components against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from medstrata.methods.principal import PrincipalComponents
from planted import squares


def test_embedding_is_that_of_scikit_learn() -> None:
    images, _ = squares(40)
    z = PrincipalComponents(3, components=4).fit(images).transform(images)[:, :2]  # the others are noise alone
    expected = PCA(2, svd_solver="full").fit_transform(images.reshape(40, -1).astype(float))
    for ours, theirs in zip(z.T, expected.T, strict=True):
        assert abs(np.corrcoef(ours, theirs)[0, 1]) > 0.99


@pytest.mark.parametrize("assignment", PrincipalComponents.ASSIGNMENTS)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_finds_planted_groups(assignment: str, dimensions: int) -> None:
    images, groups = squares(60, dimensions=dimensions)
    labels = PrincipalComponents(3, assignment=assignment).fit(images).labels_
    assert len({(int(a), int(b)) for a, b in zip(groups, labels, strict=True)}) == 3


def test_fewer_images_than_components() -> None:
    images, _ = squares(9)
    assert PrincipalComponents(3).fit(images).transform(images).shape == (9, 9)
