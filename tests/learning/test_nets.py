"""Encoder and decoder keep every size, are drawn from their generator, and refuse images that are too small."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medstrata.errors import FitError
from medstrata.learning.comm import generator
from medstrata.learning.nets import Decoder, Encoder, Layers, initialise


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(8, 21), min_size=2, max_size=3),
    st.sampled_from([1, 3]),
    st.sampled_from([3, 4]),
    st.booleans(),
)
def test_every_size_comes_back(spatial: list[int], channels: int, kernel: int, batch_norm: bool) -> None:
    shape, layers = (channels, *spatial), Layers(kernel, batch_norm)
    encoder, decoder = Encoder(shape, (2, 3, 4), 5, layers), Decoder(shape, (2, 3, 4), 5, layers)
    x = torch.randn(2, *shape)
    assert encoder.features(x).shape == (2, *encoder.feature_shape)
    assert decoder(encoder(x)).shape == x.shape


def test_too_small_is_told() -> None:
    with pytest.raises(FitError, match="too small"):
        Encoder((1, 7, 7), (2, 3, 4), 5, Layers())


def test_weights_are_a_function_of_the_seed() -> None:
    one, two, three = (Encoder((1, 8, 8), (2,), 3, Layers()) for _ in range(3))
    for network, seed in ((one, 0), (two, 0), (three, 1)):
        initialise(network, generator(seed))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.embedding.weight, three.embedding.weight)
    assert float(one.embedding.bias.detach().abs().sum()) == 0


def test_batch_norm_keeps_its_weights_when_initialised() -> None:
    norm = nn.BatchNorm2d(3)
    initialise(norm, generator(0), "he")
    assert norm.weight.tolist() == [1, 1, 1]
