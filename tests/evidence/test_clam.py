"""Cluster activation maps against a plain loop over images and channels, in 2-D and 3-D."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from tiny_model import TinyModel, images_of
from torch import nn

from medstrata.errors import FitError
from medstrata.evidence.maps import clam
from medstrata.evidence.maps.activation import cluster_activation_map
from medstrata.evidence.maps.clam import Clam

Array = NDArray[Any]


def upsampled(small: Array, grid: tuple[int, ...]) -> Array:
    """Linear interpolation between voxel centres, edges continued, with scipy."""
    where = [(np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(grid, small.shape, strict=True)]
    places = np.meshgrid(*where, indexing="ij")
    values: Array = map_coordinates(small.astype(np.float64), places, order=1, mode="nearest")
    return values


def naive_map(
    model: TinyModel, image: Array, cluster: int | None, b: float, channels: int | None
) -> tuple[Array, Array]:
    """The algorithm of the module, one channel at a time: the map and its weights."""
    with torch.no_grad():
        x = model.tensor(image[None])
        c = int(model.soft_assignment(x)[0].argmax()) if cluster is None else cluster
        total, weights = np.zeros(image.shape[1:]), []
        for a in model.feature_maps(x)[0].numpy()[:channels]:
            u = upsampled(a, image.shape[1:])
            h = (u - u.min()) / (u.max() - u.min())
            masked = x[0].numpy() * h + b * (1 - h)
            w = float(model.soft_assignment(torch.tensor(masked[None], dtype=torch.float32))[0, c])
            total += w * u
            weights.append(w)
    return np.maximum(total, 0), np.array(weights)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize(("fill", "channels"), [("background", None), ("zero", None), ("background", 3)])
def test_equals_the_plain_loop(dimensions: int, fill: Any, channels: int | None) -> None:
    model, images = TinyModel(dimensions), images_of(dimensions)
    found = cluster_activation_map(model, images, Clam(channels, fill), batch_size=2)
    assert found.maps.shape == (5, *images.shape[2:]) and found.maps.dtype == np.float32
    for i, image in enumerate(images):
        expected, weights = naive_map(model, image, None, -0.3 if fill == "background" else 0.0, channels)
        np.testing.assert_allclose(found.maps[i], expected, atol=1e-5)
        assert found.facts["weight_spread"][i] == pytest.approx(weights.std() / weights.mean(), rel=1e-3)
        a = model.feature_maps(model.tensor(image[None]))[0].numpy()[:channels]
        uniform = np.maximum(sum(upsampled(part, image.shape[1:]) for part in a), 0)
        r = np.corrcoef(expected.ravel(), uniform.ravel())[0, 1]
        assert found.facts["uniform_correlation"][i] == pytest.approx(r, abs=1e-4)
    own = model.soft_assignment(model.tensor(images)).argmax(1)
    np.testing.assert_array_equal(found.cluster, own.numpy())
    assert found.maps.max() > 0


@pytest.mark.parametrize("dimensions", [2, 3])
def test_several_channels_of_the_image(dimensions: int) -> None:
    model, images = TinyModel(dimensions, channels=3), images_of(dimensions, count=2, channels=3)
    found = cluster_activation_map(model, images, Clam())
    for i, image in enumerate(images):
        np.testing.assert_allclose(found.maps[i], naive_map(model, image, None, -0.3, None)[0], atol=1e-5)


def test_cluster_can_be_chosen() -> None:
    model, images = TinyModel(2), images_of(2)
    for_all = cluster_activation_map(model, images, Clam(), 2)
    each = cluster_activation_map(model, images, Clam(), np.array([0, 1, 2, 0, 1]), batch_size=2)
    assert for_all.cluster.tolist() == [2] * 5
    assert each.cluster.tolist() == [0, 1, 2, 0, 1]
    for i, image in enumerate(images):
        np.testing.assert_allclose(for_all.maps[i], naive_map(model, image, 2, -0.3, None)[0], atol=1e-5)
        np.testing.assert_allclose(each.maps[i], naive_map(model, image, [0, 1, 2, 0, 1][i], -0.3, None)[0], atol=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_result_does_not_depend_on_batches_nor_memory(dimensions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = TinyModel(dimensions), images_of(dimensions)
    whole = cluster_activation_map(model, images, Clam(), batch_size=5)
    seen: list[int] = []
    original = model.soft_assignment

    def watched(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.nbytes)
        return original(x)

    for masked_images in (1, 3, 15):
        limit = masked_images * 4 * images[0].size
        monkeypatch.setitem(clam.MASKED_BYTES, "cpu", limit)
        monkeypatch.setattr(model, "soft_assignment", watched)
        for batch_size in (1, 3):
            seen.clear()
            found = cluster_activation_map(model, images, Clam(), batch_size=batch_size)
            np.testing.assert_allclose(found.maps, whole.maps, atol=1e-5)
            np.testing.assert_allclose(found.facts["weight_spread"], whole.facts["weight_spread"], rtol=1e-3)
            assert max(seen) <= max(limit, batch_size * 4 * images[0].size)


def test_flat_channels_are_left_out() -> None:
    model, images = TinyModel(2), images_of(2)
    last = model.encoder[2]
    assert isinstance(last, nn.Conv2d)
    with torch.no_grad():
        last.weight[3] = 0
        last.bias[3] = 0.7  # type: ignore[index]
    found = cluster_activation_map(model, images, Clam())
    for i, image in enumerate(images):
        x = model.tensor(image[None])
        a = model.feature_maps(x)[0].numpy()
        assert np.ptp(a[3]) < 1e-6
        total, weights = np.zeros(image.shape[1:]), []
        for k in (0, 1, 2, 4, 5, 6):
            u = upsampled(a[k], image.shape[1:])
            h = (u - u.min()) / (u.max() - u.min())
            masked = torch.tensor((x[0].numpy() * h - 0.3 * (1 - h))[None], dtype=torch.float32)
            weights.append(float(model.soft_assignment(masked)[0, found.cluster[i]]))
            total += weights[-1] * u
        np.testing.assert_allclose(found.maps[i], np.maximum(total, 0), atol=1e-4)
        assert found.facts["weight_spread"][i] == pytest.approx(np.std(weights) / np.mean(weights), rel=1e-3)


def test_large_constant_is_flat_whatever_the_rounding() -> None:
    mask, usable = clam.scaled_masks(torch.full((1, 1, 3, 3), 1234.567), (17, 19))
    assert not usable.any()
    assert mask.abs().max() <= 1
    assert clam.scaled_masks(torch.tensor([[[[1.0, 1.001]]]]), (2, 4))[1].all()


def test_all_channels_flat_give_an_empty_map() -> None:
    model = TinyModel(2)
    for layer in model.encoder:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
    found = cluster_activation_map(model, images_of(2), Clam())
    assert not found.maps.any()
    assert found.facts["weight_spread"].tolist() == [0.0] * 5
    assert np.isnan(found.facts["uniform_correlation"]).all()


def test_equal_weights_are_reported_as_such() -> None:
    model = TinyModel(2)
    model.prototypes = torch.zeros(3, 5)  # every image is a third of each cluster, masked or not
    found = cluster_activation_map(model, images_of(2), Clam())
    np.testing.assert_allclose(found.facts["weight_spread"], 0, atol=1e-6)
    np.testing.assert_allclose(found.facts["uniform_correlation"], 1, atol=1e-9)


def test_images_without_channel_axis_are_taken() -> None:
    model, images = TinyModel(2), images_of(2)
    np.testing.assert_array_equal(
        cluster_activation_map(model, images[:, 0], Clam()).maps, cluster_activation_map(model, images, Clam()).maps
    )


def test_wrong_questions_are_refused() -> None:
    model, images = TinyModel(2), images_of(2)
    with pytest.raises(FitError, match="no cluster 3: the model has clusters 0 to 2"):
        cluster_activation_map(model, images, Clam(), 3)
    with pytest.raises(FitError, match="no cluster -1"):
        cluster_activation_map(model, images, Clam(), [0, 0, -1, 0, 0])
    with pytest.raises(FitError, match="2 clusters were given for 5 images"):
        cluster_activation_map(model, images, Clam(), [0, 1])
    with pytest.raises(FitError, match="batch_size"):
        cluster_activation_map(model, images, Clam(), batch_size=0)
    with pytest.raises(FitError, match="max_channels"):
        Clam(0)
    with pytest.raises(FitError, match="use IntegratedGradients"):
        cluster_activation_map(model, images, Clam(), 1, against=0)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_as_many_groups_as_channels_change_nothing(dimensions: int) -> None:
    model, images = TinyModel(dimensions), images_of(dimensions)
    whole = cluster_activation_map(model, images, Clam())
    np.testing.assert_allclose(cluster_activation_map(model, images, Clam(groups=7)).maps, whole.maps, atol=1e-6)


def test_alike_channels_share_a_group_and_its_weight() -> None:
    """Seven channels that are three masks, each at several strengths: three groups give the map of all seven."""
    model, images = TinyModel(2), images_of(2)
    patterns = torch.rand(5, 3, 4, 3, generator=torch.Generator().manual_seed(1)) > 0.5
    strengths = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5, 0.7, 4.0])[:, None, None]
    features = patterns[:, [0, 1, 2, 0, 1, 2, 0]].float() * strengths
    x = model.tensor(images)
    cluster = model.soft_assignment(x).argmax(1)
    whole, _ = clam.channel_weights(model, x, features, cluster, -0.3)
    grouped, used = clam.group_weights(model, x, features, cluster, -0.3, 3)
    np.testing.assert_allclose(grouped, whole, atol=1e-5)
    assert used.all()


def test_groups_run_the_network_less_often() -> None:
    model, images = TinyModel(2, widths=(4, 40)), images_of(2)
    seen: list[int] = []
    original = model.soft_assignment
    model.soft_assignment = lambda x: seen.append(len(x)) or original(x)  # type: ignore[method-assign, func-returns-value]
    whole = cluster_activation_map(model, images, Clam())
    every = sum(seen)
    seen.clear()
    grouped = cluster_activation_map(model, images, Clam(groups=8))
    assert sum(seen) == 5 + 5 * 8 and every == 5 + 5 * 40
    r = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(whole.maps, grouped.maps, strict=True)]
    assert min(r) > 0.98


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(FitError, match="groups >= 1"):
        Clam(groups=0)
    with pytest.raises(FitError, match="weighting"):
        Clam(weighting="other")  # type: ignore[arg-type]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_other_weightings_written_out(dimensions: int) -> None:
    model, images = TinyModel(dimensions), images_of(dimensions)
    x = model.tensor(images)
    empty = model.soft_assignment(torch.full_like(x[:1], -0.3))[0].numpy()
    for weighting in ("increase", "softmax"):
        found = cluster_activation_map(model, images, Clam(weighting=weighting))  # type: ignore[arg-type]
        for i, image in enumerate(images):
            _, w = naive_map(model, image, None, -0.3, None)
            w = np.maximum(w - empty[found.cluster[i]], 0) if weighting == "increase" else np.exp(w) / np.exp(w).sum()
            a = model.feature_maps(x[i : i + 1])[0].numpy()
            parts = [upsampled(one, image.shape[1:]) for one in a]
            expected = np.maximum(sum(weight * part for weight, part in zip(w, parts, strict=True)), 0)
            np.testing.assert_allclose(found.maps[i], expected, atol=1e-5)
