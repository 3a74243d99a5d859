"""Typicality and novelty against loops, planted outliers, and the degenerate sets."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from medstrata.errors import FitError
from medstrata.evidence import typicality as module
from medstrata.evidence.typicality import REJECT_NOVELTY, assignments_table, fit_reference, neighbour_distance

Floats = NDArray[np.float64]


def two_groups(seed: int = 0, each: int = 40) -> tuple[list[str], Floats, Floats]:
    generator = np.random.default_rng(seed)
    z = np.concatenate([generator.normal(-5, 1, (each, 3)), generator.normal(5, 1, (each, 3))])
    distance = np.stack([np.linalg.norm(z + 5, axis=1), np.linalg.norm(z - 5, axis=1)], axis=1)
    soft = 1 / (1 + distance**2)
    return [f"{i:016x}" for i in range(2 * each)], z, soft / soft.sum(axis=1, keepdims=True)


def naive_spread(z: Floats, others: list[Floats]) -> Floats:
    rows = []
    for value, candidates in zip(z, others, strict=True):
        rows.append(sorted(float(np.sqrt(((value - other) ** 2).sum())) for other in candidates)[:5])
    return np.array([sum(row) / len(row) for row in rows])


def test_table_of_the_fit_set_equals_loops() -> None:
    ids, z, soft = two_groups()
    table = assignments_table(ids, z.astype(np.float32), soft.astype(np.float32))
    named = ["image_id", "cluster", "nearest", "probability", "margin", "typicality", "novelty", "novelty_p", "novel"]
    assert table.column_names == named
    z, soft = z.astype(np.float32).astype(np.float64), soft.astype(np.float32).astype(np.float64)
    spread = naive_spread(z, [np.delete(z, i, axis=0) for i in range(len(z))])
    np.testing.assert_allclose(table["novelty"].to_numpy(), spread / np.percentile(spread, 99), rtol=1e-9)
    np.testing.assert_array_equal(table["nearest"].to_numpy(), [0] * 40 + [1] * 40)
    np.testing.assert_allclose(table["probability"].to_numpy(), soft.max(axis=1))
    np.testing.assert_allclose(table["margin"].to_numpy(), np.abs(soft[:, 0] - soft[:, 1]))
    for group in (range(40), range(40, 80)):
        centre = z[group].mean(axis=0)
        far = [float(np.linalg.norm(z[i] - centre)) for i in group]
        expected = [sum(other >= mine for other in far) / 40 for mine in far]
        np.testing.assert_allclose(table["typicality"].to_numpy()[group], expected)
    assert table["image_id"].to_pylist() == ids


def test_new_images_are_compared_with_the_fit_set_only() -> None:
    ids, z, soft = two_groups()
    reference = fit_reference(z, soft)
    new = np.array([[-5.0, -5, -5], [5.0, 5, 5], [0.0, 0, 0], [500.0, 0, 0], z[3]])
    new_soft = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.3, 0.7], soft[3]])
    table = assignments_table(list("abcde"), new, new_soft, reference)
    spread = naive_spread(z, [np.delete(z, i, axis=0) for i in range(len(z))])
    expected = np.minimum(naive_spread(new, [z] * 5) / np.percentile(spread, 99), 1000)
    np.testing.assert_allclose(table["novelty"].to_numpy(), expected)
    assert table["cluster"].to_pylist()[:4] == [0, 1, -1, -1]
    assert table["nearest"].to_pylist()[:4] == [0, 1, 0, 1]
    assert table["typicality"].to_pylist()[2:4] == [0.0, 0.0]
    same = assignments_table(ids, z, soft)["typicality"].to_numpy()[3]
    assert table["typicality"].to_numpy()[4] == same  # an image of the fit set seen again


def test_rejection_starts_above_the_constant() -> None:
    z = np.arange(200.0)[:, None]
    soft = np.ones((200, 1))
    reference = fit_reference(z, soft)
    inside, outside = (
        199 + REJECT_NOVELTY * reference.scale - 2 - 0.01,
        199 + REJECT_NOVELTY * reference.scale - 2 + 0.01,
    )
    new = np.array([[inside], [outside]])  # the mean distance to 199, 198, ..., 195 is the distance to 199 plus 2
    assert assignments_table(["a", "b"], new, np.ones((2, 1)), reference)["cluster"].to_pylist() == [0, -1]


def test_one_cluster_has_margin_equal_to_probability() -> None:
    generator = np.random.default_rng(1)
    table = assignments_table(list("abcdefghij"), generator.normal(size=(10, 2)), np.ones((10, 1)))
    assert table["margin"].to_pylist() == [1.0] * 10
    assert sorted(table["typicality"].to_pylist()) == pytest.approx([i / 10 for i in range(1, 11)])


def test_duplicates_only() -> None:
    z = np.full((30, 4), 0.1)
    soft = np.tile([0.7, 0.3], (30, 1))
    table = assignments_table([str(i) for i in range(30)], z, soft)
    assert set(table["novelty"].to_pylist()) == {0.0}
    assert set(table["typicality"].to_pylist()) == {1.0}
    new = assignments_table(["a", "b"], np.array([z[0], z[0] + 1e-3]), soft[:2], fit_reference(z, soft))
    assert new["novelty"].to_pylist() == [0.0, 1000.0]
    assert new["cluster"].to_pylist() == [0, -1]


def test_few_among_many_duplicates_are_measured_against_each_other() -> None:
    z = np.zeros((1000, 2))
    z[:2] = [[3, 0], [0, 4]]
    table = assignments_table([str(i) for i in range(1000)], z, np.ones((1000, 1)))
    np.testing.assert_allclose(table["novelty"].to_numpy()[:3], [3 / 4, 1.0, 0.0])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_fewer_images_than_neighbours(count: int) -> None:
    z = np.arange(float(count))[:, None]
    table = assignments_table([str(i) for i in range(count)], z, np.ones((count, 1)))
    assert np.isfinite(table["novelty"].to_numpy()).all()
    assert set(table["cluster"].to_pylist()) == {0}


def test_cluster_without_fit_images_makes_new_ones_untypical() -> None:
    _, z, soft = two_groups()
    reference = fit_reference(z, np.pad(soft, ((0, 0), (0, 1))))
    table = assignments_table(["a"], z[:1], np.array([[0.1, 0.1, 0.8]]), reference)
    assert table["nearest"].to_pylist() == [2]
    assert table["typicality"].to_pylist() == [0.0]


def test_far_offset_does_not_blur_neighbours() -> None:
    generator = np.random.default_rng(2)
    z = generator.normal(size=(60, 3))
    rows = np.arange(60)
    near, far = neighbour_distance(z, z, rows, rows), neighbour_distance(z + 1e6, z + 1e6, rows, rows)
    np.testing.assert_allclose(far, near, rtol=1e-6)


def test_large_set_is_subsampled_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, z, soft = two_groups(each=100)
    monkeypatch.setattr(module, "LARGEST_REFERENCE", 50)
    monkeypatch.setattr(module, "DISTANCES_AT_ONCE", 320)
    reference = fit_reference(z, soft, seed=3)
    assert len(reference.embeddings) == len(set(reference.chosen.tolist())) == 50
    np.testing.assert_array_equal(reference.embeddings, z[reference.chosen])
    assert not np.array_equal(reference.chosen, fit_reference(z, soft, seed=4).chosen)
    table = assignments_table(ids, z, soft, seed=3)
    others = [z[[j for j in reference.chosen if j != i]] for i in range(200)]
    np.testing.assert_allclose(table["novelty"].to_numpy(), naive_spread(z, others) / reference.scale)


def test_embeddings_that_are_not_finite_are_refused() -> None:
    with pytest.raises(FitError, match="diverged"):
        assignments_table(["a", "b"], np.array([[0.0], [np.nan]]), np.ones((2, 1)))
