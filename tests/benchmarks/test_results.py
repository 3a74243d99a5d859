"""The machinery of the tables: splits, sets, cells that are skipped when present, and what is written from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from benchmarks.results import __main__ as results
from benchmarks.results import rows, supervised
from benchmarks.results.balanced import equal_shares
from benchmarks.results.generative import GENERATIVE, _flat, _spread, to_nearest
from benchmarks.results.rows import ROWS, _named, belongs, method_for
from benchmarks.results.sets import SETS, Images, _groups, _smaller
from benchmarks.results.sharpness import matched, sharpness
from benchmarks.results.table import BEGIN, END, GENERATIVE_COLUMNS, mean_and_spread, render, write_table
from medstrata.evidence.metrics import score
from medstrata.learning.nets import Architecture
from medstrata.methods.dcec import DCEC
from medstrata.methods.frozen import FrozenFeatures
from medstrata.methods.fusion import Fusion
from medstrata.methods.method import ClusteringMethod
from medstrata.methods.settings import make_method
from planted import squares


def images(count: int = 40) -> Images:
    labels = np.arange(count) % 2
    pixels = np.random.default_rng(0).integers(0, 255, (count, 1, 16, 16)).astype(np.uint8)
    return Images(pixels, labels, np.arange(count) // 4, "radiograph")


def test_a_split_parts_no_group_and_loses_nothing() -> None:
    whole = images()
    training, rest = whole.split(0)
    assert not set(training.groups) & set(rest.groups)
    assert len(training.labels) == 28 and len(rest.labels) == 12
    assert not np.array_equal(whole.split(1)[0].groups, training.groups)


def test_neighbouring_files_are_one_group() -> None:
    labels = np.repeat([0, 1], 100)
    groups = _groups(np.concatenate([np.arange(100)[::-1], np.arange(100)]), labels, "file_index")
    assert len(set(groups.tolist())) == 40
    assert set(groups[:5].tolist()) == {19} and set(groups[100:105].tolist()) == {20}


def test_large_images_are_averaged_down() -> None:
    large = np.zeros((2, 1, 128, 128), np.uint8)
    large[:, :, ::2, ::2] = 100
    assert _smaller(large).shape == (2, 1, 64, 64) and (_smaller(large) == 25).all()
    assert _smaller(large[..., :64, :64]).shape == (2, 1, 64, 64)


def test_methods_are_made_as_the_plan_makes_them() -> None:
    made = method_for(images(), "deepmcat", 3)
    assert made.training.augmentation == "radiograph" and made.training.batch_size == 64
    assert made.n_clusters == 2 and made.random_state == 3
    assert method_for(images(), "dcec", 0).training.augmentation == "none"
    usual, off = method_for(images(), "dvc", 0), method_for(images(), "dvc", 0, "no-objective")
    assert off.get_params()["clustering_weight"] == 0 and off.training == usual.training
    usual, off = method_for(images(), "contrastive", 0).training, method_for(images(), "contrastive", 0, "no-objective")
    assert off.training.epochs == 0 and off.training.warmup_length(40) == usual.warmup_length(40) + usual.epochs
    assert method_for(images(), "contrastive", 0, "as-published").training.augmentation == "radiograph"
    assert method_for(images(), "dvc", 0, "as-published").training.epochs == 20


class Made:
    """Stands for ``method_for``: the same methods, small and quick; keeps the last one."""

    def __init__(self) -> None:
        self.model: Any = None

    def __call__(self, images: Images, name: str, seed: int, kind: str = "") -> ClusteringMethod:
        self.model = method_for(images, name, seed, kind)
        training = replace(self.model.training, warmup_epochs=1, warmup_steps=0, epochs=1)
        return self.model.set_params(training=training, architecture=Architecture((4, 8, 16), 16))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    quick = Made()
    monkeypatch.setattr(rows, "method_for", quick)
    return quick


def planted() -> Images:
    pixels, labels = squares(48)
    return Images(pixels, labels, np.arange(48), "radiograph")


@pytest.mark.filterwarnings("ignore::UserWarning")  # so short a fit makes poor samples
@pytest.mark.parametrize("name", ["dvc", "contrastive", "deepmcat"])
def test_one_fit_is_scored_by_every_reading_and_left_as_it_was(name: str, made: Made) -> None:
    whole = planted()
    found = rows._trained(whole, name, "", 0)
    model = made.model
    assert np.array_equal(model.predict(whole.images), model.labels_) and model.assignment == "graph"
    own = Made()(whole, name, 0).set_params(assignment="own").fit(whole.images)
    expected = {"graph": model.labels_, "own": own.labels_}
    for how, labels in expected.items():
        assert found["scores"][how] == dict(score(whole.labels, labels)), how
    assert found["scores"]["3K"]["n_clusters"] > 3 and found["scores"]["kmeans"]["n_clusters"] == 3
    assert found["finished"] and found["epochs"] == len(model.history_)
    if name in GENERATIVE:
        measured = found["generative"]
        assert set(measured) == set(GENERATIVE_COLUMNS), "as the table has them"
        assert 0 <= measured["drawn in their cluster"] <= measured["samples in their cluster"] <= 1
        assert measured["nearest"] > 0 and measured["reconstruction"] > 0


def test_baselines_and_frozen_features_are_scored_by_their_own_labels(made: Made) -> None:
    whole = planted()
    for how in ("kmeans", "graph"):
        model = make_method("pca", {"n_clusters": 3, "assignment": how}).fit(whole.images)
        found = rows._baseline(whole, how, 0)["scores"]
        assert found["graph" if how == "graph" else "own"] == dict(score(whole.labels, model.labels_))
    found = rows._frozen(whole, 0)["scores"]
    vectors = made.model.transform(whole.images)
    assert set(found) == {"kmeans", "graph", "self-supervised"}
    assert found["graph"] == dict(score(whole.labels, FrozenFeatures(3).fit(vectors).labels_))


def test_a_teacher_learns_on_the_training_part_and_a_probe_on_its_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "STEPS", 20)
    whole = planted()
    assert supervised.scores(whole, 0)["named"]["accuracy"] == 1.0
    training, rest = whole.split(0)
    assert supervised.probe(lambda x: x.reshape(len(x), -1), training, rest)["accuracy"] == 1.0
    wrong = replace(rest, labels=(rest.labels + 1) % 3)
    assert supervised.probe(lambda x: x.reshape(len(x), -1), training, wrong)["accuracy"] == 0.0


def test_auto_is_what_a_run_takes() -> None:
    volumes = Images(np.zeros((300, 1, 8, 8, 8), np.uint8), np.arange(300) % 2, np.arange(300), "ct")
    assert method_for(volumes, "auto", 0).get_params()["clustering_weight"] == 0.1, "DCEC, as the paper weighs it"
    assert type(method_for(images(300), "auto", 0)) is Fusion and type(method_for(images(40), "auto", 0)) is DCEC


def test_cells_that_fail_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_in_a_process", lambda job, cells, minutes: job[2] == 0)
    wanted = ["--data", "busi", "--rows", "dvc", "--seeds", "0", "1", "--cells", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        results.main(wanted)
    assert ended.value.code == 1 and (tmp_path / "results.md").exists()


def test_naming_by_the_training_part() -> None:
    whole = images(8)
    fitted = np.array([1, 0, 1, 0, 1, 0, 1, 0])
    named = _named(whole, fitted, whole, np.array([1, 0, 1, 0, 1, 0, 1, 1]))
    assert named == {"accuracy": 7 / 8, "balanced_accuracy": (1 + 3 / 4) / 2}


def test_spread_is_the_root_mean_square_of_all_pairs() -> None:
    x = _flat(np.random.default_rng(0).normal(size=(7, 3)))
    pairs = [np.square(a - b).sum() for a in x for b in x]
    assert _spread(x) == pytest.approx(np.sqrt(np.mean(pairs)))


def cell(row: str, seed: int, accuracy: float, **more: Any) -> dict[str, Any]:
    scores = dict.fromkeys(("balanced_accuracy", "nmi", "ami", "ari", "purity"), 0.5)
    scores |= {"accuracy": accuracy, "n_clusters": 2, "majority_rate": 0.6}
    own = {"data": "busi", "row": row, "seed": seed, "images": 554, "classes": 3, "cpu_seconds": 60.0, "finished": True}
    return own | {"scores": {"own": scores, "graph": scores}} | more


def test_table_has_means_spreads_and_what_was_not_finished() -> None:
    unfinished = {"data": "busi", "row": "peer-DEC", "seed": 0, "finished": False, "scores": {}}
    text = render([cell("dvc", 0, 0.5), cell("dvc", 1, 0.7), cell("dcec-no-objective", 0, 0.25), unfinished])
    assert "### busi\n" in text and "554 images, 3 classes, majority rate 0.600" in text
    assert "| DVC, own | .600 ± .141 | .500 ± .000 |" in text and "| 1.0 | 2 |" in text
    assert "| DCEC, graph, objective off | .250 |" in text
    assert "| ClustPy DEC (peer) | not finished |" in text
    assert mean_and_spread([1.0]) == "1.000" and mean_and_spread([None]) == ""
    assert mean_and_spread([10.5]) == "10.500" and mean_and_spread([-0.05]) == "-.050"
    slow = {"data": "busi", "row": "dvc-no-objective", "seed": 0, "finished": False, "scores": {}}
    assert "| DVC, graph, objective off | not finished |" in render([slow, cell("dvc", 0, 0.5)])


def test_what_is_fitted_out_of_sample_is_the_training_part(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, seen = images(), []

    class Fitted:
        labels_ = whole.split(0)[0].labels

        def fit(self, x: np.ndarray) -> Fitted:
            seen.append(x)
            return self

        def predict(self, x: np.ndarray) -> np.ndarray:
            return np.zeros(len(x), np.int64)

        def transform(self, x: np.ndarray) -> np.ndarray:
            return x.reshape(len(x), -1)[:, :5]

    monkeypatch.setattr(rows, "method_for", lambda *_: Fitted())
    found = rows._out_of_sample(whole, "dvc", 0)
    training, rest = whole.split(0)
    assert len(seen) == 1 and np.array_equal(seen[0], training.images)
    assert found["rest"]["accuracy"] == max(np.bincount(rest.labels)) / len(rest.labels)


def test_ordering_is_the_rank_correlation_over_the_means_of_the_methods() -> None:
    cells = []
    for number, name in enumerate(("dcec", "dvc", "contrastive", "deepmcat")):
        for seed in (0, 1):
            free = {"right": number + 10.0 * seed, "wrong": -float(number)}
            cells.append(cell(name, seed, 0.5, **{"label-free": free}))
            cells[-1]["scores"]["graph"] = cells[-1]["scores"]["graph"] | {"nmi": 0.1 * number}
    assert "| busi | 1.00 | -1.00 | 4 |" in render(cells)


def test_a_copier_is_found_out() -> None:
    everything = np.random.default_rng(0).normal(size=(5000, 8))
    assert to_nearest(everything[4000:4100], everything) == pytest.approx(0, abs=1e-6)
    far = everything[:50] + np.array([100.0, *[0] * 7])
    assert to_nearest(far, everything) == pytest.approx(
        np.median(np.sqrt(np.square(far[:, None] - everything).sum(2)).min(1))
    )


def test_document_is_kept_around_the_tables(tmp_path: Path) -> None:
    document, cells = tmp_path / "results.md", tmp_path / "cells" / "busi"
    cells.mkdir(parents=True)
    (cells / "dvc-0.json").write_text(json.dumps(cell("dvc", 0, 0.5)))
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        write_table(tmp_path / "cells", document)
        text = document.read_text()
        assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
        assert text.count("DVC, own") == 1


def test_shares_are_equal_and_rows_sum_to_one() -> None:
    """Beside the formulation of SwAV, which rewrites the matrix. Two processes: tests/learning/test_comm.py."""
    similarity = torch.rand(40, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    q = (similarity.double() / 0.3).exp().T
    for _ in range(3):
        q /= q.sum(1, keepdim=True) * 5
        q /= q.sum(0, keepdim=True) * 40
    assert torch.allclose(equal_shares(similarity, 0.3), 40 * q.T)
    many = equal_shares(similarity, 0.3, 200)
    assert torch.allclose(many.sum(1), torch.ones(40).double())
    assert torch.allclose(many.sum(0), torch.full((5,), 8.0).double())


def test_rows_that_do_not_belong_are_left_out() -> None:
    assert belongs("busi", "dvc", 2) and not belongs("busi", "dvc-as-published", 1), "one seed"
    assert belongs("pneumonia", "dvc-as-published", 0) and not belongs("busi", "dvc-as-published", 0)
    assert belongs("mnist-60k", "pca-kmeans", 1) and belongs("mnist-60k", "dvc", 0)
    assert not belongs("mnist-60k", "contrastive", 1) and not belongs("mnist-60k", "auto", 1), "once"
    assert not belongs("mnist-10k", "peer-IDEC", 1), "over its limit at seed 0"
    assert belongs("mnist-10k", "peer-DEC", 1) and not belongs("busi", "peer-DEC", 0), "the slow peers: one set"
    assert not belongs("fashion", "dvc-no-objective", 1) and not belongs("busi", "dvc-no-objective", 0)
    assert belongs("busi", "dvc-split", 0) and not belongs("busi", "frozen", 0) and belongs("busi", "auto", 2)
    assert not belongs("archive", "auto", 2) and belongs("archive", "run", 2), "the same"
    assert belongs("fashion", "peer-UMAP+GMM", 1) and not belongs("busi", "peer-UMAP+GMM", 1), "one trial"
    assert not belongs("busi", "peer-UMAP+HDBSCAN", 0), "a peer, where UMAP + GMM is a baseline"
    assert belongs("busi", "peer-UMAP+GMM", 0) and not belongs("mnist-60k", "peer-UMAP+GMM", 0), "10,000 at most"
    assert belongs("archive", "sizes-kmeans", 0) and not belongs("busi", "sizes-kmeans", 0)
    assert belongs("pneumonia-blurred", "sharpness-kmeans", 0) and not belongs("busi", "sharpness-kmeans", 0)
    assert len(set(ROWS)) == len(ROWS) and results.limit("mnist-60k") == 3 * results.limit("busi")
    assert results.limit("mnist-60k", minutes=1.5) == 90


def test_cells_that_are_there_are_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[tuple[str, str, int], float | None]] = []
    monkeypatch.setattr(results, "_in_a_process", lambda job, cells, minutes: not asked.append((job, minutes)))
    monkeypatch.setattr(results, "DOCUMENT", tmp_path / "of all.md")
    file = results.path_of(tmp_path / "cells", ("busi", "dvc", 0))
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(cell("dvc", 0, 0.5)))
    wanted = ["--data", "busi", "--rows", "dvc", "--seeds", "0", "1", "--cells", str(tmp_path / "cells")]
    results.main(wanted)
    assert "DVC, own" in (tmp_path / "cells" / "results.md").read_text()
    assert not results.DOCUMENT.exists(), "the documentation tells of its own cells only"
    results.main([*wanted, "--minutes", "40"])
    assert asked == [(("busi", "dvc", 1), None), (("busi", "dvc", 1), 40.0)]
    monkeypatch.setattr(results, "CELLS", tmp_path / "cells")
    results.main([*wanted, "--table"])
    assert "DVC, own" in results.DOCUMENT.read_text()
    with pytest.raises(SystemExit):
        results.main([*wanted, "--minutes", "40"])
    assert len(asked) == 2, "the cells of the documentation have one limit"


def test_blurring_matches_sharpness() -> None:
    chance = np.random.default_rng(0)
    rough = chance.normal(100, 20, (20, 1, 28, 28))
    rough[10:] = gaussian_filter(rough[10:], (0, 0, 2, 2))
    assert sharpness(rough)[:10].min() > 2 * sharpness(rough)[10:].max()
    assert sharpness(matched(rough)).max() < 1.1 * sharpness(rough)[10:].max()


@pytest.mark.parametrize("name", [name for name in SETS if not name.startswith("archive")])
def test_sets_are_as_documented(name: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "mnist-60k":
        pytest.skip("the same file as mnist-10k")
    monkeypatch.setenv("MEDSTRATA_DATA", str(data_dir))
    found = SETS[name](0)
    assert found.images.ndim in (4, 5) and found.images.shape[1] in (1, 3) and max(found.images.shape[2:]) <= 64
    assert len(found.images) == len(found.labels) == len(found.groups)
    if name == "mednist-imbalanced":
        counts = np.bincount(found.labels)
        assert counts.max() / counts.min() > 30
