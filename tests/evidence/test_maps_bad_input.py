"""Every rule and every control on what it was not made for: a clear error or a clean map, never one of NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import TinyModel, images_of

from medstrata.errors import FitError
from medstrata.evidence.maps.activation import cluster_activation_map
from medstrata.evidence.maps.clam import Clam
from medstrata.evidence.maps.controls import CONTROLS, Noise
from medstrata.evidence.maps.feature_gradients import FeatureGradients
from medstrata.evidence.maps.grad_cam import GradCam
from medstrata.evidence.maps.integrated_gradients import IntegratedGradients
from medstrata.evidence.maps.occlusion import Occlusion
from medstrata.methods.dcec import DCEC
from medstrata.methods.frozen import FrozenFeatures
from medstrata.methods.settings import make_method
from planted import squares

SCORED = [IntegratedGradients(), FeatureGradients(), FeatureGradients("channel"), Clam(), Clam(groups=3), GradCam()]
RULES = [*SCORED, GradCam(by_place=True), Occlusion(), *CONTROLS, Noise()]
QUICK = {
    "n_clusters": 3,
    "training": {"warmup_epochs": 3, "warmup_steps": 0, "epochs": 2, "batch_size": 16},
    "architecture": {"widths": [4, 8], "embedding_size": 8},
}


@pytest.fixture(scope="module")
def model() -> DCEC:
    found: Any = make_method("dcec", QUICK).fit(squares(30)[0])
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_constant_images_give_finite_maps(model: DCEC, rule: Any) -> None:
    images = np.full((3, 1, *model.image_shape_[1:]), 7, dtype=np.uint8)
    found = cluster_activation_map(model, images, rule, cohort=images)
    assert np.isfinite(found.maps).all() and found.maps.shape == (3, *images.shape[2:])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_cluster_without_images_can_be_asked_about(model: DCEC, rule: Any) -> None:
    images = squares(30)[0]
    own = model.predict(images)
    others = images[own != 0]
    found = cluster_activation_map(model, others[:2], rule, cluster=0, cohort=others)
    assert np.isfinite(found.maps).all()


class Thin(TinyModel):
    """Takes volumes one voxel thick: its convolutions stay within the planes."""

    def __init__(self) -> None:
        super().__init__(2)

    def feature_maps(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.encoder(x[:, :, 0])[:, :, None]
        return features

    def differentiable_assignment(self, x: torch.Tensor, of_features: bool = False) -> torch.Tensor:
        return super().differentiable_assignment(x[:, :, 0], of_features)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_volumes_one_voxel_thick(rule: Any) -> None:
    volumes = images_of(2, 8)[:, :, None]
    found = cluster_activation_map(Thin(), volumes[:2], rule, cohort=volumes)
    assert np.isfinite(found.maps).all() and found.maps.shape == (2, *volumes.shape[2:])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_images_of_another_size_are_refused(model: DCEC, rule: Any) -> None:
    wrong = np.zeros((2, 1, 20, 12), dtype=np.uint8)
    with pytest.raises(FitError, match=r"shape|size"):
        cluster_activation_map(model, wrong, rule)


@pytest.mark.parametrize("rule", SCORED, ids=lambda rule: rule.name)
def test_weights_of_nan_are_refused(rule: Any) -> None:
    model = TinyModel(2)
    with torch.no_grad():
        model.encoder[0].weight[0] = torch.nan  # type: ignore[index]
    with pytest.raises(FitError, match="NaN"):
        cluster_activation_map(model, images_of(2), rule)


@pytest.mark.parametrize("rule", [IntegratedGradients(), Clam()], ids=lambda rule: rule.name)
def test_vectors_have_no_places(rule: Any) -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    vectors[:20] += 5
    model = FrozenFeatures(2).fit(vectors)
    with pytest.raises(FitError, match="no feature maps"):
        cluster_activation_map(model, vectors, rule)
    with pytest.raises(FitError, match="no feature maps"):
        cluster_activation_map(make_method("dcec", QUICK).fit(squares(30)[0]), vectors, rule)


def test_nothing_to_explain() -> None:
    with pytest.raises(FitError, match="at least one image"):
        cluster_activation_map(TinyModel(2), images_of(2)[:0])


def test_a_network_that_returns_vectors_is_explained_on_its_images() -> None:
    images = squares(40)[0]
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(images[0].size, 8))
    model = FrozenFeatures(3, module=network, assignment="kmeans").fit(images)
    found = cluster_activation_map(model, images, IntegratedGradients())
    assert np.isfinite(found.maps).all() and np.abs(found.maps).max() > 0
    with pytest.raises(FitError, match="such as IntegratedGradients"):
        cluster_activation_map(model, images, Clam())


def test_what_is_no_rule_no_model_or_no_cohort_is_told(model: DCEC) -> None:
    images = squares(30)[0]
    for wrong in ("clam", Clam):
        with pytest.raises(FitError, match="is no rule"):
            cluster_activation_map(model, images, wrong)  # type: ignore[arg-type]
    with pytest.raises(FitError, match="not fitted yet"):
        cluster_activation_map(DCEC(3), images)
    for number in (1.5, "a", True):
        with pytest.raises(FitError, match="whole numbers"):
            cluster_activation_map(model, images, cluster=number)  # type: ignore[arg-type]
    with pytest.raises(FitError, match="do not fit a model"):
        cluster_activation_map(model, images, cohort=images[..., :8])
    broken = images.astype(float)
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(FitError, match="cohort hold NaN"):
        cluster_activation_map(model, images, cohort=broken)
    own = model.predict(images)
    with pytest.raises(FitError, match="Give cohort="):
        cluster_activation_map(model, images[own == own[0]])


def test_a_rule_that_returns_something_else_is_told(model: DCEC) -> None:
    class Wrong:
        needs_cohort = False
        name = "wrong"

        def explain(self, model: Any, x: torch.Tensor, question: Any) -> Any:
            return x[..., :4, :4].sum(1), {}

    with pytest.raises(FitError, match="wrong: explain must return maps"):
        cluster_activation_map(model, squares(30)[0], Wrong())


def test_gradients_are_taken_although_the_caller_switched_them_off(model: DCEC) -> None:
    images = squares(30)[0]
    with torch.no_grad():
        found = cluster_activation_map(model, images)
    np.testing.assert_array_equal(found.maps, cluster_activation_map(model, images).maps)
