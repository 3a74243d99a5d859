"""The door to all activation maps: integrated gradients against a naive sum, completeness, questions, cohorts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from tiny_model import TinyModel, images_of

from medstrata.errors import FitError
from medstrata.evidence.maps.activation import cluster_activation_map
from medstrata.evidence.maps.deletion import deletion
from medstrata.evidence.maps.integrated_gradients import IntegratedGradients
from medstrata.evidence.maps.rule import Question, measure_cohort
from medstrata.methods import METHODS
from medstrata.methods.settings import make_method
from planted import squares


def log_odds(q: np.ndarray, own: int, others: list[int]) -> float:
    return float(np.log(q[own]) - np.log(sum(q[other] for other in others)))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_cohort_is_the_mean_image_of_each_cluster(dimensions: int) -> None:
    model, images = TinyModel(dimensions), images_of(dimensions, 70)
    x = model.tensor(images)
    labels = model.soft_assignment(x).argmax(1)
    cohort = measure_cohort(model, images)
    for cluster in range(3):
        members = x[labels == cluster]
        assert int(cohort.sizes[cluster]) == len(members)
        expected = members.mean(0) if len(members) else torch.zeros_like(x[0])
        assert torch.allclose(cohort.means[cluster], expected, atol=1e-4)
    others = cohort.of(torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
    rest = x[labels != 0] if (labels != 0).any() else x
    assert torch.allclose(others[0], rest.mean(0), atol=1e-4)
    assert torch.allclose(others[1], x.mean(0), atol=1e-4), "where nothing is named, the mean of all"


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("against", [None, 0])
def test_equals_a_fine_sum_of_slopes(dimensions: int, against: int | None) -> None:
    """Equation (1) by finite differences of the log odds along 200 steps of the path."""
    model, images = TinyModel(dimensions), images_of(dimensions, 12)
    cohort = measure_cohort(model, images)
    found = cluster_activation_map(model, images[:1], IntegratedGradients(64, 0), 1, against, cohort=cohort)
    others = [0, 2] if against is None else [0]
    x = model.tensor(images[:1])
    weights = torch.zeros(1, 3)
    weights[0, others] = 1
    r = cohort.of(weights)
    expected = np.zeros(x.shape[2:])
    for step in range(200):
        at = r + (step + 0.5) / 200 * (x - r)
        for place in ((3, 5), (0, 0), (7, 2)):
            where = (0, 0, *(place if dimensions == 2 else (*place, 4)))
            up, down = at.clone(), at.clone()
            up[where] += 1e-2
            down[where] -= 1e-2
            both = [log_odds(model.soft_assignment(one)[0].double().numpy(), 1, others) for one in (up, down)]
            expected[where[2:]] += (both[0] - both[1]) / 2e-2 / 200 * float((x - r)[where])
    for place in np.argwhere(expected):
        assert found.maps[0][tuple(place)] == pytest.approx(expected[tuple(place)], rel=0.05, abs=2e-4)
    assert found.against.tolist() == [-1 if against is None else 0] and found.cluster.tolist() == [1]


@pytest.mark.parametrize("method", [name for name in METHODS if name != "features"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_complete_for_every_method(method: str, dimensions: int) -> None:
    """The sum over a map is what the log odds gain over the reference; smoothing keeps it."""
    images, _ = squares(30, dimensions=dimensions)
    settings: dict[str, object] = {"n_clusters": 3}
    if method != "pca":
        settings["training"] = {"warmup_epochs": 4, "warmup_steps": 0, "epochs": 2, "batch_size": 16}
        settings["architecture"] = {"widths": [4, 8], "embedding_size": 8}
    model = make_method(method, settings).fit(images)
    rough = cluster_activation_map(model, images[:4], IntegratedGradients(64, 0), cohort=images)
    np.testing.assert_allclose(np.nan_to_num(rough.facts["completeness"], nan=1.0), 1, atol=0.15)
    smooth = cluster_activation_map(model, images[:4], IntegratedGradients(64, 2.0), cohort=images)
    assert smooth.maps.shape == (4, *images.shape[2:])
    np.testing.assert_allclose(
        smooth.maps, [gaussian_filter(one.astype(float), 2) for one in rough.maps], atol=1e-4 * abs(rough.maps).max()
    )


def test_points_at_what_sets_a_cluster_apart_and_not_at_what_all_have() -> None:
    images, groups = squares(60)
    images = images.copy()
    images[:, :, :3, :3] = 255  # in every image: brighter than what sets groups apart, and without a meaning
    quick = {"warmup_epochs": 20, "warmup_steps": 0, "epochs": 3, "batch_size": 16}
    small = {"widths": [4, 8], "embedding_size": 8}
    model = make_method("dcec", {"n_clusters": 3, "training": quick, "architecture": small}).fit(images)
    maps = cluster_activation_map(model, images, IntegratedGradients(smoothing=1.0)).maps
    mean = np.stack([images[groups == group, 0].mean(0) for group in range(3)])
    apart = mean.std(0) > 20
    assert np.mean([apart.flat[one.argmax()] for one in maps]) > 0.95
    assert np.abs(maps[:, :3, :3]).sum() < 0.05 * np.abs(maps).sum()


def test_map_of_a_cluster_and_progress() -> None:
    model, images = TinyModel(2), images_of(2, 7)
    told: list[tuple[str, int, int]] = []
    found = cluster_activation_map(model, images, batch_size=3, progress=lambda *what: told.append(what))
    assert told == [("maps", 3, 7), ("maps", 6, 7), ("maps", 7, 7)]
    own = int(found.cluster[0])
    mean, spread = found.of_cluster(own)
    members = [one for one, cluster in zip(found.maps, found.cluster, strict=True) if cluster == own]
    np.testing.assert_allclose(mean, sum(members) / len(members), atol=1e-6)
    np.testing.assert_allclose(spread, np.sqrt(sum((one - mean) ** 2 for one in members) / len(members)), atol=1e-6)
    with pytest.raises(FitError, match="None of these maps explains cluster 9"):
        found.of_cluster(9)


def test_deletion_written_out() -> None:
    model, images = TinyModel(2), images_of(2, 12)
    cohort = measure_cohort(model, images)
    x, maps = model.tensor(images[:2]), torch.zeros(2, 16, 12)
    maps[:, 2:4, 3:9] = 1
    maps[:, 10, 0:7] = 0.5  # 19 of 192 voxels: the strongest tenth
    question = Question(torch.tensor([0, 2]), torch.tensor([-1, -1]), cohort)
    found = deletion(model, x, maps, question)
    for number, cluster in enumerate((0, 2)):
        left = torch.where(maps[number] > 0, question.reference()[number], x[number])[None]
        assert float(found["without"][number]) == pytest.approx(float(model.soft_assignment(left)[0, cluster]))
        whole = float(model.soft_assignment(x[number : number + 1])[0, cluster])
        assert float(found["probability"][number]) == pytest.approx(whole)
    assert torch.isfinite(found["without_random"]).all() and found["without_random"].shape == (2,)


def test_wrong_questions_are_refused() -> None:
    model, images = TinyModel(2), images_of(2)
    with pytest.raises(FitError, match="no cluster 3: the model has clusters 0 to 2"):
        cluster_activation_map(model, images, against=3)
    with pytest.raises(FitError, match="Cluster 1 cannot be compared with itself"):
        cluster_activation_map(model, images, cluster=1, against=1)
    with pytest.raises(FitError, match="nodes >= 1"):
        IntegratedGradients(nodes=0)
    broken = images.astype(float)
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(FitError, match="NaN"):
        cluster_activation_map(model, broken)
    with torch.no_grad():
        model.embedding.weight.fill_(torch.nan)
    with pytest.raises(FitError, match="network gives NaN"):
        cluster_activation_map(model, images)
