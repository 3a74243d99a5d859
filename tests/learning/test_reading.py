"""Clusters read off planted embeddings, by each reader; the mixture against scikit-learn's; degenerate embeddings."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

from medstrata.errors import FitError
from medstrata.learning.cluster_number import separated_clusters
from medstrata.learning.reading import (
    READERS,
    Prototypes,
    disagreement,
    empty_reader,
    found_clusters,
    natural_clusters,
    read_clusters,
)


def rings(count: int = 600, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two circles of latitude on a sphere: joined by no neighbour, and no two prototypes tell them apart."""
    chance = np.random.default_rng(seed)
    groups = np.arange(count) % 2
    angle, height = chance.uniform(0, 2 * np.pi, count), np.where(groups, 0.8, 0.1)
    flat = np.sqrt(1 - height**2)
    mirrored = np.where(np.arange(count) % 4 < 2, 1, -1) * height  # symmetric, so that the mean is the centre
    z = np.stack([flat * np.cos(angle), flat * np.sin(angle), mirrored], 1) + chance.normal(0, 0.005, (count, 3))
    return torch.from_numpy(z).float(), torch.from_numpy(groups)


def blobs(sizes: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Groups about the axes of a space of 8 dimensions."""
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    noise = torch.randn(len(groups), 8, generator=torch.Generator().manual_seed(seed))
    return 5 * torch.eye(8)[groups] + 0.4 * noise, groups


def same(found: torch.Tensor, groups: torch.Tensor) -> bool:
    """Whether two partitions are equal but for the names."""
    pairs = {(int(a), int(b)) for a, b in zip(found, groups, strict=True)}
    return len(pairs) == len(set(groups.tolist())) == len(set(found.tolist()))


@pytest.mark.parametrize("how", READERS)
def test_every_reader_finds_planted_groups(how: str) -> None:
    z, groups = blobs([120, 120, 120] if how == "self-supervised" else [200, 100, 60])
    reader = read_clusters(z, how, 3, seed=0).reader
    q = reader(z)
    assert same(q.argmax(1), groups)
    assert torch.allclose(q.sum(1), torch.ones(len(z)), atol=1e-5)


def test_graph_keeps_a_rare_group() -> None:
    z, groups = blobs([960, 240, 30])
    reading = read_clusters(z, "graph", 3, seed=0)
    assert same(reading.reader(z).argmax(1), groups) and reading.facts["agreement of head and graph"] == 1.0


def test_graph_follows_shapes_that_prototypes_cannot() -> None:
    z, _ = rings()
    found = read_clusters(z, "graph", 3, seed=0).reader(z).argmax(1)
    latitudes = torch.round(z[:, 2], decimals=1)
    band = {0.8: 0, 0.1: 1, -0.1: 1, -0.8: 2}
    truth = torch.tensor([band[min(band, key=lambda b: abs(b - float(value)))] for value in latitudes])
    assert float((found == truth.mode().values).float().mean()) < 1
    assert same(found, truth) or disagreement([found.tolist(), truth.tolist()]) < 0.1
    assert disagreement([read_clusters(z, "kmeans", 3, 0).reader(z).argmax(1).tolist(), truth.tolist()]) > 0.3


@pytest.mark.parametrize("how", READERS)
def test_a_rebuilt_reader_is_the_same(how: str) -> None:
    z, _ = blobs([30, 30])
    reader = read_clusters(z, how, 2, seed=0).reader
    again = empty_reader(how, 8, 2)
    again.load_state_dict(reader.state_dict())
    assert torch.equal(again(z), reader(z))
    assert torch.equal(read_clusters(z, how, 2, seed=0).reader(z), reader(z)), "the same seed gives the same reader"


def test_mixture_gives_the_responsibilities_of_scikit_learn() -> None:
    z, _ = blobs([80, 60, 40])
    z = z + torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    reader = read_clusters(z, "mixture", 3, seed=0).reader
    x = ((z - reader.mean) @ reader.axes).double().numpy()  # type: ignore[operator]
    peer = GaussianMixture(3, means_init=np.zeros((3, 8)), random_state=0)
    peer.weights_, peer.means_ = reader.log_weights.exp().numpy(), reader.means.numpy()  # type: ignore[operator,union-attr]
    peer.precisions_cholesky_ = reader.whitenings.numpy()  # type: ignore[operator,union-attr]
    assert np.allclose(peer.predict_proba(x), reader(z).numpy(), atol=1e-5)


def test_prototypes_give_probabilities_of_round_gaussians() -> None:
    reader = Prototypes(2, 2)
    reader.prototypes, reader.variance = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor(0.5)
    z = torch.tensor([[3.0, 0.0], [2.0, 2.0]])
    odds = np.exp(-np.array([0.0, 2.0]) / 1.0)
    assert reader(z)[0].tolist() == pytest.approx((odds / odds.sum()).tolist())
    assert reader(z)[1].tolist() == pytest.approx([0.5, 0.5])


def test_auto_takes_the_measured_number_and_else_the_communities() -> None:
    z, _ = blobs([60, 60, 60])
    assert found_clusters(z, 0) == 3
    noise = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    assert separated_clusters(noise.numpy(), 0) == 1
    assert found_clusters(noise, 0) == natural_clusters(noise, 0) > 1


def test_number_of_clusters_is_found_by_the_graph_alone() -> None:
    z, _ = blobs([80, 80, 80, 80])
    assert natural_clusters(z, 0) == 4
    assert read_clusters(z, "graph", None, 0).reader(z).shape[1] == 4
    with pytest.raises(FitError, match="needs a number of clusters"):
        read_clusters(z, "kmeans", None, 0)


@pytest.mark.parametrize("how", READERS)
@pytest.mark.parametrize("z", [torch.ones(12, 3), torch.randn(5, 3), torch.randn(40, 1)])
def test_degenerate_embeddings_give_no_nan(how: str, z: torch.Tensor) -> None:
    for k in (1, 3):
        q = read_clusters(z, how, k, seed=0).reader(z)
        assert torch.isfinite(q).all() and torch.allclose(q.sum(1), torch.ones(len(z)), atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(st.integers(6, 40), st.integers(1, 6), st.integers(0, 5))
def test_graph_always_gives_k_columns(count: int, k: int, seed: int) -> None:
    z = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    assert read_clusters(z, "graph", k, seed).reader(z).shape == (count, k)


def test_disagreement_of_equal_and_unrelated_runs() -> None:
    one = [0, 0, 1, 1, 2, 2] * 50
    assert disagreement([one, [2 - label for label in one]]) == pytest.approx(0)
    assert disagreement([one, np.random.default_rng(0).integers(0, 3, 300).tolist()]) == pytest.approx(1, abs=0.1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_million_embeddings_are_read_in_bounded_memory() -> None:
    """128 MB of embeddings; what is added stays below 2.5 GB, and every image is in its planted group."""
    code = """
import resource, torch
from medstrata.learning.reading import read_clusters
chance = torch.Generator().manual_seed(0)
truth = torch.randint(5, (1_000_000,), generator=chance)
z = torch.randn(1_000_000, 32, generator=chance) + 6 * torch.eye(5, 32)[truth]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
reader = read_clusters(z, "graph", 5, 0).reader
labels = torch.cat([reader(part).argmax(1) for part in z.split(1 << 14)])
pairs = len(torch.unique(truth * 5 + labels))
print(pairs, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
right = torch.stack([torch.bincount(labels[truth == k], minlength=5).max() for k in range(5)]).sum() / 1e6
print(float(right))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert int(answer[1]) < 2500, f"{answer[1]} MB"
    assert float(answer[2]) > 0.99
