"""The autoencoder keeps every size, is drawn from its generator, and refuses images that are too small."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medstrata.errors import FitError
from medstrata.learning.comm import generator
from medstrata.learning.nets import ConvolutionalAutoencoder, initialise


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(8, 21), min_size=2, max_size=3), st.sampled_from([1, 3]))
def test_every_size_comes_back(spatial: list[int], channels: int) -> None:
    shape = (channels, *spatial)
    network = ConvolutionalAutoencoder(shape, (2, 3, 4), 5, rectified_output=False)
    x = torch.randn(2, *shape)
    features = network.features(x)
    assert features.shape == (2, *network.feature_shape)
    assert network.decode(network.embed(features)).shape == x.shape


def test_too_small_is_told() -> None:
    with pytest.raises(FitError, match="too small"):
        ConvolutionalAutoencoder((1, 7, 7), (2, 3, 4), 5, False)


def test_weights_are_a_function_of_the_seed() -> None:
    one, two, three = (ConvolutionalAutoencoder((1, 8, 8), (2,), 3, False) for _ in range(3))
    for network, seed in ((one, 0), (two, 0), (three, 1)):
        initialise(network, generator(seed))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.embedding.weight, three.embedding.weight)
    assert float(one.embedding.bias.detach().abs().sum()) == 0
