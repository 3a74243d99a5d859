"""Saved vectors and modules of the user: clustered, never changed, never saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medstrata.errors import FitError, RunFolderError
from medstrata.methods.files import load
from medstrata.methods.frozen import FrozenFeatures, fingerprint
from planted import squares


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()
    )


@pytest.mark.parametrize("assignment", FrozenFeatures.ASSIGNMENTS)
def test_vectors_are_clustered(assignment: str, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    groups = np.arange(90) % 3
    vectors = 6 * np.eye(3, 5)[groups] + chance.normal(0, 0.5, (90, 5))
    model = FrozenFeatures(3, assignment=assignment).fit(vectors)
    assert len({(int(a), int(b)) for a, b in zip(groups, model.labels_, strict=True)}) == 3
    model.save(tmp_path)
    assert np.array_equal(load(tmp_path).predict_proba(vectors), model.predict_proba(vectors))
    with pytest.raises(FitError, match="without places"):
        model.feature_maps(model.tensor(vectors[:2, :, None, None]))
    with pytest.raises(FitError, match="must be vectors"):
        model.predict(np.zeros((3, 4, 4)))


def test_module_is_not_changed_and_not_saved(tmp_path: Path) -> None:
    images, _ = squares(60)
    module = network()
    before = fingerprint(module)
    model = FrozenFeatures(3, module).fit(images)
    assert fingerprint(module) == before
    model.save(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 200_000
    again = load(tmp_path, module=module)
    assert np.array_equal(again.predict_proba(images), model.predict_proba(images))


def test_another_module_is_refused(tmp_path: Path) -> None:
    images, _ = squares(60)
    FrozenFeatures(3, network()).fit(images).save(tmp_path)
    for other, said in ((network(1), "another module"), (None, "a module of its own")):
        with pytest.raises(RunFolderError, match=said):
            load(tmp_path, module=other)


def test_a_module_that_does_not_fit_is_told() -> None:
    images, _ = squares(12)
    with pytest.raises(FitError, match="three equal channels"):
        FrozenFeatures(3, torch.nn.Conv2d(3, 4, 3)).fit(images)
    with pytest.raises(FitError, match="Load the network first"):
        FrozenFeatures(3, "resnet").fit(images)  # type: ignore[arg-type]


def test_tokens_are_not_taken_for_maps_and_half_precision_is_taken() -> None:
    images, _ = squares(30)
    with pytest.raises(FitError, match="of a transformer's tokens"):
        FrozenFeatures(3, nn.Flatten(2)).fit(images)

    class Half(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return network_of_images(x).to(torch.float16)

    network_of_images = network().eval()
    assert FrozenFeatures(3, Half()).fit(images).transform(images).dtype == np.float32


def test_the_fingerprint_sees_layers_without_values_and_no_addresses() -> None:
    plain, other = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Linear(2, 2), nn.Sigmoid())
    other.load_state_dict(plain.state_dict())
    assert fingerprint(plain) != fingerprint(other)

    class Named(nn.Linear):
        def extra_repr(self) -> str:
            return f"{object()!r}"

    named = Named(2, 2)
    assert fingerprint(named) == fingerprint(named)


def test_a_mixture_needs_two_images() -> None:
    with pytest.raises(FitError, match="at least two"):
        FrozenFeatures(1, assignment="mixture").fit(np.ones((1, 3)))


def test_maps_of_a_module_are_averaged_over_their_places() -> None:
    images, _ = squares(30)
    module = network()[:3]
    model = FrozenFeatures(3, module).fit(images)
    x = model.tensor(images[:4])
    assert float(x.max()) <= 1 and model.feature_maps(x).shape == (4, 8, 6, 6)
    assert np.allclose(model.transform(images[:4]), model.feature_maps(x).mean((2, 3)).numpy(), atol=1e-6)
