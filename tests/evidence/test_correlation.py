"""Correlations of maps against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from medstrata.evidence.maps.correlation import pearson, spearman


def test_equal_scipy_with_ties() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, (3, 6, 7)).astype(float), rng.normal(size=(3, 6, 7))
    for own, theirs in ((pearson, pearsonr), (spearman, spearmanr)):
        found = own(torch.from_numpy(first), torch.from_numpy(second))
        expected = [theirs(a.ravel(), b.ravel())[0] for a, b in zip(first, second, strict=True)]
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("how", [pearson, spearman])
def test_a_map_that_is_the_same_everywhere_has_none(how) -> None:  # type: ignore[no-untyped-def]
    flat, other = torch.full((1, 4, 4), 0.1), torch.arange(16.0).reshape(1, 4, 4)
    assert torch.isnan(how(flat, other)).all() and torch.isnan(how(other, flat)).all()
    assert how(other, -other).item() == pytest.approx(-1)
