"""Residual networks: shapes in 2-D and 3-D, small crops, the stem, images that are too small."""

from __future__ import annotations

import pytest
import torch

from medstrata.errors import FitError
from medstrata.learning.resnet import Block, ResNet


@pytest.mark.parametrize(
    ("shape", "places"),
    [((1, 20, 20), (5, 5)), ((1, 28, 28), (4, 4)), ((3, 64, 64), (4, 4)), ((1, 16, 40, 96), (4, 5, 6))],
)
def test_stem_brings_every_axis_to_about_twenty_places(shape: tuple[int, ...], places: tuple[int, ...]) -> None:
    network = ResNet(shape, (4, 8, 16)).eval()
    x = torch.rand(2, *shape)
    assert network.features(x).shape == (2, 16, *places)
    assert network(x).shape == (2, 16)
    assert (network.features(x) >= 0).all()


def test_takes_crops_smaller_than_the_images() -> None:
    network = ResNet((1, 28, 28), (4, 8)).eval()
    assert network(torch.rand(2, 1, 14, 14)).shape == (2, 8)
    assert network(torch.rand(2, 1, 1, 1)).shape == (2, 8)


def test_block_is_the_shortcut_and_two_convolutions() -> None:
    block = Block(4, 4, (1, 1)).eval()
    x = torch.rand(2, 4, 6, 6)
    first, norm, activation, second, last = block.residual
    by_hand = torch.relu(x + last(second(activation(norm(first(x))))))
    assert torch.allclose(block(x), by_hand)
    assert Block(4, 8, (2, 2)).eval()(x).shape == (2, 8, 3, 3)


def test_images_that_are_too_small_are_told() -> None:
    with pytest.raises(FitError, match="too small for a residual network of 3 blocks"):
        ResNet((1, 28, 7), (4, 8, 16))
