"""k-means against scikit-learn and against the whole answer written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from medstrata.learning import kmeans as kmeans_module
from medstrata.learning import nearest as nearest_module
from medstrata.learning.comm import ALONE, generator
from medstrata.learning.kmeans import _Look, _means, kmeans
from medstrata.learning.nearest import Blocks, nearest


def blobs(seed: int = 0) -> torch.Tensor:
    centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10], [5, 5]])
    return torch.from_numpy(np.random.default_rng(seed).normal(np.repeat(centres, 40, 0), 1).astype(np.float32) + 100)


def test_reaches_the_inertia_of_scikit_learn() -> None:
    x = blobs()
    ours = kmeans(x, 5, generator(0))
    theirs = KMeans(5, n_init=20, random_state=0).fit(x.numpy())
    assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-4)
    assert [len(set(ours.labels[i : i + 40].tolist())) for i in range(0, 200, 40)] == [1] * 5


def test_seven_points_with_the_answer_written_out() -> None:
    x = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0], [100.0]])
    found = kmeans(x, 3, generator(1))
    assert sorted(found.centres.flatten().tolist()) == pytest.approx([1.0, 11.0, 100.0])
    assert found.inertia == pytest.approx(4.0, abs=1e-3)


def test_empty_cluster_takes_the_farthest_vector() -> None:
    x = torch.tensor([[0.0], [1.0], [9.0]])
    look = _Look(torch.tensor([0, 0, 0]), torch.tensor([0.0, 1.0, 81.0]), torch.tensor([[10.0], [0.0]]))
    centres = _means(Blocks(x.__getitem__, 3), look, ALONE)
    assert centres.flatten().tolist() == pytest.approx([10 / 3, 9.0])


@pytest.mark.parametrize("k", [1, 6])
def test_extremes(k: int) -> None:
    x = torch.arange(6.0)[:, None]
    assert len(set(kmeans(x, k, generator(0)).labels.tolist())) == k


def test_equal_vectors_do_not_break_it() -> None:
    found = kmeans(torch.ones(5, 2), 3, generator(0))
    assert found.inertia == 0 and torch.isfinite(found.centres).all()


def test_same_seed_same_labels() -> None:
    assert torch.equal(kmeans(blobs(), 5, generator(3)).labels, kmeans(blobs(), 5, generator(3)).labels)


def test_blocks_and_an_array_on_disk_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = blobs()
    whole = kmeans(x, 5, generator(0))
    monkeypatch.setattr(nearest_module, "BLOCK", 17)
    in_blocks = kmeans(x, 5, generator(0))
    np.save(tmp_path / "x.npy", x.numpy())
    on_disk = kmeans(np.load(tmp_path / "x.npy", mmap_mode="r"), 5, generator(0))
    for other in (in_blocks, on_disk):
        assert torch.equal(other.labels, whole.labels)
        assert torch.allclose(other.centres, whole.centres) and other.inertia == pytest.approx(whole.inertia)


def test_an_array_on_disk_is_never_all_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Watched:
        most = 0

        def __len__(self) -> int:
            return 200

        def __getitem__(self, rows: object) -> np.ndarray:
            part = blobs().numpy()[rows]  # type: ignore[index]
            Watched.most = max(Watched.most, len(part))
            return part

    monkeypatch.setattr(nearest_module, "BLOCK", 16)
    assert len(kmeans(Watched(), 5, generator(0), restarts=2).labels) == 200  # type: ignore[arg-type]
    assert Watched.most == 16


def test_mini_batches_come_near_to_lloyd(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.cat([blobs(seed) for seed in range(30)])
    exact = kmeans(x, 5, generator(0))
    monkeypatch.setattr(kmeans_module, "MOST_EXACT", 1000)
    monkeypatch.setattr(kmeans_module, "SAMPLE", 200)
    monkeypatch.setattr(nearest_module, "BLOCK", 64)
    found = kmeans(x, 5, generator(0))
    assert found.inertia == pytest.approx(exact.inertia, rel=0.005) and found.inertia >= exact.inertia * 0.9999
    assert adjusted_rand_score(found.labels, exact.labels) > 0.99
    labels, distances = nearest(x, found.centres)
    assert torch.equal(labels, found.labels) and found.inertia == pytest.approx(float(distances.sum()), rel=1e-3)
