"""Integrated gradients of feature maps: against captum's own, completeness for every method, references written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_model import TinyModel, images_of

from medstrata.errors import FitError
from medstrata.evidence.maps.activation import cluster_activation_map
from medstrata.evidence.maps.captum_rule import CaptumLayerGradients
from medstrata.evidence.maps.feature_gradients import FeatureGradients
from medstrata.evidence.maps.rule import Question, measure_cohort
from medstrata.methods import METHODS
from medstrata.methods.settings import make_method
from planted import squares


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("against", [None, 0])
def test_equals_captum(dimensions: int, against: int | None) -> None:
    pytest.importorskip("captum")
    model, images = TinyModel(dimensions), images_of(dimensions, 12)
    ours, theirs = (
        cluster_activation_map(model, images, rule, 1, against).maps
        for rule in (FeatureGradients(), CaptumLayerGradients())
    )
    np.testing.assert_allclose(ours, theirs, atol=2e-4 * np.abs(theirs).max())
    assert np.abs(ours).max() > 0


def test_references_written_out() -> None:
    model, images = TinyModel(2), images_of(2, 30)
    x = model.tensor(images)
    labels = model.soft_assignment(x).argmax(1)
    question = Question(labels[:1], torch.tensor([-1]), measure_cohort(model, images))
    apart = labels != labels[0]
    others = model.feature_maps(x)[apart if apart.any() else ~apart].mean(0)
    np.testing.assert_allclose(question.reference_features()[0], others, atol=1e-5)
    assert FeatureGradients("channel").name.endswith("channel mean")


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("features", "pca")])
@pytest.mark.parametrize("reference", ["cohort", "channel"])
def test_complete_for_every_method(method: str, reference: str) -> None:
    images, _ = squares(30)
    settings = {
        "n_clusters": 3,
        "training": {"warmup_epochs": 4, "warmup_steps": 0, "epochs": 2, "batch_size": 16},
        "architecture": {"widths": [4, 8], "embedding_size": 8},
    }
    model = make_method(method, settings).fit(images)
    found = cluster_activation_map(model, images[:6], FeatureGradients(reference, 512), cohort=images)  # type: ignore[arg-type]
    np.testing.assert_allclose(np.nan_to_num(found.facts["completeness"], nan=1.0), 1, atol=0.05)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(FitError, match="cohort"):
        FeatureGradients("image")  # type: ignore[arg-type]
